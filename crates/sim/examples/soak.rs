//! Runs fresh seeds until the time is over or one fails, on two threads:
//! `cargo run --release -p pgherd-sim --example soak -- [--seconds N] [--from SEED] [--mutant NAME] [--all]`.
//!
//! Says where it begins, so that a failure can be found again. `--all` goes on after a failure.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the program around the pure crate has a clock and threads"
)]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgherd_ha::Rule;
use pgherd_sim::{Mutant, Replay};

/// As many as the smallest machine that the tests run on has cores.
const THREADS: usize = 2;

struct Soak {
    mutant: Option<Mutant>,
    all: bool,
    ends: Instant,
    next: AtomicU64,
    failed: AtomicBool,
}

#[derive(Default)]
struct Sum {
    runs: u64,
    faults: u64,
    events: u64,
    failures: u64,
    rules: BTreeSet<Rule>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let seconds = value("--seconds").and_then(|text| text.parse().ok()).unwrap_or(60);
    // Fresh seeds every time, unless told where to begin.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let from = value("--from").and_then(|text| text.parse().ok()).or(u64::try_from(clock * 1000).ok()).unwrap_or(0);
    let begun = Instant::now();
    let soak = Soak {
        mutant: value("--mutant").and_then(|name| Mutant::parse(name)),
        all: arguments.iter().any(|argument| argument == "--all"),
        ends: begun + Duration::from_secs(seconds),
        next: AtomicU64::new(from),
        failed: AtomicBool::new(false),
    };
    println!("seeds from {from} for {seconds} s");
    let sum = thread::scope(|scope| {
        let threads = [(); THREADS].map(|()| scope.spawn(|| soak.run()));
        threads.into_iter().map(|thread| thread.join().expect("a run does not panic")).fold(Sum::default(), Sum::and)
    });
    report(&sum, begun.elapsed());
    if sum.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Soak {
    fn run(&self) -> Sum {
        let mut sum = Sum::default();
        while Instant::now() < self.ends && (self.all || !self.failed.load(Ordering::Relaxed)) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            let report = Replay { mutant: self.mutant, ..Replay::of(seed) }.run();
            sum.runs += 1;
            sum.faults += report.faults;
            sum.events += report.events;
            sum.rules.extend(report.rules);
            if let Some(violation) = report.violation {
                sum.failures += 1;
                self.failed.store(true, Ordering::Relaxed);
                println!("seed {seed}: {violation}");
                let mutant = self.mutant.map_or(String::new(), |mutant| format!(" --mutant {mutant:?}"));
                println!("again: cargo run -p pgherd-sim --example replay -- {seed}{mutant} --shrink");
            }
        }
        sum
    }
}

impl Sum {
    fn and(mut self, other: Sum) -> Sum {
        self.rules.extend(other.rules);
        Sum {
            runs: self.runs + other.runs,
            faults: self.faults + other.faults,
            events: self.events + other.events,
            failures: self.failures + other.failures,
            rules: self.rules,
        }
    }
}

fn report(sum: &Sum, took: Duration) {
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let per_minute = |count: u64| 60.0 * count as f64 / took.as_secs_f64();
    println!(
        "{} seeds in {:.0} s, {} failed; {:.0} faults and {:.0} events a minute",
        sum.runs,
        took.as_secs_f64(),
        sum.failures,
        per_minute(sum.faults),
        per_minute(sum.events)
    );
    let missed: Vec<&str> = Rule::ALL.iter().filter(|rule| !sum.rules.contains(rule)).map(|rule| rule.name()).collect();
    println!("{} of {} rules decided something; not: {missed:?}", sum.rules.len(), Rule::ALL.len());
}
