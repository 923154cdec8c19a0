//! A timeline is begun once: no two servers ever write different logs under one number, for nothing could tell them apart afterwards.

use std::collections::BTreeMap;

use pgherd_ha::{Lsn, Timeline};

use crate::world::{World, name};

/// The promotions that there were.
#[derive(Debug, Default)]
pub struct Beginnings {
    of: BTreeMap<Timeline, (usize, Lsn)>,
    twice: Option<String>,
}

impl Beginnings {
    /// A server was promoted.
    pub fn note(&mut self, node: usize, timeline: Timeline, switch: Lsn) {
        if let Some((other, at)) = self.of.insert(timeline, (node, switch)) {
            let (first, second) = (name(other), name(node));
            self.twice =
                Some(format!("{first} began timeline {timeline} at {at}, and {second} began it again at {switch}"));
        }
    }
}

pub fn check(world: &World) -> Option<(&'static str, String)> {
    world.checks.beginnings.twice.clone().map(|what| ("timeline lineage", what))
}
