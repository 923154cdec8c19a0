//! Servers on loopback, agents that say what a test tells them, and an entrypoint in front.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use pgherd_ha::{Epoch, Lsn, NodeRoute, RouteMessage, Timeline};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls};

use crate::harness::ports::free_port;
use crate::harness::postgres::Server;

/// A PostgreSQL server on a port of its own.
pub struct TcpServer {
    pub server: Server,
    pub port: u16,
}

impl TcpServer {
    pub fn start(settings: &str) -> TcpServer {
        TcpServer::prepared(settings, |_| {})
    }

    /// `prepare` gets the data directory before the server starts.
    pub fn prepared(settings: &str, prepare: impl FnOnce(&Path)) -> TcpServer {
        let (server, port) = (Server::new(), free_port());
        let data_dir = server.data_dir();
        prepare(&data_dir);
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={} -c fsync=off {settings}",
            server.socket_dir().display()
        );
        let log = server.socket_dir().join("log");
        let args: [&Path; 5] = [&data_dir, "-l".as_ref(), &log, "-o".as_ref(), options.as_ref()];
        server.run("pg_ctl", ["start", "--wait", "--silent", "-D"], &args);
        TcpServer { server, port }
    }

    pub fn stop(&self, mode: &'static str) {
        self.server.run("pg_ctl", ["stop", "--wait", "--silent", "-m", mode, "-D"], &[self.server.data_dir()]);
    }
}

/// What an agent says.
#[derive(Clone, Debug)]
pub struct Word {
    /// `None`: it pushes no route, as a plain Patroni.
    pub push: Option<NodeRoute>,
    /// The end of its permit, while it has one.
    pub permit: Option<Instant>,
    /// To health checks.
    pub status: u16,
    /// It accepts connections and says nothing any more, and no new line on its streams.
    pub frozen: bool,
}

/// An agent beside a server.
pub struct FakeAgent {
    pub port: u16,
    word: watch::Sender<Word>,
    task: JoinHandle<()>,
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeAgent {
    pub async fn start() -> FakeAgent {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (word, told) = watch::channel(Word { push: Some(standby()), permit: None, status: 503, frozen: false });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, told.clone()));
            }
        });
        FakeAgent { port, word, task }
    }

    /// Holds the leader key under `epoch`, with a permit that ends after `permit`.
    pub fn lead(&self, epoch: u64, permit: Duration) {
        let node = NodeRoute { in_recovery: Some(false), epoch: Some(Epoch(epoch)), ..standby() };
        self.word.send_modify(|word| {
            word.push = Some(node);
            word.permit = Some(Instant::now() + permit);
            word.status = 200;
        });
    }

    /// Its server is being stopped in order, and its permit ends after `left`.
    pub fn stop_in_order(&self, left: Duration) {
        let node = NodeRoute { running: false, in_recovery: None, stopping_ms: Some(0), ..standby() };
        self.word.send_modify(|word| (word.push, word.permit) = (Some(node), Some(Instant::now() + left)));
    }

    /// From now on as a plain Patroni does, with this answer to checks.
    pub fn plain(&self, status: u16) {
        self.word.send_modify(|word| (word.push, word.permit, word.status) = (None, None, status));
    }

    pub fn freeze(&self) {
        self.word.send_modify(|word| word.frozen = true);
    }
}

fn standby() -> NodeRoute {
    NodeRoute {
        name: "node".into(),
        scope: "test".into(),
        address: "127.0.0.1:5432".into(),
        running: true,
        in_recovery: Some(true),
        epoch: None,
        permit_ms: None,
        stopping_ms: None,
        paused: false,
        timeline: Some(Timeline(1)),
        lsn: Some(Lsn(1)),
        lag: Some(0),
        noloadbalance: false,
        standby_leader: false,
        state: "running".into(),
    }
}

