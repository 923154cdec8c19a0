//! Picks the seeds of the tests anew, where a change has given them another meaning, and writes them to `tests/sim/picked.rs`:
//! `cargo run -p pgherd-sim --example pick`. What is listed and still holds stays; a minute or two where much has changed.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the program around the pure crate has threads and files"
)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use pgherd_ha::Rule;
use pgherd_sim::{Mutant, run};

#[path = "../tests/sim/picked.rs"]
mod picked;

/// As in `tests/sim/seeds.rs`; what these reach needs no other seed.
const USUAL: std::ops::Range<u64> = 0..400;
/// Nothing that is asked for is rarer than this.
const LAST: u64 = 200_000;
/// Where a second seed is as easily found, it is listed too.
const EASY: u64 = 2_000;
/// As many as the smallest machine that the tests run on has cores.
const THREADS: usize = 2;

fn main() {
    let rare = rare();
    let caught: Vec<(Mutant, Vec<u64>)> = Mutant::ALL.into_iter().map(|mutant| (mutant, caught(mutant))).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/picked.rs");
    std::fs::write(path, text(&rare, &caught)).expect("the list can be written");
}

/// Runs the seeds `from..` in their order on all threads, until `enough` says so of what came of one.
fn each(from: u64, last: u64, work: impl Fn(u64) + Sync, enough: impl Fn() -> bool + Sync) {
    let next = AtomicU64::new(from);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !enough() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last {
                        return;
                    }
                    work(seed);
                }
            });
        }
    });
}

/// Those listed that reach a rule which nothing else reaches, and whatever else it takes.
fn rare() -> Vec<u64> {
    let reached: Mutex<BTreeSet<Rule>> = Mutex::default();
    let take = |rules: BTreeSet<Rule>| {
        let mut reached = reached.lock().expect("no thread panics");
        let before = reached.len();
        reached.extend(rules);
        reached.len() > before
    };
    let all = || reached.lock().expect("no thread panics").len() == Rule::ALL.len();
    let usual = |seed| {
        take(run(seed, None, false).rules.into_iter().collect());
    };
    each(USUAL.start, USUAL.end, usual, || false);
    let news = |seed: &u64| take(run(*seed, None, false).rules.into_iter().collect());
    let kept: Vec<u64> = picked::RARE.iter().copied().filter(news).collect();
    let found = Mutex::new(kept);
    let look = |seed| {
        let report = run(seed, None, false);
        if report.violation.is_none() && take(report.rules.into_iter().collect()) {
            found.lock().expect("no thread panics").push(seed);
        }
    };
    each(USUAL.end, LAST, look, all);
    let reached = reached.lock().expect("no thread panics");
    for rule in Rule::ALL.iter().filter(|rule| !reached.contains(rule)) {
        println!("nothing reaches {}", rule.name());
    }
    let mut found = found.into_inner().expect("no thread panics");
    found.sort_unstable();
    found
}

fn caught(mutant: Mutant) -> Vec<u64> {
    let name = format!("{mutant:?}");
    let notices =
        |seed: u64| run(seed, Some(mutant), false).violation.is_some() && run(seed, None, false).violation.is_none();
    let listed = picked::CAUGHT.iter().find(|(listed, _)| *listed == name).map_or(&[][..], |(_, seeds)| seeds);
    let kept: Vec<u64> = listed.iter().copied().filter(|seed| notices(*seed)).collect();
    let wanted = listed.len().clamp(1, 2);
    if kept.len() >= wanted {
        return kept;
    }
    let found = Mutex::new(kept);
    let look = |seed| {
        let known = found.lock().expect("no thread panics").contains(&seed);
        if !known && notices(seed) {
            found.lock().expect("no thread panics").push(seed);
        }
    };
    let count = || found.lock().expect("no thread panics").len();
    each(0, EASY, look, || count() >= wanted);
    each(EASY, LAST, look, || count() >= 1);
    let mut found = found.into_inner().expect("no thread panics");
    found.sort_unstable();
    println!("{name}: {found:?}");
    found
}

fn text(rare: &[u64], caught: &[(Mutant, Vec<u64>)]) -> String {
    let mut text = String::from(
        "//! Written by `cargo run -p pgherd-sim --example pick`, which keeps what still holds and looks for the rest: every change of a decision or of a\n\
         //! draw gives seeds another meaning.\n\n\
         /// Seeds that reach the rules which take the rarest coincidences.\n",
    );
    writeln!(text, "pub const RARE: &[u64] = &{rare:?};\n").expect("a String");
    text.push_str("/// Each mutant by its name, and seeds on which it is noticed and that pass without it.\n");
    text.push_str("pub const CAUGHT: &[(&str, &[u64])] = &[\n");
    for (mutant, seeds) in caught {
        writeln!(text, "    (\"{mutant:?}\", &{seeds:?}),").expect("a String");
    }
    text.push_str("];\n");
    text
}
