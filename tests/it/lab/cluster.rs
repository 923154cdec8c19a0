//! The lab's four hosts with what runs on them, and a second entry: Debian's HAProxy with the same file.
//!
//! `postgres1.yml` and `haproxy.cfg` are the user's own, byte for byte; `postgres0.yml` differs from the former in name and
//! addresses only, as the lab says.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_postgres::{Client, Error, NoTls};

use super::host::{self, Host, Network, Program};
use crate::harness::binary::pgherd;
use crate::harness::notes;

const POSTGRES1: &str = include_str!("../../../crates/agent/src/config/testdata/postgres1.yml");
const HAPROXY: &str = include_str!("../../../crates/proxy/tests/lab.cfg");

/// For what takes a moment; a copy of a database and the start of Java on a busy machine take the longest.
pub const SOON: Duration = Duration::from_secs(60);

const ZOOKEEPER: &str = "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=/var/lib/postgresql\nclientPort=2181\n\
    admin.enableServer=false\n4lw.commands.whitelist=srvr\n";

const HOSTS: [(&str, u8); 6] =
    [("zoo", 2), ("pg-master", 3), ("pg-slave", 4), ("pg-entrypoint", 5), ("pg-haproxy", 6), ("client", 7)];

/// A host with PostgreSQL and its agent.
#[derive(Debug)]
pub struct Node {
    pub host: Host,
    yaml: &'static str,
    agent: Option<Program>,
}

#[derive(Debug)]
pub struct Lab {
    // In the order in which they go: the programs before their hosts, all before the network.
    _programs: Vec<Program>,
    pub nodes: [Node; 2],
    pub entry: Host,
    pub haproxy: Host,
    pub client: Host,
    _zoo: Host,
    pub network: Network,
}

impl Lab {
    /// Everything started, one node the primary, the other one following, both entries open. `None`: there are no
    /// namespaces here, and that is noted.
    pub fn deploy() -> Option<Lab> {
        if let Some(why) = host::unavailable() {
            notes::skip(&why);
            return None;
        }
        let network = Network::new(&HOSTS);
        let [zoo, master, slave, entry, haproxy, client] = HOSTS.map(|(name, last)| network.host(name, last));
        std::fs::write(zoo.disk.join("zoo.cfg"), ZOOKEEPER).expect("a disk of our own");
        let java = ["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.jmx.log4j.disable=true"];
        let server = ["-cp", "/usr/share/java/zookeeper.jar", "org.apache.zookeeper.server.quorum.QuorumPeerMain"];
        let zookeeper =
            zoo.start("zookeeper", "java", &[&java[..], &server, &["/var/lib/postgresql/zoo.cfg"]].concat());
        let postgres0 = POSTGRES1.replace("postgresql1", "postgresql0").replace("pg-slave", "pg-master");
        let nodes = [Node::new(master, "postgres0.yml", &postgres0), Node::new(slave, "postgres1.yml", POSTGRES1)];
        for host in [&entry, &haproxy] {
            std::fs::write(host.disk.join("haproxy.cfg"), HAPROXY).expect("a disk of our own");
        }
        let config = "/var/lib/postgresql/haproxy.cfg";
        let proxies = [
            entry.start("proxy", pgherd(), &["proxy", config]),
            haproxy.start("haproxy", "haproxy", &["-W", "-f", config]),
        ];
        let _programs = [zookeeper].into_iter().chain(proxies).collect();
        let mut lab = Lab { _programs, nodes, entry, haproxy, client, _zoo: zoo, network };
        lab.nodes.iter_mut().for_each(Node::start);
        lab.wait("one node is the primary and the other one streams", SOON, |lab| {
            lab.primary().is_some_and(|primary| lab.streams(1 - primary))
        });
        Some(lab)
    }

    /// Which node says that it is the primary.
    pub fn primary(&self) -> Option<usize> {
        (0..2).find(|node| self.status(*node, "/primary") == Some(200))
    }

    /// Whether the node is a replica that is up to date.
    pub fn streams(&self, node: usize) -> bool {
        self.status(node, "/replica?lag=0") == Some(200)
            && self.get(node, "/patroni").is_some_and(|(_, body)| body["replication_state"] == "streaming")
    }

