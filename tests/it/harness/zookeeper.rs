//! Real ZooKeeper servers (Debian's package) as child processes, each with its own directory and free ports.
//!
//! Calls block until the server is in the wanted state, so a client under test lives on a thread of its own. A server is
//! killed by its process id when it is dropped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use super::ports::{free_port, free_ports};

const JAR: &str = "/usr/share/java/zookeeper.jar";

/// A start takes half a second on an idle machine; on a busy one with several at once, many times that.
const START: Duration = Duration::from_secs(60);

/// One server: alone, or a voter of an [`Ensemble`].
#[derive(Debug)]
pub struct ZooKeeperServer {
    directory: TempDir,
    port: u16,
    child: Option<Child>,
}

impl ZooKeeperServer {
    /// A server of its own, ready for clients.
    pub fn start() -> ZooKeeperServer {
        let mut server = ZooKeeperServer::prepare(free_port(), "");
        server.launch();
        server.wait_until_serving();
        server
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops it as its service would.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.reap();
    }

    /// SIGKILL: what it had in memory only is lost.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.reap();
    }

    /// Starts it again on the same data and port, after [`stop`](Self::stop) or [`kill`](Self::kill).
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "restart after a stop or a kill");
        self.launch();
        self.wait_until_serving();
    }

    /// Takes its data away, as when a container without a volume is replaced. It must be stopped.
    pub fn lose_data(&mut self) {
        assert!(self.child.is_none(), "data are lost between a stop and a restart");
        let data = self.directory.path().join("data");
        std::fs::remove_dir_all(&data).and_then(|()| std::fs::create_dir(&data)).expect("our own directory");
    }

    /// Freezes it: connections stay open and nothing answers. Returns when the last of its threads stands still.
    pub fn sigstop(&self) {
        self.signal(Signal::STOP);
        let pid = self.child.as_ref().map(Pid::from_child);
        let (_, status) =
            waitpid(pid, WaitOptions::UNTRACED).expect("our own child").expect("a stop is a change of its state");
        assert!(status.stopped(), "the server ended instead of standing still: {status:?}");
    }

    pub fn sigcont(&self) {
        self.signal(Signal::CONT);
    }

    /// `standalone`, `leader` or `follower`; `None` while it does not serve.
    pub fn mode(&self) -> Option<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let limit = Duration::from_secs(1);
        let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        stream.write_all(b"srvr").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }

    fn prepare(port: u16, more: &str) -> ZooKeeperServer {
        assert!(std::path::Path::new(JAR).exists(), "{JAR} is missing: apt-get install zookeeper");
        let directory = tempfile::Builder::new().prefix("pgherd-zookeeper-").tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        std::fs::create_dir(&data).expect("a writable temporary directory");
        let config = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n{more}",
            data.display()
        );
        std::fs::write(directory.path().join("zoo.cfg"), config).expect("a writable temporary directory");
        ZooKeeperServer { directory, port, child: None }
    }

    fn launch(&mut self) {
        let log = std::fs::File::create(self.directory.path().join("out.log")).expect("a writable temporary directory");
        let child = Command::new("java")
            // Small and quick to start: several of them run beside the tests.
            .args(["-Xmx64m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Dzookeeper.jmx.log4j.disable=true", "-cp", JAR])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.directory.path().join("zoo.cfg"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("java is there: apt-get install zookeeper brings it");
        self.child = Some(child);
    }

    fn wait_until_serving(&mut self) {
        let deadline = Instant::now() + START;
        while self.mode().is_none() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("our own child"));
            let log = || std::fs::read_to_string(self.directory.path().join("out.log")).unwrap_or_default();
            assert!(ended.is_none(), "ZooKeeper ended at its start ({ended:?}): {}", log());
            assert!(Instant::now() < deadline, "ZooKeeper does not serve after {START:?}: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running server");
        kill_process(Pid::from_child(child), signal).expect("our own child, not yet reaped");
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.wait().expect("our own child");
        }
    }
}

impl Drop for ZooKeeperServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Three voters.
#[derive(Debug)]
pub struct Ensemble {
    pub servers: [ZooKeeperServer; 3],
}

impl Ensemble {
    /// All three started and in one quorum.
    pub fn start() -> Ensemble {
        let ports: [u16; 9] = free_ports();
        let voters: String =
            (0..3).map(|at| format!("server.{}=127.0.0.1:{}:{}\n", at + 1, ports[3 + at], ports[6 + at])).collect();
        let mut servers = std::array::from_fn(|at| ZooKeeperServer::prepare(ports[at], &voters));
        for (at, server) in servers.iter_mut().enumerate() {
            let id = server.directory.path().join("data/myid");
            std::fs::write(id, format!("{}\n", at + 1)).expect("a writable temporary directory");
            server.launch();
        }
        for server in &mut servers {
            server.wait_until_serving();
        }
        Ensemble { servers }
    }

    /// Which of the three leads the quorum now.
    pub fn leader(&self) -> usize {
        let deadline = Instant::now() + START;
        loop {
            if let Some(at) = self.servers.iter().position(|server| server.mode().as_deref() == Some("leader")) {
                return at;
            }
            assert!(Instant::now() < deadline, "the ensemble has no leader after {START:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
