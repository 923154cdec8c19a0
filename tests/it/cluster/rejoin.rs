//! A primary is lost with rows that nobody else has, and comes back to a cluster that has gone on without them.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::cluster::{Cluster, LONG};
use crate::harness::cut::Cut;
use crate::harness::eventually;
use crate::harness::process::Process;

const NAMES: &str = "SELECT name FROM town ORDER BY name";

/// The former primary, down, with rows of its own; the new one has others.
fn diverge(cluster: &Cluster) -> (String, String) {
    let old = cluster.leader();
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    for replica in cluster.replicas() {
        cluster.shows(&replica, NAMES, &["Ulm"]);
    }
    // What is written now reaches nobody.
    for pid in cluster.sql(&old, "SELECT pid FROM pg_stat_replication").expect("an answer") {
        Process::of(pid.parse().expect("a pid")).expect("a walsender").freeze();
    }
    cluster.sql(&old, "INSERT INTO town SELECT 'lost ' || n FROM generate_series(1, 1000) n").expect("a primary");
    cluster.kill_host(&old);
    let new = cluster.another_leader(&old);
    cluster.write("INSERT INTO town VALUES ('Hof')");
    (old, new)
}

/// Everything that the new primary has, and nothing else.
fn assert_equal(cluster: &Cluster, old: &str, new: &str) {
    cluster.wait_healthy();
    assert_eq!(cluster.leader(), new);
    cluster.shows(old, NAMES, &["Hof", "Ulm"]);
    cluster.shows(new, NAMES, &["Hof", "Ulm"]);
    cluster.write("INSERT INTO town VALUES ('Wik')");
    cluster.shows(old, NAMES, &["Hof", "Ulm", "Wik"]);
}

#[test]
fn a_diverged_primary_comes_back_by_pg_rewind() {
    let cluster = Cluster::start(3);
    cluster.configure(&json!({"postgresql": {"use_pg_rewind": true}}));
    let (old, new) = diverge(&cluster);
    cluster.start_agent(&old);
    assert_equal(&cluster, &old, &new);
    let log = cluster.log(&old);
    assert!(log.contains("rewind done") && !log.contains("base backup of"), "it was not rewound\n{log}");
}

#[test]
fn without_pg_rewind_a_diverged_primary_is_copied_anew() {
    let cluster = Cluster::start(2);
    cluster.configure(&json!({"postgresql": {"use_pg_rewind": false}}));
    let (old, new) = diverge(&cluster);
    cluster.start_agent(&old);
    assert_equal(&cluster, &old, &new);
    let log = cluster.log(&old);
    assert!(log.contains("base backup of") && !log.contains("rewind done"), "it was not copied\n{log}");
}

#[test]
fn a_former_primary_archives_what_nobody_else_will() {
    let cluster = Cluster::start(2);
    let (open, archive) = (cluster.directory().join("open"), cluster.directory().join("archive"));
    std::fs::create_dir(&archive).expect("a directory");
    std::fs::set_permissions(&archive, PermissionsExt::from_mode(0o777)).expect("its mode can be set");
    let command = format!("test -e {} && cp %p {}/%f", open.display(), archive.display());
    cluster.configure(&json!({"postgresql": {"parameters": {"archive_mode": "on", "archive_command": command}}}));
    let leader = cluster.leader();
    eventually("the setting waits for a restart", LONG, || match cluster.status(&leader)? {
        status if status["pending_restart"] == true => Ok(()),
        other => Err(other.to_string()),
    });
    let (status, text) = cluster.rest(&leader, "POST", "/restart", "{}").expect("an answer");
    assert_eq!(status, 200, "{text}");
    cluster.wait_healthy();
    let segment = cluster.sql(&leader, "SELECT pg_walfile_name(pg_switch_wal())").expect("a primary").remove(0);
    let (old, new) = diverge(&cluster);
    assert_eq!(old, leader);
    std::fs::write(&open, "").expect("a file");
    cluster.start_agent(&old);
    assert_equal(&cluster, &old, &new);
    let log = cluster.log(&old);
    let (archived, rewound) = (log.find(&format!("archived the log file {segment}")), log.find("rewind done"));
    assert!(archived.is_some() && archived < rewound, "{log}");
    assert!(archive.join(segment).exists());
}

/// Whatever is half done is never started, and is replaced by a copy.
fn a_rewind_that_dies_at(word: &str) {
    let cluster = Cluster::start(2);
    cluster.configure(&json!({"postgresql": {"use_pg_rewind": true}}));
    let (old, new) = diverge(&cluster);
    let data_dir = cluster.node(&old).data_dir;
    Cut::install(&cluster, &old, "pg_rewind").at(&cluster, &old, word);
    assert!(cluster.postmaster(&old).is_none() && data_dir.join("pgherd.incomplete").symlink_metadata().is_ok());
    cluster.start_agent(&old);
    assert_equal(&cluster, &old, &new);
    let log = cluster.log(&old);
    assert!(log.contains("base backup of") && !log.contains("rewind done"), "it was not copied\n{log}");
}

#[test]
fn a_rewind_that_dies_before_it_begins_is_made_good_by_a_copy() {
    a_rewind_that_dies_at("servers diverged");
}

#[test]
fn a_rewind_that_dies_in_the_middle_is_made_good_by_a_copy() {
    a_rewind_that_dies_at("need to copy");
}

#[test]
fn a_rewind_that_dies_at_its_end_is_made_good_by_a_copy() {
    a_rewind_that_dies_at("its end");
}

#[test]
fn copies_that_die_at_every_step_are_made_again() {
    let cluster = Cluster::start(2);
    cluster.configure(&json!({"postgresql": {"use_pg_rewind": false}}));
    let (old, new) = diverge(&cluster);
    let cut = Cut::install(&cluster, &old, "pg_basebackup");
    for word in ["its start", " kB (", "its end"] {
        cut.at(&cluster, &old, word);
        assert!(cluster.postmaster(&old).is_none());
    }
    cluster.start_agent(&old);
    assert_equal(&cluster, &old, &new);
}

#[test]
fn a_replica_is_made_anew_on_request_and_the_leader_is_not() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let (status, text) = cluster.rest(&leader, "POST", "/reinitialize", r#"{"force": true}"#).expect("an answer");
    assert_eq!((status, text.as_str()), (503, "I am the leader, can not reinitialize"));
    cluster.reinitialize(&replica, &json!({"force": true}));
    cluster.wait_healthy();
    cluster.write("CREATE TABLE after AS SELECT 1 AS number");
    cluster.shows(&replica, "SELECT number FROM after", &["1"]);
}
