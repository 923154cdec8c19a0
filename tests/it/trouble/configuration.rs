//! Files that are wrong: nothing is started, and the place of each mistake is told.

use std::path::{Path, PathBuf};

use super::messages;
use crate::harness::agent::{run_agent, run_pgherd};

const AGENT: &str = "scope: batman
name: one
restapi:
  listen: 127.0.0.1:8008
  connect_address: 127.0.0.1:8008
zookeeper:
  hosts: [127.0.0.1:2181]
postgresql:
  listen: 127.0.0.1:5432
  connect_address: 127.0.0.1:5432
  data_dir: /nonexistent/data
  authentication:
    replication: {username: replicator, password: secret}
    superuser: {username: postgres, password: secret}
";

const PROXY: &str = "defaults
    mode tcp
listen postgres
    bind 127.0.0.1:5000
    server one 127.0.0.1:5432 check port 8008
";

/// The file in a directory of its own.
fn written(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("a file");
    (directory, path)
}

fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?}");
    text.replacen(from, to, 1)
}

#[test]
fn a_broken_agent_file_tells_file_line_column_key_and_what_is_expected() {
    let listen = "listen: 127.0.0.1:5432";
    for (from, to, trouble, place) in [
        (listen, "listen: 127.0.0.1:http", &messages::YAML_VALUE, "agent.yml:9:3: postgresql.listen: expected HOST"),
        ("restapi:\n", "restapi: 7\nx:\n", &messages::YAML_VALUE, "agent.yml:3:1: restapi: expected a section"),
        ("scope: batman\n", "", &messages::YAML_MISSING, "scope: required"),
        ("[127.0.0.1:2181]", "[127.0.0.1:2181", &messages::YAML_SYNTAX, "agent.yml:"),
    ] {
        let (_directory, path) = written("agent.yml", &changed(AGENT, from, to));
        let said = trouble.ends(&run_agent(&path));
        assert!(said.contains(place), "{place:?} is missing in\n{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn a_broken_haproxy_cfg_tells_file_and_line_when_checked_and_when_started() {
    for (from, to, place) in [
        ("mode tcp", "mode tpc", "haproxy.cfg:2: `tpc`"),
        ("    server", "    srever", "haproxy.cfg:5: `srever`"),
        ("127.0.0.1:5000", "127.0.0.1:port", "haproxy.cfg:4: `127.0.0.1:port`"),
    ] {
        let (_directory, path) = written("haproxy.cfg", &changed(PROXY, from, to));
        let check: [&Path; 3] = ["proxy".as_ref(), "--check".as_ref(), &path];
        let start: [&Path; 2] = ["proxy".as_ref(), &path];
        for arguments in [&check[..], &start] {
            let said = messages::HAPROXY_CFG.ends(&run_pgherd(arguments));
            assert!(said.contains(place), "{place:?} is missing in\n{said}");
        }
    }
}
