//! The guard, the agent or both are taken away from a primary: nobody writes to it after its lease, and the cluster recovers.
//!
//! The guard's own behaviour, process by process, is tested in `guard.rs` one level up.

use std::time::Duration;

use rustix::process::Signal;

use crate::harness::cluster::{Cluster, LONG};
use crate::harness::process::Process;
use crate::harness::writers::Writers;

/// A cluster whose primary is written to.
struct Scene {
    cluster: Cluster,
    writers: Writers,
    primary: String,
    port: u16,
    agent: Process,
    guard: Process,
    postmaster: Process,
}

impl Scene {
    fn set(nodes: u8) -> Scene {
        let cluster = Cluster::start(nodes);
        let primary = cluster.leader();
        let writers = Writers::start(&cluster, &primary);
        let node = cluster.node(&primary);
        Scene {
            port: node.postgres_port,
            agent: node.agent,
            guard: cluster.guard(&primary).expect("a primary has a guard"),
            postmaster: cluster.postmaster(&primary).expect("a postmaster"),
            cluster,
            writers,
            primary,
        }
    }

    /// Everybody is back; nobody wrote beside another.
    fn end(self) -> Cluster {
        self.cluster.wait_healthy();
        self.writers.wait_for_more();
        self.writers.finish().assert_one_writer_at_a_time();
        self.cluster
    }
}

#[test]
fn a_killed_guard_takes_its_server_along_and_the_cluster_goes_on() {
    let scene = Scene::set(3);
    scene.guard.kill();
    scene.postmaster.ended_within(Duration::from_secs(10));
    scene.writers.wait_for_more();
    let cluster = scene.end();
    for node in cluster.nodes() {
        assert!(cluster.guard(&node.name).is_some(), "{} has no guard", node.name);
    }
}

#[test]
fn agent_and_guard_killed_together_leave_no_writer() {
    let scene = Scene::set(3);
    // The agent first, or it would start the server again.
    scene.agent.signal(Signal::KILL);
    scene.guard.signal(Signal::KILL);
    scene.postmaster.ended_within(Duration::from_secs(10));
    scene.writers.wait_for_another(scene.port);
    assert_ne!(scene.cluster.another_leader(&scene.primary), scene.primary);
    scene.agent.ended_within(LONG);
    scene.cluster.start_agent(&scene.primary);
    scene.end();
}

#[test]
fn a_frozen_agent_without_its_guard_leaves_no_writer() {
    let scene = Scene::set(3);
    scene.agent.freeze();
    scene.guard.kill();
    scene.postmaster.ended_within(Duration::from_secs(10));
    scene.writers.wait_for_another(scene.port);
    scene.agent.thaw();
    scene.end();
}

#[test]
fn a_frozen_agent_loses_its_server_to_the_guard_before_another_leads() {
    let scene = Scene::set(2);
    scene.agent.freeze();
    // No lease is renewed; the guard kills before the store may give the key to another.
    scene.postmaster.ended_within(LONG);
    scene.writers.wait_for_another(scene.port);
    let leader = scene.cluster.another_leader(&scene.primary);
    scene.agent.thaw();
    assert_eq!(scene.end().leader(), leader, "the frozen node has become a standby");
}
