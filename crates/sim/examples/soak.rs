//! Runs fresh seeds until the time is over or one fails:
//! `cargo run --release -p pgherd-sim --example soak -- [--seconds N] [--from SEED] [--mutant NAME] [--all]`.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the program around the pure crate has a clock"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgherd_sim::{Mutant, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let seconds = value("--seconds").and_then(|text| text.parse().ok()).unwrap_or(60);
    // Fresh seeds every time, unless told where to begin.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let from = value("--from").and_then(|text| text.parse().ok()).or(u64::try_from(clock * 1000).ok()).unwrap_or(0);
    let mutant = value("--mutant").and_then(|name| Mutant::parse(name));
    let all = arguments.iter().any(|argument| argument == "--all");
    let begun = Instant::now();
    let (mut runs, mut faults, mut events, mut failed) = (0_u64, 0, 0, 0_u64);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let report = run(from + runs, mutant, false);
        runs += 1;
        faults += report.faults;
        events += report.events;
        if let Some(violation) = report.violation {
            failed += 1;
            println!("seed {}: {violation}", report.seed);
            if !all {
                break;
            }
        }
    }
    let took = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let per_second = |count: u64| count as f64 / took;
    println!(
        "{runs} seeds from {from} in {took:.0} s, {failed} failed; {:.0} faults and {:.0} events per second",
        per_second(faults),
        per_second(events)
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
