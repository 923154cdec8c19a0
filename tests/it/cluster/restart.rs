//! The agent ends and comes back; its PostgreSQL does not notice.

use crate::harness::cluster::{Cluster, LONG};
use crate::harness::eventually;
use crate::harness::process::Process;
use crate::harness::writers::Writers;

/// Who must be the same before and after.
#[derive(Debug, PartialEq)]
struct Server {
    postmaster: Process,
    guard: Process,
    /// As PostgreSQL itself says it.
    started: Vec<String>,
}

fn server(cluster: &Cluster, node: &str) -> Server {
    Server {
        postmaster: cluster.postmaster(node).expect("a postmaster"),
        guard: cluster.guard(node).expect("a guard"),
        started: cluster.sql(node, "SELECT pg_postmaster_start_time()").expect("an answer"),
    }
}

/// SIGKILL, and a new process at once, as a service manager does it.
fn restart_agent(cluster: &Cluster, node: &str) {
    let agent = cluster.node(node).agent;
    agent.kill();
    assert_ne!(cluster.start_agent(node), agent);
    eventually("the new agent answers", LONG, || cluster.status(node).map(drop));
}

#[test]
fn a_restarted_agent_finds_its_primary_and_leads_on() {
    let cluster = Cluster::start(3);
    let primary = cluster.leader();
    let writers = Writers::start(&cluster, &primary);
    let before = server(&cluster, &primary);
    let epoch = cluster.epoch(&primary);
    assert!(epoch.is_some(), "a primary serves under an epoch");
    restart_agent(&cluster, &primary);
    cluster.wait_healthy();
    eventually("it serves under the same epoch", LONG, || match cluster.epoch(&primary) {
        now if now == epoch => Ok(()),
        other => Err(format!("{other:?}, not {epoch:?}")),
    });
    assert_eq!((server(&cluster, &primary), cluster.leader()), (before, primary));
    writers.wait_for_more();
    let record = writers.finish();
    record.assert_one_writer_at_a_time();
    record.assert_nothing_lost(&cluster);
}

#[test]
fn a_restarted_agent_finds_its_standby_and_follows_on() {
    let cluster = Cluster::start(2);
    let replica = cluster.replicas().remove(0);
    let before = server(&cluster, &replica);
    restart_agent(&cluster, &replica);
    cluster.wait_healthy();
    assert_eq!(server(&cluster, &replica), before);
}

#[test]
fn an_agent_that_comes_back_after_its_session_has_ended_finds_its_standby_streaming() {
    let cluster = Cluster::start(2);
    let replica = cluster.replicas().remove(0);
    let before = server(&cluster, &replica);
    cluster.node(&replica).agent.kill();
    cluster.key_is_gone(&format!("members/{replica}"));
    cluster.write("CREATE TABLE meanwhile AS SELECT 1 AS number");
    cluster.shows(&replica, "SELECT number FROM meanwhile", &["1"]);
    cluster.start_agent(&replica);
    cluster.wait_healthy();
    assert_eq!(server(&cluster, &replica), before);
}

#[test]
fn an_agent_alone_that_comes_back_after_its_session_has_ended_leads_again() {
    let cluster = Cluster::start(1);
    let primary = cluster.leader();
    let writers = Writers::start(&cluster, &primary);
    let before = server(&cluster, &primary);
    cluster.node(&primary).agent.kill();
    // The guard ends the server before the store gives the key to anybody.
    before.postmaster.ended_within(LONG);
    assert!(cluster.store_dump().contains("/service/demo/leader\n"), "the server outlived the key");
    cluster.key_is_gone("leader");
    cluster.start_agent(&primary);
    cluster.wait_healthy();
    writers.wait_for_more();
    let record = writers.finish();
    record.assert_nothing_lost(&cluster);
    assert_ne!(server(&cluster, &primary).postmaster, before.postmaster);
}
