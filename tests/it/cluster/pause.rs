//! Maintenance mode: the operator is in charge, and nothing is started, stopped or promoted by itself.

use std::time::{Duration, Instant};

use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;
use crate::harness::process::Process;
use rustix::process::Signal;

/// Longer than rounds and retries: what an agent would do by itself, it would have done.
const A_WHILE: Duration = Duration::from_secs(4);

fn command(cluster: &Cluster, arguments: &[&str], expected: &str) {
    let output = cluster.ctl(arguments);
    assert!(output.status.success() && text(&output).contains(expected), "{arguments:?}: {}", text(&output));
}

fn pause(cluster: &Cluster) {
    command(cluster, &["pause", "--wait"], "Success: cluster management is paused");
    command(cluster, &["list"], "Maintenance mode: on");
}

fn resume(cluster: &Cluster) {
    command(cluster, &["resume", "--wait"], "Success: cluster management is resumed");
}

/// It is so, and stays so for a while.
fn stays(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < A_WHILE {
        assert!(holds(), "no more after {:?}: {what}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn in_pause_a_killed_server_stays_down_and_resume_brings_it_back() {
    let cluster = Cluster::start(2);
    let (primary, replica) = (cluster.leader(), cluster.replicas().remove(0));
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    cluster.shows(&replica, "SELECT name FROM town", &["Ulm"]);
    pause(&cluster);
    for node in [&replica, &primary] {
        cluster.postmaster(node).expect("a postmaster").kill();
    }
    stays("both servers are down", || {
        [&primary, &replica].iter().all(|node| cluster.postmaster(node).is_none_or(|process| !process.is_alive()))
    });
    resume(&cluster);
    cluster.wait_healthy();
    assert_eq!(cluster.write("SELECT name FROM town"), ["Ulm"]);
}

#[test]
fn in_pause_nobody_takes_over_from_a_primary_that_is_down() {
    let cluster = Cluster::start(3);
    let primary = cluster.leader();
    pause(&cluster);
    cluster.postmaster(&primary).expect("a postmaster").kill();
    let replicas: Vec<String> =
        cluster.nodes().into_iter().map(|node| node.name).filter(|name| *name != primary).collect();
    stays("the others are standbys", || {
        replicas.iter().all(|node| cluster.sql(node, "SELECT pg_is_in_recovery()").is_ok_and(|rows| rows == ["t"]))
    });
    resume(&cluster);
    cluster.wait_healthy();
}

#[test]
fn in_pause_an_agent_leaves_its_server_running_however_it_ends() {
    let cluster = Cluster::start(2);
    let primary = cluster.leader();
    let before = cluster.postmaster(&primary).expect("a postmaster");
    pause(&cluster);
    for signal in [Signal::TERM, Signal::KILL] {
        end_agent(&cluster, &primary, signal);
        // Beyond the lease, too.
        cluster.key_is_gone("leader");
        stays("PostgreSQL is written to", || cluster.sql(&primary, "CREATE TEMP TABLE t AS SELECT 1").is_ok());
        cluster.start_agent(&primary);
        eventually("it leads again", LONG, || {
            if cluster.store_dump().contains("/service/demo/leader\n") { Ok(()) } else { Err("not yet".to_owned()) }
        });
    }
    resume(&cluster);
    cluster.wait_healthy();
    assert_eq!((cluster.leader(), cluster.postmaster(&primary)), (primary.clone(), Some(before)));
}

fn end_agent(cluster: &Cluster, node: &str, signal: Signal) {
    let agent: Process = cluster.node(node).agent;
    agent.signal(signal);
    agent.ended_within(LONG);
}

#[test]
fn an_operator_switches_over_fails_over_and_sees_who_leads() {
    let cluster = Cluster::start(3);
    let first = cluster.leader();
    command(&cluster, &["switchover", "--force"], "Successfully switched over to");
    let second = cluster.another_leader(&first);
    cluster.wait_healthy();
    command(
        &cluster,
        &["failover", "--candidate", &first, "--force"],
        &format!("Successfully failed over to \"{first}\""),
    );
    assert_eq!(cluster.another_leader(&second), first);
    cluster.wait_healthy();
    command(&cluster, &["list"], &format!("| {first}  | "));
    let leader = |line: &&str| line.contains(" Leader ");
    let list = text(&cluster.ctl(&["list"]));
    assert!(list.lines().find(leader).is_some_and(|line| line.contains(&first)), "{list}");
}
