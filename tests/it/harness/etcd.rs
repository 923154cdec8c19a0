//! Real etcd servers (Debian's package), each with its own directory and free ports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::certificates::Certificates;
use super::ports::{free_port, free_ports};
use super::store_process::{START, StoreProcess};

/// One server: alone, or a voter of a [`Trio`].
#[derive(Debug)]
pub struct EtcdServer {
    process: StoreProcess,
    port: u16,
    arguments: Vec<String>,
}

impl EtcdServer {
    /// A server of its own, ready for clients.
    pub fn start() -> EtcdServer {
        let peers = "http://127.0.0.1:0";
        let mut server = EtcdServer::prepare(free_port(), "one", peers, &format!("one={peers}"));
        server.launch();
        server.wait_until_serving();
        server
    }

    /// The same with TLS for clients, who have to show a certificate. Whoever connects waits for it to be ready.
    pub fn start_secured(certificates: &Certificates) -> EtcdServer {
        let peers = "http://127.0.0.1:0";
        let port = free_port();
        let mut server = EtcdServer::prepare(port, "one", peers, &format!("one={peers}"));
        for argument in &mut server.arguments {
            if *argument == format!("http://127.0.0.1:{port}") {
                *argument = format!("https://127.0.0.1:{port}");
            }
        }
        let options = [("--cert-file", "server.crt"), ("--key-file", "server.key"), ("--trusted-ca-file", "ca.crt")];
        server
            .arguments
            .extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), certificates.shown(value)]));
        server.arguments.push("--client-cert-auth".into());
        server.launch();
        server
    }

    pub fn port(&self) -> u16 {
        self.port
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
        std::fs::remove_dir_all(self.data()).expect("our own directory");
    }

    /// Freezes it: connections stay open and nothing answers. Returns when the last of its threads stands still.
    pub fn sigstop(&self) {
        self.process.sigstop();
    }

    pub fn sigcont(&self) {
        self.process.sigcont();
    }

    /// One call of the gateway, for what a client under test has no method for. `None` while nobody answers.
    pub fn call(&self, method: &str, body: &str) -> Option<String> {
        call(self.port, method, body, None)
    }

    /// From now on one has to be the user `root` with this password.
    pub fn demand_login(&self, password: &str) {
        let user = format!(r#"{{"name":"root","password":"{password}"}}"#);
        for (method, body) in [
            ("auth/user/add", user.as_str()),
            ("auth/role/add", r#"{"name":"root"}"#),
            ("auth/user/grant", r#"{"user":"root","role":"root"}"#),
            ("auth/enable", "{}"),
        ] {
            let answer = self.call(method, body).expect("the server runs");
            // The role is there in some versions.
            assert!(answer.contains(" 200 ") || method == "auth/role/add", "{method}: {answer}");
        }
    }

    /// Gives `root` another password.
    pub fn change_password(&self, from: &str, to: &str) {
        let body = format!(r#"{{"name":"root","password":"{from}"}}"#);
        let answer = self.call("auth/authenticate", &body).expect("the server runs");
        let token = answer.split_once("\"token\":\"").and_then(|(_, rest)| rest.split_once('"')).expect("a token").0;
        let body = format!(r#"{{"name":"root","password":"{to}"}}"#);
        let answer = call(self.port, "auth/user/changepw", &body, Some(token)).expect("the server runs");
        assert!(answer.contains(" 200 "), "{answer}");
    }

    fn data(&self) -> PathBuf {
        self.process.directory().join("data")
    }

    fn prepare(port: u16, name: &str, peers: &str, cluster: &str) -> EtcdServer {
        let process = StoreProcess::new("etcd");
        let clients = format!("http://127.0.0.1:{port}");
        let data = process.directory().join("data").display().to_string();
        let options = [
            ("--name", name),
            ("--data-dir", &data),
            ("--listen-client-urls", &clients),
            ("--advertise-client-urls", &clients),
            ("--listen-peer-urls", peers),
            ("--initial-advertise-peer-urls", peers),
            ("--initial-cluster", cluster),
            ("--logger", "zap"),
            ("--log-level", "warn"),
        ];
        let arguments = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect();
        EtcdServer { process, port, arguments }
    }

    fn launch(&mut self) {
        self.process.launch(Command::new("etcd").args(&self.arguments));
    }

    /// It answers a linearizable read (it has a leader and a quorum), or wants to know who asks.
    fn wait_until_serving(&mut self) {
        let serves = |answer: String| answer.contains(" 200 ") || answer.contains("user name is empty");
        let port = self.port;
        self.process.wait_until(|| call(port, "kv/range", r#"{"key":"YQ=="}"#, None).is_some_and(serves));
    }
}

fn call(port: u16, method: &str, body: &str, token: Option<&str>) -> Option<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    let token = token.map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
    let length = body.len();
    let head =
        format!("POST /v3/{method} HTTP/1.0\r\n{token}Content-Type: application/json\r\nContent-Length: {length}");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Three voters.
#[derive(Debug)]
pub struct Trio {
    pub servers: [EtcdServer; 3],
    /// Where they meet each other.
    pub peer_ports: [u16; 3],
}

impl Trio {
    /// All three started and in one quorum.
    pub fn start() -> Trio {
        let ports: [u16; 6] = free_ports();
        let peers = |at: usize| format!("http://127.0.0.1:{}", ports[3 + at]);
        let cluster = (0..3).map(|at| format!("e{at}={}", peers(at))).collect::<Vec<_>>().join(",");
        let mut servers =
            std::array::from_fn(|at| EtcdServer::prepare(ports[at], &format!("e{at}"), &peers(at), &cluster));
        servers.iter_mut().for_each(EtcdServer::launch);
        servers.iter_mut().for_each(EtcdServer::wait_until_serving);
        Trio { servers, peer_ports: [ports[3], ports[4], ports[5]] }
    }

    /// Which of the three leads the quorum now.
    pub fn leader(&self) -> usize {
        let deadline = Instant::now() + START;
        let number = |answer: &str, key: &str| {
            let rest = answer.split_once(&format!("\"{key}\":\""))?.1;
            Some(rest.split_once('"')?.0.to_owned())
        };
        loop {
            let leads = |server: &EtcdServer| {
                let status = server.call("maintenance/status", "{}").unwrap_or_default();
                let (member, leader) = (number(&status, "member_id"), number(&status, "leader"));
                member.is_some() && member == leader
            };
            if let Some(at) = self.servers.iter().position(leads) {
                return at;
            }
            assert!(Instant::now() < deadline, "the three have no leader after {START:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
