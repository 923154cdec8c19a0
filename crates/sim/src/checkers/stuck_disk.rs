//! A leader whose disk does not answer is replaced: on it reads go on and every commit hangs, so nothing else would ever tell.
//!
//! Asked in runs [where nothing else is wrong](crate::scenario::Kind::StuckDisks).

use std::time::Duration;

use crate::scenario::Kind;
use crate::world::{World, name};

/// A lease until the silence counts, the killing (5 s in vain, since the killed wait for the disk), and the race.
const BOUND: Duration = Duration::from_secs(8 + 5 + 3);

pub fn check(world: &World) -> Option<(&'static str, String)> {
    if world.scenario.kind != Kind::StuckDisks {
        return None;
    }
    let leader = world.store.tree.leader()?;
    let lasts = world.now.saturating_sub(world.nodes[leader].disk.stuck_since?);
    let what = format!("{} holds the leader key, and its disk has not answered for {lasts:?}", name(leader));
    (lasts > BOUND).then_some(("stuck disk", what))
}