    /// The answer of the node's agent, as any host of the network gets it.
    pub fn get(&self, node: usize, path: &str) -> Option<(u16, Value)> {
        let (status, body) = self.fetch(self.nodes[node].host.address, 8008, path)?;
        Some((status, serde_json::from_str(&body).unwrap_or_default()))
    }

    pub fn status(&self, node: usize, path: &str) -> Option<u16> {
        self.get(node, path).map(|(status, _)| status)
    }

    /// What the client's host gets over HTTP.
    pub fn fetch(&self, address: Ipv4Addr, port: u16, path: &str) -> Option<(u16, String)> {
        self.client.inside(|| request(SocketAddr::from((address, port)), path).ok())
    }

    pub fn wait(&self, what: &str, within: Duration, mut condition: impl FnMut(&Lab) -> bool) -> Duration {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < within, "waited {within:?} in vain: {what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
        begun.elapsed()
    }

    /// One session from `host` to PostgreSQL at an address, for as long as `work` takes.
    pub fn session<T: Send>(
        &self,
        host: &Host,
        address: Ipv4Addr,
        work: impl AsyncFnOnce(Client) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        host.inside(move || {
            run(async move {
                let (client, connection) = login(address).connect(NoTls).await?;
                let driver = tokio::spawn(connection);
                let result = work(client).await;
                driver.abort();
                result
            })
        })
    }

    /// Whether a client gets through an entry to a server that takes writes.
    pub fn can_write(&self, address: Ipv4Addr) -> bool {
        let asked = async move {
            let (client, connection) = login(address).connect(NoTls).await?;
            let driver = tokio::spawn(connection);
            let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await;
            driver.abort();
            row.map(|row| !row.get::<_, bool>(0))
        };
        self.client.inside(|| run(asked)).unwrap_or(false)
    }

    /// The end of every log, for the message of a failure.
    pub fn logs(&self) -> String {
        let directory = self.entry.disk.parent().expect("the network's directory");
        let files = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut logs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
        logs.sort();
        logs.iter().map(|path| end_of(path)).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

impl Node {
    fn new(host: Host, yaml: &'static str, text: &str) -> Node {
        std::fs::write(host.disk.join(yaml), text).expect("a disk of our own");
        // As the image makes it: the user of PostgreSQL owns the place of the data.
        let data = host.disk.join("data");
        std::fs::create_dir(&data).expect("a disk of our own");
        let id = |flag| {
            let output = Command::new("id").args([flag, "postgres"]).output().expect("id runs").stdout;
            String::from_utf8_lossy(&output).trim().parse().expect("a user named postgres")
        };
        chown(&data, Some(id("-u")), Some(id("-g"))).expect("root may");
        Node { host, yaml, agent: None }
    }

    /// Its name in the cluster.
    pub fn member(&self) -> &'static str {
        if self.yaml == "postgres0.yml" { "postgresql0" } else { "postgresql1" }
    }

    /// Starts the agent.
    pub fn start(&mut self) {
        let yaml = format!("/var/lib/postgresql/{}", self.yaml);
        self.agent = Some(self.host.start("agent", pgherd(), &["agent", &yaml]));
    }

    /// `docker stop`: SIGTERM to the agent, which stops its PostgreSQL.
    pub fn stop(&mut self) {
        let agent = self.agent.take().expect("a running agent");
        assert!(agent.stop(SOON).success(), "the agent ended with an error\n{}", end_of(&self.host.log("agent")));
    }

    /// The host dies with everything on it.
    pub fn kill(&mut self) {
        self.host.kill();
        self.agent.take().expect("a running agent").gone();
    }

    /// The host and its agent start again, on the disk as it was left.
    pub fn boot(&mut self) {
        self.host.boot();
        self.start();
    }
}

/// How the lab's clients log in.
pub fn login(address: Ipv4Addr) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host(address.to_string()).port(5432).user("postgres").password("postgres").dbname("postgres");
    config.connect_timeout(Duration::from_secs(20));
    config
}

fn run<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

fn request(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, body.to_owned()))
}

fn end_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("--- {}\n{}\n", path.display(), lines[lines.len().saturating_sub(80)..].join("\n"))
}
