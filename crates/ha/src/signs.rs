//! From when a proof of the lease counts on ZooKeeper.
//!
//! An acknowledged write proves that the session lived at that moment. It does not prolong it: a follower hears of its clients and tells
//! the ensemble's leader, who alone ends sessions, only every half tick. So after a silence (a stopped agent, a suspended machine) the
//! leader may end the session within the next half tick, right after it has acknowledged a write. A lease is therefore counted from a sign of
//! life that the leader must know of: a request whose answer had come a whole tick before an acknowledged write was sent on the same
//! connection (whatever the follower sends arrives in order), or the connection's opening, which the leader itself confirms. That the request was
//! sent so early is not enough: what a bad network has held up reaches the follower together with the write.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::Boot;

/// Signs closer than this to the one before tell nothing new.
const APART: Duration = Duration::from_millis(50);

/// Signs that are remembered: those of 12 s; the longest tick is 10 s (a quarter of a session of 40 s).
const KEPT: usize = 240;

/// The signs of life on one connection.
#[derive(Clone, Debug)]
pub struct SignsOfLife {
    opened: Boot,
    answered: VecDeque<Sign>,
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
struct Sign {
    sent: Boot,
    answer: Boot,
}

impl SignsOfLife {
    /// `opened`: before the server was asked to take the session over.
    pub fn new(opened: Boot) -> SignsOfLife {
        SignsOfLife { opened, answered: VecDeque::new() }
    }

    /// A request that was sent at `sent` has been answered now.
    pub fn answered(&mut self, sent: Boot, now: Boot) {
        if self.answered.back().is_some_and(|newest| sent < newest.sent + APART) {
            return;
        }
        if self.answered.len() == KEPT {
            self.answered.pop_front();
        }
        self.answered.push_back(Sign { sent, answer: now });
    }

    /// The instant that a lease counts from, for a write that was sent at `sent` and has been acknowledged. `tick`: by how much its end is
    /// early, which covers the half tick and as much again.
    pub fn counts_from(&self, sent: Boot, tick: Duration) -> Boot {
        // Half a tick of the server's, which may be twice as long as the one that is assumed.
        let told = sent - tick;
        let known = self.answered.iter().rev().find(|sign| sign.answer <= told).map_or(self.opened, |sign| sign.sent);
        sent.min(known.max(self.opened) + tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(2);

    fn at(millis: u64) -> Boot {
        Boot::from_millis(millis)
    }

    fn beating(until: u64) -> SignsOfLife {
        let mut signs = SignsOfLife::new(at(1_000));
        (1_000..=until).step_by(500).for_each(|sent| signs.answered(at(sent), at(sent)));
        signs
    }

    #[test]
    fn with_a_steady_heartbeat_a_proof_counts_from_before_it_was_sent() {
        assert_eq!(beating(9_500).counts_from(at(10_000), TICK), at(10_000));
    }

    #[test]
    fn a_new_connection_is_confirmed_by_the_leader() {
        let signs = SignsOfLife::new(at(1_000));
        assert_eq!(signs.counts_from(at(1_010), TICK), at(1_010));
        assert_eq!(signs.counts_from(at(9_000), TICK), at(3_000), "nothing was heard since");
    }

    #[test]
    fn after_a_silence_a_proof_counts_from_before_the_silence_until_the_leader_must_have_been_told() {
        let mut signs = beating(10_000);
        assert_eq!(signs.counts_from(at(18_000), TICK), at(12_000));
        signs.answered(at(18_000), at(18_000));
        assert_eq!(signs.counts_from(at(19_900), TICK), at(12_000), "the leader may not have been told yet");
        assert_eq!(signs.counts_from(at(20_000), TICK), at(20_000));
    }
    #[test]
    fn what_the_network_held_up_is_no_sign_before_its_answer_comes() {
        let mut signs = beating(10_000);
        // Sent on waking, and delivered together with the write.
        signs.answered(at(15_000), at(18_000));
        assert_eq!(signs.counts_from(at(18_000), TICK), at(12_000));
        assert_eq!(signs.counts_from(at(20_000), TICK), at(17_000), "as old as it is");
    }
}
