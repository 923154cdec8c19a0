//! When a cluster has dealt with a fault, as its clients see it: pure functions on what the writers recorded so far.
//!
//! Every writer counts by itself: one session that hangs is not made up for by others that are served.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault::Expectation;
use super::measure::{Insert, Record, Term};

/// A fault that has been caused, on the drill's clock.
#[derive(Clone, Copy, Debug)]
pub struct Faulted {
    /// Who acknowledged before it.
    pub first: Term,
    /// Just before it was caused, and when it had been: a fault that passes by itself had passed.
    pub at: Duration,
    pub passed: Duration,
}

/// The writers through the entrypoint that are not served yet as is expected after the fault.
pub fn waiting(expectation: Expectation, record: &Record, fault: Faulted) -> Vec<i32> {
    let by_another = |insert: &Insert| insert.acknowledged >= fault.at && insert.term != fault.first;
    let errors = || record.failures_through_entry().map(|failure| failure.at).filter(|at| *at >= fault.at);
    match expectation {
        Expectation::NewPrimary => without(record, fault.at, by_another),
        Expectation::Recovery => {
            let first_error = errors().min();
            let after_error = |insert: &Insert| first_error.is_some_and(|error| insert.sent > error);
            without(record, fault.at, |insert| by_another(insert) || after_error(insert))
        }
        Expectation::SameLeader => unserved(record, fault.passed),
    }
}

/// The writers through the entrypoint that have been told of no row that they sent after this moment.
pub fn unserved(record: &Record, since: Duration) -> Vec<i32> {
    without(record, since, |insert| insert.sent > since)
}

/// The writers without such an insert that was acknowledged after `since`.
fn without(record: &Record, since: Duration, is_one: impl Fn(&Insert) -> bool) -> Vec<i32> {
    let mut missing: BTreeSet<i32> = record.writers_through_entry().collect();
    // From the newest backwards, and no further than needed: the writers wait while this looks.
    for insert in record.through_entry().rev().take_while(|insert| insert.acknowledged >= since) {
        if missing.is_empty() {
            break;
        }
        if is_one(insert) {
            missing.remove(&insert.writer);
        }
    }
    missing.into_iter().collect()
}

/// Writers in a sentence.
pub fn names(writers: &[i32]) -> String {
    let numbers: Vec<String> = writers.iter().map(i32::to_string).collect();
    format!("client{} {}", if writers.len() == 1 { "" } else { "s" }, numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::measure::{DIRECT, Failure};
    use super::*;

    const OLD: Term = Term { timeline: 1, port: 1 };
    const NEW: Term = Term { timeline: 2, port: 2 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Two writers and a fault from 100 to 110 ms. Events: writer, server, sent, acknowledged; an error at a time.
    fn check(expectation: Expectation, events: &[(i32, Term, u64, u64)], error: Option<u64>, expected: &[i32]) {
        let insert = |(writer, term, sent, acknowledged): &(i32, Term, u64, u64)| Insert {
            writer: *writer,
            sequence: 1,
            term: *term,
            sent: ms(*sent),
            acknowledged: ms(*acknowledged),
        };
        let failures = error.map(|at| Failure { writer: 1, at: ms(at), message: "reset".into() });
        let record = Record {
            writers: 2,
            inserts: events.iter().map(insert).collect(),
            failures: failures.into_iter().collect(),
        };
        let fault = Faulted { first: OLD, at: ms(100), passed: ms(110) };
        assert_eq!(waiting(expectation, &record, fault), expected, "{expectation:?} {events:?} {error:?}");
    }

    #[test]
    fn a_fault_is_over_when_every_writer_is_served() {
        use Expectation::{NewPrimary, Recovery, SameLeader};
        let before = [(1, OLD, 90, 91), (2, OLD, 92, 93)];
        for expectation in [NewPrimary, Recovery, SameLeader] {
            check(expectation, &before, None, &[1, 2]);
        }
        // The other one's session hangs, and the direct client does not count.
        let one = [(1, OLD, 90, 91), (2, OLD, 92, 93), (DIRECT, NEW, 118, 119), (1, NEW, 120, 121)];
        for expectation in [NewPrimary, Recovery, SameLeader] {
            check(expectation, &one, None, &[2]);
        }
        let both = [(1, NEW, 120, 121), (2, NEW, 122, 125)];
        for expectation in [NewPrimary, Recovery, SameLeader] {
            check(expectation, &both, None, &[]);
        }
        // By the same server.
        let again = [(1, OLD, 120, 121), (2, OLD, 122, 125)];
        check(NewPrimary, &again, None, &[1, 2]);
        check(Recovery, &again, None, &[1, 2]);
        check(Recovery, &again, Some(105), &[]);
        check(Recovery, &again, Some(121), &[1]);
        check(SameLeader, &again, None, &[]);
        // Sent before the fault had passed, answered after it.
        check(SameLeader, &[(1, OLD, 109, 130), (2, OLD, 122, 131)], None, &[1]);
    }

    #[test]
    fn writers_are_named() {
        assert_eq!(names(&[2]), "client 2");
        assert_eq!(names(&[1, 3]), "clients 1, 3");
    }
}
