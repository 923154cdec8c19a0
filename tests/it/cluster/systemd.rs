//! What an agent tells systemd, which is a socket here: systemd itself is asked about the units only.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::{eventually, notes};

/// The place of systemd.
struct Systemd(UnixDatagram);

impl Systemd {
    fn listen(path: &Path) -> Systemd {
        let socket = UnixDatagram::bind(path).expect("a socket");
        // The agent is another user.
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("its mode can be set");
        socket.set_read_timeout(Some(LONG)).expect("a time-out");
        Systemd(socket)
    }

    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a notice in time");
        String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
    }

    /// The next notice that begins so.
    fn waits_for(&self, start: &str) -> String {
        let begun = Instant::now();
        let mut heard = Vec::new();
        loop {
            let notice = self.hears();
            if notice.starts_with(start) {
                return notice;
            }
            heard.push(notice);
            assert!(begun.elapsed() < LONG, "no {start:?}, but {heard:?}");
        }
    }
}

#[test]
fn systemd_is_told_what_the_agent_does_and_that_it_lives() {
    let cluster = Cluster::start(1);
    let postmaster = cluster.postmaster("node1").expect("a server");
    let socket = cluster.directory().join("notify");
    let systemd = Systemd::listen(&socket);
    cluster.node("node1").agent.kill();
    let limit = Duration::from_secs(2);
    let environment = [("NOTIFY_SOCKET", socket.as_os_str()), ("WATCHDOG_USEC", OsStr::new("2000000"))];
    let agent = cluster.start_agent_in("node1", &environment);
    systemd.waits_for("READY=1");
    systemd.waits_for("STATUS=");
    assert_eq!(cluster.postmaster("node1"), Some(postmaster), "it has found the server as it was");

    // It sends twice within the limit; here other tests take the processor from it.
    let begun = Instant::now();
    for _ in 0..6 {
        systemd.waits_for("WATCHDOG=1");
    }
    assert!(begun.elapsed() < 2 * 3 * limit, "{:?}", begun.elapsed());

    agent.signal(Signal::HUP);
    let reloading = systemd.waits_for("RELOADING=1");
    let since: u64 =
        reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("since when").parse().expect("a number");
    assert!(since > 0);
    systemd.waits_for("READY=1");

    // A systemd that reads nothing holds nothing up: many more notices than its socket and our queue have room for.
    for _ in 0..40 {
        cluster.reload("node1");
    }
    cluster.write("CREATE TABLE written_meanwhile ()");

    agent.signal(Signal::TERM);
    systemd.waits_for("STOPPING=1");
    eventually("the agent has ended", LONG, || if agent.is_alive() { Err("it lives".into()) } else { Ok(()) });
}

/// A typing error in a unit is a line in a journal that nobody reads.
#[test]
fn the_units_are_understood() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return notes::skip("there is no systemd-analyze");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd");
    let mut checked = 0;
    for unit in std::fs::read_dir(&units).expect("the units") {
        let unit = unit.expect("an entry");
        // The binary is not installed here.
        let text_of = std::fs::read_to_string(unit.path()).expect("readable");
        assert!(text_of.contains("/usr/local/bin/pgherd "), "{:?}", unit.file_name());
        let copy = directory.path().join(unit.file_name());
        std::fs::write(&copy, text_of.replace("/usr/local/bin/pgherd ", "/bin/true ")).expect("written");
        let output = Command::new("systemd-analyze").arg("verify").arg(&copy).output().expect("it runs");
        assert!(output.status.success(), "{}", text(&output));
        let ours = text(&output).lines().filter(|line| line.contains("pgherd")).map(str::to_owned).collect::<Vec<_>>();
        assert!(ours.is_empty(), "{ours:?}");
        checked += 1;
    }
    assert_eq!(checked, 2);
}
