//! A real PostgreSQL server in a temporary directory, started as a child of the test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgherd_agent::postgres::config_files::{self, Changed, Recovery};
use pgherd_agent::postgres::parameters::start_settings;
use pgherd_agent::postgres::{
    Connection, Credentials, Marker, Observation, Postmaster, Purpose, Server, ToolOption, Upstream, control_data,
    initdb, roles, start,
};
use rustix::process::Signal;

use crate::harness::ports::free_port;
use crate::harness::postgres::bin_dir;
use crate::harness::user::passed_as_postgres;

/// Generous: the machine that runs the tests may be busy with others. Nothing waits this long unless it has failed.
pub const LIMIT: Duration = Duration::from_secs(60);

pub struct Node {
    pub server: Server,
    pub connection: Connection,
    child: Option<Child>,
}

impl Node {
    /// Not initialised; everything of it is under `directory`.
    pub fn new(directory: &std::path::Path, name: &str) -> Node {
        let mut server =
            Server::new(name, "batman", directory.join(name), Credentials::new("postgres", Some("pass'\\word")));
        server.bin_dir = Some(bin_dir());
        server.listen_addresses = "127.0.0.1".into();
        server.port = free_port();
        server.pgpass = directory.join(format!("{name}.pgpass"));
        server.replication = Credentials::new("replicator", Some("rep:pass"));
        server.rewind = Some(Credentials::new("rewinder", Some("rewind-pass")));
        for (name, value) in [
            // As in the lab: relative, so the socket's lock file is in the data directory and in each copy of it.
            ("unix_socket_directories", "."),
            ("logging_collector", "off"),
            ("max_connections", "30"),
            ("shared_buffers", "16MB"),
        ] {
            server.parameters.insert(name.into(), value.into());
        }
        // A crash of the machine is not among the tests.
        server.initdb_options = vec![ToolOption::flag("no-sync"), ToolOption::with_value("wal-segsize", "1")];
        server.basebackup_options = vec![ToolOption::flag("no-sync")];
        server.rewind_options = vec![ToolOption::flag("no-sync")];
        let connection = Connection::new(&server, Purpose::Heartbeat);
        Node { server, connection, child: None }
    }

    /// A new cluster with its roles.
    pub async fn bootstrap(directory: &std::path::Path, name: &str) -> Node {
        let mut node = Node::new(directory, name);
        node.bootstrapped().await;
        node
    }

    /// Makes a new cluster of this node, as it is configured.
    pub async fn bootstrapped(&mut self) {
        initdb::initdb(&self.server, LIMIT).await.expect("initdb");
        self.configure(&Recovery::Primary).await;
        self.start().await;
        roles::create_roles(&mut self.connection).await.expect("roles");
        // As the daemon does once the roles are there; pg_rewind would hang on reading this FIFO of its source.
        Marker::NewCluster.clear(&self.server.data_dir).expect("the mark can be removed");
    }

    pub fn upstream(&self) -> Upstream {
        Upstream::at("127.0.0.1", self.server.port)
    }

    pub async fn configure(&self, recovery: &Recovery) -> Changed {
        let control = control_data::read(&self.server).await.expect("control data");
        let standby = matches!(recovery, Recovery::Standby { .. }).then_some(&control);
        let settings = start_settings(&self.server, standby);
        config_files::write(&self.server, &settings.file, recovery).expect("written")
    }

    pub async fn follow(&self, leader: &Node) -> Changed {
        self.configure(&Recovery::Standby { upstream: Some(leader.upstream()) }).await
    }

    /// Starts it with the files as they are.
    pub async fn launch(&mut self) {
        let control = control_data::read(&self.server).await.expect("control data");
        let standby = self.server.data_dir.join("standby.signal").exists().then_some(&control);
        let log = self.server.data_dir.with_extension("log");
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        let child = Command::new(bin_dir().join("postgres"))
            .args(start::arguments(&self.server, &start_settings(&self.server, standby)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("postgres starts");
        self.child = Some(child);
    }

    /// Starts it with the files as they are, and waits until it accepts connections.
    pub async fn start(&mut self) {
        self.launch().await;
        let started = Instant::now();
        while let Err(error) = self.connection.connect().await {
            assert!(started.elapsed() < LIMIT, "{}: {}\n{}", self.server.name, error.full(), self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.server.data_dir.with_extension("log")).unwrap_or_default()
    }

    pub fn reload(&self) {
        let postmaster = Postmaster::find(&self.server.data_dir).expect("it runs");
        postmaster.reload().expect("signalled");
    }

    pub async fn observe(&mut self) -> Observation {
        self.connection.observe().await.unwrap_or_else(|error| panic!("{}: {}", self.server.name, error.full()))
    }

    /// Waits until an observation satisfies `wanted`.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Observation) -> bool) -> Observation {
        let started = Instant::now();
        loop {
            let seen = self.observe().await;
            if wanted(&seen) {
                return seen;
            }
            assert!(started.elapsed() < LIMIT, "{}: never saw {what}, but {seen:#?}\n{}", self.server.name, self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn until_caught_up(&mut self, leader: &mut Node) {
        let position = leader.observe().await.flush_lsn;
        self.until("the leader's position", |seen| seen.standby.as_ref().is_some_and(|it| it.replay_lsn >= position))
            .await;
    }

    /// Waits until PostgreSQL's archiver has put a file there.
    pub async fn until_archived(&self, archive: &std::path::Path, file: &str) {
        let started = Instant::now();
        while !archive.join(file).exists() {
            assert!(started.elapsed() < LIMIT, "{}: {file} is not archived\n{}", self.server.name, self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn execute(&mut self, sql: &str) {
        self.connection.execute(sql, sql).await.unwrap_or_else(|error| panic!("{}", error.full()));
    }

    pub async fn query(&mut self, sql: &str) -> String {
        let answer = self.connection.query_text(sql, sql).await;
        answer.unwrap_or_else(|error| panic!("{}", error.full())).unwrap_or_default()
    }

    /// SIGQUIT, SIGINT or SIGKILL to the postmaster, and its end.
    pub fn end(&mut self, signal: Signal) {
        self.connection.close();
        let Some(mut child) = self.child.take() else { return };
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, signal);
        let _ = child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
    }
}

/// Runs a test on a runtime of its own, as the user `postgres` if the tests run as root.
pub fn as_postgres<F: Future<Output = ()>>(test: &str, body: impl FnOnce(PathBuf) -> F) {
    if passed_as_postgres(test) {
        return;
    }
    let directory = tempfile::Builder::new().prefix("pgherd-it-").tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(body(directory.path().to_owned()));
}
