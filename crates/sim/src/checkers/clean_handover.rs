//! A run with nothing but orderly hand-overs loses no acknowledged row.

use crate::world::World;

pub fn check(world: &World) -> Option<String> {
    if !world.orderly {
        return None;
    }
    let primary = (0..world.nodes.len()).find(|node| world.nodes[*node].postgres.can_commit())?;
    let lost = world.acknowledged_and_not_in(primary).len();
    (lost > 0).then(|| format!("{lost} of {} acknowledged rows are lost", world.clients.acknowledged.len()))
}
