//! The result of one run of a drill, and what is wrong with it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::fault::{Expectation, Fault};
use super::measure::{self, Record};

/// The numbers of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    pub fault: Fault,
    pub synchronous: bool,
    /// The longest time between two acknowledged inserts over all writers; `None` if nothing was acknowledged at all.
    pub outage_ms: Option<u64>,
    /// The same for each writer by itself, the worst.
    pub worst_client_ms: u64,
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
    /// Whether another server acknowledged, or the same one on a new timeline.
    pub server_changed: bool,
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
    pub synchronous: bool,
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
        let promotions = measure::promotions(record.through_entry());
        let same_node = known.primary_after.as_ref() == Some(&known.primary_before);
        Outcome {
            fault,
            synchronous: known.synchronous,
            outage_ms: measure::outage(record.through_entry(), end).map(millis),
            worst_client_ms: millis(measure::longest_wait(record, end)),
            client_errors: record.failures_through_entry().count(),
            rows_acknowledged: record.through_entry().count(),
            rows_lost: measure::lost(record.through_entry(), found),
            overlap_ms: millis(measure::overlap(&record.inserts)),
            // A key that was taken anew without a promotion is a change, too.
            leader_changes: promotions.max(u64::from(known.leader_key_changed)),
            store_gone_ms: known.store_gone.map(millis),
            lease_ms: known.lease.map(millis),
            key_freed_ms: known.key_freed.map(millis),
            primary_before: known.primary_before,
            primary_after: known.primary_after,
            server_changed: promotions > 0 || !same_node,
            direct_rows_acknowledged: record.direct().count(),
            direct_rows_lost: measure::lost(record.direct(), found),
            errors: errors.into_iter().take(MESSAGES).map(|(text, count)| (text.to_owned(), count)).collect(),
            problems: known.problems,
        }
    }

    /// Which promises were broken, in sentences; empty if none.
    pub fn broken_promises(&self) -> Vec<String> {
        let fault = self.fault;
        let mut broken = self.problems.clone();
        if self.overlap_ms > 0 {
            broken.push(format!("two servers acknowledged writes at the same time for {} ms", self.overlap_ms));
        }
        // Where replication is asynchronous a failover may lose what the old primary acknowledged last, to whomever.
        let lost = self.rows_lost + self.direct_rows_lost;
        if lost > 0 && self.synchronous {
            broken.push(format!("{lost} acknowledged rows were lost although commits wait for standbys"));
        } else if lost > 0 && fault.is_planned() {
            broken.push(format!("{lost} acknowledged rows were lost although the primary stopped in order"));
        } else if lost > 0 && !self.server_changed {
            broken.push(format!("{lost} acknowledged rows were lost although the server is the same"));
        }
        if fault.expectation() == Expectation::SameLeader && self.is_within_promise() && self.leader_changes > 0 {
            broken.push(format!("the leader changed {} times although it should have stayed", self.leader_changes));
        }
        broken
    }

    /// A machine so busy that the store needs longer to start breaks no promise of ours.
    pub fn is_within_promise(&self) -> bool {
        self.store_gone_ms.is_none_or(|gone| gone <= STORE_GONE_PROMISE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_broken_by_what_the_fault_does_not_excuse() {
        let none = Outcome::default;
        let failover = || Outcome { server_changed: true, leader_changes: 1, ..none() };
        let cases = [
            (Fault::Stop, none(), 0),
            (Fault::Stop, Outcome { rows_lost: 1, ..failover() }, 1),
            (Fault::Switchover, Outcome { direct_rows_lost: 1, ..failover() }, 1),
            (Fault::KillHost, Outcome { rows_lost: 1, direct_rows_lost: 1, ..failover() }, 0),
            // Recovered in place: what was acknowledged was on its disk.
            (Fault::KillPostgres, Outcome { rows_lost: 1, ..none() }, 1),
            (Fault::KillPostgres, Outcome { rows_lost: 1, ..failover() }, 0),
            (Fault::CpuLoad, Outcome { direct_rows_lost: 1, ..none() }, 1),
            (Fault::KillHost, Outcome { overlap_ms: 1, ..none() }, 1),
            (Fault::Blip, Outcome { leader_changes: 1, ..none() }, 1),
            (Fault::RestartStore, Outcome { leader_changes: 1, store_gone_ms: Some(2_600), ..none() }, 1),
            (Fault::RestartStore, Outcome { leader_changes: 1, store_gone_ms: Some(5_600), ..none() }, 0),
            (Fault::Switchover, Outcome { problems: vec!["refused".into()], ..none() }, 1),
            (Fault::KillHost, Outcome { rows_lost: 1, synchronous: true, ..failover() }, 1),
        ];
        for (fault, outcome, expected) in cases {
            let outcome = Outcome { fault, ..outcome };
            assert_eq!(outcome.broken_promises().len(), expected, "{outcome:?}");
        }
    }

    #[test]
    fn a_server_has_changed_if_it_or_its_timeline_is_another_one() {
        let insert = |timeline, port| measure::Insert {
            writer: 1,
            sequence: 1,
            term: measure::Term { timeline, port },
            sent: Duration::ZERO,
            acknowledged: Duration::ZERO,
        };
        let cases = [
            (vec![insert(1, 1)], Some("a"), false),
            (vec![insert(1, 1), insert(2, 1)], Some("a"), true),
            // It changed at the very end, or nobody knows.
            (vec![insert(1, 1)], Some("b"), true),
            (vec![insert(1, 1)], None, true),
        ];
        for (inserts, after, expected) in cases {
            let record = Record { writers: 1, inserts, failures: Vec::new() };
            let known = Circumstances {
                primary_before: "a".into(),
                primary_after: after.map(str::to_owned),
                ..Circumstances::default()
            };
            let outcome = Outcome::count(Fault::KillPostgres, &record, Duration::ZERO, &BTreeSet::new(), known);
            assert_eq!(outcome.server_changed, expected, "{record:?} {after:?}");
        }
    }
}
