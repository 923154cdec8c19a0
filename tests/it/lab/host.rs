//! Honest hosts on one machine: each has its own network, processes, mounts, shared memory and name; a switch joins them.
//!
//! Nothing is made in the namespaces of the machine itself: the switch, too, is in a network namespace of the test, and
//! addresses are set only inside. All of it is held by processes that end with the thread that started them
//! (parent-death signal, and the first process of a process namespace takes all others with it), so even a test that is
//! killed leaves no process, interface or mount behind.
//!
//! Not here: what runs on the hosts (`cluster`).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::harness::binary;

/// What the hosts are made of.
const TRIAL: &str = "ip link add trial type bridge && ip link add one type veth peer name other && \
    unshare --mount --pid --ipc --uts --fork --mount-proc mount -t tmpfs tmpfs /tmp";

/// A host's own mounts; then its first process, which takes in orphans and runs until it is killed.
/// Arguments: its name, its `/etc/hosts`, what is on its disk below `/var/lib/postgresql`, and the directory of the built programs, which
/// stays where it is even if that is below `/tmp`.
const BOOT: &str = r#"hostname "$1"
    mount --bind "$2" /etc/hosts
    mount --bind "$3" /var/lib/postgresql
    mount -t tmpfs tmpfs /dev/shm
    mkdir /dev/shm/programs
    mount --bind "$4" /dev/shm/programs
    mount -t tmpfs tmpfs /tmp
    mkdir -p "$4"
    mount --bind /dev/shm/programs "$4"
    echo up
    sleep infinity & wait"#;

/// For everything here that is not awaited elsewhere; a busy machine is slow to start processes.
const SOON: Duration = Duration::from_secs(20);

/// Why hosts cannot be made here, if it is for want of root or namespaces. Where both are to be had, all else must work.
pub fn unavailable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it makes hosts of namespaces, and only root may".to_owned());
    }
    let run = |arguments: &[&str]| Command::new("unshare").args(arguments).output().expect("unshare of util-linux");
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let allowed = run(&["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "true"]);
    if !allowed.status.success() {
        return Some(format!("it makes hosts of namespaces, and there are none ({})", said(&allowed)));
    }
    let trial = run(&["--net", "sh", "-c", TRIAL]);
    assert!(trial.status.success(), "root has namespaces here, but no hosts can be made of them: {}", said(&trial));
    None
}

/// The switch, and who is on it.
#[derive(Debug)]
pub struct Network {
    switch: Held,
    /// Holds the hosts' disks and logs.
    directory: tempfile::TempDir,
}

impl Network {
    /// `hosts` are their names with the last part of their addresses.
    pub fn new(hosts: &[(&str, u8)]) -> Network {
        let directory = tempfile::Builder::new().prefix("pgherd-lab-").tempdir().expect("a temporary directory");
        // The servers run as another user, who has to pass through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).expect("its mode can be set");
        let lines: String = hosts.iter().map(|(name, last)| format!("{} {name}\n", address(*last))).collect();
        std::fs::write(directory.path().join("hosts"), format!("127.0.0.1 localhost\n{lines}")).expect("a hosts file");
        let switch = Held::network(&directory.path().join("switch-boot.log"));
        switch.run(["ip", "link", "add", "switch", "type", "bridge"]);
        switch.run(["ip", "link", "set", "switch", "up"]);
        Network { switch, directory }
    }

    /// A host that is plugged in and has booted.
    pub fn host(&self, name: &'static str, last: u8) -> Host {
        let network = Held::network(&self.directory.path().join(format!("{name}-boot.log")));
        let pid = network.pid().to_string();
        self.switch.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        self.switch.run(["ip", "link", "set", name, "master", "switch", "up"]);
        network.run(["ip", "link", "set", "lo", "up"]);
        network.run(["ip", "address", "add", &format!("{}/24", address(last)), "dev", "eth0"]);
        network.run(["ip", "link", "set", "eth0", "up"]);
        let disk = self.directory.path().join(name);
        std::fs::create_dir(&disk).expect("a new directory");
        let mut host = Host { name, address: address(last), disk, network, machine: None };
        host.boot();
        host
    }

    /// Takes the host's cable out of the switch: nothing reaches it or leaves it, and it goes on by itself.
    pub fn unplug(&self, host: &Host) {
        self.switch.run(["ip", "link", "set", host.name, "down"]);
    }

    pub fn plug_in(&self, host: &Host) {
        self.switch.run(["ip", "link", "set", host.name, "up"]);
    }
}

/// Not a network of any machine that these tests will meet, and visible only in the test's own namespaces.
fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

#[derive(Debug)]
pub struct Host {
    pub name: &'static str,
    pub address: Ipv4Addr,
    /// What the host sees as `/var/lib/postgresql`; it stays when the host is killed.
    pub disk: PathBuf,
    network: Held,
    machine: Option<Held>,
}

impl Host {
    /// Starts its first process; everything else of it is started by [`start`](Self::start).
    pub fn boot(&mut self) {
        assert!(self.machine.is_none(), "{} runs", self.name);
        let hosts = self.disk.with_file_name("hosts");
        let mut command = self.network.enter(&["--net"]);
        command
            .args(["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-ec", BOOT, "boot", self.name])
            .args([&hosts, &self.disk, &binary::target()]);
        self.machine = Some(Held::start(&command, &self.log("boot")));
    }

    /// SIGKILL to everything that runs on it, at once; returns when nothing is left. Its address stays.
    pub fn kill(&mut self) {
        let machine = self.machine.take().expect("a host that runs");
        // Its first process takes all others with it, and the kernel waits for them before it lets that one go.
        drop(machine);
    }

    /// Starts a program on it. Its output goes to `log`, which is appended to.
    pub fn start(&self, log: &str, program: impl AsRef<OsStr>, arguments: &[&str]) -> Program {
        let path = self.log(log);
        let log = File::options().create(true).append(true).open(path).expect("a log");
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().expect("a handle")).stderr(log);
        let entering = command.spawn().expect("nsenter of util-linux");
        // nsenter stays outside and waits for the program, its only child.
        let pid = only_child(entering.id());
        Program { entering, pid }
    }

    /// A program that is about to run on it, with nothing of our environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let machine = self.machine.as_ref().expect("a host that runs");
        let mut command = machine.enter(&["--net", "--mount", "--pid", "--ipc", "--uts"]);
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/tmp"]).arg(program);
        command
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.disk.with_file_name(format!("{}-{name}.log", self.name))
    }

    /// How many processes run on it, besides its first two.
    pub fn processes(&self) -> usize {
        let count = self.command("sh").args(["-c", "set -- /proc/[0-9]*; echo $#"]).output().expect("sh runs").stdout;
        let count: usize = String::from_utf8_lossy(&count).trim().parse().expect("a number");
        // Its init with a sleep, and who counts.
        count - 3
    }

    /// Does something in its network, on a thread of its own. Names are still the machine's: use addresses.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let place = self.place();
        let result = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                place.enter();
                work()
            });
            thread.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Its network, to be entered by a thread.
    pub fn place(&self) -> Place {
        Place(File::open(format!("/proc/{}/ns/net", self.network.pid())).expect("a running process"))
    }
}

