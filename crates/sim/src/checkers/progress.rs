//! Once everything is healed the cluster comes back: one primary that holds the key and serves the entrypoint's clients, and every other
//! node streams from it, or from whom its tag names; and the user's callbacks were last told what each is.

use std::time::Duration;

use crate::hooks;
use crate::postgres::Receiver;
use crate::store::{Key, Value};
use crate::world::{World, name};

/// How long the way back may take: a session that must expire, a copy that fails and is made again, several restarts with their pauses.
pub const BOUND: Duration = Duration::from_secs(90);

/// It must last for so long.
const STABLE: Duration = Duration::from_secs(3);

/// Follows the way back.
#[derive(Debug, Default)]
pub struct Progress {
    good_since: Option<Duration>,
}

impl Progress {
    /// Whether the cluster has been well for long enough.
    pub fn reached(&mut self, world: &World) -> bool {
        if missing(world).is_some() {
            self.good_since = None;
            return false;
        }
        let since = *self.good_since.get_or_insert(world.now);
        world.now >= since + STABLE
    }
}

/// What is not as it should be.
pub fn missing(world: &World) -> Option<String> {
    let Some(leader) = world.store.tree.leader() else { return Some("nobody holds the leader key".into()) };
    let primary = &world.nodes[leader].postgres;
    if !primary.server.as_ref().is_some_and(|server| server.can_commit() && server.answers(world.now)) {
        return Some(format!("{} holds the leader key and is no primary", name(leader)));
    }
    if !world.entrypoints_serve() {
        return Some("the clients of an entrypoint are not served".into());
    }
    if let Some(untold) = hooks::untold(world) {
        return Some(untold);
    }
    (0..world.nodes.len()).filter(|node| *node != leader).find_map(|node| {
        let server = world.nodes[node].postgres.server.as_ref();
        let from = world.scenario.above[node].unwrap_or(leader);
        // One that is no member of this cluster sends nothing.
        let from = if is_stranger(world, from) { leader } else { from };
        let streams = server.is_some_and(|server| server.receiver == Receiver::Streaming { from });
        (!streams && !is_stranger(world, node)).then(|| format!("{} does not stream from {}", name(node), name(from)))
    })
}

/// A disk has lost so much that nobody left may lead by itself (`maximum_lag_on_failover`): an operator has to say who does.
pub fn left_to_the_operator(world: &World) -> bool {
    if world.store.tree.leader().is_some() {
        return false;
    }
    // In synchronous mode, too: who is left may lack what was acknowledged. And with failsafe mode, where the lost disk was the only listed one.
    let careful = world.scenario.synchronous.is_some() || world.scenario.failsafe_mode;
    if careful && (world.checks.a_disk_lied || world.checks.a_disk_is_new) {
        return true;
    }
    let optime = match world.store.tree.entry(Key::Status).map(|entry| &entry.value) {
        Some(Value::Status(status)) => status.optime.0,
        _ => return false,
    };
    let allowed = world.scenario.maximum_lag_on_failover;
    let too_far_behind = |node: &crate::node::Node| {
        node.postgres.data.directory().is_none_or(|directory| optime.saturating_sub(directory.end().0) > allowed)
    };
    world.checks.a_disk_lied && world.nodes.iter().all(too_far_behind)
}

/// Its directory became another cluster before this one was announced; it is never touched, and its agent says so.
fn is_stranger(world: &World, node: usize) -> bool {
    let own = world.nodes[node].postgres.data.directory().map(|directory| directory.system_id);
    let cluster = world.store.tree.entry(Key::Initialize).map(|entry| &entry.value);
    own.is_some_and(|own| !matches!(cluster, Some(Value::Initialize(Some(id))) if *id == own))
}
