//! A cluster that follows another one: made as its copy, with a failover of its own, through a failover of the other, promoted, and demoted.

use std::path::Path;

use serde_json::{Value, json};

use crate::ctl::patronictl;
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::site::Site;
use crate::harness::{binary, eventually};

pub const NAMES: &str = "SELECT name FROM town ORDER BY name";

/// Follows whatever the entrypoint of the other cluster leads to.
pub fn through_entrypoint(cluster: &Cluster) -> Value {
    json!({"host": "127.0.0.1", "port": cluster.entry_port()})
}

fn code(cluster: &Cluster, node: &str, path: &str) -> u16 {
    cluster.rest(node, "GET", path, "").expect("an answer").0
}

fn system_id(cluster: &Cluster, node: &str) -> String {
    cluster.sql(node, "SELECT system_identifier FROM pg_control_system()").expect("an answer").remove(0)
}

#[test]
fn a_standby_cluster_is_made_fails_over_and_follows_a_failover_of_the_other() {
    let cluster = Cluster::start(2);
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    let site = Site::start(&cluster, "west", 2, &json!({"standby_cluster": through_entrypoint(&cluster)}));
    let first = site.healthy(&cluster, "standby_leader");
    for node in &site.nodes {
        cluster.shows(node, NAMES, &["Ulm"]);
        assert_eq!(system_id(&cluster, node), system_id(&cluster, "node1"));
        let leads = *node == first;
        for (path, expected) in
            [("/", 503), ("/primary", 503), ("/leader", 200), ("/standby-leader", 200), ("/read-only", 200)]
        {
            let expected = if leads || path == "/read-only" { expected } else { 503 };
            assert_eq!(code(&cluster, node, path), expected, "{path} of {node}");
        }
        assert_eq!(code(&cluster, node, "/replica"), if leads { 503 } else { 200 });
        assert_eq!(cluster.epoch(node), None, "no entrypoint may take it for a primary");
    }

    let second = site.nodes.iter().find(|node| **node != first).expect("another").clone();
    cluster.kill_host(&first);
    assert_eq!(site.another_leader(&cluster, "standby_leader", &first), second);
    cluster.write("INSERT INTO town VALUES ('Hof')");
    cluster.shows(&second, NAMES, &["Hof", "Ulm"]);
    cluster.start_agent(&first);
    site.healthy(&cluster, "standby_leader");

    let old = cluster.leader();
    cluster.kill_host(&old);
    eventually("the other cluster has another primary", LONG, || {
        cluster.sql_at(cluster.entry_port(), "INSERT INTO town VALUES ('Wik')")
    });
    for node in &site.nodes {
        cluster.shows(node, NAMES, &["Hof", "Ulm", "Wik"]);
        assert_eq!(cluster.sql(node, "SELECT pg_is_in_recovery()").expect("an answer"), ["t"]);
    }
}

/// To stream from one node, as by the address of its site.
pub fn from_node(cluster: &Cluster, node: &str) -> Value {
    json!({"host": "127.0.0.1", "port": cluster.node(node).postgres_port})
}

pub fn is_primary(cluster: &Cluster, node: &str) {
    eventually(&format!("{node} is a primary"), LONG, || match cluster.status(node)? {
        status if status["role"] == "primary" && status["state"] == "running" => Ok(()),
        status => Err(status.to_string()),
    });
}

pub fn insert(cluster: &Cluster, node: &str, name: &str) {
    cluster.sql(node, &format!("INSERT INTO town VALUES ('{name}')")).expect("a primary");
}

