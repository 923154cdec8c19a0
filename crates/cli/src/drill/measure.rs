//! What a drill's numbers mean: pure functions from the events that the writers recorded to outage, loss and overlap.
//!
//! All times are read from one monotonic clock, the drill's own, and count from its start. An insert is acknowledged
//! when its answer has been read completely, commit included. Not here: making the events (`writers`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One server in one term as primary: where it listens and the timeline that it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    pub timeline: u32,
    pub port: u16,
}

/// The writer that goes to the old primary directly; those that go through the entrypoint count from 1.
pub const DIRECT: i32 = 0;

/// A row that the server acknowledged. The server itself said, in the same statement, which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insert {
    pub writer: i32,
    /// Counts the writer's attempts; no number is used twice.
    pub sequence: i64,
    pub term: Term,
    pub sent: Duration,
    pub acknowledged: Duration,
}

/// A connection or an insert that failed, as the client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub writer: i32,
    pub at: Duration,
    pub message: String,
}

/// Everything that the writers saw. Bounded by the deadlines of a drill: some minutes at some thousand rows a second.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// How many writers go through the entrypoint.
    pub writers: i32,
    pub inserts: Vec<Insert>,
    pub failures: Vec<Failure>,
}

impl Record {
    pub fn writers_through_entry(&self) -> impl Iterator<Item = i32> {
        1..=self.writers
    }

    pub fn through_entry(&self) -> impl DoubleEndedIterator<Item = &Insert> {
        self.inserts.iter().filter(|insert| insert.writer != DIRECT)
    }

    pub fn direct(&self) -> impl Iterator<Item = &Insert> {
        self.inserts.iter().filter(|insert| insert.writer == DIRECT)
    }

    pub fn failures_through_entry(&self) -> impl Iterator<Item = &Failure> {
        self.failures.iter().filter(|failure| failure.writer != DIRECT)
    }
}

/// The longest time between two acknowledged inserts, over all writers; `end` is when writing ended, so that an outage
/// which nobody recovered from counts until then. `None` if nothing was acknowledged.
pub fn outage<'a>(inserts: impl Iterator<Item = &'a Insert>, end: Duration) -> Option<Duration> {
    let mut times: Vec<Duration> = inserts.map(|insert| insert.acknowledged).collect();
    if times.is_empty() {
        return None;
    }
    times.push(end);
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max()
}

/// The longest time that any single writer through the entrypoint went without an acknowledged insert. One that never had any
/// waited from the start to `end`.
pub fn longest_wait(record: &Record, end: Duration) -> Duration {
    let of = |writer| record.inserts.iter().filter(move |insert| insert.writer == writer);
    let waits = record.writers_through_entry().map(|writer| outage(of(writer), end).unwrap_or(end));
    waits.max().unwrap_or_default()
}

/// How many acknowledged rows the final primary does not have. A row without an answer may be there or not.
pub fn lost<'a>(inserts: impl Iterator<Item = &'a Insert>, found: &BTreeSet<(i32, i64)>) -> usize {
    inserts.filter(|insert| !found.contains(&(insert.writer, insert.sequence))).count()
}

/// How long two servers acknowledged writes at the same time: for each two terms of different servers the time from the
/// first acknowledgement of the later one to the last of the earlier one (or its own last); the longest counts.
pub fn overlap(inserts: &[Insert]) -> Duration {
    let mut spans: BTreeMap<Term, (Duration, Duration)> = BTreeMap::new();
    for Insert { term, acknowledged, .. } in inserts {
        let span = spans.entry(*term).or_insert((*acknowledged, *acknowledged));
        *span = (span.0.min(*acknowledged), span.1.max(*acknowledged));
    }
    let spans: Vec<(Term, (Duration, Duration))> = spans.into_iter().collect();
    let pairs = spans.iter().enumerate().flat_map(|(i, one)| spans[i + 1..].iter().map(move |other| (one, other)));
    let shared = pairs.filter(|(one, other)| one.0.port != other.0.port);
    shared.map(|((_, one), (_, other))| one.1.min(other.1).saturating_sub(one.0.max(other.0))).max().unwrap_or_default()
}

/// How often another server, or the same one on a new timeline, began to acknowledge. Timeline numbers may be skipped,
/// so they are not subtracted.
pub fn promotions<'a>(inserts: impl Iterator<Item = &'a Insert>) -> u64 {
    let terms: BTreeSet<Term> = inserts.map(|insert| insert.term).collect();
    u64::try_from(terms.len()).unwrap_or(u64::MAX).saturating_sub(1)
}

