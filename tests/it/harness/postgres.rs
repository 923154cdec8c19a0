//! A throw-away PostgreSQL server: a data directory in a temporary directory, reached through a socket there.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pgherd_agent::guard::{Spawn, scan};
use tempfile::TempDir;

use super::binary;

/// A data directory. Dropped, it kills what still runs there.
pub struct Server {
    /// Holds the data directory, the socket and the log.
    directory: TempDir,
    pub bin_dir: PathBuf,
}

impl Server {
    /// A fresh one, by initdb.
    pub fn new() -> Server {
        let directory = tempfile::Builder::new().prefix("pgherd-it-").tempdir().expect("a temporary directory");
        let server = Server { directory, bin_dir: bin_dir() };
        server.run("initdb", ["--no-sync", "--username=postgres", "--auth=trust", "--pgdata"], &[server.data_dir()]);
        server
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn socket_dir(&self) -> &Path {
        self.directory.path()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// How to start it under a guard.
    pub fn spawn(&self) -> Spawn {
        let log = File::options().create(true).append(true).open(self.directory.path().join("log")).expect("a log");
        let postgres = self.bin_dir.join("postgres");
        let mut spawn = Spawn::new(postgres, self.postgres_args(), self.data_dir());
        spawn.exe = binary::pgherd();
        spawn.stdout = Some(log.try_clone().expect("a descriptor"));
        spawn.stderr = Some(log);
        spawn
    }

    fn postgres_args(&self) -> Vec<OsString> {
        let setting = |name: &str, value: &str| OsString::from(format!("--{name}={value}"));
        vec![
            "-D".into(),
            self.data_dir().into(),
            setting("listen_addresses", ""),
            setting("unix_socket_directories", &self.socket_dir().display().to_string()),
            setting("max_connections", "200"),
            setting("fsync", "off"),
        ]
    }

    /// Starts it as an operator would, with pg_ctl.
    pub fn start_by_hand(&self) {
        let options: Vec<String> = self.postgres_args()[2..].iter().map(|arg| arg.display().to_string()).collect();
        let log = self.directory.path().join("log");
        let options = options.join(" ");
        let data_dir = self.data_dir();
        let args: [&Path; 4] = ["-l".as_ref(), &log, "-o".as_ref(), options.as_ref()];
        self.run("pg_ctl", ["start", "--wait", "--silent", "-D"], &[&[data_dir.as_path()], &args[..]].concat());
    }

    pub fn run<P: AsRef<Path>>(&self, program: &str, words: impl IntoIterator<Item = &'static str>, paths: &[P]) {
        let mut command = Command::new(self.bin_dir.join(program));
        command.args(words).args(paths.iter().map(|path| path.as_ref()));
        // Not captured: pg_ctl's server would hold the pipe open.
        let status = command.stdout(std::process::Stdio::null()).status().expect(program);
        assert!(status.success(), "{program}: {status}\n{}", self.log());
    }

    /// Waits until it takes connections.
    pub async fn connect(&self) -> tokio_postgres::Client {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket_dir()).user("postgres").dbname("postgres");
        let begun = Instant::now();
        loop {
            match config.connect(tokio_postgres::NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return client;
                }
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}\n{}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many processes it has.
    pub fn processes(&self) -> usize {
        scan::processes_of(&self.data_dir()).expect("a scan").len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let scanner = scan::Scanner::new(&self.data_dir()).expect("a data directory");
        let begun = Instant::now();
        while scanner.kill_round().expect("a scan") > 0 && begun.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
    }
}

/// `PGHERD_PG_BIN`, or the newest of the distribution's.
pub fn bin_dir() -> PathBuf {
    if let Some(path) = std::env::var_os("PGHERD_PG_BIN") {
        return path.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("install the package postgresql");
    let newest = versions.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    format!("/usr/lib/postgresql/{}/bin", newest.expect("install the package postgresql")).into()
}