/// The primary moves to the other site and back, in order: nobody loses a row and nobody has to be rewound or copied.
#[test]
fn the_primary_moves_to_the_other_site_and_back() {
    let cluster = Cluster::start(2);
    let east = cluster.leader();
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    let site = Site::start(&cluster, "west", 2, &json!({"standby_cluster": from_node(&cluster, &east)}));
    let west = site.healthy(&cluster, "standby_leader");
    cluster.shows(&west, NAMES, &["Ulm"]);
    cluster.write("INSERT INTO town VALUES ('Hof')");

    cluster.configure(&json!({"standby_cluster": from_node(&cluster, &west)}));
    eventually("the primary has become the standby leader", LONG, || match cluster.status(&east)? {
        status if status["role"] == "standby_leader" && status["replication_state"] == "streaming" => Ok(()),
        status => Err(status.to_string()),
    });
    assert_eq!(code(&cluster, &east, "/primary"), 503);
    assert_eq!(cluster.epoch(&east), None, "the entrypoint must not lead to a standby");
    site.configure(&cluster, &json!({"standby_cluster": null}));
    is_primary(&cluster, &west);
    insert(&cluster, &west, "Wik");
    for node in site.nodes.iter().chain(&["node1".to_owned(), "node2".to_owned()]) {
        cluster.shows(node, NAMES, &["Hof", "Ulm", "Wik"]);
    }

    site.configure(&cluster, &json!({"standby_cluster": from_node(&cluster, &east)}));
    eventually("the other site follows again", LONG, || match cluster.status(&west)? {
        status if status["role"] == "standby_leader" && status["replication_state"] == "streaming" => Ok(()),
        status => Err(status.to_string()),
    });
    cluster.configure(&json!({"standby_cluster": null}));
    is_primary(&cluster, &east);
    eventually("the entrypoint leads to it", LONG, || {
        cluster.sql_at(cluster.entry_port(), "INSERT INTO town VALUES ('Zug')")
    });
    for node in site.nodes.iter().chain(&["node1".to_owned(), "node2".to_owned()]) {
        cluster.shows(node, NAMES, &["Hof", "Ulm", "Wik", "Zug"]);
        let log = cluster.log(node);
        assert!(!log.contains("begin: rewind"), "{node} was rewound\n{log}");
    }
}

/// The other site is promoted while this one is cut off from it and goes on: what it has written alone is given up by a rewind.
#[test]
fn a_cluster_that_has_gone_on_alone_is_demoted_by_a_rewind() {
    let cluster = Cluster::start(2);
    let east = cluster.leader();
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    let site = Site::start(&cluster, "west", 1, &json!({"standby_cluster": through_entrypoint(&cluster)}));
    let west = site.healthy(&cluster, "standby_leader");
    cluster.shows(&west, NAMES, &["Ulm"]);
    site.configure(&cluster, &json!({"standby_cluster": null}));
    is_primary(&cluster, &west);
    insert(&cluster, &west, "Wik");
    cluster.write("INSERT INTO town SELECT 'lost ' || n FROM generate_series(1, 1000) n");

    cluster.configure(&json!({"standby_cluster": from_node(&cluster, &west)}));
    for node in ["node1", "node2"] {
        cluster.shows(node, NAMES, &["Ulm", "Wik"]);
    }
    assert!(cluster.log(&east).contains("rewind done"), "{}", cluster.log(&east));
    insert(&cluster, &west, "Hof");
    for node in ["node1", "node2"] {
        cluster.shows(node, NAMES, &["Hof", "Ulm", "Wik"]);
    }
}

