//! A server is out of recovery only while the store itself keeps its node's leader key: none is left when the key goes. So there are never
//! two of them, whoever their clients are, as long as the kernel runs the guard. In failsafe mode one may be left for as long as every member
//! that could take the key is bound by its word, whatever it remembers of that.

use pgherd_ha::Epoch;

use crate::store::Key;
use crate::world::{World, name};

/// The leader key at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub node: usize,
    pub epoch: Epoch,
    /// It vanishes with its session, and was not given up.
    pub renewable: bool,
}

pub fn held(world: &World) -> Option<Held> {
    let entry = world.store.tree.entry(Key::Leader)?;
    let node = world.store.tree.leader()?;
    let epoch = Epoch(entry.created);
    let agent = world.nodes[node].agent.as_ref();
    let renewable = agent.is_none_or(|agent| agent.lease.held == Some(epoch));
    Some(Held { node, epoch, renewable })
}

pub fn check(world: &World) -> Option<(&'static str, String)> {
    let leader = world.store.tree.leader();
    let agreed = |node: usize| world.promised_until(node).is_some_and(|until| world.now < until);
    let strays = |node: &usize| world.nodes[*node].postgres.can_commit() && leader != Some(*node) && !agreed(*node);
    // Of direct clients nothing is promised while the kernel does not run the guard.
    let watched = |node: &usize| world.nodes[*node].unwatched_until <= world.now;
    let stray = (0..world.nodes.len()).filter(watched).find(strays)?;
    let whose = leader.map_or("is gone".into(), |leader| format!("is held by {}", name(leader)));
    Some(("lease obeyed", format!("{} can acknowledge writes and the leader key {whose}", name(stray))))
}
