//! A running Patroni cluster becomes one of pgherd, member by member, and one of Patroni again: no server is restarted, and clients notice nothing.
//!
//! The steps are those of `docs/from-patroni.md`.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::mixed::{Asked, Mixed, TTL, switch_over};
use crate::ctl::patronictl;
use crate::harness::cluster::{Cluster, LONG};
use crate::harness::process::Process;
use crate::harness::site::{Program, become_of};
use crate::harness::writers::Writers;
use crate::harness::{binary, eventually};

/// How an agent is ended so that its server stays.
#[derive(Clone, Copy, Debug)]
enum End {
    /// As by its service, in pause.
    Asked,
    /// As when it is lost, where its unit has `KillMode=process`.
    Killed,
}

fn servers(cluster: &Cluster, nodes: &[String]) -> Vec<(Process, String)> {
    let started =
        |node: &String| cluster.sql(node, "SELECT pg_postmaster_start_time()::text").expect("an answer").remove(0);
    nodes.iter().map(|node| (cluster.postmaster(node).expect("a server"), started(node))).collect()
}

/// Ends a member's agent and starts one of the other kind on the same file.
fn replace(mixed: &Mixed, node: &str, end: End, by: Program) {
    let cluster = &mixed.cluster;
    let agent = cluster.node(node).agent;
    agent.signal(match end {
        End::Asked => Signal::TERM,
        End::Killed => Signal::KILL,
    });
    agent.ended_within(LONG);
    become_of(cluster, node, by);
    cluster.start_agent(node);
    eventually(&format!("{node} is looked after by {by:?}"), 2 * LONG, || {
        let status = cluster.status(node)?;
        let kind = status.get("pgherd").is_some() == (by == Program::Pgherd);
        if kind && status["state"] == "running" { Ok(()) } else { Err(status.to_string()) }
    });
}

/// Everybody, standbys first.
fn replace_all(mixed: &Mixed, end: End, by: Program) {
    let leader = mixed.leader();
    for node in [&mixed.other(&leader), &leader] {
        replace(mixed, node, end, by);
    }
    // The key is its predecessor's until that one's lease is over.
    eventually(&format!("{leader} holds the key by itself"), 2 * TTL, || {
        match mixed.cluster.rest(&leader, "GET", "/leader", "")? {
            (200, _) if by == Program::Patroni || mixed.cluster.log(&leader).contains("took the leader key") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Clients are served for longer than any lease that was left behind could last.
fn goes_on(mixed: &Mixed, writers: &Writers, leader: &str, before: &[(Process, String)]) {
    let begun = Instant::now();
    while begun.elapsed() < TTL + Duration::from_secs(5) {
        writers.wait_for_more();
    }
    assert_eq!(mixed.site.healthy(&mixed.cluster, "leader"), leader);
    assert_eq!(servers(&mixed.cluster, &mixed.site.nodes), before, "a server was restarted");
}

fn in_pause(mixed: &Mixed, with: &std::path::Path, work: impl FnOnce()) {
    let said = mixed.ctl(with, &["pause", "mixed", "--wait"]);
    assert!(said.contains("Success: cluster management is paused"), "{said}");
    work();
    let said = mixed.ctl(with, &["resume", "mixed", "--wait"]);
    assert!(said.contains("Success: cluster management is resumed"), "{said}");
}

fn there_and_back(store: &str) {
    let mixed = Mixed::start(store, &[Program::Patroni, Program::Patroni], &json!({}));
    let leader = mixed.leader();
    let before = servers(&mixed.cluster, &mixed.site.nodes);
    let writers = mixed.writers();

    in_pause(&mixed, &patronictl(), || replace_all(&mixed, End::Asked, Program::Pgherd));
    goes_on(&mixed, &writers, &leader, &before);
    in_pause(&mixed, &binary::pgherd(), || replace_all(&mixed, End::Killed, Program::Patroni));
    goes_on(&mixed, &writers, &leader, &before);

    let record = writers.look(Clone::clone);
    assert!(record.errors.is_empty(), "clients noticed: {:?}", record.errors);
    // The guards that stayed behind are in nobody's way.
    switch_over(&mixed, Asked::Patronictl);
    mixed.site.healthy(&mixed.cluster, "leader");
    mixed.finish(writers);
}

#[test]
fn on_zookeeper_patroni_is_replaced_and_comes_back_and_no_server_is_restarted() {
    there_and_back("zookeeper");
}

#[test]
fn on_etcd_patroni_is_replaced_and_comes_back_and_no_server_is_restarted() {
    there_and_back("etcd");
}
