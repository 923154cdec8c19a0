//! A plain Patroni, the real one, around a standby cluster: as the one that is followed, as the one that follows, and as a member.

use serde_json::{Value, json};

use super::remote::streams;
use super::standby_cluster::{NAMES, from_node, insert, is_primary, through_entrypoint};
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;
use crate::harness::site::{Program, Site};

/// As short as Patroni takes them.
fn timing(with: &Value) -> Value {
    let mut timing = json!({"ttl": 20, "loop_wait": 1, "retry_timeout": 3});
    let more = with.as_object().expect("a mapping").clone();
    timing.as_object_mut().expect("a mapping").extend(more);
    timing
}

/// A Patroni that is demoted with its cluster gives the key up, and any member may be the one to lead.
fn whoever_leads(cluster: &Cluster, site: &Site) -> String {
    eventually("one of them is a standby leader that streams", LONG, || {
        let statuses: Vec<_> = site.nodes.iter().map(|node| cluster.status(node)).collect();
        let leads = |status: &Value| status["role"] == "standby_leader" && status["replication_state"] == "streaming";
        let found = site.nodes.iter().zip(&statuses).find(|(_, status)| status.as_ref().is_ok_and(leads));
        found.map(|(node, _)| node.clone()).ok_or_else(|| format!("{statuses:?}"))
    })
}

/// The primary moves from Patroni's cluster to ours and back, in order: nobody loses a row and nobody has to be rewound.
#[test]
fn the_primary_moves_from_a_patroni_cluster_to_ours_and_back() {
    let cluster = Cluster::start(1);
    let north = Site::of(&cluster, "north", &[Program::Patroni, Program::Patroni], &timing(&json!({})));
    let theirs = north.healthy(&cluster, "leader");
    cluster.sql(&theirs, "CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')").expect("a primary");
    let west = Site::start(&cluster, "west", 1, &json!({"standby_cluster": from_node(&cluster, &theirs)}));
    let ours = west.healthy(&cluster, "standby_leader");
    cluster.shows(&ours, NAMES, &["Ulm"]);

    north.configure(&cluster, &json!({"standby_cluster": from_node(&cluster, &ours)}));
    let theirs = whoever_leads(&cluster, &north);
    west.configure(&cluster, &json!({"standby_cluster": null}));
    is_primary(&cluster, &ours);
    insert(&cluster, &ours, "Hof");
    for node in north.nodes.iter().chain(&west.nodes) {
        cluster.shows(node, NAMES, &["Hof", "Ulm"]);
    }

    west.configure(&cluster, &json!({"standby_cluster": from_node(&cluster, &theirs)}));
    streams(&cluster, &ours);
    north.configure(&cluster, &json!({"standby_cluster": null}));
    is_primary(&cluster, &theirs);
    insert(&cluster, &theirs, "Wik");
    for node in north.nodes.iter().chain(&west.nodes) {
        cluster.shows(node, NAMES, &["Hof", "Ulm", "Wik"]);
        let log = cluster.log(node);
        assert!(!log.contains("begin: rewind") && !log.contains("running pg_rewind"), "{node} was rewound\n{log}");
    }
}

/// Patroni makes a standby cluster of ours, through our entrypoint, and follows a switchover and a failover.
#[test]
fn a_patroni_cluster_follows_ours() {
    let cluster = Cluster::start(2);
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    let section = timing(&json!({"standby_cluster": through_entrypoint(&cluster)}));
    let north = Site::of(&cluster, "north", &[Program::Patroni, Program::Patroni], &section);
    north.healthy(&cluster, "standby_leader");
    let first = cluster.leader();
    let output = cluster.ctl(&["switchover", "--leader", &first, "--force"]);
    assert!(text(&output).contains("Successfully switched over"), "{}", text(&output));
    cluster.write("INSERT INTO town VALUES ('Hof')");
    for node in &north.nodes {
        cluster.shows(node, NAMES, &["Hof", "Ulm"]);
    }
    cluster.kill_host(&cluster.another_leader(&first));
    eventually("the cluster has another primary", LONG, || {
        cluster.sql_at(cluster.entry_port(), "INSERT INTO town VALUES ('Wik')")
    });
    for node in &north.nodes {
        cluster.shows(node, NAMES, &["Hof", "Ulm", "Wik"]);
    }
}

/// One agent and one Patroni follow together: each takes over from the other, asked to and when it is lost, and each promotes what it leads.
#[test]
fn a_standby_cluster_has_a_patroni_among_its_members() {
    let cluster = Cluster::start(1);
    let east = cluster.leader();
    cluster.write("CREATE TABLE town (name text)");
    let section = timing(&json!({"standby_cluster": from_node(&cluster, &east)}));
    let west = Site::of(&cluster, "west", &[Program::Pgherd, Program::Patroni], &section);
    let mut leader = west.healthy(&cluster, "standby_leader");
    let mut rows = Vec::new();
    let mut follows = |row: &'static str| {
        insert(&cluster, &east, row);
        rows.push(row);
        rows.sort_unstable();
        west.nodes.iter().for_each(|node| cluster.shows(node, NAMES, &rows));
    };
    follows("Ulm");
    for row in ["Hof", "Wik"] {
        let other = west.nodes.iter().find(|node| **node != leader).expect("two");
        let order = ["switchover", "west", "--leader", &leader, "--candidate", other, "--force"];
        let output = cluster.ctl(&order);
        assert!(text(&output).contains("Successfully switched over"), "{}", text(&output));
        leader = west.another_leader(&cluster, "standby_leader", &leader);
        follows(row);
    }
    for row in ["Zug", "Abo"] {
        let lost = leader.clone();
        cluster.kill_host(&lost);
        leader = west.another_leader(&cluster, "standby_leader", &lost);
        cluster.start_agent(&lost);
        west.healthy(&cluster, "standby_leader");
        follows(row);
    }
    west.configure(&cluster, &json!({"standby_cluster": null}));
    is_primary(&cluster, &leader);
    insert(&cluster, &leader, "Gap");
    for node in &west.nodes {
        cluster.shows(node, NAMES, &["Abo", "Gap", "Hof", "Ulm", "Wik", "Zug"]);
    }
}
