//! A run is its seed and its list of faults, and the list can be made shorter.

use pgherd_sim::{Mutant, Replay, shrink};

use crate::picked::CAUGHT;

/// It is noticed after several faults.
const NOTICED: Mutant = Mutant::ReleaseBeforeDown;

#[test]
fn the_whole_list_of_faults_is_the_same_run() {
    let all = Replay::of(17).run();
    let numbers = all.storm.iter().map(|(number, _)| *number).collect();
    let named = Replay { faults: Some(numbers), ..Replay::of(17) }.run();
    assert_eq!((all.digest, all.events), (named.digest, named.events));
}

#[test]
fn fewer_faults_violate_the_same_and_none_of_them_can_be_left_out() {
    let name = format!("{NOTICED:?}");
    let seeds = CAUGHT.iter().find(|(mutant, _)| *mutant == name).map(|(_, seeds)| seeds).expect("it is listed");
    let whole = Replay { mutant: Some(NOTICED), ..Replay::of(seeds[0]) };
    let (fewer, report) = shrink(&whole).expect("the mistake is noticed");
    let property = |replay: &Replay| replay.run().violation.map(|violation| violation.property);
    assert_eq!(report.violation.as_ref().map(|violation| violation.property), property(&whole));
    let kept = fewer.faults.clone().expect("some are left out");
    assert!(kept.len() < whole.run().storm.len(), "{} faults are kept", kept.len());
    for number in &kept {
        let without = kept.iter().copied().filter(|other| other != number).collect();
        let attempt = Replay { faults: Some(without), ..whole.clone() };
        assert_ne!(property(&attempt), property(&whole), "fault {number} can be left out");
    }
    assert_eq!(fewer.run().digest, report.digest, "it replays");
}

#[test]
fn what_violates_nothing_is_not_shrunk() {
    assert!(shrink(&Replay::of(1)).is_none());
}
