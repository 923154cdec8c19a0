//! In a cluster that follows another one no server is promoted.
//!
//! A decision from before may still be carried out by an agent that hung in between, for as long as its lease lasts. Asked wherever a server is
//! told to leave recovery.

use std::time::Duration;

use crate::world::{World, name};

/// The longest that an agent hangs between a decision and its action, and a round.
const BOUND: Duration = Duration::from_secs(20);

/// Keeps since when the configuration says so; a pause leaves promotions to the operator.
pub fn note(world: &mut World) {
    let follows = world.store.tree.follows().is_some() && !world.checks.operator_in_charge;
    world.checks.follows_since = follows.then(|| world.checks.follows_since.unwrap_or(world.now));
}

/// `node` is told to leave recovery.
pub fn promoted(world: &mut World, node: usize) {
    let lasts = world.checks.follows_since.map(|since| world.now.saturating_sub(since));
    if let Some(lasts) = lasts.filter(|lasts| *lasts > BOUND) {
        world.checks.promoted_while_following = Some(format!("{} is promoted {lasts:?} after that began", name(node)));
    }
}

pub fn check(world: &World) -> Option<(&'static str, String)> {
    world.checks.promoted_while_following.clone().map(|what| ("standby cluster", what))
}
