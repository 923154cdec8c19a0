//! Each mistake is noticed, on seeds that pass without it.

use pgherd_sim::{Mutant, run};

/// Found with `soak --mutant NAME`.
const CAUGHT: [(Mutant, &[u64]); 11] = [
    (Mutant::CountFromAcknowledgement, &[114, 353]),
    (Mutant::CountFromTheWrite, &[366, 434]),
    (Mutant::ReadRenews, &[2657, 2741]),
    (Mutant::NoTick, &[252, 1032]),
    (Mutant::GuardKillsPostmasterOnly, &[16, 19]),
    (Mutant::ReleaseBeforeDown, &[3, 6]),
    (Mutant::StalePlan, &[2038, 2060]),
    (Mutant::DeleteForeignKey, &[45, 64]),
    (Mutant::ConfiguredTtl, &[55, 68]),
    (Mutant::GuardDeathIgnored, &[58, 106]),
    (Mutant::HandOverToAnyone, &[13, 112]),
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
