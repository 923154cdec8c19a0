//! The compose files as a user runs them: the lab with its walk, and three nodes on PostgreSQL 17. On a machine where no Docker engine
//! answers they are skipped, with a note.
//!
//! `scripts/test-images.sh` has built the images before. Each test has names and ports of its own, so that it disturbs no lab that is up.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::harness::cluster::text;
use crate::harness::ports::free_ports;
use crate::harness::{eventually, notes};

/// Containers are started and stopped, and leases run out.
const LONG: Duration = Duration::from_secs(120);

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

/// Why these tests cannot run here.
fn missing() -> Option<&'static str> {
    let answers = |program: &str, argument: &str| {
        let mut command = Command::new(program);
        command.arg(argument).stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
    };
    if !answers("docker", "info") {
        return Some("no Docker engine answers (docker info)");
    }
    (!answers("docker-compose", "version")).then_some("there is no docker-compose")
}

/// A compose project of one test, taken down with its volumes when the test is over.
struct Project {
    prefix: String,
    down: Command,
}

impl Project {
    fn new(name: &str, down: Command) -> Project {
        Project { prefix: format!("pgherd-test-{}-{name}-", std::process::id()), down }
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let output = self.down.output().expect("docker-compose runs");
        if !std::thread::panicking() {
            assert!(output.status.success(), "the project does not end\n{}", text(&output));
        }
    }
}

fn succeeds(command: &mut Command) -> String {
    let output: Output = command.stdin(Stdio::null()).output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_lab_is_walked_through_in_docker() {
    if let Some(why) = missing() {
        return notes::skip(why);
    }
    let [entry, stats] = free_ports();
    let script = |name: &str| {
        let mut command = Command::new(folder("lab").join(name));
        command
            .env("LAB_PREFIX", format!("pgherd-test-{}-lab-", std::process::id()))
            .env("LAB_PORT", entry.to_string())
            .env("LAB_STATS_PORT", stats.to_string())
            .env("LAB_IMAGE", "pgherd-test-lab")
            .env("LAB_BINARY", "target/debug/pgherd");
        command
    };
    let mut down = script("lab.sh");
    down.arg("down");
    let project = Project::new("lab", down);
    let up = succeeds(script("lab.sh").arg("up"));
    assert!(up.contains("streaming") && up.contains(&format!("psql -h localhost -p {entry}")), "{up}");

    let walk = succeeds(&mut script("walk.sh"));
    for part in [
        "Step 4",
        "cannot execute UPDATE in a read-only transaction",
        "503 Service Unavailable",
        "$ docker stop",
        "$ docker kill",
        "$ docker pause",
        "$ docker network disconnect",
        "takes writes",
        "=== Done",
    ] {
        assert!(walk.contains(part), "{part:?} is missing in\n{walk}");
    }
    let writers: Vec<&str> = walk.lines().filter(|line| line.starts_with("the writer: ")).collect();
    assert_eq!(writers.len(), 4, "{walk}");
    // An orderly stop loses nothing; a replica that streams within milliseconds may miss the last row of the others.
    assert!(writers[0].contains(" 0 of them lost"), "{walk}");
    notes::note(&format!("the lab in Docker:\n  {}\n", writers.join("\n  ")));

    // The page is published on the host, the agents' REST API is not.
    let node = format!("{}pg-master", project.prefix);
    assert_eq!(succeeds(Command::new("docker").args(["port", &node])), "");
    let page = fetch(stats);
    assert!(page.contains("postgresql_pg_master_5432"), "{page}");
}

fn fetch(port: u16) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().expect("a client");
        let answer = client.get(format!("http://127.0.0.1:{port}/")).send().await.expect("the page answers");
        answer.text().await.expect("a text")
    })
}

/// The three nodes of `deploy/compose`, on PostgreSQL 17 of Debian 13.
struct ThreeNodes {
    project: Project,
}

impl ThreeNodes {
    fn compose(environment: &Path, ports: [u16; 3]) -> Command {
        let mut command = Command::new("docker-compose");
        command
            .current_dir(folder("compose"))
            .args(["--project-name", &format!("pgherd-test-{}-pg17", std::process::id())])
            .args(["-f", "docker-compose.yml", "-f", "postgresql-17.yml"])
            .env("NODE_IMAGE", "pgherd-test-node-17")
            .env("ENV_FILE", environment)
            .env("ENTRY_PORT", ports[0].to_string())
            .env("READ_PORT", ports[1].to_string())
            .env("STATS_PORT", ports[2].to_string());
        command
    }

