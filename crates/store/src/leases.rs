//! How long each lease still has, as the leader counts it: in memory alone, on its own clock.
//!
//! A renewal is given only after a quorum has confirmed that we lead (`node`), and counts from before that question. A new leader cannot know what the
//! one before has renewed, so it gives every lease its whole time anew. So no lease ends earlier than its holder counts: the holder counts from before
//! it asked.
//!
//! Pure: time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kv::LeaseId;

/// Since the machine was started, sleep included.
pub type Instant = Duration;

#[derive(Debug, Default)]
pub struct Leases {
    ends: BTreeMap<LeaseId, Timer>,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    ttl: Duration,
    ends: Instant,
    /// Its end was asked for: it is not renewed any more, whatever becomes of that.
    over: bool,
}

impl Leases {
    /// At the begin of a term as the leader: everything that there is has all of its time.
    pub fn begin_term(&mut self, leases: impl Iterator<Item = (LeaseId, Duration)>, now: Instant) {
        self.ends = leases.map(|(lease, ttl)| (lease, Timer { ttl, ends: now + ttl, over: false })).collect();
    }

    /// We lead no more: nothing of this counts.
    pub fn end_term(&mut self) {
        self.ends.clear();
    }

    /// As the contents have it now. Another time than before counts from the next renewal on.
    pub fn granted(&mut self, lease: LeaseId, ttl: Duration, now: Instant) {
        let timer = self.ends.entry(lease).or_insert(Timer { ttl, ends: now + ttl, over: false });
        timer.ttl = ttl;
    }

    /// Only these are left.
    pub fn retain(&mut self, lives: impl Fn(LeaseId) -> bool) {
        self.ends.retain(|lease, _| lives(*lease));
    }

    /// Has its whole time from `asked` on, which was before a quorum confirmed that we lead. `false`: it is gone, or about to be.
    pub fn renew(&mut self, lease: LeaseId, asked: Instant) -> bool {
        match self.ends.get_mut(&lease) {
            Some(timer) if !timer.over => {
                timer.ends = timer.ends.max(asked + timer.ttl);
                true
            }
            _ => false,
        }
    }

    /// Those that have run out, to be ended by a command, which is given again until they are gone: a command whose fate is unknown may be carried
    /// out at any time, so there is no way back from it.
    pub fn run_out(&mut self, now: Instant) -> Vec<LeaseId> {
        let due = self.ends.iter_mut().filter(|(_, timer)| timer.over || timer.ends <= now);
        due.map(|(lease, timer)| {
            timer.over = true;
            *lease
        })
        .collect()
    }

    /// When the next one runs out.
    pub fn next(&self) -> Option<Instant> {
        self.ends.values().filter(|timer| !timer.over).map(|timer| timer.ends).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(2);

    fn at(seconds: u64) -> Instant {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_runs_out_unless_it_is_renewed_and_then_there_is_no_way_back() {
        let mut leases = Leases::default();
        leases.granted(A, at(3), at(10));
        leases.granted(B, at(3), at(11));
        leases.granted(A, at(3), at(12));
        assert_eq!((leases.next(), leases.run_out(at(12))), (Some(at(13)), vec![]));
        assert!(leases.renew(A, at(12)));
        assert!(leases.renew(A, at(11)), "an older question shortens nothing");
        assert_eq!(leases.run_out(at(14)), [B]);
        assert!(!leases.renew(B, at(14)), "its end is on its way");
        leases.granted(B, at(3), at(14));
        assert_eq!(leases.run_out(at(14)), [B], "until it is gone");
        leases.retain(|lease| lease != B);
        assert_eq!((leases.next(), leases.run_out(at(14))), (Some(at(15)), vec![]));
    }

    #[test]
    fn a_new_leader_gives_everything_its_whole_time() {
        let mut leases = Leases::default();
        leases.granted(A, at(3), at(0));
        leases.end_term();
        assert!(!leases.renew(A, at(1)), "we lead no more");
        leases.begin_term([(A, at(3)), (B, at(8))].into_iter(), at(100));
        assert_eq!((leases.next(), leases.run_out(at(103))), (Some(at(103)), vec![A]));
    }
}
