//! The faults of a run as a list: when, which, and the seed of everything else about each.

use std::time::Duration;

use super::Fault;
use crate::rng::Rng;
use crate::scenario::Scenario;

/// One fault, fixed before the run begins. Whom it hits may depend on who leads when it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its place in the list, by which a replay names it.
    pub number: usize,
    /// After the storm began.
    pub at: Duration,
    pub fault: Fault,
    pub seed: u64,
}

/// The faults of a scenario, in their order.
pub fn storm(scenario: &Scenario, rng: &mut Rng) -> Vec<Planned> {
    let longest = u64::try_from(scenario.pause.as_millis()).expect("seconds") * 2;
    let shortest = u64::try_from(scenario.apart.as_millis()).expect("seconds");
    let mut planned = Vec::new();
    let mut at = Duration::ZERO;
    while at < scenario.storm {
        let fault = rng.pick(&scenario.faults);
        planned.push(Planned { number: planned.len(), at, fault, seed: rng.draw() });
        at += rng.millis(shortest, shortest + longest);
    }
    planned
}
