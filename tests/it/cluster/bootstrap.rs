//! A new cluster: one primary, and standbys that have every row and take none.

use crate::harness::cluster::Cluster;

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