/// Without a connection between the two sites: all that goes from one to the other is the archive, also the end of the demoted primary's log.
#[test]
fn a_standby_cluster_lives_by_the_archive_and_gets_the_last_record_of_a_demoted_one() {
    let cluster = Cluster::start(2);
    let east = cluster.leader();
    let restore = super::cascading::archive(&cluster);
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    let site = Site::start(&cluster, "west", 1, &json!({"standby_cluster": through_entrypoint(&cluster)}));
    let west = site.healthy(&cluster, "standby_leader");
    site.configure(&cluster, &json!({"standby_cluster": {"host": null, "port": null, "restore_command": restore}}));
    cluster.shows(&west, "SELECT current_setting('primary_conninfo')", &[""]);
    cluster.write("INSERT INTO town VALUES ('Hof')");
    cluster.sql(&east, "SELECT pg_switch_wal()").expect("a primary");
    cluster.shows(&west, NAMES, &["Hof", "Ulm"]);
    assert_eq!(code(&cluster, &west, "/standby-leader"), 200);

    cluster.write("INSERT INTO town VALUES ('Wik')");
    cluster.configure(&json!({"standby_cluster": {"restore_command": "false"}}));
    cluster.shows(&west, NAMES, &["Hof", "Ulm", "Wik"]);
    eventually("the last record is archived", LONG, || match cluster.log(&east) {
        log if log.contains("with the shutdown checkpoint") => Ok(()),
        log => Err(log),
    });
    site.configure(&cluster, &json!({"standby_cluster": null}));
    is_primary(&cluster, &west);
    insert(&cluster, &west, "Zug");
    // The demoted one has nothing that the promoted one lacks.
    cluster.configure(&json!({"standby_cluster": from_node(&cluster, &west)}));
    cluster.shows(&east, NAMES, &["Hof", "Ulm", "Wik", "Zug"]);
    assert!(!cluster.log(&east).contains("begin: rewind"), "{}", cluster.log(&east));
}

