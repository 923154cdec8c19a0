//! The settings that say how long: for a stop, for a race, for the slot of a member that is gone.

use rustix::process::Signal;
use serde_json::json;

use super::synchronous::synchronous;
use crate::harness::cluster::{Cluster, LONG};
use crate::harness::eventually;
use crate::harness::process::Process;

/// From now on PostgreSQL cannot stop in order: it waits for its shutdown checkpoint.
fn hold_up_the_stop(cluster: &Cluster, node: &str) {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
    let pid = cluster.sql(node, sql).expect("an answer").remove(0);
    Process::of(pid.parse().expect("a pid")).expect("the checkpointer").freeze();
}

#[test]
fn a_stop_that_hangs_is_ended_after_pg_ctl_timeout() {
    let cluster = Cluster::start(2);
    cluster.configure(&json!({"postgresql": {"pg_ctl_timeout": 2}}));
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    cluster.shows(&replica, "SELECT name FROM town", &["Ulm"]);
    hold_up_the_stop(&cluster, &leader);
    let agent = cluster.node(&leader).agent;
    agent.signal(Signal::TERM);
    agent.ended_within(LONG);
    let log = cluster.log(&leader);
    assert!(log.contains("PostgreSQL has not stopped within 2 s"), "{log}");
    assert_eq!(cluster.another_leader(&leader), replica);
    cluster.start_agent(&leader);
    cluster.wait_healthy();
    cluster.shows(&leader, "SELECT name FROM town", &["Ulm"]);
}

#[test]
fn in_synchronous_mode_a_primary_has_primary_stop_timeout_to_stop() {
    let cluster = Cluster::start(2);
    synchronous(&cluster, &json!({"synchronous_mode": true, "primary_stop_timeout": 2}), "sync_standby", 1);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    cluster.shows(&replica, "SELECT name FROM town", &["Ulm"]);
    hold_up_the_stop(&cluster, &leader);
    let agent = cluster.node(&leader).agent;
    agent.signal(Signal::TERM);
    agent.ended_within(LONG);
    let log = cluster.log(&leader);
    assert!(log.contains("PrimaryStopTimeout") && !log.contains("PostgreSQL has not stopped within"), "{log}");
    assert_eq!(cluster.another_leader(&leader), replica);
    cluster.shows(&replica, "SELECT name FROM town", &["Ulm"]);
    cluster.start_agent(&leader);
    cluster.wait_healthy();
}

#[test]
fn a_race_is_put_off_and_then_run() {
    let cluster = Cluster::start(2);
    cluster.configure(&json!({"primary_race_backoff": 5}));
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    cluster.shows(&replica, "SELECT name FROM town", &["Ulm"]);
    cluster.kill_host(&leader);
    assert_eq!(cluster.another_leader(&leader), replica);
    let log = cluster.log(&replica);
    let said = format!("My ({replica}) wal position moved since last heart beat loop, ");
    let (held, raced) = (log.find(&said), log.find("cutting the upstream"));
    assert!(held.is_some() && held < raced, "{log}");
    cluster.start_agent(&leader);
    cluster.wait_healthy();
}

#[test]
fn the_slot_of_a_member_that_is_gone_goes_after_member_slots_ttl() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let slots = || cluster.sql(&leader, "SELECT slot_name FROM pg_replication_slots").expect("an answer");
    eventually("the replica has a slot", LONG, || {
        if slots() == [replica.as_str()] { Ok(()) } else { Err(format!("{:?}", slots())) }
    });
    cluster.kill_host(&replica);
    cluster.key_is_gone(&format!("members/{replica}"));
    assert_eq!(slots(), [replica.as_str()], "it waits for its member");
    cluster.configure(&json!({"member_slots_ttl": "2s"}));
    eventually("it has waited for long enough", LONG, || {
        if slots().is_empty() { Ok(()) } else { Err(format!("{:?}", slots())) }
    });
    cluster.start_agent(&replica);
    cluster.wait_healthy();
    eventually("and is made anew", LONG, || {
        if slots() == [replica.as_str()] { Ok(()) } else { Err(format!("{:?}", slots())) }
    });
}