    /// In the container of a service.
    fn exec(&self, service: &str, words: &[&str]) -> Result<String, String> {
        let container = self.container(service);
        let mut command = Command::new("docker");
        command.args(["exec", "-e", "PGPASSWORD=secret", "-e", "PGCONNECT_TIMEOUT=40", &container]).args(words);
        let output = command.stdin(Stdio::null()).output().expect("docker runs");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(text(&output)),
        }
    }

    fn container(&self, service: &str) -> String {
        format!("{}_{service}_1", self.project.prefix.trim_end_matches('-'))
    }

    fn sql(&self, host: &str, port: u16, sql: &str) -> Result<String, String> {
        let port = port.to_string();
        self.exec("entrypoint", &["psql", "-qtA", "-h", host, "-p", &port, "-U", "postgres", "-c", sql])
    }

    /// The leader, once it runs and so many others stream; not `lost`, whose keys outlive it for a while.
    fn leader(&self, streaming: usize, lost: Option<&str>) -> String {
        eventually(&format!("a leader and {streaming} standbys"), LONG, || {
            let table = self.exec("entrypoint", &["pgherd", "-d", "zoo1:2181", "list", "main", "-f", "tsv"])?;
            let members = || table.lines().map(|line| line.split('\t').collect::<Vec<_>>());
            let standbys = members().filter(|member| member.get(4) == Some(&"streaming")).count();
            let leader = members().find(|member| member.get(3) == Some(&"Leader") && member.get(4) == Some(&"running"));
            match leader {
                Some(leader) if standbys == streaming && Some(leader[1]) != lost => Ok(leader[1].to_owned()),
                _ => Err(table.clone()),
            }
        })
    }
}

#[test]
fn three_nodes_on_postgresql_17_fail_over_in_docker() {
    if let Some(why) = missing() {
        return notes::skip(why);
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let environment = directory.path().join("env");
    let passwords = "PATRONI_SUPERUSER_PASSWORD=secret\nPATRONI_REPLICATION_PASSWORD=secret-too\n";
    std::fs::write(&environment, passwords).expect("a file");
    let ports = free_ports();
    let mut down = ThreeNodes::compose(&environment, ports);
    down.args(["down", "--volumes", "--timeout", "5"]);
    let nodes = ThreeNodes { project: Project::new("pg17", down) };
    succeeds(ThreeNodes::compose(&environment, ports).args(["up", "-d"]));
    let first = nodes.leader(2, None);
    let version = nodes.sql("localhost", 5432, "SHOW server_version_num").expect("the entrypoint serves a primary");
    assert!(version.starts_with("17"), "{version}");
    nodes.sql("localhost", 5432, "CREATE TABLE t (x int)").expect("a table");
    nodes.sql("localhost", 5432, "INSERT INTO t VALUES (1)").expect("a row");
    eventually("the row on a standby, through the other port", LONG, || {
        let row = nodes.sql("localhost", 5433, "SELECT x, pg_is_in_recovery() FROM t")?;
        if row == "1|t" { Ok(()) } else { Err(row) }
    });

    succeeds(Command::new("docker").args(["kill", &nodes.container(&first)]));
    let second = nodes.leader(1, Some(&first));
    assert_eq!(nodes.sql("localhost", 5432, "INSERT INTO t VALUES (2) RETURNING x").as_deref(), Ok("2"));
    succeeds(Command::new("docker").args(["start", &nodes.container(&first)]));
    assert_eq!(nodes.leader(2, None), second);
    eventually("all rows on the node that is back", LONG, || {
        let rows = nodes.sql(&first, 5432, "SELECT count(*) FROM t")?;
        if rows == "2" { Ok(()) } else { Err(rows) }
    });
    // A planned change, and the node that was lost leads again.
    let store = "zoo1:2181";
    let words = ["pgherd", "-d", store, "switchover", "main", "--leader", &second, "--candidate", &first, "--force"];
    nodes.exec("entrypoint", &words).expect("a switchover");
    assert_eq!(nodes.leader(2, Some(&second)), first);
}
