//! Each mistake is noticed, on seeds that pass without it.

use pgherd_sim::{Mutant, run};

use crate::picked::CAUGHT;

#[test]
fn every_mutant_is_caught() {
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        let seeds = CAUGHT.iter().find(|(of, _)| *of == format!("{mutant:?}")).map_or(&[][..], |(_, seeds)| seeds);
        assert!(!seeds.is_empty(), "no seed is listed for {mutant:?}");
        missed.extend(
            seeds
                .iter()
                .filter(|seed| run(**seed, Some(mutant), false).violation.is_none())
                .map(|seed| (mutant, *seed)),
        );
    }
    assert!(
        missed.is_empty(),
        "these are not noticed: {missed:?}; `cargo run -p pgherd-sim --example pick` looks for other seeds"
    );
}

#[test]
fn without_the_mutants_their_seeds_pass() {
    for seed in CAUGHT.iter().flat_map(|(_, seeds)| seeds.iter()) {
        let report = run(*seed, None, false);
        assert_eq!(report.violation, None, "seed {seed}");
    }
}
