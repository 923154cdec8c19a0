//! Through the entrypoints never two servers that acknowledge writes: a client of theirs hears of a row only if its server's node held the
//! leader key when it wrote the row. The store has one such key, so no other server's rows were acknowledged at that moment.
//!
//! It holds for a server that its kernel did not watch as well: it may write, and nobody is told.

use crate::world::{World, name};

pub fn check(world: &World) -> Option<(&'static str, String)> {
    let routed = world.clients.routed.filter(|routed| !routed.licensed)?;
    let (node, at) = (name(routed.node), routed.committed.as_secs_f64());
    let what = format!("{node} wrote a row at {at:.6} without the leader key, and an entrypoint has acknowledged it");
    Some(("one writer", what))
}
