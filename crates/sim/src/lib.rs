//! A seeded world that runs `pgherd_ha::Agent` against models of store, network, PostgreSQL and guard.
//!
//! Virtual time, one thread, one generator: a seed replays everything. A run has a quiet beginning, a storm of [faults](faults), and a
//! healed end that must come back to a working cluster. What must hold is in [`checkers`]; [`mutants`] are mistakes that must be noticed.
//! `docs/simulator.md` says what is modelled and how to replay. Tested in `tests/sim`.

mod checkers;
mod clients;
mod faults;
mod guard;
mod mutants;
mod network;
mod node;
mod postgres;
mod rng;
mod scenario;
mod store;
mod trace;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use pgherd_ha::Rule;

pub use checkers::Violation;
pub use mutants::Mutant;

use crate::checkers::Progress;
use crate::faults::FaultEvent;
use crate::world::{Event, World};

/// How long a new cluster may take before the storm begins.
const QUIET: Duration = Duration::from_secs(60);

/// What has come of a run.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    /// The first property that did not hold.
    pub violation: Option<Violation>,
    /// The rules that decided something.
    pub rules: BTreeSet<Rule>,
    pub events: u64,
    pub faults: u64,
    /// Virtual time.
    pub lasted: Duration,
    /// Equal for equal runs.
    pub digest: u64,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

/// Runs one seed. `print`: a line on standard output for each event.
pub fn run(seed: u64, mutant: Option<Mutant>, print: bool) -> Report {
    let mut world = World::new(seed, mutant, print);
    let violation = story(&mut world).err();
    Report {
        seed,
        violation,
        rules: std::mem::take(&mut world.rules),
        events: world.events,
        faults: world.faults,
        lasted: world.now,
        digest: world.trace.digest(),
        tail: world.trace.tail().map(Into::into).collect(),
    }
}

fn story(world: &mut World) -> Result<(), Violation> {
    let mut built = Progress::default();
    let early = world.scenario.early;
    world.run_until(QUIET, |world| early || built.reached(world))?;
    world.after(Duration::ZERO, Event::Fault(FaultEvent::Next));
    let storm_ends = world.now + world.scenario.storm;
    world.run_until(storm_ends, |_| false)?;
    world.heal();
    let bound = world.now + checkers::PROGRESS_BOUND;
    let mut back = Progress::default();
    let mut reached = false;
    world.run_until(bound, |world| {
        reached = back.reached(world);
        reached
    })?;
    if !reached {
        let what = world.missing().unwrap_or_else(|| "it does not stay as it should be".into());
        return Err(Violation { at: world.now, property: "progress", what });
    }
    world.check_end().map_or(Ok(()), Err)
}
