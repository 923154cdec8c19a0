//! Fewer faults that do the same harm: what a person can read.
//!
//! Delta debugging: parts of the list are left out, smaller and smaller ones, as long as the same property is violated. What is left is not
//! the smallest possible list, but none of its faults can be left out alone.

use std::collections::BTreeSet;

use crate::{Replay, Report};

/// Bounds the search; a list of some twenty faults takes some hundred runs.
const MOST_RUNS: usize = 2_000;

/// The run with as few faults as the search finds, and its report. `None`: the run violates nothing.
pub fn shrink(replay: &Replay) -> Option<(Replay, Report)> {
    let mut report = replay.run();
    let property = report.violation.as_ref()?.property;
    let mut best = replay.clone();
    let mut kept: Vec<usize> = report.storm.iter().map(|(number, _)| *number).collect();
    let mut parts = 2;
    let mut runs = 0;
    'search: while kept.len() > 1 && runs < MOST_RUNS {
        let size = kept.len().div_ceil(parts);
        for begin in (0..kept.len()).step_by(size) {
            runs += 1;
            let end = (begin + size).min(kept.len());
            let fewer: Vec<usize> = [&kept[..begin], &kept[end..]].concat();
            let attempt = Replay { faults: Some(BTreeSet::from_iter(fewer.iter().copied())), ..replay.clone() };
            let found = attempt.run();
            if found.violation.as_ref().is_some_and(|violation| violation.property == property) {
                (kept, best, report) = (fewer, attempt, found);
                parts = (parts - 1).max(2);
                continue 'search;
            }
        }
        if size == 1 {
            break;
        }
        parts = (parts * 2).min(kept.len());
    }
    Some((best, report))
}
