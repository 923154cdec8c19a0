//! At no instant two servers that could acknowledge a client's write, orphaned backends and dying ones included.

use crate::world::{World, name};

pub fn check(world: &World) -> Option<(&'static str, String)> {
    let writers: Vec<String> =
        (0..world.nodes.len()).filter(|node| world.nodes[*node].postgres.can_commit()).map(name).collect();
    (writers.len() > 1).then(|| ("one writer", format!("{} can acknowledge writes", writers.join(" and "))))
}
