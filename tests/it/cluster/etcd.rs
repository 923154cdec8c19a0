//! Whole clusters on etcd. What they do is the same as on ZooKeeper; so only what hangs on the store is tried again here.
//!
//! That the real patronictl works on it is in `patronictl`.

use rustix::process::Signal;
use serde_json::json;

use super::synchronous::{quorum, wait_until_others_may_succeed};
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;
use crate::harness::writers::Writers;

#[test]
fn on_etcd_a_lost_host_is_replaced_and_the_lead_is_handed_over() {
    let cluster = Cluster::start_on("etcd", 3);
    quorum(&cluster, 2);
    let first = cluster.leader();
    wait_until_others_may_succeed(&cluster, &first);
    let writers = Writers::start(&cluster, &first);
    writers.wait_for_more();
    cluster.kill_host(&first);
    let second = cluster.another_leader(&first);
    writers.wait_for_more();
    cluster.start_agent(&first);
    cluster.wait_healthy();
    quorum(&cluster, 2);
    let output = cluster.ctl(&["switchover", "--candidate", &first, "--force"]);
    assert!(text(&output).contains("Successfully switched over to"), "{}", text(&output));
    assert_eq!(cluster.another_leader(&second), first);
    cluster.wait_healthy();
    writers.wait_for_more();
    let record = writers.finish();
    record.assert_one_writer_at_a_time();
    record.assert_nothing_lost(&cluster);
    // The drill compares its outage with the lease that etcd has granted.
    assert_eq!(cluster.drill("switchover")["lease_ms"], 8_000);
}

#[test]
fn on_etcd_a_restart_of_the_store_or_of_an_agent_changes_no_leader() {
    let cluster = Cluster::start_on("etcd", 2);
    let (leader, epoch) = (cluster.leader(), cluster.epoch(&cluster.leader()));
    assert!(epoch.is_some());
    cluster.store().kill();
    cluster.start_store();
    // Its service starts it again at once.
    let agent = cluster.node(&leader).agent;
    agent.signal(Signal::KILL);
    agent.ended_within(LONG);
    cluster.start_agent(&leader);
    cluster.wait_healthy();
    // A round that the store has seen: the dynamic configuration comes by it.
    cluster.configure(&json!({"postgresql": {"parameters": {"log_min_duration_statement": 4321}}}));
    cluster.shows(&leader, "SHOW log_min_duration_statement", &["4321ms"]);
    eventually("the same epoch", LONG, || match cluster.epoch(&leader) {
        same if same == epoch => Ok(()),
        other => Err(format!("{other:?} after {epoch:?}")),
    });
    assert_eq!(cluster.leader(), leader);
}
