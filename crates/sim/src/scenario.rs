//! The circumstances of a run, drawn from its seed: times, the store's settings, which faults there are and how often.

use std::time::Duration;

use pgherd_ha::{Address, Remote, Settings, StandbyCluster, Synchronous, Upstream};

use crate::consumer::{SLOT, kind};
use crate::faults::Fault;
use crate::hooks::Hooks;
use crate::rng::Rng;
use crate::world::{NODES, name};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Several kinds of fault at once, or only orderly hand-overs.
    Swarm,
    /// The usual settings, and faults that are over in a moment: no leader is to change.
    Gentle,
    /// The usual settings, and one disk at a time that does not answer: another node is to lead.
    StuckDisks,
}

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
    /// And at least.
    pub apart: Duration,
    /// The storm begins with the cluster itself.
    pub early: bool,
    /// How long faults happen.
    pub storm: Duration,
    pub replication_lag_ms: u64,
    /// Clients hardly write, so nothing else is written either.
    pub idle: bool,
    /// From the first write on.
    pub synchronous: Option<Synchronous>,
    /// In a thousand.
    pub job_failures: u64,
    /// Disks that lose what they said to have written when their machine loses power, in a thousand.
    pub lying_disks: u64,
    /// In bytes. Small ones are exceeded by a standby that was frozen for a while.
    pub maximum_lag_on_failover: u64,
    pub check_timeline: bool,
    pub kind: Kind,
    /// Standbys that could not be given a guard when they were started, in a thousand.
    pub unguarded: u64,
    /// It is on in all of the run, which has outages of the store beside its other faults.
    pub failsafe_mode: bool,
    /// Nobody may lead without one.
    pub watchdog: bool,
    /// Counts in synchronous mode.
    pub primary_stop_timeout: Option<Duration>,
    pub primary_race_backoff: Duration,
    /// What a cluster follows from the first on, until its configuration says otherwise.
    pub born_following: Option<StandbyCluster>,
    pub hooks: Hooks,
    /// There is a permanent logical slot, and a consumer.
    pub logical: bool,
    /// Whom each node streams from in place of the leader (the tag `replicatefrom`).
    pub above: [Option<usize>; NODES],
}

/// As Patroni's default.
const DEFAULT_LAG: u64 = 1_048_576;

/// What happens in runs that only hand over in order: not one acknowledged row may be lost then. An agent that is told to stop while no
/// standby takes anything stops all the same, so those two do not meet.
const ORDERLY: [&[Fault]; 2] = [&[Fault::Switchover, Fault::CleanStop], &[Fault::Switchover, Fault::FreezeStandby]];

/// What failsafe mode is for.
const OUTAGES: [Fault; 2] = [Fault::LongOutage, Fault::CutLeaderFromStore];

/// What happens in runs in which no leader is to change.
const GENTLE: [Fault; 5] =
    [Fault::StopEnsemble, Fault::PartitionNode, Fault::HangAgent, Fault::UpgradeAgent, Fault::Overload];

impl Scenario {
    pub fn new(rng: &mut Rng) -> Scenario {
        match rng.below(1000) {
            0..60 => Scenario::usual(rng, Kind::Gentle, &GENTLE, Duration::from_secs(12)),
            60..90 => Scenario::usual(rng, Kind::StuckDisks, &[Fault::StuckDisk], Duration::from_secs(60)),
            _ => Scenario::swarm(rng),
        }
    }

    /// The defaults, and faults that come one by one.
    fn usual(rng: &mut Rng, kind: Kind, faults: &[Fault], apart: Duration) -> Scenario {
        Scenario {
            ttl: Duration::from_secs(8),
            retry_timeout: Duration::from_secs(3),
            primary_start_timeout: Duration::from_secs(300),
            tick: Duration::from_secs(2),
            longest_session: Duration::from_secs(40),
            faults: faults.to_vec(),
            apart,
            pause: Duration::from_secs(8),
            early: false,
            storm: rng.millis(60_000, 140_000),
            replication_lag_ms: 0,
            idle: rng.chance(200),
            job_failures: 0,
            lying_disks: 0,
            maximum_lag_on_failover: DEFAULT_LAG,
            check_timeline: false,
            kind,
            unguarded: 0,
            // Without a standby that has everything nobody may lead in place of the one whose disk is stuck.
            synchronous: (kind == Kind::Gentle && rng.chance(300)).then(|| synchronous(rng)),
            failsafe_mode: false,
            watchdog: false,
            primary_stop_timeout: None,
            primary_race_backoff: Duration::ZERO,
            born_following: None,
            hooks: Hooks::default(),
            logical: rng.chance(300),
            above: [None; NODES],
        }
    }

