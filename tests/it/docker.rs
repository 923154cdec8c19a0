//! The compose files as a user runs them: the lab with its walk, and three nodes on PostgreSQL 17, with the slots that it carries over by itself. On a machine where no Docker engine
//! answers they are skipped, with a note.
//!
//! `scripts/test-images.sh` has built the images before. Each test has names and ports of its own, so that it disturbs no lab that is up.

use std::collections::BTreeSet;
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
    /// With the passwords, which the compose file reads for as long as the project is there.
    _directory: tempfile::TempDir,
}

impl ThreeNodes {
    fn up(name: &str) -> ThreeNodes {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let environment = directory.path().join("env");
        let passwords = "PATRONI_SUPERUSER_PASSWORD=secret\nPATRONI_REPLICATION_PASSWORD=secret-too\n";
        std::fs::write(&environment, passwords).expect("a file");
        let ports = free_ports();
        let mut down = ThreeNodes::compose(name, &environment, ports);
        down.args(["down", "--volumes", "--timeout", "5"]);
        let nodes = ThreeNodes { project: Project::new(name, down), _directory: directory };
        succeeds(ThreeNodes::compose(name, &environment, ports).args(["up", "-d"]));
        nodes
    }

    fn compose(name: &str, environment: &Path, ports: [u16; 3]) -> Command {
        let mut command = Command::new("docker-compose");
        command
            .current_dir(folder("compose"))
            .args(["--project-name", &format!("pgherd-test-{}-{name}", std::process::id())])
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
    let nodes = ThreeNodes::up("pg17");
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
    nodes.pgherd(&["switchover", "main", "--leader", &second, "--candidate", &first, "--force"]);
    assert_eq!(nodes.leader(2, Some(&second)), first);
}

/// The server's own copies of a logical slot, made and moved by nobody else.
impl ThreeNodes {
    /// An operator's command.
    fn pgherd(&self, words: &[&str]) -> String {
        let words: Vec<&str> = ["pgherd", "-d", "zoo1:2181"].into_iter().chain(words.iter().copied()).collect();
        self.exec("entrypoint", &words).expect("the command succeeds")
    }

    fn names() -> [&'static str; 3] {
        ["pg1", "pg2", "pg3"]
    }

    fn set(&self, parameter: &str) {
        let set = format!("postgresql.parameters.{parameter}");
        self.pgherd(&["edit-config", "main", "--force", "--set", &set]);
    }

    fn shows(&self, node: &str, sql: &str, expected: &str) {
        eventually(&format!("{expected:?} for {sql} on {node}"), LONG, || {
            let found = self.sql(node, 5432, sql)?;
            if found == expected { Ok(()) } else { Err(found) }
        });
    }

    /// Every standby could take the slot over: the server makes it there for a while only, until the consumer has come to where its log begins.
    fn slot_is_carried_over(&self, leader: &str, taken: &mut BTreeSet<i32>) {
        let ready = "SELECT synced AND failover AND NOT temporary AND invalidation_reason IS NULL FROM pg_replication_slots \
                     WHERE slot_name = 'changes'";
        for standby in ThreeNodes::names().into_iter().filter(|name| *name != leader) {
            eventually(&format!("the slot is synchronised on {standby}"), LONG, || {
                self.sql(leader, 5432, "SELECT pg_log_standby_snapshot()")?;
                self.read(taken)?;
                let found = self.sql(standby, 5432, ready)?;
                if found == "t" { Ok(()) } else { Err(found) }
            });
        }
    }

    /// The consumer takes what there is. A server without all the standbys that are to be waited for sends nothing.
    fn read(&self, taken: &mut BTreeSet<i32>) -> Result<(), String> {
        let sql = "SET statement_timeout = '5s'; SELECT data FROM pg_logical_slot_get_changes('changes', NULL, NULL)";
        for change in self.sql("localhost", 5432, sql)?.lines() {
            let number = change.strip_prefix("table public.t: INSERT: x[integer]:");
            taken.extend(number.and_then(|number| number.parse::<i32>().ok()));
        }
        Ok(())
    }

