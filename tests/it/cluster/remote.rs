//! How a standby cluster reaches the cluster that it follows: through an entrypoint, at one of several addresses, or by its archive alone.

use serde_json::json;

use super::cascading::archive;
use super::own_bootstrap::back_up;
use super::standby_cluster::{NAMES, from_node, insert, is_primary, through_entrypoint};
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;
use crate::harness::ports::free_port;
use crate::harness::script::Script;
use crate::harness::site::Site;

/// Waits until a node leads a standby cluster that streams.
pub fn streams(cluster: &Cluster, node: &str) {
    eventually(&format!("{node} is a standby leader that streams"), LONG, || match cluster.status(node)? {
        status if status["role"] == "standby_leader" && status["replication_state"] == "streaming" => Ok(()),
        status => Err(status.to_string()),
    });
}

/// Waits until this stands in a node's log, which its server shares, as often as this.
fn logs(cluster: &Cluster, node: &str, words: &str, times: usize) {
    eventually(&format!("{node} says {words:?}"), LONG, || match cluster.log(node) {
        log if log.matches(words).count() >= times => Ok(()),
        log => Err(log),
    });
}

/// The entrypoint ends clients' sessions at once when the primary is stopped, and lets those that replicate have its last record.
#[test]
fn what_follows_through_the_entrypoint_gets_the_last_record_of_a_switchover_and_of_a_demotion() {
    const ENDED: &str = "replication terminated by primary server";
    let cluster = Cluster::start(2);
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    let site = Site::start(&cluster, "west", 1, &json!({"standby_cluster": through_entrypoint(&cluster)}));
    let west = site.healthy(&cluster, "standby_leader");
    cluster.shows(&west, NAMES, &["Ulm"]);
    let first = cluster.leader();
    let output = cluster.ctl(&["switchover", "--leader", &first, "--force"]);
    assert!(text(&output).contains("Successfully switched over"), "{}", text(&output));
    logs(&cluster, &west, ENDED, 1);
    cluster.write("INSERT INTO town VALUES ('Hof')");
    cluster.shows(&west, NAMES, &["Hof", "Ulm"]);

    let east = cluster.another_leader(&first);
    cluster.configure(&json!({"standby_cluster": from_node(&cluster, &west)}));
    streams(&cluster, &east);
    logs(&cluster, &west, ENDED, 2);
    let last = |node: &str| cluster.sql(node, "SELECT pg_last_wal_replay_lsn()::text").expect("a standby");
    assert_eq!(last(&west), last(&east), "all that the former primary has written is there");
    site.configure(&cluster, &json!({"standby_cluster": null}));
    is_primary(&cluster, &west);
    insert(&cluster, &west, "Wik");
    for node in [&west, &first, &east] {
        cluster.shows(node, NAMES, &["Hof", "Ulm", "Wik"]);
        let log = cluster.log(node);
        assert!(!log.contains("begin: rewind"), "{node} was rewound\n{log}");
    }
}

/// As libpq takes them: the first that answers, and where a slot is used, which the primary has, the first that takes writes.
#[test]
fn of_several_hosts_the_first_that_will_do_is_followed() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    cluster.configure(&json!({"slots": {"west": {"type": "physical"}}}));
    cluster.shows(&leader, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'west'", &["1"]);
    let two = |first: u16, second: u16| json!({"host": "127.0.0.1,127.0.0.1", "port": format!("{first},{second}")});
    let port = |node: &str| cluster.node(node).postgres_port;
    let site = Site::start(&cluster, "west", 1, &json!({"standby_cluster": two(free_port(), port(&leader))}));
    let west = site.healthy(&cluster, "standby_leader");
    let feeds = |node: &str| {
        let sql = "SELECT application_name FROM pg_stat_replication WHERE application_name LIKE 'west%'";
        cluster.shows(node, sql, &[&west]);
    };
    cluster.shows(&west, NAMES, &["Ulm"]);
    feeds(&leader);
    site.configure(&cluster, &json!({"standby_cluster": two(port(&replica), port(&leader))}));
    feeds(&replica);
    site.configure(&cluster, &json!({"standby_cluster": {"primary_slot_name": "west"}}));
    feeds(&leader);
    cluster.shows(&leader, "SELECT active::text FROM pg_replication_slots WHERE slot_name = 'west'", &["true"]);
    cluster.write("INSERT INTO town VALUES ('Hof')");
    cluster.shows(&west, NAMES, &["Hof", "Ulm"]);
    // The primary is lost: there is the same slot on the other.
    cluster.kill_host(&leader);
    eventually("the other cluster has another primary", LONG, || {
        cluster.sql_at(cluster.entry_port(), "INSERT INTO town VALUES ('Wik')")
    });
    cluster.shows(&west, NAMES, &["Hof", "Ulm", "Wik"]);
    feeds(&replica);
    site.configure(&cluster, &json!({"standby_cluster": {"port": "1,2,3"}}));
    logs(&cluster, &west, "3 ports for 2 hosts", 1);
}

/// There is no connection between the two: it is made from a backup, lives by the archive, and has a failover of its own.
#[test]
fn a_standby_cluster_is_made_from_a_backup_and_the_archive_alone() {
    let cluster = Cluster::start(1);
    let east = cluster.leader();
    let restore_command = archive(&cluster);
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    let backup = back_up(&cluster);
    let archived = |row: &str| {
        cluster.write(&format!("INSERT INTO town VALUES ('{row}')"));
        cluster.sql(&east, "SELECT pg_switch_wal()").expect("a primary");
    };
    archived("Hof");
    let body = format!(
        "echo \"$@\" >> $CALLS\nfor word in \"$@\"; do case $word in --datadir=*) to=${{word#*=}};; esac; done\n\
         mkdir -p $to && exec cp -a {}/. $to/",
        backup.display()
    );
    let restore = Script::write(&cluster.directory(), "restore", &body);
    let section = json!({
        "standby_cluster": {"restore_command": restore_command, "create_replica_methods": ["restore"]},
        "postgresql": {"restore": {"command": restore.path, "no_leader": true}},
    });
    let site = Site::start(&cluster, "west", 2, &section);
    let first = site.healthy(&cluster, "standby_leader");
    let shows = |rows: &[&str]| site.nodes.iter().for_each(|node| cluster.shows(node, NAMES, rows));
    shows(&["Hof", "Ulm"]);
    let calls = restore.calls();
    assert!(calls.len() == 1 && calls[0].ends_with("--connstring="), "the other is a copy of the first: {calls:?}");
    cluster.shows(&first, "SELECT current_setting('primary_conninfo')", &[""]);
    assert_eq!(cluster.status(&first).expect("a status")["replication_state"], "in archive recovery");
    archived("Wik");
    shows(&["Hof", "Ulm", "Wik"]);

    cluster.kill_host(&first);
    let second = site.another_leader(&cluster, "standby_leader", &first);
    archived("Zug");
    cluster.shows(&second, NAMES, &["Hof", "Ulm", "Wik", "Zug"]);
    cluster.start_agent(&first);
    site.healthy(&cluster, "standby_leader");
    shows(&["Hof", "Ulm", "Wik", "Zug"]);
    site.configure(&cluster, &json!({"standby_cluster": null}));
    is_primary(&cluster, &second);
    insert(&cluster, &second, "Abo");
    shows(&["Abo", "Hof", "Ulm", "Wik", "Zug"]);
}
