//! No permit outlives its lease: when the store frees the key of a session that is over, the permit that came from it has been over for
//! the guard's stop time already, whether or not a server ran. One that the members gave in failsafe mode is over for so long, and for a
//! quarter of `ttl` more (less what two clocks run apart), when the first of them is free.

use std::time::Duration;

use pgherd_ha::{Permit, STOP_TIME};

use super::lease_obeyed;
use crate::world::{World, name};

pub fn check(world: &World) -> Option<(&'static str, String)> {
    let before = world.checks.leader_before.filter(|before| before.renewable)?;
    if lease_obeyed::held(world).is_some_and(|now| now.epoch == before.epoch) {
        return None;
    }
    let Permit::Until { epoch, .. } = world.nodes[before.node].permit() else { return None };
    let late = (epoch == before.epoch).then(|| outlives(world, before.node)).flatten()?;
    let who = name(before.node);
    Some(("permit bound", format!("the key of {who} is freed {late} ms before its permit and the stop time end")))
}

/// The same, of a primary that runs without the key.
pub fn check_failsafe(world: &World) -> Option<(&'static str, String)> {
    let runs = |node: &usize| world.nodes[*node].postgres.can_commit() && world.store.tree.leader() != Some(*node);
    let (node, late) = (0..world.nodes.len()).filter(runs).find_map(|node| Some((node, outlives(world, node)?)))?;
    let who = name(node);
    Some(("permit bound", format!("the permit of {who} and its margins end {late} ms after the first promise")))
}

/// By how many milliseconds the permit goes on beyond now, and beyond what the members have promised.
fn outlives(world: &World, node: usize) -> Option<u128> {
    let Permit::Until { deadline, .. } = world.nodes[node].permit() else { return None };
    let left = (deadline + STOP_TIME).since(world.boot(node));
    let promised = world.promised_until(node).unwrap_or_default().saturating_sub(world.scenario.ttl / 4)
        + apart(world.scenario.ttl);
    let late = left.min((world.now + left).saturating_sub(promised));
    (!late.is_zero()).then_some(late.as_millis())
}

/// How far two clocks may run apart in this time: 200 parts in a million, and a microsecond for each rounding.
fn apart(time: Duration) -> Duration {
    time / 5_000 + Duration::from_micros(10)
}
