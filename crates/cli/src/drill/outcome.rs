//! The result of one run of a drill, and what is wrong with it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::fault::{Expectation, Fault};
use super::measure::{self, Record};

/// The numbers of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    pub fault: String,
    /// The longest time between two acknowledged inserts over all writers; `None` if nothing was acknowledged at all.
    pub outage_ms: Option<u64>,
    pub client_errors: usize,
    pub rows_acknowledged: usize,
    pub rows_lost: usize,
    pub overlap_ms: u64,
    pub leader_changes: u64,
    /// The session time-out that the store had granted to the leader when the fault came.
    pub lease_ms: Option<u64>,
    /// From the fault until the store had freed the old leader's key; `None` if it never did.
    pub key_freed_ms: Option<u64>,
    /// How long the store did not answer, where the fault was its restart.
    pub store_gone_ms: Option<u64>,
    /// The node that was the primary before, and the one that was at the end.
    pub primary_before: String,
    pub primary_after: Option<String>,
    /// The client that kept to the old primary.
    pub direct_rows_acknowledged: usize,
    pub direct_rows_lost: usize,
    /// The messages of the client errors with their numbers, the most frequent first; at most five.
    pub errors: Vec<(String, usize)>,
    /// What went wrong apart from the numbers: no recovery, a refused request, members that did not come back.
    pub problems: Vec<String>,
}

/// A store that is gone for so long costs nobody the leadership.
const STORE_GONE_PROMISE_MS: u64 = 3_000;
/// Messages of errors that are shown; the rest is in the sum.
const MESSAGES: usize = 5;

/// What the drill knows besides the writers' record.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    pub lease: Option<Duration>,
    pub key_freed: Option<Duration>,
    pub primary_before: String,
    pub primary_after: Option<String>,
    pub leader_key_changed: bool,
    pub store_gone: Option<Duration>,
    pub problems: Vec<String>,
}

impl Outcome {
    /// Counts; `found` are the rows on the final primary, `end` is when the writers were told to end.
    pub fn count(
        fault: Fault,
        record: &Record,
        end: Duration,
        found: &BTreeSet<(i32, i64)>,
        known: Circumstances,
    ) -> Outcome {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let errors = measure::tally(record.failures_through_entry());
        Outcome {
            fault: fault.name(),
            outage_ms: measure::outage(record.through_entry(), end).map(millis),
            client_errors: record.failures_through_entry().count(),
            rows_acknowledged: record.through_entry().count(),
            rows_lost: measure::lost(record.through_entry(), found),
            overlap_ms: millis(measure::overlap(&record.inserts)),
            // A key that was taken anew without a promotion is a change, too.
            leader_changes: measure::promotions(record.through_entry()).max(u64::from(known.leader_key_changed)),
            store_gone_ms: known.store_gone.map(millis),
            lease_ms: known.lease.map(millis),
            key_freed_ms: known.key_freed.map(millis),
            primary_before: known.primary_before,
            primary_after: known.primary_after,
            direct_rows_acknowledged: record.direct().count(),
            direct_rows_lost: measure::lost(record.direct(), found),
            errors: errors.into_iter().take(MESSAGES).map(|(text, count)| (text.to_owned(), count)).collect(),
            problems: known.problems,
        }
    }

    /// Which promises were broken, in sentences; empty if none.
    pub fn broken_promises(&self, fault: Fault) -> Vec<String> {
        let mut broken = self.problems.clone();
        if self.overlap_ms > 0 {
            broken.push(format!("two servers acknowledged writes at the same time for {} ms", self.overlap_ms));
        }
        if fault.is_planned() && self.rows_lost > 0 {
            broken
                .push(format!("{} acknowledged rows were lost although the primary stopped in order", self.rows_lost));
        }
        // A machine so busy that the store needs longer to start breaks no promise of ours.
        let within_promise = self.store_gone_ms.is_none_or(|gone| gone <= STORE_GONE_PROMISE_MS);
        if fault.expectation() == Expectation::SameLeader && within_promise && self.leader_changes > 0 {
            broken.push(format!("the leader changed {} times although it should have stayed", self.leader_changes));
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_a_broken_promise_only_where_the_primary_stopped_in_order() {
        let none = Outcome::default;
        let cases = [
            (Fault::Stop, none(), 0),
            (Fault::Stop, Outcome { rows_lost: 1, ..none() }, 1),
            (Fault::KillHost, Outcome { rows_lost: 1, leader_changes: 1, ..none() }, 0),
            (Fault::KillHost, Outcome { overlap_ms: 1, ..none() }, 1),
            (Fault::Blip, Outcome { leader_changes: 1, ..none() }, 1),
            (Fault::RestartStore, Outcome { leader_changes: 1, store_gone_ms: Some(2_600), ..none() }, 1),
            (Fault::RestartStore, Outcome { leader_changes: 1, store_gone_ms: Some(5_600), ..none() }, 0),
            (Fault::Switchover, Outcome { problems: vec!["refused".into()], ..none() }, 1),
        ];
        for (fault, outcome, expected) in cases {
            assert_eq!(outcome.broken_promises(fault).len(), expected, "{fault:?} {outcome:?}");
        }
    }
}
