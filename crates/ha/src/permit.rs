//! The permit: the one value that says until when this node may have a writer (design: "why there is one writer").
//!
//! It follows from a [`Lease`], which only an acknowledged renewal makes, or from pause. The guard, the REST API and the
//! pushed route read it; nobody else decides. Not here: taking or renewing the lease (the store's client does).

use std::time::Duration;

use crate::types::{Boot, Epoch};

/// What the guard may need from the end of a permit until no process of the server is left: stopping the postmaster,
/// killing up to some hundreds of backends (20 to 180 ms for 300), and being scheduled late on a busy machine.
pub const STOP_TIME: Duration = Duration::from_millis(500);

/// Proof that the leader key was ours at one moment: a write that a quorum acknowledged, or the key's own creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub epoch: Epoch,
    /// The instant *before* the proving request was sent.
    pub sent: Boot,
    /// The session time-out that the store granted (never the configured `ttl`).
    pub granted: Duration,
    /// How early the store may free the key, seen from `granted`: one tick where the store says it, else `None`.
    pub tick: Option<Duration>,
}

impl Lease {
    /// When the store may free the key at the earliest.
    pub fn end(&self) -> Boot {
        let tick = self.tick.unwrap_or(self.granted / 4);
        self.sent + self.granted.saturating_sub(tick)
    }

    /// When the guard must begin to kill so that no writer is left at the [`end`](Self::end).
    pub fn deadline(&self) -> Boot {
        self.end() - STOP_TIME
    }
}

/// Until when this node may have a writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Permit {
    /// No writer at all.
    #[default]
    None,
    /// A writer until `deadline`, then the guard kills it.
    Until { epoch: Epoch, deadline: Boot },
    /// The cluster is paused: the operator is in charge and the guard holds still.
    Paused { epoch: Option<Epoch> },
}

impl Permit {
    /// The permit that a lease gives.
    pub fn from_lease(lease: &Lease) -> Permit {
        Permit::Until { epoch: lease.epoch, deadline: lease.deadline() }
    }

    /// How long a writer may still go on.
    pub fn remaining(&self, now: Boot) -> Duration {
        match self {
            Permit::None => Duration::ZERO,
            Permit::Until { deadline, .. } => deadline.since(now),
            Permit::Paused { .. } => Duration::MAX,
        }
    }

    pub fn allows_writer(&self, now: Boot) -> bool {
        self.remaining(now) > Duration::ZERO
    }

    /// The epoch under which the writer serves, if the permit comes from a leader key.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Permit::None => None,
            Permit::Until { epoch, .. } => Some(*epoch),
            Permit::Paused { epoch } => *epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_counted_from_before_the_request_and_ends_a_tick_early() {
        let ms = Duration::from_millis;
        // (granted, tick, end, deadline), all in ms; the request was sent at 1,000.
        for (granted, tick, end, deadline) in [
            (8_000, Some(2_000), 7_000, 6_500),
            (8_000, None, 7_000, 6_500),
            (4_000, Some(2_000), 3_000, 2_500),
            (1_000, Some(2_000), 1_000, 500),
        ] {
            let lease =
                Lease { epoch: Epoch(7), sent: Boot::from_millis(1_000), granted: ms(granted), tick: tick.map(ms) };
            assert_eq!((lease.end(), lease.deadline()), (Boot::from_millis(end), Boot::from_millis(deadline)));
        }
    }

    #[test]
    fn a_permit_allows_a_writer_only_before_its_deadline() {
        let until = Permit::Until { epoch: Epoch(1), deadline: Boot::from_millis(10) };
        assert!(until.allows_writer(Boot::from_millis(9)));
        assert!(!until.allows_writer(Boot::from_millis(10)));
        assert!(!Permit::None.allows_writer(Boot::ZERO));
        assert!(Permit::Paused { epoch: None }.allows_writer(Boot::from_millis(u64::MAX)));
    }
}
