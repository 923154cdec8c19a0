//! Who reaches whom, and how long it takes. TCP does not lose what it was given: what meets a partition is sent again until it
//! passes or is given up, so a request may arrive long after its sender has stopped to wait for it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::rng::Rng;

/// An end of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Node(usize),
    Store(usize),
    Entry(usize),
}

#[derive(Debug, Default)]
pub struct Network {
    /// How many faults block this direction now.
    blocked: BTreeMap<(Place, Place), u32>,
    /// What a message takes at most beside its usual time.
    pub slow: Duration,
    /// Questions to other agents that get no answer in time, in a thousand; of those that do, every answer is as late as it may be.
    pub lost_polls: u64,
    /// What one agent asks another arrives twice: sent again by something in between.
    pub duplicates: bool,
}

/// What meets a partition is sent again at the next multiple of this, in its old order.
pub const RETRANSMIT: Duration = Duration::from_millis(50);

/// A connection that has not got anything through for this long is given up by its sender's kernel.
pub const GIVE_UP: Duration = Duration::from_secs(15);

impl Network {
    /// One way only.
    pub fn block(&mut self, from: Place, to: Place) {
        *self.blocked.entry((from, to)).or_default() += 1;
    }

    pub fn unblock(&mut self, from: Place, to: Place) {
        if let Some(count) = self.blocked.get_mut(&(from, to)) {
            *count = count.saturating_sub(1);
        }
    }

    pub fn heal(&mut self) {
        *self = Network::default();
    }

    pub fn passes(&self, from: Place, to: Place) -> bool {
        self.blocked.get(&(from, to)).is_none_or(|count| *count == 0)
    }

    /// A connection needs both directions.
    pub fn connects(&self, a: Place, b: Place) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    pub fn delay(&self, rng: &mut Rng) -> Duration {
        let slow = u64::try_from(self.slow.as_micros()).unwrap_or(0);
        rng.micros(100, 1500) + rng.micros(0, slow)
    }
}
