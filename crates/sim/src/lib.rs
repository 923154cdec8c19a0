//! A seeded world that runs `pgherd_ha::Agent` against models of store, network, PostgreSQL and guard.
//!
//! Virtual time, one thread, one generator: a seed replays everything. A run has a quiet beginning, a storm of [faults](faults), and a
//! healed end that must come back to a working cluster. What must hold is in [`checkers`]; [`mutants`] are mistakes that must be noticed.
//! `docs/simulator.md` says what is modelled and how to replay. Tested in `tests/sim`.

mod checkers;
mod clients;
mod clock;
mod consumer;
mod disk;
mod entrypoint;
mod faults;
mod guard;
mod hooks;
mod mutants;
mod network;
mod node;
mod postgres;
mod rng;
mod scenario;
mod shrink;
mod store;
mod trace;
mod watchdog;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use pgherd_ha::Rule;

pub use checkers::Violation;
pub use mutants::Mutant;
pub use shrink::shrink;

use crate::checkers::Progress;
use crate::faults::{FaultEvent, Planned};
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
    /// Those that struck.
    pub faults: u64,
    /// The faults of the run by their numbers, each with its line: when after the beginning of the storm, and which.
    pub storm: Vec<(usize, String)>,
    /// Virtual time.
    pub lasted: Duration,
    /// Equal for equal runs.
    pub digest: u64,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

/// Runs one seed. `print`: a line on standard output for each event.
pub fn run(seed: u64, mutant: Option<Mutant>, print: bool) -> Report {
    Replay { mutant, print, ..Replay::of(seed) }.run()
}

/// Everything that decides what happens in a run.
#[derive(Clone, Debug)]
pub struct Replay {
    pub seed: u64,
    pub mutant: Option<Mutant>,
    /// The faults that strike, by their numbers in the seed's list; `None`: all of them.
    pub faults: Option<BTreeSet<usize>>,
    /// A line on standard output for each event.
    pub print: bool,
}

impl Replay {
    pub fn of(seed: u64) -> Replay {
        Replay { seed, mutant: None, faults: None, print: false }
    }

    pub fn run(&self) -> Report {
        let mut world = World::new(self.seed, self.mutant, self.print);
        if let Some(kept) = &self.faults {
            world.storm.retain(|planned| kept.contains(&planned.number));
        }
        let violation = story(&mut world).err();
        let line = |planned: &Planned| {
            let at = planned.at.as_secs_f64();
            (planned.number, format!("{:>4}  {at:>8.3} s  {:?}", planned.number, planned.fault))
        };
        Report {
            seed: self.seed,
            violation,
            rules: std::mem::take(&mut world.rules),
            events: world.events,
            faults: world.faults,
            storm: world.storm.iter().map(line).collect(),
            lasted: world.now,
            digest: world.trace.digest(),
            tail: world.trace.tail().map(Into::into).collect(),
        }
    }
}

fn story(world: &mut World) -> Result<(), Violation> {
    let mut built = Progress::default();
    let early = world.scenario.early;
    world.run_until(QUIET, |world| early || built.reached(world))?;
    world.begin_checks();
    for planned in world.storm.clone() {
        world.after(planned.at, Event::Fault(FaultEvent::Strike(planned)));
    }
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
    if !reached && !checkers::left_to_the_operator(world) {
        let what = world.missing().unwrap_or_else(|| "it does not stay as it should be".into());
        return Err(Violation { at: world.now, property: "progress", what });
    }
    world.check_end().map_or(Ok(()), Err)
}
