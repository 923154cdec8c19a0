//! The circumstances of a run, drawn from its seed: times, the store's settings, which faults there are and how often.

use std::time::Duration;

use pgherd_ha::Settings;

use crate::faults::Fault;
use crate::rng::Rng;
use crate::world::name;

#[derive(Clone, Debug)]
pub struct Scenario {
    /// As configured; the store may grant another session.
    pub ttl: Duration,
    pub retry_timeout: Duration,
    pub primary_start_timeout: Duration,
    pub tick: Duration,
    pub longest_session: Duration,
    /// The kinds of fault of this run (a swarm: each run has some of them, so that rare ones are not drowned).
    pub faults: Vec<Fault>,
    /// Between two faults, on average.
    pub pause: Duration,
    /// The storm begins with the cluster itself.
    pub early: bool,
    /// How long faults happen.
    pub storm: Duration,
    pub replication_lag_ms: u64,
    /// Clients hardly write, so nothing else is written either.
    pub idle: bool,
    /// In a thousand.
    pub job_failures: u64,
    /// Standbys that could not be given a guard when they were started, in a thousand.
    pub unguarded: u64,
}

/// What happens in runs that only hand over in order: not one acknowledged row may be lost then. An agent that is told to stop while no
/// standby takes anything stops all the same, so those two do not meet.
const ORDERLY: [&[Fault]; 2] = [&[Fault::Switchover, Fault::CleanStop], &[Fault::Switchover, Fault::FreezeStandby]];

impl Scenario {
    pub fn new(rng: &mut Rng) -> Scenario {
        let ttl = Duration::from_secs(rng.pick(&[8, 8, 8, 5, 12, 30]));
        let tick = Duration::from_millis(rng.pick(&[2000, 2000, 2000, 1000, 500]));
        // A server may grant less than was asked for.
        let longest = Duration::from_secs(rng.pick(&[40, 40, 40, 6]));
        let orderly = rng.chance(120);
        let faults = if orderly {
            rng.pick(&ORDERLY).to_vec()
        } else {
            let some = rng.pick(&[150, 300, 500]);
            let mut faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| rng.chance(some)).collect();
            if faults.is_empty() {
                faults.push(rng.pick(&Fault::ALL));
            }
            faults
        };
        Scenario {
            ttl,
            retry_timeout: Duration::from_secs(3),
            primary_start_timeout: Duration::from_secs(rng.pick(&[300, 300, 1, 0])),
            tick,
            longest_session: longest,
            faults,
            early: !orderly && rng.chance(100),
            pause: rng.millis(1000, 8000),
            storm: rng.millis(30_000, 60_000),
            replication_lag_ms: if orderly { 0 } else { rng.pick(&[0, 0, 0, 1500]) },
            idle: rng.chance(200),
            job_failures: if orderly { 0 } else { rng.pick(&[0, 0, 100, 300]) },
            unguarded: if orderly { 0 } else { rng.pick(&[0, 0, 300]) },
        }
    }

    pub fn orderly(&self) -> bool {
        ORDERLY.contains(&&self.faults[..])
    }

    pub fn settings(&self, node: usize) -> Settings {
        Settings {
            name: name(node),
            loop_wait: Duration::from_secs(1),
            retry_timeout: self.retry_timeout,
            ttl: self.ttl,
            maximum_lag_on_failover: 1_048_576,
            primary_start_timeout: self.primary_start_timeout,
            check_timeline: false,
            nofailover: false,
            failover_priority: 1,
            use_pg_rewind: true,
            use_slots: true,
        }
    }
}
