//! Standbys that do not stream from the leader: from another standby, or from nobody; and those that offer themselves for copies, or keep clients
//! away.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::cluster::{Cluster, LONG};
use crate::harness::eventually;

/// Where a standby's receiver is connected to.
const SENDER: &str = "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'";

fn streams_from(cluster: &Cluster, node: &str, from: &str) {
    let port = cluster.node(from).postgres_port.to_string();
    cluster.shows(node, SENDER, &[&port]);
}

#[test]
fn a_chain_of_three_falls_back_to_the_leader_and_comes_back() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let [middle, last] = <[String; 2]>::try_from(cluster.replicas()).expect("two replicas");
    cluster.tag(&last, &json!({"replicatefrom": middle}));
    streams_from(&cluster, &last, &middle);
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    cluster.shows(&last, "SELECT name FROM town", &["Ulm"]);
    let slot = "SELECT slot_name::text FROM pg_replication_slots WHERE active";
    cluster.shows(&middle, slot, &[&last]);
    cluster.shows(&leader, slot, &[&middle]);

    cluster.kill_host(&middle);
    cluster.key_is_gone(&format!("members/{middle}"));
    streams_from(&cluster, &last, &leader);
    cluster.write("INSERT INTO town VALUES ('Hof')");
    cluster.shows(&last, "SELECT name FROM town ORDER BY 1", &["Hof", "Ulm"]);
    cluster.start_agent(&middle);
    streams_from(&cluster, &last, &middle);

    cluster.kill_host(&leader);
    let new = cluster.another_leader(&leader);
    let other = if new == middle { &last } else { &middle };
    streams_from(&cluster, other, &new);
    cluster.start_agent(&leader);
    cluster.wait_healthy();
}

/// Nobody gets its log from the other: both stream from the leader.
#[test]
fn two_that_name_each_other_stream_from_the_leader() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let [one, two] = <[String; 2]>::try_from(cluster.replicas()).expect("two replicas");
    cluster.tag(&one, &json!({"replicatefrom": two}));
    streams_from(&cluster, &one, &two);
    cluster.tag(&two, &json!({"replicatefrom": one}));
    streams_from(&cluster, &one, &leader);
    streams_from(&cluster, &two, &leader);
}

#[test]
fn a_copy_comes_from_whoever_offers_itself_and_noloadbalance_keeps_clients_away() {
    let cluster = Cluster::start(3);
    let [offers, copied] = <[String; 2]>::try_from(cluster.replicas()).expect("two replicas");
    cluster.tag(&offers, &json!({"clonefrom": true, "noloadbalance": true}));
    eventually("the tags are seen", LONG, || match cluster.rest(&offers, "GET", "/replica", "")? {
        (503, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let code = |path: &str| cluster.rest(&offers, "GET", path, "").expect("an answer").0;
    for (path, expected) in [("/read-only", 503), ("/async", 503), ("/health", 200), ("/readiness", 200)] {
        assert_eq!(code(path), expected, "{path}");
    }
    cluster.reinitialize(&copied, &json!({"force": true}));
    cluster.wait_healthy();
    let log = cluster.log(&copied);
    assert!(log.contains(&format!("base backup of {offers}: ")), "{log}");
}

/// An archive that every node can reach.
pub fn archive(cluster: &Cluster) -> String {
    let archive = cluster.directory().join("archive");
    std::fs::create_dir(&archive).expect("a directory");
    std::fs::set_permissions(&archive, PermissionsExt::from_mode(0o777)).expect("its mode can be set");
    let to = format!("test ! -f {0}/%f && cp %p {0}/%f", archive.display());
    cluster.configure(&json!({"postgresql": {"parameters": {"archive_mode": "on", "archive_command": to}}}));
    let leader = cluster.leader();
    eventually("the setting waits for a restart", LONG, || match cluster.status(&leader)? {
        status if status["pending_restart"] == true => Ok(()),
        other => Err(other.to_string()),
    });
    let (status, text) = cluster.rest(&leader, "POST", "/restart", "{}").expect("an answer");
    assert_eq!(status, 200, "{text}");
    cluster.wait_healthy();
    format!("cp {}/%f %p", archive.display())
}

#[test]
fn a_node_that_streams_from_nobody_lives_by_the_archive() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let restore = archive(&cluster);
    cluster.configure(&json!({"postgresql": {"recovery_conf": {"restore_command": restore}}}));
    cluster.tag(&replica, &json!({"nostream": true}));
    cluster.shows(&replica, "SELECT current_setting('primary_conninfo')", &[""]);
    cluster.shows(&leader, "SELECT slot_name::text FROM pg_replication_slots", &[]);
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    cluster.sql(&leader, "SELECT pg_switch_wal()").expect("a primary");
    cluster.shows(&replica, "SELECT name FROM town", &["Ulm"]);
    let state = |node: &str| {
        let members = cluster.members_by(&leader).expect("members");
        members.into_iter().find(|member| member.name == node).expect("a member").state
    };
    assert_eq!(state(&replica), "in archive recovery");
    // Made anew it does not stream either, and is proven good by what it has replayed.
    cluster.reinitialize(&replica, &json!({"force": true}));
    eventually("it may be promoted", LONG, || match cluster.status(&replica)? {
        status if status["state"] == "running" && status["tags"]["nofailover"].is_null() => Ok(()),
        status => Err(status.to_string()),
    });
    cluster.tag(&replica, &json!({}));
    cluster.wait_healthy();
}
