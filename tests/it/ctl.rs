//! The operator's commands beside the real patronictl on one ZooKeeper: what they print must not differ in a byte.
//!
//! `scripts/test-venv.sh` installs patronictl; another one is named with PGHERD_TEST_PATRONICTL. The clusters are
//! keys only (`ctl/clusters.json`), nobody runs. Here those that only show; `changes` has those that ask and change.

mod changes;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::binary::pgherd;
use crate::harness::zookeeper::ZooKeeperServer;

const CLUSTERS: &str = include_str!("ctl/clusters.json");

pub fn patronictl() -> PathBuf {
    let prepared = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-venv/bin/patronictl");
    let path = std::env::var_os("PGHERD_TEST_PATRONICTL").map_or_else(prepared, PathBuf::from);
    assert!(path.exists(), "{} is missing: run scripts/test-venv.sh", path.display());
    path
}

/// Without the configuration and the environment of whoever runs the tests.
fn run(program: &Path, arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().expect("a temporary directory");
    console(program, arguments, home.path()).stdin(Stdio::null()).output().expect("the program starts")
}

fn console(program: &Path, arguments: &[&str], home: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn server_with_clusters() -> ZooKeeperServer {
    let server = ZooKeeperServer::start();
    let python = patronictl().with_file_name("python");
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("ctl/seed.py");
    let mut child =
        Command::new(&python).arg(&seed).arg(server.address()).stdin(Stdio::piped()).spawn().expect("python");
    child.stdin.take().expect("a pipe").write_all(CLUSTERS.as_bytes()).expect("the script reads");
    assert!(child.wait().expect("our own child").success(), "the clusters were not written");
    server
}

/// Runs both with the same arguments and compares standard output and exit code.
fn assert_same(server: &ZooKeeperServer, arguments: &[&str]) {
    let url = format!("zookeeper://{}", server.address());
    let all = [&["-d", url.as_str()], arguments].concat();
    let (theirs, ours) = (run(&patronictl(), &all), run(&pgherd(), &all));
    assert!(theirs.status.success(), "patronictl {arguments:?}: {}", text(&theirs.stderr));
    let (expected, printed) = (text(&theirs.stdout), text(&ours.stdout));
    if let Some((line, (expected, printed))) =
        expected.lines().zip(printed.lines()).enumerate().find(|(_, (one, other))| one != other)
    {
        panic!("{arguments:?}, line {}:\n  patronictl: {expected}\n  pgherd:     {printed}", line + 1);
    }
    assert_eq!(printed, expected, "{arguments:?}: {}", text(&ours.stderr));
    assert_eq!(ours.status.code(), theirs.status.code(), "{arguments:?}");
}

#[test]
fn every_table_is_the_one_of_patronictl() {
    let server = server_with_clusters();
    let clusters: Value = serde_json::from_str(CLUSTERS).expect("the test's own clusters");
    let names: Vec<&str> = clusters.as_object().expect("an object").keys().map(String::as_str).collect();
    for format in ["pretty", "tsv", "json", "yaml"] {
        assert_same(&server, &[&["list", "-f", format], names.as_slice()].concat());
        assert_same(&server, &["history", "hist", "-f", format]);
    }
    assert_same(&server, &["list", "plain", "alpha", "--extended"]);
    assert_same(&server, &["list", "plain", "-e", "-f", "json"]);
    assert_same(&server, &["list", "no-such-cluster"]);
    assert_same(&server, &[&["topology"], names.as_slice()].concat());
    for cluster in ["hist", "alpha", "empty", "no-such-cluster"] {
        assert_same(&server, &["show-config", cluster]);
    }
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let nothing = run(&pgherd(), &["list"]);
    assert!(nothing.status.success(), "{}", text(&nothing.stderr));
    assert!(text(&nothing.stderr).contains("no cluster is named"), "{}", text(&nothing.stderr));
    for (arguments, code, expected) in [
        (&["list", "demo"][..], 1, "Error: no store is configured"),
        (&["-c", "/does/not/exist.yml", "list"], 1, "Error: the configuration file /does/not/exist.yml does not exist"),
        (&["-d", "zookeeper://127.0.0.1:1", "pause"], 1, "Error: no cluster is named"),
        (&["list", "-f", "xml"], 2, "Usage: pgherd list"),
        (&["remove"], 2, "Usage: pgherd remove"),
        (&["flush", "demo", "n1"], 2, "Usage: pgherd flush"),
        (&["dsn", "-r", "king"], 2, "Usage: pgherd dsn"),
        (&["reload", "demo", "--group", "1"], 1, "Error: --group: Citus clusters are not supported"),
        (&["no-such-command"], 2, "Usage: pgherd"),
    ] {
        let output = run(&pgherd(), arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.starts_with(expected), "{arguments:?}: {error}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

#[test]
fn by_patronis_names_it_is_patroni() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let linked = |name: &str| {
        let path = directory.path().join(name);
        std::os::unix::fs::symlink(pgherd(), &path).expect("a new link");
        path
    };
    let (patroni, patronictl) = (linked("patroni"), linked("patronictl"));
    for (program, arguments, code, expected) in [
        (&patroni, &["--version"][..], 0, "patroni 4.1.4\n"),
        (&patroni, &["--help"], 0, "The agent by Patroni's name"),
        (&patroni, &["/does/not/exist.yml"], 1, ""),
        (&patroni, &["one.yml", "another.yml"], 2, "Usage: patroni [OPTIONS] [FILE]"),
        (&patroni, &["--validate-config", "--generate-config"], 2, "Usage: patroni "),
        (&patronictl, &["version"], 0, "patronictl version 4.1.4\n"),
        (&patronictl, &["list", "--foo"], 2, "Usage: patronictl list"),
    ] {
        let output = run(program, arguments);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.starts_with(expected), "{arguments:?}: {said}");
    }
}
