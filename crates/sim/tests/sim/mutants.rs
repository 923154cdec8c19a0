//! Each mistake is noticed, on seeds that pass without it.

use pgherd_sim::{Mutant, run};

/// Found with `soak --mutant NAME`.
const CAUGHT: [(Mutant, &[u64]); 11] = [
    (Mutant::CountFromAcknowledgement, &[141, 416]),
    (Mutant::CountFromTheWrite, &[323, 416]),
    (Mutant::ReadRenews, &[526, 996]),
    (Mutant::NoTick, &[254, 416]),
    (Mutant::GuardKillsPostmasterOnly, &[17, 20]),
    (Mutant::ReleaseBeforeDown, &[3, 5]),
    (Mutant::StalePlan, &[1688]),
    (Mutant::DeleteForeignKey, &[26, 53]),
    (Mutant::ConfiguredTtl, &[55, 68]),
    (Mutant::GuardDeathIgnored, &[43, 47]),
    (Mutant::HandOverToAnyone, &[6, 21]),
];

#[test]
fn every_mutant_is_caught() {
    for mutant in Mutant::ALL {
        let seeds = CAUGHT.iter().find(|(of, _)| *of == mutant).map_or(&[][..], |(_, seeds)| seeds);
        assert!(!seeds.is_empty(), "no seed is listed for {mutant:?}");
        for seed in seeds {
            let report = run(*seed, Some(mutant), false);
            assert!(report.violation.is_some(), "seed {seed} does not notice {mutant:?}");
        }
    }
}

#[test]
fn without_the_mutants_their_seeds_pass() {
    for seed in CAUGHT.iter().flat_map(|(_, seeds)| seeds.iter()) {
        let report = run(*seed, None, false);
        assert_eq!(report.violation, None, "seed {seed}");
    }
}
