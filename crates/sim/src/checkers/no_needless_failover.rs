//! What is over in a moment changes no leader: a store that is restarted within three seconds, a blip of the network of a second, an agent that
//! stands still for two, or is replaced, and sixteenfold load.
//!
//! Asked in [gentle](crate::scenario::Kind::Gentle) runs, whose faults come one by one.

use pgherd_ha::Epoch;

use crate::store::Key;
use crate::world::{World, name};

pub fn epoch(world: &World) -> Option<Epoch> {
    world.store.tree.entry(Key::Leader).map(|entry| Epoch(entry.created))
}

pub fn check(world: &World) -> Option<(&'static str, String)> {
    let before = world.checks.gentle_since.filter(|before| epoch(world) != Some(*before))?;
    let now =
        world.store.tree.leader().map_or("nobody holds the leader key".into(), |leader| {
            format!("{} has taken the leader key", name(leader))
        });
    Some(("no needless failover", format!("{now}, which another held under epoch {before}")))
}
