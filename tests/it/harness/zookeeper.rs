//! Real ZooKeeper servers (Debian's package), each with its own directory and free ports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::certificates::Certificates;
use super::ports::{free_port, free_ports};
use super::store_process::{START, StoreProcess};

const JAR: &str = "/usr/share/java/zookeeper.jar";
/// The package forgets it among what its server needs for TLS.
const CODEC: &str = "/usr/share/java/netty-codec.jar";

/// One server: alone, or a voter of an [`Ensemble`].
#[derive(Debug)]
pub struct ZooKeeperServer {
    process: StoreProcess,
    port: u16,
    /// Where it speaks TLS.
    secure_port: Option<u16>,
    /// System properties, `-Dname=value`.
    properties: Vec<String>,
}

impl ZooKeeperServer {
    /// A server of its own, ready for clients.
    pub fn start() -> ZooKeeperServer {
        let mut server = ZooKeeperServer::prepare(free_port(), "");
        server.launch();
        server.wait_until_serving();
        server
    }

    /// With a second port for TLS, where clients have to show a certificate. Its own is `server.pem`, unless it is [replaced](Self::show).
    pub fn start_secured(certificates: &Certificates) -> ZooKeeperServer {
        let secure_port = free_port();
        let provider = "org.apache.zookeeper.server.auth.X509AuthenticationProvider";
        let more = format!(
            "secureClientPort={secure_port}\nserverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             authProvider.x509={provider}\nssl.trustStore.location={}\nssl.clientAuth=need\n",
            certificates.shown("ca.pem"),
        );
        // The kind of a file is told by its name.
        std::fs::copy(certificates.file("ca.crt"), certificates.file("ca.pem")).expect("our own directory");
        let mut server = ZooKeeperServer::prepare(free_port(), &more);
        server.secure_port = Some(secure_port);
        server.show(certificates, "server.pem");
        server.launch();
        server.wait_until_serving();
        server
    }

    /// Has it show this certificate from its next start on.
    pub fn show(&mut self, certificates: &Certificates, file: &str) {
        self.properties = vec![format!("-Dzookeeper.ssl.keyStore.location={}", certificates.shown(file))];
    }

    /// With one user of SASL's DIGEST-MD5.
    pub fn start_with_user(name: &str, password: &str) -> ZooKeeperServer {
        let provider = "org.apache.zookeeper.server.auth.SASLAuthenticationProvider";
        let mut server = ZooKeeperServer::prepare(free_port(), &format!("authProvider.sasl={provider}\n"));
        let users = server.process.directory().join("jaas.conf");
        let password = password.replace('"', "\\\"");
        let module = "org.apache.zookeeper.server.auth.DigestLoginModule";
        let text = format!("Server {{ {module} required user_{name}=\"{password}\"; }};\n");
        std::fs::write(&users, text).expect("a writable temporary directory");
        server.properties = vec![format!("-Djava.security.auth.login.config={}", users.display())];
        server.launch();
        server.wait_until_serving();
        server
    }

    /// `127.0.0.1:PORT`, with TLS.
    pub fn secure_address(&self) -> String {
        format!("127.0.0.1:{}", self.secure_port.expect("it was started with TLS"))
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops it as its service would.
    pub fn stop(&mut self) {
        self.process.end(Signal::TERM);
    }

    /// SIGKILL: what it had in memory only is lost.
    pub fn kill(&mut self) {
        self.process.end(Signal::KILL);
    }

    /// Starts it again on the same data and port, after [`stop`](Self::stop) or [`kill`](Self::kill).
    pub fn restart(&mut self) {
        assert!(!self.process.runs(), "restart after a stop or a kill");
        self.launch();
        self.wait_until_serving();
    }

    /// Takes its data away, as when a container without a volume is replaced. It must be stopped.
    pub fn lose_data(&mut self) {
        assert!(!self.process.runs(), "data are lost between a stop and a restart");
        let data = self.process.directory().join("data");
        std::fs::remove_dir_all(&data).and_then(|()| std::fs::create_dir(&data)).expect("our own directory");
    }

    /// Freezes it: connections stay open and nothing answers. Returns when the last of its threads stands still.
    pub fn sigstop(&self) {
        self.process.sigstop();
    }

    pub fn sigcont(&self) {
        self.process.sigcont();
    }

    /// `standalone`, `leader` or `follower`; `None` while it does not serve.
    pub fn mode(&self) -> Option<String> {
        mode(self.port)
    }

    fn prepare(port: u16, more: &str) -> ZooKeeperServer {
        assert!(std::path::Path::new(JAR).exists(), "{JAR} is missing: apt-get install zookeeper");
        let process = StoreProcess::new("ZooKeeper");
        let data = process.directory().join("data");
        std::fs::create_dir(&data).expect("a writable temporary directory");
        let config = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n{more}",
            data.display()
        );
        std::fs::write(process.directory().join("zoo.cfg"), config).expect("a writable temporary directory");
        ZooKeeperServer { process, port, secure_port: None, properties: Vec::new() }
    }

    fn launch(&mut self) {
        let mut command = Command::new("java");
        command
            // Small and quick to start: several of them run beside the tests.
            .args(["-Xmx64m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(&self.properties)
            .args(["-Dzookeeper.jmx.log4j.disable=true", "-cp", &format!("{JAR}:{CODEC}")])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.process.directory().join("zoo.cfg"));
        self.process.launch(&mut command);
    }

    fn wait_until_serving(&mut self) {
        let port = self.port;
        self.process.wait_until(|| mode(port).is_some());
    }
}

fn mode(port: u16) -> Option<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let limit = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    stream.write_all(b"srvr").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
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
            let id = server.process.directory().join("data/myid");
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