async fn answer(mut stream: TcpStream, mut told: watch::Receiver<Word>) {
    let received = Instant::now();
    let mut request = vec![0; 4096];
    let Ok(length) = stream.read(&mut request).await else { return };
    let first = told.borrow().clone();
    if first.frozen {
        return std::future::pending().await;
    }
    if !request[..length].starts_with(b"GET /pgherd/route ") || first.push.is_none() {
        let answer = format!("HTTP/1.0 {} Word\r\n\r\n", first.status);
        // The entrypoint may have gone; the test sees that elsewhere.
        let _ = stream.write_all(answer.as_bytes()).await;
        return;
    }
    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n").await;
    loop {
        let word = told.borrow_and_update().clone();
        let Some(node) = word.push else { return };
        let left = word.permit.map(|end| end.saturating_duration_since(Instant::now()).as_millis() as u64);
        let node = match node.stopping_ms {
            Some(_) => NodeRoute { stopping_ms: left, ..node },
            None => NodeRoute { permit_ms: left, ..node },
        };
        let message = RouteMessage { elapsed_ms: received.elapsed().as_millis() as u64, node };
        let line = serde_json::to_string(&message).expect("JSON") + "\n";
        if !word.frozen && stream.write_all(line.as_bytes()).await.is_err() {
            return;
        }
        let _ = tokio::time::timeout(Duration::from_millis(300), told.changed()).await;
    }
}

/// An entrypoint before servers on `ports` with `agents` beside them.
pub struct Entrypoint {
    // Dropped first by order: sessions end before the servers do.
    _handle: pgherd_proxy::Handle,
    pub address: SocketAddr,
    pub stats: SocketAddr,
}

impl Entrypoint {
    /// `options` are lines of the listener. Sessions of a server that is out of service end.
    pub fn start(servers: &[(u16, u16)], options: &str) -> Entrypoint {
        Entrypoint::keeping(servers, &format!("default-server on-marked-down shutdown-sessions\n{options}"))
    }

    /// Sessions of a server that is out of service may go on, as far as the checks go.
    pub fn keeping(servers: &[(u16, u16)], options: &str) -> Entrypoint {
        let lines: String = servers
            .iter()
            .enumerate()
            .map(|(index, (port, agent))| format!(" server s{index} 127.0.0.1:{port} check port {agent}\n"))
            .collect();
        let text = format!(
            "defaults\n timeout connect 2s\n timeout queue 20s\n\
             listen stats\n mode http\n bind 127.0.0.1:0\n stats enable\n stats uri /\n\
             listen postgres\n mode tcp\n bind 127.0.0.1:0\n option httpchk\n http-check expect status 200\n \
             default-server inter 200ms fall 2 rise 1\n{options}\n{lines}"
        );
        let parsed = pgherd_proxy::haproxy_cfg::parse("test.cfg", &text, &|_| None).expect("a configuration");
        let handle = pgherd_proxy::start(parsed.config).expect("an entrypoint");
        let address = |name: &str| {
            let found = handle.addresses.iter().find(|(listener, _)| listener == name);
            found.expect("the listener").1[0]
        };
        Entrypoint { address: address("postgres"), stats: address("stats"), _handle: handle }
    }

    /// A session, and the task that says how it ended.
    pub async fn connect(&self) -> Result<(Client, JoinHandle<Result<(), Error>>), Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.address.port()).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        Ok((client, tokio::spawn(connection)))
    }

    /// What is asked of the stats page.
    pub async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.stats).await.expect("the stats page");
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.expect("a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("an answer");
        text
    }

    /// A column of the CSV for `name`.
    pub async fn stat(&self, name: &str, column: &str) -> String {
        let text = self.get("/;csv").await;
        let mut lines = text.lines().skip_while(|line| !line.starts_with("# "));
        let header = lines.next().expect("a header").trim_start_matches("# ");
        let position = header.split(',').position(|known| known == column).expect("a column");
        let line = lines.find(|line| line.split(',').nth(1) == Some(name)).expect("a line");
        line.split(',').nth(position).expect("a value").to_owned()
    }

    /// Waits until a column of the CSV has a value.
    pub async fn wait_stat(&self, name: &str, column: &str, expected: &str) {
        let begun = Instant::now();
        loop {
            let found = self.stat(name, column).await;
            if found == expected {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{name}.{column} is {found}, not {expected}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The port of the server behind a session.
pub async fn port_behind(client: &Client) -> u16 {
    let row = client.query_one("select inet_server_port()", &[]).await.expect("a query");
    row.get::<_, i32>(0) as u16
}

/// The SQLSTATE of an error that a server or the entrypoint sent.
pub fn code(error: &Error) -> String {
    error.as_db_error().map_or_else(|| format!("no code: {error}"), |error| error.code().code().to_owned())
}
