//! What goes wrong: a swarm of faults, of which each seed has some. Each fault heals after a while; at the end of the storm all do.
//!
//! The list of a run's faults is made before it begins ([`storm`]), and each has a generator of its own, so that some can be left out and
//! the run replayed with the rest ([`crate::shrink`]).
//!
//! Excluded, because nobody promises anything there: a guard and its postmaster killed at once, an adopted guard killed.

mod between;
mod machine;
mod operator;
mod processes;
mod storm;

use std::time::Duration;

pub use storm::{Planned, storm};

use crate::entrypoint::ENTRYPOINTS;
use crate::network::Place;
use crate::rng::Rng;
use crate::world::{Event, NODES, World, name};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    KillAgent,
    HangAgent,
    /// Between a decision and its action.
    Ambush,
    KillPostmaster,
    KillGuard,
    KillGuardAndAgent,
    KillHost,
    PartitionNode,
    PartitionFromStore,
    OneWay,
    PartitionPeers,
    SlowNetwork,
    CutFollower,
    StopEnsemble,
    LoseAnswers,
    LateWatches,
    SetWallClock,
    CleanStop,
    Switchover,
    Pause,
    OperatorRequest,
    SilentServer,
    FreezeStandby,
    /// The agent is replaced by another version; guard and session stay.
    UpgradeAgent,
    /// Every agent is late.
    Overload,
    SuspendMachine,
    StuckDisk,
    FullDisk,
    /// The store's ensemble chooses another leader.
    ElectStoreLeader,
    /// Answers of other members' agents are lost or come late.
    LosePolls,
    FreezeEntrypoint,
    PartitionEntrypoint,
    /// A machine comes back with an empty disk.
    NewDisk,
    HungArchive,
    /// From one kind of synchronous replication to another; rarely off.
    ChangeSynchronousMode,
    /// Its files cannot be read for a while; what runs goes on.
    UnreadableDirectory,
    /// Of the questions between agents every one arrives twice.
    Duplicates,
    /// In runs that require one.
    BreakWatchdog,
    /// Several leases long. In runs with failsafe mode, and there beside the others.
    LongOutage,
    CutLeaderFromStore,
    /// The cluster is to follow another one for a while, of which nothing comes. In runs that have it beside the others.
    FollowAnother,
}

impl Fault {
    /// Of which each run has some.
    pub const ALL: [Fault; 37] = [
        Fault::KillAgent,
        Fault::HangAgent,
        Fault::Ambush,
        Fault::KillPostmaster,
        Fault::KillGuard,
        Fault::KillGuardAndAgent,
        Fault::KillHost,
        Fault::PartitionNode,
        Fault::PartitionFromStore,
        Fault::OneWay,
        Fault::PartitionPeers,
        Fault::SlowNetwork,
        Fault::CutFollower,
        Fault::StopEnsemble,
        Fault::LoseAnswers,
        Fault::LateWatches,
        Fault::SetWallClock,
        Fault::CleanStop,
        Fault::Switchover,
        Fault::Pause,
        Fault::OperatorRequest,
        Fault::SilentServer,
        Fault::FreezeStandby,
        Fault::UpgradeAgent,
        Fault::Overload,
        Fault::SuspendMachine,
        Fault::StuckDisk,
        Fault::FullDisk,
        Fault::ElectStoreLeader,
        Fault::LosePolls,
        Fault::FreezeEntrypoint,
        Fault::PartitionEntrypoint,
        Fault::NewDisk,
        Fault::HungArchive,
        Fault::ChangeSynchronousMode,
        Fault::UnreadableDirectory,
        Fault::Duplicates,
    ];
}

#[derive(Clone, Debug)]
pub enum FaultEvent {
    /// One of the storm.
    Strike(Planned),
    StartAgent(usize),
    ResumeAgent(usize),
    HostUp(usize),
    Unblock(Vec<(Place, Place)>),
    NormalSpeed,
    Link(usize),
    StartEnsemble,
    AnswersArrive,
    Resume,
    NormalLoad,
    WakeMachine(usize),
    DiskIsWell(usize),
    PollsArrive,
    DirectoryIsReadable(usize),
    DuplicatesEnd,
    RepairWatchdog(usize),
    WatchdogRunsOut(usize),
    WakeEntrypoint(usize),
    /// The files say where the cluster that is followed can be copied.
    NameOtherCluster,
    /// The cluster follows no other any more.
    StandAlone,
}

impl World {
    pub fn fault_event(&mut self, event: FaultEvent) {
        match event {
            FaultEvent::Strike(planned) => self.strike(planned),
            FaultEvent::StartAgent(node) | FaultEvent::ResumeAgent(node) if self.nodes[node].suspended => {
                self.wait_for_machine(node, Event::Fault(event));
            }
            FaultEvent::StartAgent(node) => self.start_agent(node),
            FaultEvent::ResumeAgent(node) => self.resume_agent(node),
            FaultEvent::HostUp(node) => {
                self.nodes[node].host_down = false;
                self.start_agent(node);
            }
            FaultEvent::Unblock(pairs) => pairs.into_iter().for_each(|(from, to)| self.network.unblock(from, to)),
            FaultEvent::NormalSpeed => self.network.slow = Duration::ZERO,
            FaultEvent::Link(server) => {
                if !self.store.servers[server].linked {
                    self.link_server(server);
                }
            }
            FaultEvent::StartEnsemble => {
                if self.store.servers.iter().any(|server| !server.up) {
                    self.start_ensemble();
                }
            }
            FaultEvent::AnswersArrive => {
                self.store.lost_answers = 0;
                self.store.late_watch = Duration::ZERO;
            }
            FaultEvent::Resume => self.set_pause(false),
            FaultEvent::NormalLoad => self.overload = Duration::ZERO,
            FaultEvent::WakeMachine(node) => self.wake_machine(node),
            FaultEvent::DiskIsWell(node) => self.disk_is_well(node),
            FaultEvent::WakeEntrypoint(entry) => self.wake_entrypoint(entry),
            FaultEvent::NameOtherCluster => {
                let named = crate::scenario::other_cluster(true);
                self.scenario.born_following = self.scenario.born_following.take().map(|_| named);
            }
            FaultEvent::StandAlone => self.stand_alone(),
            FaultEvent::PollsArrive => self.network.lost_polls = 0,
            FaultEvent::DirectoryIsReadable(node) => self.nodes[node].directory_unreadable = false,
            FaultEvent::DuplicatesEnd => self.network.duplicates = false,
            FaultEvent::RepairWatchdog(node) => self.repair_watchdog(node),
            FaultEvent::WatchdogRunsOut(node) => self.watchdog_runs_out(node),
        }
    }

