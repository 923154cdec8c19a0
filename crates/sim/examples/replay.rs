//! Runs one seed and shows each event:
//! `cargo run -p pgherd-sim --example replay -- SEED [--mutant NAME] [--faults 1,4,7] [--shrink]`.
//!
//! `--faults` leaves all others of the seed's list out; `--shrink` first looks for the fewest that still violate the same property.
#![allow(clippy::disallowed_methods, reason = "the program around the pure crate takes its arguments from somewhere")]

use std::collections::BTreeSet;
use std::process::ExitCode;

use pgherd_sim::{Mutant, Replay, Report, shrink};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((replay, shrinks)) = parse(&arguments) else {
        eprintln!("usage: replay SEED [--mutant NAME] [--faults 1,4,7] [--shrink]; the mutants: {:?}", Mutant::ALL);
        return ExitCode::from(2);
    };
    let replay = match shrinks.then(|| shrink(&replay)) {
        Some(None) => {
            println!("seed {} violates nothing", replay.seed);
            return ExitCode::SUCCESS;
        }
        Some(Some((fewer, _))) => fewer,
        None => replay,
    };
    let report = Replay { print: true, ..replay.clone() }.run();
    summary(&replay, &report);
    if report.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(arguments: &[String]) -> Option<(Replay, bool)> {
    let (seed, options) = arguments.split_first()?;
    let mut replay = Replay::of(seed.parse().ok()?);
    let mut shrinks = false;
    let mut options = options.iter().map(String::as_str);
    while let Some(option) = options.next() {
        match option {
            "--mutant" => replay.mutant = Some(Mutant::parse(options.next()?)?),
            "--faults" => {
                let numbers: Result<BTreeSet<usize>, _> = options.next()?.split(',').map(str::parse).collect();
                replay.faults = Some(numbers.ok()?);
            }
            "--shrink" => shrinks = true,
            _ => return None,
        }
    }
    Some((replay, shrinks))
}

fn summary(replay: &Replay, report: &Report) {
    println!("\nfault       after");
    report.storm.iter().for_each(|(_, line)| println!("{line}"));
    let seconds = report.lasted.as_secs_f64();
    println!("\n{} events, {} faults, {seconds:.1} s of virtual time", report.events, report.faults);
    if let Some(violation) = &report.violation {
        let numbers: Vec<String> = report.storm.iter().map(|(number, _)| number.to_string()).collect();
        let mutant = replay.mutant.map_or(String::new(), |mutant| format!(" --mutant {mutant:?}"));
        println!("{violation}");
        println!("again: replay {}{mutant} --faults {}", replay.seed, numbers.join(","));
    }
}
