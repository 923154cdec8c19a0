//! Every rule as data: what is given, which rule decides, what it asks for.
//!
//! A case is a situation and the steps that change it; after each step the decision is compared. No rule may be left without
//! a case, and `docs/rules.md` must show them all.

mod callbacks;
mod cascading;
mod failsafe;
mod following;
mod given;
mod hooks;
mod leading;
mod limits;
mod own_bootstrap;
mod page;
mod race_backoff;
mod slots;
mod slots_elsewhere;
mod standby_cluster;
mod stop_timeout;
mod synchronous;
mod timelines;
mod watchdog;
mod without_leader;
mod without_order;

use std::collections::BTreeSet;

use given::Case;
use pgherd_ha::Rule;

fn all() -> Vec<Case> {
    let cases = [
        leading::cases(),
        following::cases(),
        without_leader::cases(),
        without_order::cases(),
        synchronous::cases(),
        timelines::cases(),
        failsafe::cases(),
        watchdog::cases(),
        race_backoff::cases(),
        slots::cases(),
        slots_elsewhere::cases(),
        stop_timeout::cases(),
        limits::cases(),
        standby_cluster::cases(),
        cascading::cases(),
        hooks::cases(),
        own_bootstrap::cases(),
    ];
    cases.into_iter().flatten().collect()
}

#[test]
fn decisions_are_as_written() {
    let wrong: Vec<String> = all().iter().filter_map(|case| case.check().err()).collect();
    assert!(wrong.is_empty(), "{} of {} cases differ:\n{}", wrong.len(), all().len(), wrong.join("\n"));
}

#[test]
fn every_rule_has_a_case() {
    let shown: BTreeSet<Rule> = all().iter().flat_map(Case::rules).collect();
    let missing: Vec<&str> = Rule::ALL.iter().filter(|rule| !shown.contains(rule)).map(|rule| rule.name()).collect();
    assert!(missing.is_empty(), "no case shows {missing:?}");
}

#[test]
fn sentences_are_distinct_and_whole() {
    let sentences: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.sentence()).collect();
    assert_eq!(sentences.len(), Rule::ALL.len(), "two rules share a sentence");
    assert!(sentences.iter().all(|text| !text.is_empty() && !text.ends_with('.')));
}