/// The commands for it, ours and the real patronictl's, on the same clusters; and what they show of a standby cluster.
#[test]
fn whole_clusters_are_demoted_and_promoted_by_commands() {
    let cluster = Cluster::start(2);
    let east = cluster.leader();
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    let site = Site::start(&cluster, "west", 2, &json!({"standby_cluster": from_node(&cluster, &east)}));
    let west = site.healthy(&cluster, "standby_leader");
    let last = site.nodes.iter().find(|node| **node != west).expect("another");
    cluster.tag(last, &json!({"replicatefrom": west, "clonefrom": true, "noloadbalance": true}));
    cluster.shows(last, NAMES, &["Ulm"]);
    let shown = |program: &Path, command: &str| {
        let output = cluster.ctl_by(program, &[command, "west", "-f", "tsv"]);
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    eventually("both show the same, with the tags", LONG, || {
        let (ours, theirs) = (shown(&binary::pgherd(), "list"), shown(&patronictl(), "list"));
        let whole = ours.contains("Standby Leader\tstreaming") && ours.contains("replicatefrom");
        if ours == theirs && whole { Ok(()) } else { Err(format!("{ours}\n{theirs}")) }
    });

    let port = cluster.node(&west).postgres_port.to_string();
    let demote = ["demote-cluster", "demo", "--host", "127.0.0.1", "--port", &port, "--force"];
    let output = cluster.ctl(&demote);
    assert!(output.status.success() && text(&output).contains("cluster is successfully demoted"), "{}", text(&output));
    let output = cluster.ctl_by(&patronictl(), &["promote-cluster", "west", "--force"]);
    assert!(output.status.success() && text(&output).contains("cluster is successfully promoted"), "{}", text(&output));
    insert(&cluster, &west, "Hof");
    cluster.shows(&east, NAMES, &["Hof", "Ulm"]);

    let port = cluster.node(&east).postgres_port.to_string();
    let demote = ["demote-cluster", "west", "--host", "127.0.0.1", "--port", &port, "--force"];
    let output = cluster.ctl_by(&patronictl(), &demote);
    assert!(output.status.success() && text(&output).contains("cluster is successfully demoted"), "{}", text(&output));
    let output = cluster.ctl_with(&["promote-cluster", "demo"], "y\n");
    assert!(output.status.success() && text(&output).contains("cluster is successfully promoted"), "{}", text(&output));
    insert(&cluster, &east, "Wik");
    cluster.shows(last, NAMES, &["Hof", "Ulm", "Wik"]);
    let output = cluster.ctl(&["promote-cluster", "demo", "--force"]);
    assert_eq!(text(&output), "Error: Cluster is already in the required state\n");
}

/// Whom commits wait for is forgotten while another cluster is followed, and begins anew.
#[test]
fn a_synchronous_cluster_is_demoted_and_promoted_again() {
    let cluster = Cluster::start(2);
    let east = cluster.leader();
    cluster.configure(&json!({"synchronous_mode": true, "synchronous_mode_strict": true}));
    let synchronous = |node: &str| {
        eventually(&format!("commits on {node} wait for the other"), LONG, || {
            let states =
                cluster.sql(node, "SELECT sync_state FROM pg_stat_replication WHERE application_name LIKE 'node_'")?;
            if states == ["sync"] { Ok(()) } else { Err(format!("{states:?}")) }
        });
    };
    synchronous(&east);
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    let site = Site::start(&cluster, "west", 1, &json!({"standby_cluster": from_node(&cluster, &east)}));
    let west = site.healthy(&cluster, "standby_leader");
    cluster.shows(&west, NAMES, &["Ulm"]);
    cluster.configure(&json!({"standby_cluster": from_node(&cluster, &west)}));
    eventually("the primary has become the standby leader", LONG, || match cluster.status(&east)? {
        status if status["role"] == "standby_leader" && status["replication_state"] == "streaming" => Ok(()),
        status => Err(status.to_string()),
    });
    site.configure(&cluster, &json!({"standby_cluster": null}));
    is_primary(&cluster, &west);
    insert(&cluster, &west, "Hof");
    cluster.shows(&east, NAMES, &["Hof", "Ulm"]);
    eventually("the other cluster's log has been followed for long enough", LONG, || match cluster.log(&east) {
        log if log.contains("rule=\"SyncOff\"") => Ok(()),
        log => Err(log),
    });
    site.configure(&cluster, &json!({"standby_cluster": from_node(&cluster, &east)}));
    cluster.configure(&json!({"standby_cluster": null}));
    is_primary(&cluster, &east);
    synchronous(&east);
    eventually("the entrypoint leads to it", LONG, || {
        cluster.sql_at(cluster.entry_port(), "INSERT INTO town VALUES ('Wik')")
    });
    for node in ["node1", "node2", &west] {
        cluster.shows(node, NAMES, &["Hof", "Ulm", "Wik"]);
    }
}

/// A host that cannot be reached and a section without one: what is wrong is said, nothing is made, and corrected it goes on.
#[test]
fn a_standby_cluster_that_cannot_be_copied_says_why_and_waits() {
    let cluster = Cluster::start(1);
    let nobody = crate::harness::ports::free_port();
    let site = Site::start(&cluster, "west", 1, &json!({"standby_cluster": {"host": "127.0.0.1", "port": nobody}}));
    let west = &site.nodes[0];
    let logs = |words: &str| {
        eventually(&format!("{west} says {words:?}"), LONG, || match cluster.log(west) {
            log if log.contains(words) => Ok(()),
            log => Err(log),
        });
    };
    logs("is that server up, does it listen on this address");
    assert!(cluster.postmaster(west).is_none());
    site.begin_with(&cluster, west, &json!({"standby_cluster": {"restore_command": "false"}}));
    logs("standby_cluster names no host whose data could be copied");
    let right = from_node(&cluster, "node1");
    site.begin_with(&cluster, west, &json!({"standby_cluster": right}));
    site.healthy(&cluster, "standby_leader");
    // What is no port changes nothing.
    site.configure(&cluster, &json!({"standby_cluster": {"port": "nonsense"}}));
    logs("standby_cluster.port");
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    cluster.shows(west, NAMES, &["Ulm"]);
    site.configure(&cluster, &json!({"standby_cluster": {"port": right["port"], "primary_slot_name": "missing"}}));
    logs("replication slot \"missing\" does not exist");
    site.configure(&cluster, &json!({"standby_cluster": {"primary_slot_name": null}}));
    cluster.write("INSERT INTO town VALUES ('Hof')");
    cluster.shows(west, NAMES, &["Hof", "Ulm"]);
}
