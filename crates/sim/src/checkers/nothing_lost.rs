//! In synchronous mode no row that was acknowledged, or that somebody has read through a primary that was open to clients, is missing where a
//! server is the primary. Nobody answers for rows on a disk that has lied, nor of a cluster that was
//! not announced yet, nor once the mode was turned off.
//!
//! A server out of recovery whose node does not hold the leader key is none: its commits wait for ever.

use std::collections::BTreeSet;

use crate::store::Key;
use crate::world::{World, name};

/// One server under one leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Primary {
    node: usize,
    epoch: u64,
    postmaster: u64,
}

fn primary(world: &World) -> Option<Primary> {
    let node = world.store.tree.leader()?;
    let epoch = world.store.tree.entry(Key::Leader)?.created;
    let server = world.nodes[node].postgres.server.as_ref().filter(|server| server.can_commit())?;
    Some(Primary { node, epoch, postmaster: server.id })
}

/// Asked whenever there is another primary than before.
pub fn check(world: &mut World) -> Option<(&'static str, String)> {
    world.scenario.synchronous?;
    let now = primary(world)?;
    let before = world.checks.primary.replace(now);
    if before == Some(now) || world.checks.a_disk_lied || world.checks.synchronous_mode_left {
        return None;
    }
    let log = world.nodes[now.node].postgres.data.directory().map(|directory| &directory.log);
    let kept: BTreeSet<u64> = log.into_iter().flatten().map(|record| record.number).collect();
    let announced = world.clients.acknowledged.iter().filter(|row| row.announced);
    let acknowledged = announced.filter(|row| !kept.contains(&row.number)).count();
    let read = world.clients.read.iter().filter(|row| !kept.contains(row)).count();
    (acknowledged + read > 0).then(|| {
        let what = format!(
            "{} is the primary and lacks {acknowledged} acknowledged rows and {read} that were read",
            name(now.node)
        );
        ("nothing lost", what)
    })
}
