//! A slot is never ahead of what its consumer has got.

use crate::world::World;

pub fn check(world: &World) -> Option<(&'static str, String)> {
    world.consumer.missed.clone().map(|what| ("nothing missed", what))
}
