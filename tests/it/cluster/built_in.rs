//! Whole clusters on the built-in store, whose members are in the agents: whoever loses a host loses a member of the store with it.

use serde_json::json;

use super::synchronous::{quorum, wait_until_others_may_succeed};
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;
use crate::harness::writers::Writers;

/// The node whose member leads the store.
fn leader_of_the_store(cluster: &Cluster) -> Option<String> {
    let output = cluster.ctl(&["store", "status", "-f", "tsv"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let leader = text.lines().find(|line| line.contains("\tLeader\t"))?;
    leader.split('\t').next().map(str::to_owned)
}

#[test]
fn on_the_built_in_store_lost_hosts_are_replaced_and_the_lead_is_handed_over() {
    let cluster = Cluster::start_on("built-in", 3);
    quorum(&cluster, 2);
    let first = cluster.leader();
    wait_until_others_may_succeed(&cluster, &first);
    let writers = Writers::start(&cluster, &first);
    writers.wait_for_more();
    // The primary's host first, then that of the store's leader, which may be any.
    cluster.kill_host(&first);
    cluster.another_leader(&first);
    writers.wait_for_more();
    cluster.start_agent(&first);
    cluster.wait_healthy();
    quorum(&cluster, 2);
    let lost = leader_of_the_store(&cluster).expect("the store has a leader");
    cluster.kill_host(&lost);
    writers.wait_for_more();
    cluster.start_agent(&lost);
    cluster.wait_healthy();
    quorum(&cluster, 2);
    let before = cluster.leader();
    let candidate = cluster.replicas().into_iter().next().expect("there are two");
    // What the store shows of a lost host is three seconds old at most: the candidate may not be there yet.
    eventually("the lead is handed over", LONG, || {
        let said = text(&cluster.ctl(&["switchover", "--candidate", &candidate, "--force"]));
        if said.contains("Successfully switched over to") { Ok(()) } else { Err(said) }
    });
    assert_eq!(cluster.another_leader(&before), candidate);
    cluster.wait_healthy();
    writers.wait_for_more();
    let record = writers.finish();
    record.assert_one_writer_at_a_time();
    record.assert_nothing_lost(&cluster);
}

#[test]
fn a_third_member_without_a_server_makes_two_nodes_safe() {
    let cluster = Cluster::start_on("built-in", 2);
    let (leader, epoch) = (cluster.leader(), cluster.epoch(&cluster.leader()));
    assert!(epoch.is_some());
    // Two of three are left.
    cluster.store().kill();
    cluster.configure(&json!({"postgresql": {"parameters": {"log_min_duration_statement": 4321}}}));
    cluster.shows(&leader, "SHOW log_min_duration_statement", &["4321ms"]);
    cluster.start_store();
    eventually("the third is back", LONG, || {
        let status = text(&cluster.ctl(&["store", "status", "-f", "tsv"]));
        if status.matches("\trunning").count() == 3 { Ok(()) } else { Err(status) }
    });
    assert_eq!(cluster.epoch(&leader), epoch);
    cluster.write("CREATE TABLE kept (id int)");
    cluster.kill_host(&leader);
    let second = cluster.another_leader(&leader);
    cluster.write("INSERT INTO kept VALUES (1)");
    cluster.start_agent(&leader);
    cluster.wait_healthy();
    cluster.shows(&leader, "SELECT id FROM kept", &["1"]);
    assert_eq!(cluster.leader(), second);
}