/// A network namespace.
#[derive(Debug)]
pub struct Place(File);

impl Place {
    /// The calling thread, and those that it starts, are then in this network for good.
    pub fn enter(&self) {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
    }
}

/// A program on a host.
#[derive(Debug)]
pub struct Program {
    entering: Child,
    pid: Pid,
}

impl Program {
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("a program that runs");
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let begun = Instant::now();
        loop {
            if let Some(status) = self.entering.try_wait().expect("our own child") {
                return status;
            }
            assert!(begun.elapsed() < within, "a program that was told to stop still runs after {within:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Reaps it, after its host has been killed.
    pub fn gone(mut self) {
        self.entering.wait().expect("our own child");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Not if it has been reaped: the number may be another's by now. Its host's end takes it otherwise.
        if matches!(self.entering.try_wait(), Ok(None)) {
            let _ = kill_process(self.pid, Signal::KILL);
            let _ = self.entering.wait();
        }
    }
}

/// A process that holds namespaces, and ends with the thread that started it.
#[derive(Debug)]
struct Held {
    child: Child,
    /// The one inside, if the child only waits for it.
    inner: Option<Pid>,
}

impl Held {
    fn network(log: &Path) -> Held {
        Held::start(Command::new("unshare").args(["--net", "sh", "-c", "echo up; exec sleep infinity"]), log)
    }

    /// The command prints a line once everything is in its place.
    fn start(command: &Command, log: &Path) -> Held {
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let mut held = Command::new("setpriv");
        held.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        held.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = held.spawn().expect("setpriv of util-linux");
        let mut line = String::new();
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "up\n", "{command:?} failed");
        let forks = command.get_args().any(|word| word == "--fork");
        let inner = forks.then(|| only_child(child.id()));
        Held { child, inner }
    }

    fn pid(&self) -> u32 {
        self.inner.map_or_else(|| self.child.id(), |pid| pid.as_raw_pid() as u32)
    }

    fn enter(&self, namespaces: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.pid().to_string()).args(namespaces).arg("--");
        command
    }

    /// In its network.
    fn run<const N: usize>(&self, words: [&str; N]) {
        let output = self.enter(&["--net"]).args(words).output().expect("nsenter of util-linux");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(inner) = self.inner {
            let _ = kill_process(inner, Signal::KILL);
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Waits for it: the process may just be starting.
fn only_child(parent: u32) -> Pid {
    let begun = Instant::now();
    let list = Path::new("/proc").join(format!("{parent}/task/{parent}/children"));
    loop {
        let text = std::fs::read_to_string(&list).expect("the kernel lists the children of processes");
        if let Some(pid) = text.split_whitespace().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?)) {
            return pid;
        }
        assert!(begun.elapsed() < SOON, "process {parent} starts nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
}