    /// What the fault draws comes from its own seed, so that it stays what it is when others are left out.
    fn strike(&mut self, planned: Planned) {
        if self.calm {
            return;
        }
        self.faults += 1;
        let world = std::mem::replace(&mut self.rng, Rng::new(planned.seed));
        self.inject(planned);
        self.rng = world;
    }

    /// Half of the faults hit who leads, since that is where they hurt.
    fn victim(&mut self) -> usize {
        // And where there is a cascade, whom others stream from.
        if let Some(above) = self.scenario.above.into_iter().flatten().next()
            && self.rng.chance(300)
        {
            return above;
        }
        let leader = self.store.tree.leader();
        leader.filter(|_| self.rng.chance(500)).unwrap_or_else(|| self.rng.index(NODES))
    }

    fn inject(&mut self, Planned { number, fault, .. }: Planned) {
        let node = self.victim();
        // An orderly hand-over needs somebody to hand over to: one at a time.
        if self.orderly && fault != Fault::FreezeStandby && self.missing().is_some() {
            return;
        }
        // A machine that does not run can only lose its power.
        if self.nodes[node].suspended && fault != Fault::KillHost {
            return;
        }
        let who = name(node);
        self.note_who("fault", || format!("{number:<3} {fault:?} {who}"));
        match fault {
            Fault::KillAgent
            | Fault::HangAgent
            | Fault::Ambush
            | Fault::UpgradeAgent
            | Fault::Overload
            | Fault::KillPostmaster
            | Fault::KillGuard
            | Fault::KillGuardAndAgent
            | Fault::SilentServer
            | Fault::FreezeStandby
            | Fault::HungArchive
            | Fault::FreezeEntrypoint => self.hit_processes(fault, node),
            Fault::KillHost
            | Fault::SuspendMachine
            | Fault::SetWallClock
            | Fault::StuckDisk
            | Fault::FullDisk
            | Fault::NewDisk
            | Fault::UnreadableDirectory
            | Fault::BreakWatchdog => self.hit_machine(fault, node),
            Fault::CleanStop
            | Fault::Switchover
            | Fault::Pause
            | Fault::OperatorRequest
            | Fault::FollowAnother
            | Fault::ChangeSynchronousMode => self.let_people_act(fault, node),
            Fault::PartitionNode
            | Fault::PartitionFromStore
            | Fault::OneWay
            | Fault::PartitionPeers
            | Fault::PartitionEntrypoint
            | Fault::SlowNetwork
            | Fault::LosePolls
            | Fault::Duplicates
            | Fault::CutFollower
            | Fault::StopEnsemble
            | Fault::ElectStoreLeader
            | Fault::LongOutage
            | Fault::CutLeaderFromStore
            | Fault::LoseAnswers
            | Fault::LateWatches => self.inject_between(fault, node),
        }
    }

    fn later(&mut self, from_ms: u64, to_ms: u64, event: FaultEvent) {
        let time = self.rng.millis(from_ms, to_ms);
        self.after(time, Event::Fault(event));
    }

    /// Everything that was broken works again.
    pub fn heal(&mut self) {
        self.calm = true;
        self.note_who("world", || "everything is healed".into());
        self.network.heal();
        self.fault_event(FaultEvent::StartEnsemble);
        for server in 0..self.store.servers.len() {
            self.fault_event(FaultEvent::Link(server));
        }
        self.fault_event(FaultEvent::AnswersArrive);
        self.set_pause(false);
        self.stand_alone();
        self.scenario.faults.clear();
        self.scenario.job_failures = 0;
        self.scenario.hooks.heal();
        self.scenario.replication_lag_ms = 0;
        self.scenario.unguarded = 0;
        self.scenario.idle = false;
        self.overload = Duration::ZERO;
        (0..ENTRYPOINTS).for_each(|entry| self.wake_entrypoint(entry));
        for node in 0..NODES {
            self.wake_machine(node);
            self.disk_is_well(node);
            self.repair_watchdog(node);
            self.nodes[node].directory_unreadable = false;
            self.nodes[node].host_down = false;
            self.nodes[node].ambush = None;
            self.resume_agent(node);
            self.hook_comes_back(node);
            self.start_agent(node);
            if let Some(server) = &mut self.nodes[node].postgres.server {
                server.silent_until = Duration::ZERO;
                server.frozen_until = Duration::ZERO;
                server.archive_hangs_until = Duration::ZERO;
            }
        }
    }
}
