//! A new cluster: one primary, and standbys that have every row and take none.

use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::harness::site::Site;

#[test]
fn a_row_written_through_the_entrypoint_is_read_on_every_replica_and_written_on_none() {
    let cluster = Cluster::start(3);
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    let replicas = cluster.replicas();
    assert_eq!(replicas.len(), 2);
    for replica in &replicas {
        cluster.shows(replica, "SELECT name FROM town", &["Ulm"]);
        let refused = cluster.sql(replica, "INSERT INTO town VALUES ('Hof')").expect_err("a standby is read-only");
        assert!(refused.starts_with("25006"), "{refused}");
        assert_eq!(cluster.rest(replica, "GET", "/replica", "").expect("an answer").0, 200);
        assert_eq!(cluster.rest(replica, "GET", "/primary", "").expect("an answer").0, 503);
    }
    let leader = cluster.leader();
    assert_eq!(cluster.rest(&leader, "GET", "/primary", "").expect("an answer").0, 200);
    cluster.shows(&leader, "SELECT name FROM town", &["Ulm"]);
    // Every standby streams through a slot of its own.
    cluster.shows(&leader, "SELECT count(*) FROM pg_replication_slots WHERE active", &["2"]);
    print_memory(&cluster);
}

/// What agent and guard take. Only a release build says something (README); here it is only shown.
fn print_memory(cluster: &Cluster) {
    for node in cluster.nodes() {
        let agent = node.agent.share_of_memory();
        let guard = cluster.guard(&node.name).and_then(|guard| guard.share_of_memory());
        println!("{}: agent {agent:?} kB, guard {guard:?} kB (PSS, this build)", node.name);
    }
}

#[test]
fn every_server_has_a_guard_of_its_own_as_its_parent() {
    let cluster = Cluster::start(2);
    let guards: Vec<_> = cluster.nodes().iter().filter_map(|node| cluster.guard(&node.name)).collect();
    assert_eq!(guards.len(), 2);
    assert_ne!(guards[0], guards[1]);
}

/// What cannot be read counts as not given and is told with its place; it is stored as it was written, where it can be corrected.
#[test]
fn bad_values_in_bootstrap_dcs_do_not_keep_a_cluster_from_being_made() {
    let cluster = Cluster::start(1);
    let bad = json!({
        "ttl": "soon",
        "loop_wait": -1,
        "synchronous_mode": "perhaps",
        "maximum_lag_on_failover": "much",
        "slots": ["not", "a", "mapping"],
        "postgresql": {"parameters": {"max_connections": "many", "work_mem": "nonsense", "maintenance_work_mem": "70MB"}},
    });
    let site = Site::start(&cluster, "west", 2, &bad);
    let leader = site.healthy(&cluster, "leader");
    for (setting, value) in [("max_connections", "100"), ("work_mem", "4MB"), ("maintenance_work_mem", "70MB")] {
        cluster.shows(&leader, &format!("SHOW {setting}"), &[value]);
    }
    let (_, stored) = cluster.rest(&leader, "GET", "/config", "").expect("an answer");
    assert_eq!(serde_json::from_str::<Value>(&stored).expect("JSON"), bad);
    let log = cluster.log(&leader);
    for key in ["ttl", "loop_wait", "synchronous_mode", "maximum_lag_on_failover", "slots"] {
        assert!(log.contains(&format!("bootstrap.dcs.{key}: expected ")), "{key} in {log}");
    }
    for parameter in ["max_connections", "work_mem"] {
        assert!(log.lines().any(|line| line.contains("WARN") && line.contains(parameter)), "{parameter} in {log}");
    }
    site.configure(&cluster, &json!({"postgresql": {"parameters": {"work_mem": "5MB"}}}));
    cluster.shows(&leader, "SHOW work_mem", &["5MB"]);
}