    fn swarm(rng: &mut Rng) -> Scenario {
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
        let mut scenario = Scenario {
            ttl,
            retry_timeout: Duration::from_secs(3),
            primary_start_timeout: Duration::from_secs(rng.pick(&[300, 300, 1, 0])),
            tick,
            longest_session: longest,
            faults,
            early: !orderly && rng.chance(100),
            pause: rng.millis(1000, 8000),
            // So that the list of faults ends.
            apart: Duration::from_millis(1),
            // Rarely long enough for the longest time-outs.
            storm: if rng.chance(50) { rng.millis(100_000, 150_000) } else { rng.millis(30_000, 60_000) },
            replication_lag_ms: if orderly { 0 } else { rng.pick(&[0, 0, 0, 1500]) },
            idle: rng.chance(200),
            synchronous: rng.chance(500).then(|| synchronous(rng)),
            job_failures: if orderly { 0 } else { rng.pick(&[0, 0, 100, 300]) },
            lying_disks: if orderly { 0 } else { rng.pick(&[0, 0, 0, 500]) },
            maximum_lag_on_failover: if orderly { DEFAULT_LAG } else { rng.pick(&[DEFAULT_LAG, DEFAULT_LAG, 4000]) },
            check_timeline: rng.chance(250),
            kind: Kind::Swarm,
            unguarded: if orderly { 0 } else { rng.pick(&[0, 0, 300]) },
            failsafe_mode: !orderly && rng.chance(300),
            watchdog: !orderly && rng.chance(150),
            primary_stop_timeout: (!orderly && rng.chance(500)).then_some(Duration::from_secs(5)),
            primary_race_backoff: Duration::from_secs(if orderly { 0 } else { rng.pick(&[0, 0, 0, 0, 3]) }),
            born_following: None,
            hooks: Hooks::new(&mut rng.clone().fork(), orderly),
            logical: rng.chance(300),
            above: [None; NODES],
        };
        if scenario.failsafe_mode {
            scenario.faults.extend(OUTAGES);
        }
        if scenario.watchdog {
            scenario.faults.push(Fault::BreakWatchdog);
        }
        // Drawn last, so that all other runs are what they were before there were standby clusters.
        match rng.below(1000) {
            _ if orderly => {}
            0..40 => {
                scenario.early = true;
                scenario.born_following = Some(other_cluster(rng.chance(600)));
            }
            40..140 => scenario.faults.extend([Fault::FollowAnother; 2]),
            _ => {}
        }
        if rng.chance(150) {
            scenario.above = cascade(rng);
        }
        scenario
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
            maximum_lag_on_failover: self.maximum_lag_on_failover,
            primary_start_timeout: self.primary_start_timeout,
            check_timeline: self.check_timeline,
            nofailover: false,
            failover_priority: 1,
            use_pg_rewind: true,
            remove_on_rewind_failure: false,
            remove_on_diverged: false,
            use_slots: true,
            synchronous: None,
            failsafe_mode: self.failsafe_mode,
            pre_promote: self.hooks.pre_promote,
            custom_bootstrap: self.hooks.custom_bootstrap,
            post_bootstrap: self.hooks.post_bootstrap,
            copies_without_leader: self.hooks.copies_without_leader,
            member_slots_ttl: Duration::from_secs(1800),
            standby_cluster: None,
            replicatefrom: self.above[node].map(name),
            nostream: false,
            permanent_slots: self.logical.then(|| (SLOT.to_owned(), kind())).into_iter().collect(),
            ignore_slots: Vec::new(),
            primary_stop_timeout: self.primary_stop_timeout.filter(|_| self.synchronous.is_some()),
            primary_race_backoff: self.primary_race_backoff,
        }
    }
}

/// The cluster that a standby cluster follows, or its archive. Nothing ever comes from there but a first copy.
pub fn other_cluster(streams: bool) -> StandbyCluster {
    let server = Upstream {
        name: "other".into(),
        addresses: vec![Address::new("other", 5432)],
        remote: Some(Remote::default()),
    };
    StandbyCluster { upstream: streams.then_some(server) }
}

/// One node streams from another, which perhaps streams from the third.
fn cascade(rng: &mut Rng) -> [Option<usize>; NODES] {
    let lowest = rng.index(NODES);
    let step = 1 + rng.index(NODES - 1);
    let (middle, highest) = ((lowest + step) % NODES, (lowest + 2 * step) % NODES);
    let mut above = [None; NODES];
    above[lowest] = Some(middle);
    above[middle] = rng.chance(300).then_some(highest);
    above
}

/// A mode of which everything is promised.
pub fn synchronous(rng: &mut Rng) -> Synchronous {
    Synchronous {
        quorum: rng.chance(600),
        strict: rng.chance(300),
        node_count: rng.pick(&[1, 1, 1, 2]),
        maximum_lag: None,
    }
}
