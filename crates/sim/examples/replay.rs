//! Runs one seed and shows each event: `cargo run -p pgherd-sim --example replay -- SEED [--mutant NAME]`.
#![allow(clippy::disallowed_methods, reason = "the program around the pure crate takes its arguments from somewhere")]

use std::process::ExitCode;

use pgherd_sim::{Mutant, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (seed, mutant) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [seed] => (seed.parse().ok(), None),
        [seed, "--mutant", name] => (seed.parse().ok().filter(|_| Mutant::parse(name).is_some()), Mutant::parse(name)),
        _ => (None, None),
    };
    let Some(seed) = seed else {
        eprintln!("usage: replay SEED [--mutant NAME]; the mutants: {:?}", Mutant::ALL);
        return ExitCode::from(2);
    };
    let report = run(seed, mutant, true);
    println!(
        "{} events, {} faults, {:.1} s of virtual time",
        report.events,
        report.faults,
        report.lasted.as_secs_f64()
    );
    match report.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}