    /// Until it has these rows.
    fn consume(&self, taken: &mut BTreeSet<i32>, rows: i32) {
        eventually("the consumer has every row", LONG, || {
            self.read(taken)?;
            let missing: Vec<i32> = (1..=rows).filter(|row| !taken.contains(row)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are missing")) }
        });
    }

    fn insert(&self, rows: std::ops::RangeInclusive<i32>) {
        let sql = format!("INSERT INTO t SELECT generate_series({}, {})", rows.start(), rows.end());
        self.sql("localhost", 5432, &sql).expect("rows are written");
    }

    fn log(&self, node: &str) -> String {
        let output = Command::new("docker").args(["logs", &self.container(node)]).output().expect("docker runs");
        text(&output)
    }
}

#[test]
fn a_slot_that_postgresql_17_carries_over_loses_no_change_in_docker() {
    if let Some(why) = missing() {
        return notes::skip(why);
    }
    let nodes = ThreeNodes::up("slots17");
    let first = nodes.leader(2, None);
    nodes.set("wal_level=logical");
    nodes.set("synchronized_standby_slots=pg1,pg2,pg3");
    nodes.set("sync_replication_slots=on");
    for node in ThreeNodes::names() {
        nodes.shows(node, "SELECT count(*) FROM pg_settings WHERE name = 'wal_level' AND pending_restart", "1");
    }
    nodes.pgherd(&["restart", "main", "--force"]);
    for node in ThreeNodes::names() {
        nodes.shows(node, "SHOW wal_level", "logical");
        let others: Vec<&str> = ThreeNodes::names().into_iter().filter(|name| *name != node).collect();
        nodes.shows(node, "SHOW synchronized_standby_slots", &others.join(","));
    }
    assert_eq!(nodes.leader(2, None), first);
    nodes.sql("localhost", 5432, "CREATE TABLE t (x int PRIMARY KEY)").expect("a table");
    let create =
        "SELECT slot_name FROM pg_create_logical_replication_slot('changes', 'test_decoding', failover => true)";
    assert_eq!(nodes.sql("localhost", 5432, create).as_deref(), Ok("changes"));

    let mut taken = BTreeSet::new();
    nodes.insert(1..=10);
    nodes.slot_is_carried_over(&first, &mut taken);
    nodes.insert(11..=20);
    let second = *ThreeNodes::names().iter().find(|name| **name != first).expect("a standby");
    nodes.pgherd(&["switchover", "main", "--leader", &first, "--candidate", second, "--force"]);
    assert_eq!(nodes.leader(2, Some(&first)), second);
    nodes.insert(21..=30);
    nodes.consume(&mut taken, 30);

    // The former primary's slot is out of the way, and made anew by the server.
    nodes.slot_is_carried_over(second, &mut taken);
    nodes.insert(31..=40);
    succeeds(Command::new("docker").args(["kill", &nodes.container(second)]));
    let third = nodes.leader(1, Some(second));
    nodes.insert(41..=50);
    succeeds(Command::new("docker").args(["start", &nodes.container(second)]));
    assert_eq!(nodes.leader(2, None), third);
    nodes.consume(&mut taken, 50);
    let rows = nodes.sql("localhost", 5432, "SELECT x FROM t").expect("rows");
    assert_eq!(rows.lines().filter_map(|row| row.parse().ok()).collect::<BTreeSet<i32>>(), taken);
    nodes.slot_is_carried_over(&third, &mut taken);

    for node in ThreeNodes::names() {
        let log = nodes.log(node);
        let of_slot = log.lines().filter(|line| line.contains("replication slot `changes`")).collect::<Vec<_>>();
        let dropped = "dropped the replication slot `changes`, which nobody has used here since another node leads";
        let left_over = of_slot.iter().all(|line| line.contains(dropped));
        assert!(left_over && of_slot.len() <= 1, "{node}: {of_slot:?}");
    }
}
