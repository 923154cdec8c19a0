//! The system as it is, on a fixed list of seeds.

use std::collections::BTreeSet;

use pgherd_ha::Rule;
use pgherd_sim::{Report, run};

use crate::picked::RARE;

/// As many as take some ten seconds.
const SEEDS: std::ops::Range<u64> = 0..400;

/// Seeds that have found something once.
const FOUND: [u64; 4] = [93, 125, 321, 771];

#[test]
fn nothing_is_violated_and_every_rule_is_reached() {
    let reports: Vec<Report> =
        SEEDS.chain(FOUND).chain(RARE.iter().copied()).map(|seed| run(seed, None, false)).collect();
    let failed: Vec<String> = reports.iter().filter_map(failure).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let reached: BTreeSet<Rule> = reports.iter().flat_map(|report| report.rules.iter().copied()).collect();
    let missed: Vec<&str> = Rule::ALL.iter().filter(|rule| !reached.contains(rule)).map(|rule| rule.name()).collect();
    assert!(
        missed.is_empty(),
        "no seed reaches {missed:?}: `cargo run -p pgherd-sim --example pick` looks for others that do"
    );
}

#[test]
fn a_seed_replays() {
    for seed in [3, 17, 125] {
        let (first, second) = (run(seed, None, false), run(seed, None, false));
        assert_eq!((first.digest, first.events), (second.digest, second.events), "seed {seed}");
        assert_ne!(first.digest, run(seed + 1, None, false).digest);
    }
}

/// The violation with what came before it.
fn failure(report: &Report) -> Option<String> {
    let violation = report.violation.as_ref()?;
    let tail: Vec<&str> = report.tail.iter().rev().take(40).rev().map(String::as_str).collect();
    Some(format!("seed {}: {violation}\n{}", report.seed, tail.join("\n")))
}