/// The middle value; of an even number the lower middle, so that it is a value that was measured.
pub fn median<T: Copy + Ord>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// The messages of the failures with their numbers, the most frequent first.
pub fn tally<'a>(failures: impl Iterator<Item = &'a Failure>) -> Vec<(&'a str, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for failure in failures {
        *counts.entry(&failure.message).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Writer, port, timeline, acknowledged at (in ms); the position in the list is the sequence.
    type Event = (i32, u16, u32, u64);

    fn inserts(events: &[Event]) -> Vec<Insert> {
        let insert = |(sequence, (writer, port, timeline, at)): (usize, &Event)| Insert {
            writer: *writer,
            sequence: sequence as i64,
            term: Term { timeline: *timeline, port: *port },
            sent: ms(at.saturating_sub(1)),
            acknowledged: ms(*at),
        };
        events.iter().enumerate().map(insert).collect()
    }

    #[test]
    fn the_outage_is_the_longest_gap_over_all_writers() {
        // (events, end of writing, outage)
        let cases: &[(&[Event], u64, Option<u64>)] = &[
            (&[], 100, None),
            (&[(1, 1, 1, 10)], 10, Some(0)),
            (&[(1, 1, 1, 10), (1, 1, 1, 50)], 60, Some(40)),
            // Another writer was served in between; events need not be in order.
            (&[(1, 1, 1, 10), (1, 1, 1, 50), (2, 1, 1, 35)], 50, Some(25)),
            // It never came back.
            (&[(1, 1, 1, 10), (2, 1, 1, 20)], 500, Some(480)),
        ];
        for (events, end, expected) in cases {
            assert_eq!(outage(inserts(events).iter(), ms(*end)), expected.map(ms), "{events:?}");
        }
    }

    #[test]
    fn the_longest_wait_is_the_worst_writers_own() {
        // (events, end of writing, wait); three writers
        let cases: &[(&[Event], u64, u64)] = &[
            (&[(1, 1, 1, 10), (2, 1, 1, 11), (3, 1, 1, 12), (1, 1, 1, 20), (2, 1, 1, 40), (3, 1, 1, 22)], 41, 29),
            // One hangs to the end, whatever the others do; the direct one is not asked.
            (&[(1, 1, 1, 10), (2, 1, 1, 11), (3, 1, 1, 12), (1, 1, 1, 90), (2, 1, 1, 95), (DIRECT, 1, 1, 9)], 100, 88),
            // One was never served.
            (&[(1, 1, 1, 50), (2, 1, 1, 50)], 100, 100),
        ];
        for (events, end, expected) in cases {
            let record = Record { writers: 3, inserts: inserts(events), failures: Vec::new() };
            assert_eq!(longest_wait(&record, ms(*end)), ms(*expected), "{events:?}");
        }
    }

    #[test]
    fn lost_are_the_acknowledged_rows_that_are_missing() {
        let events = inserts(&[(1, 1, 1, 10), (1, 1, 1, 20), (2, 1, 1, 30)]);
        let cases: &[(&[(i32, i64)], usize)] = &[
            (&[(1, 0), (1, 1), (2, 2)], 0),
            (&[(1, 0), (2, 2)], 1),
            // Rows that nobody was told about do not make up for it.
            (&[(1, 0), (1, 1), (1, 7), (2, 9)], 1),
            (&[], 3),
        ];
        for (found, expected) in cases {
            assert_eq!(lost(events.iter(), &found.iter().copied().collect()), *expected, "{found:?}");
        }
    }

    #[test]
    fn overlap_is_the_time_in_which_two_servers_acknowledge() {
        let cases: &[(&[Event], u64)] = &[
            (&[], 0),
            (&[(1, 1, 1, 10), (1, 1, 1, 20)], 0),
            // One after the other.
            (&[(1, 1, 1, 10), (DIRECT, 1, 1, 20), (1, 2, 2, 21)], 0),
            // The old primary goes on to the end.
            (&[(1, 1, 1, 10), (1, 2, 2, 20), (DIRECT, 1, 1, 35), (1, 2, 2, 40)], 15),
            // The old primary outlives the new one.
            (&[(1, 1, 1, 10), (1, 2, 2, 20), (1, 2, 2, 30), (DIRECT, 1, 1, 90)], 10),
            // There and back again is no overlap: a new timeline is a new term.
            (&[(1, 1, 1, 10), (1, 2, 2, 20), (1, 1, 3, 30), (1, 2, 4, 40)], 0),
            // The same server on a new timeline is one writer.
            (&[(1, 1, 1, 10), (1, 1, 2, 15), (1, 1, 1, 20)], 0),
            // Two that were promoted apart from each other share a timeline id.
            (&[(1, 1, 2, 10), (2, 2, 2, 12), (1, 1, 2, 30), (2, 2, 2, 25)], 13),
        ];
        for (events, expected) in cases {
            assert_eq!(overlap(&inserts(events)), ms(*expected), "{events:?}");
        }
    }

    #[test]
    fn promotions_are_counted_by_server_and_timeline() {
        let cases: &[(&[Event], u64)] = &[
            (&[], 0),
            (&[(1, 1, 1, 10), (1, 1, 1, 20)], 0),
            (&[(1, 1, 1, 10), (1, 2, 2, 20), (2, 2, 2, 25)], 1),
            // In place, and over a timeline that was reserved for somebody else.
            (&[(1, 1, 1, 10), (1, 1, 2, 20), (1, 2, 4, 30)], 2),
        ];
        for (events, expected) in cases {
            assert_eq!(promotions(inserts(events).iter()), *expected, "{events:?}");
        }
    }

    #[test]
    fn medians_are_measured_values() {
        for (values, expected) in [
            (vec![], None),
            (vec![3], Some(3)),
            (vec![9, 1], Some(1)),
            (vec![5, 1, 9], Some(5)),
            (vec![4, 1, 2, 3], Some(2)),
        ] {
            assert_eq!(median(&values), expected);
        }
    }

    #[test]
    fn failures_are_counted_by_message() {
        let failure = |message: &str| Failure { writer: 1, at: ms(1), message: message.into() };
        let failures = [failure("reset"), failure("refused"), failure("refused")];
        assert_eq!(tally(failures.iter()), [("refused", 2), ("reset", 1)]);
    }
}
