//! The drill's table.

use tabled::builder::Builder;
use tabled::settings::object::{Columns, Object as _, Rows};
use tabled::settings::{Alignment, Style};

use super::fault::Fault;
use super::measure::median;
use super::outcome::Outcome;

const TITLES: [&str; 10] = [
    "Run",
    "Outage",
    "Worst client",
    "Client errors",
    "Rows acknowledged",
    "Rows lost",
    "Overlap",
    "Leader changes",
    "Lease",
    "Key freed",
];

/// One line a run, the median of several, and what was noteworthy below it.
pub fn text(fault: Fault, outcomes: &[Outcome]) -> String {
    let mut builder = Builder::new();
    builder.push_record(TITLES);
    for (index, outcome) in outcomes.iter().enumerate() {
        builder.push_record(line(&(index + 1).to_string(), outcome));
    }
    if outcomes.len() > 1 {
        builder.push_record(line("median", &median_of(outcomes)));
    }
    let mut table = builder.build();
    table.with(Style::psql()).modify(Columns::new(1..).not(Rows::first()), Alignment::right());
    let mut text = format!("Drill {}\n{table}\n", fault.name());
    for (index, outcome) in outcomes.iter().enumerate() {
        text += &notes(index + 1, outcome);
    }
    text
}

fn line(title: &str, outcome: &Outcome) -> [String; 10] {
    [
        title.to_owned(),
        outcome.outage_ms.map_or_else(|| "-".to_owned(), seconds),
        seconds(outcome.worst_client_ms),
        outcome.client_errors.to_string(),
        outcome.rows_acknowledged.to_string(),
        outcome.rows_lost.to_string(),
        seconds(outcome.overlap_ms),
        outcome.leader_changes.to_string(),
        outcome.lease_ms.map_or_else(|| "unknown".to_owned(), seconds),
        outcome.key_freed_ms.map_or_else(|| "-".to_owned(), seconds),
    ]
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03} s", millis / 1000, millis % 1000)
}

/// The median of each number by itself. A run without any acknowledged row has no outage to compare, so it counts as
/// the longest.
pub fn median_of(outcomes: &[Outcome]) -> Outcome {
    let of =
        |number: fn(&Outcome) -> u64| median(&outcomes.iter().map(number).collect::<Vec<u64>>()).unwrap_or_default();
    let count = |number: fn(&Outcome) -> usize| {
        median(&outcomes.iter().map(number).collect::<Vec<usize>>()).unwrap_or_default()
    };
    let outage = of(|outcome| outcome.outage_ms.unwrap_or(u64::MAX));
    Outcome {
        fault: outcomes.first().map(|outcome| outcome.fault).unwrap_or_default(),
        outage_ms: (outage != u64::MAX).then_some(outage),
        worst_client_ms: of(|outcome| outcome.worst_client_ms),
        client_errors: count(|outcome| outcome.client_errors),
        rows_acknowledged: count(|outcome| outcome.rows_acknowledged),
        rows_lost: count(|outcome| outcome.rows_lost),
        overlap_ms: of(|outcome| outcome.overlap_ms),
        leader_changes: of(|outcome| outcome.leader_changes),
        key_freed_ms: median(&outcomes.iter().filter_map(|outcome| outcome.key_freed_ms).collect::<Vec<u64>>()),
        lease_ms: median(&outcomes.iter().filter_map(|outcome| outcome.lease_ms).collect::<Vec<u64>>()),
        direct_rows_acknowledged: count(|outcome| outcome.direct_rows_acknowledged),
        direct_rows_lost: count(|outcome| outcome.direct_rows_lost),
        ..Outcome::default()
    }
}

fn notes(run: usize, outcome: &Outcome) -> String {
    let after = outcome.primary_after.as_deref().unwrap_or("nobody");
    let mut text =
        format!("Run {run}, {}: primary {} before, {after} after.", outcome.fault.name(), outcome.primary_before);
    text += &format!(
        " The direct client of {}: {} rows acknowledged, {} of them lost.\n",
        outcome.primary_before, outcome.direct_rows_acknowledged, outcome.direct_rows_lost
    );
    if let Some(gone) = outcome.store_gone_ms {
        let judged = match outcome.is_within_promise() {
            true => "",
            false => ", longer than any promise: a change of leader is not counted against it",
        };
        text += &format!("  The store did not answer for {}{judged}.\n", seconds(gone));
    }
    for (message, count) in &outcome.errors {
        text += &format!("  {count} x {message}\n");
    }
    for broken in outcome.broken_promises() {
        text += &format!("  BROKEN: {broken}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_never_wrote_counts_as_the_longest_outage() {
        let run = |outage_ms, rows_lost| Outcome { outage_ms, rows_lost, ..Outcome::default() };
        let middle = median_of(&[run(Some(900), 0), run(None, 7), run(Some(1_000), 1)]);
        assert_eq!((middle.outage_ms, middle.rows_lost), (Some(1_000), 1));
        assert_eq!(median_of(&[run(None, 0)]).outage_ms, None);
    }

    #[test]
    fn the_table_shows_each_run_and_the_median() {
        let run =
            |outage_ms| Outcome { outage_ms: Some(outage_ms), primary_before: "node1".into(), ..Outcome::default() };
        let text = text(Fault::KillPostgres, &[run(900), run(1_100), run(1_000)]);
        for part in ["Drill kill-postgres", "0.900 s", "1.100 s", "median", "1.000 s"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!super::text(Fault::Stop, &[run(900)]).contains("median"));
    }
}
