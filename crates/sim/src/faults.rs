//! What goes wrong: a swarm of faults, of which each seed has some. Each fault heals after a while; at the end of the storm all do.
//!
//! Excluded, because nobody promises anything there: a guard and its postmaster killed at once, an adopted guard killed, a machine whose
//! kernel does not run.

use std::time::Duration;

use pgherd_ha::{FailoverKey, Request};

use crate::network::Place;
use crate::node::{Ambush, Process};
use crate::store::{Key, Transaction, Value};
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
}

impl Fault {
    pub const ALL: [Fault; 23] = [
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
    ];
}

#[derive(Clone, Debug)]
pub enum FaultEvent {
    /// The next one of the storm.
    Next,
    StartAgent(usize),
    ResumeAgent(usize),
    HostUp(usize),
    Unblock(Vec<(Place, Place)>),
    NormalSpeed,
    Link(usize),
    StartEnsemble,
    AnswersArrive,
    Resume,
}

impl World {
    pub fn fault_event(&mut self, event: FaultEvent) {
        match event {
            FaultEvent::Next if self.calm => {}
            FaultEvent::Next => {
                let fault = self.rng.pick(&self.scenario.faults.clone());
                self.faults += 1;
                self.inject(fault);
                let pause = u64::try_from(self.scenario.pause.as_millis()).expect("seconds");
                let pause = self.rng.millis(0, pause * 2);
                self.after(pause, Event::Fault(FaultEvent::Next));
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
        }
    }

    /// Half of the faults hit who leads, since that is where they hurt.
    fn victim(&mut self) -> usize {
        let leader = self.store.tree.leader();
        leader.filter(|_| self.rng.chance(500)).unwrap_or_else(|| self.rng.index(NODES))
    }

    fn inject(&mut self, fault: Fault) {
        let node = self.victim();
        // An orderly hand-over needs somebody to hand over to: one at a time.
        if self.orderly && fault != Fault::FreezeStandby && self.missing().is_some() {
            return;
        }
        let who = name(node);
        self.note_who("fault", || format!("{fault:?} {who}"));
        match fault {
            Fault::KillAgent => {
                self.kill_agent(node);
                // The file was not written yet, or its disk is new.
                if self.rng.chance(300) {
                    self.nodes[node].lose_session_file();
                }
                self.later(100, 14_000, FaultEvent::StartAgent(node));
            }
            Fault::HangAgent => {
                self.hang_agent(node);
                self.later(500, 16_000, FaultEvent::ResumeAgent(node));
            }
            Fault::Ambush => {
                let hang = self.rng.millis(500, 16_000);
                let ambush = if self.rng.chance(300) { Ambush::Kill } else { Ambush::Hang(hang) };
                self.nodes[node].ambush = Some(ambush);
            }
            Fault::KillPostmaster => self.kill_postmaster(node),
            Fault::KillGuard => self.kill_guard(node),
            Fault::KillGuardAndAgent => {
                self.kill_agent(node);
                self.kill_guard(node);
                self.later(100, 14_000, FaultEvent::StartAgent(node));
            }
            Fault::KillHost => self.kill_host(node),
            Fault::SetWallClock => {
                let jump = i64::try_from(self.rng.below(7_200_000)).expect("two hours") - 3_600_000;
                self.nodes[node].wall_offset_ms += jump;
            }
            Fault::SilentServer => {
                let until = self.now + self.rng.millis(500, 6000);
                if let Some(server) = &mut self.nodes[node].postgres.server {
                    server.silent_until = until;
                }
            }
            Fault::FreezeStandby => {
                let until = self.now + self.rng.millis(200, 9000);
                let all = self.rng.chance(300);
                let nodes = self.nodes.iter_mut().enumerate().filter(|(index, _)| all || *index == node);
                for server in nodes.filter_map(|(_, at)| at.postgres.server.as_mut()) {
                    server.frozen_until = until;
                }
            }
            Fault::CleanStop => self.clean_stop(node),
            Fault::Switchover => self.ask_for_switchover(),
            Fault::Pause => {
                self.set_pause(true);
                self.later(1000, 15_000, FaultEvent::Resume);
            }
            Fault::OperatorRequest => {
                let request = if self.rng.chance(700) { Request::Restart } else { Request::Reinitialize };
                if self.nodes[node].process == Process::Running {
                    self.news(node, crate::node::request(request));
                }
            }
            network_or_store => self.inject_between(network_or_store, node),
        }
    }

    fn inject_between(&mut self, fault: Fault, node: usize) {
        let here = Place::Node(node);
        let stores: Vec<Place> = (0..self.store.servers.len()).map(Place::Store).collect();
        let peers: Vec<Place> = (0..NODES).filter(|peer| *peer != node).map(Place::Node).collect();
        match fault {
            Fault::PartitionNode => self.part(here, &[stores, peers].concat(), true),
            Fault::PartitionFromStore => {
                let some: Vec<Place> = stores.into_iter().filter(|_| self.rng.chance(800)).collect();
                self.part(here, &some, true);
            }
            Fault::OneWay => self.part(here, &[stores, peers].concat(), false),
            Fault::PartitionPeers => self.part(here, &peers, true),
            Fault::SlowNetwork => {
                self.network.slow = self.rng.millis(5, 400);
                self.later(1000, 10_000, FaultEvent::NormalSpeed);
            }
            Fault::CutFollower => {
                let server = self.rng.index(self.store.servers.len());
                let whole = self.store.servers.iter().all(|server| server.linked && server.up);
                if whole {
                    self.unlink_server(server);
                    self.later(500, 20_000, FaultEvent::Link(server));
                }
            }
            Fault::StopEnsemble => {
                let whole = self.store.servers.iter().all(|server| server.linked && server.up);
                if whole {
                    self.stop_ensemble();
                    let longest = if self.rng.clone().chance(700) { 3000 } else { 15_000 };
                    self.later(200, longest, FaultEvent::StartEnsemble);
                }
            }
            Fault::LoseAnswers => {
                self.store.lost_answers = self.rng.pick(&[20, 100, 400]);
                self.later(500, 8000, FaultEvent::AnswersArrive);
            }
            Fault::LateWatches => {
                self.store.late_watch = self.rng.millis(200, 6000);
                self.later(5000, 20_000, FaultEvent::AnswersArrive);
            }
            _ => {}
        }
    }

    fn later(&mut self, from_ms: u64, to_ms: u64, event: FaultEvent) {
        let time = self.rng.millis(from_ms, to_ms);
        self.after(time, Event::Fault(event));
    }

    fn part(&mut self, here: Place, others: &[Place], both: bool) {
        let mut pairs = Vec::new();
        // One way: either what it says or what it hears is lost.
        let outward = self.rng.chance(500);
        for there in others {
            if both || outward {
                pairs.push((here, *there));
            }
            if both || !outward {
                pairs.push((*there, here));
            }
        }
        pairs.iter().for_each(|(from, to)| self.network.block(*from, *to));
        self.later(200, 15_000, FaultEvent::Unblock(pairs));
    }

    fn kill_postmaster(&mut self, node: usize) {
        let guarded = |server: &crate::postgres::Server| server.guard.as_ref().is_some_and(|guard| guard.alive);
        let at = &self.nodes[node];
        if at.postgres.server.as_ref().is_some_and(guarded) || at.process == Process::Running {
            self.postmaster_dies(node);
        }
    }

    fn kill_guard(&mut self, node: usize) {
        let server = self.nodes[node].postgres.server.as_ref();
        let own =
            server.is_some_and(|s| s.postmaster && s.guard.as_ref().is_some_and(|guard| guard.alive && !guard.adopted));
        if own {
            self.guard_dies(node);
        }
    }

    fn kill_host(&mut self, node: usize) {
        self.kill_agent(node);
        self.nodes[node].host_down = true;
        if self.nodes[node].postgres.server.is_some() {
            self.processes_gone(node, false);
        }
        self.later(1000, 20_000, FaultEvent::HostUp(node));
    }

    /// As a service manager stops and, later, starts it.
    fn clean_stop(&mut self, node: usize) {
        if self.nodes[node].process == Process::Running {
            self.agent_after(node, Duration::ZERO, crate::node::AgentEvent::Terminate);
            self.later(8000, 25_000, FaultEvent::StartAgent(node));
        }
    }

    fn ask_for_switchover(&mut self) {
        let Some(leader) = self.store.tree.leader() else { return };
        let member = self.rng.chance(500).then(|| self.rng.index(NODES)).filter(|node| *node != leader);
        // Without the leader's name it is a failover, which needs a candidate.
        let named = member.is_none() || self.rng.chance(700);
        let request = FailoverKey { leader: named.then(|| name(leader)), member: member.map(name), scheduled_at: None };
        self.write_key(Key::Failover, Value::Failover(request));
    }

    fn set_pause(&mut self, paused: bool) {
        if self.store.tree.entry(Key::Config).is_some() && self.store.tree.paused() != paused {
            self.note_who("world", || if paused { "paused" } else { "resumed" }.into());
            self.write_key(Key::Config, Value::Config { paused });
        }
    }

    /// An operator's tool writes.
    fn write_key(&mut self, key: Key, value: Value) {
        if self.store.servers.iter().any(|server| !server.up) {
            return;
        }
        let transaction = match self.store.tree.entry(key) {
            Some(_) => Transaction::Set { key, value },
            None => Transaction::Create { key, value, owner: None },
        };
        self.commit_outside(transaction);
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
        self.scenario.faults.clear();
        self.scenario.job_failures = 0;
        self.scenario.replication_lag_ms = 0;
        self.scenario.unguarded = 0;
        self.scenario.idle = false;
        for node in 0..NODES {
            self.nodes[node].host_down = false;
            self.nodes[node].ambush = None;
            self.resume_agent(node);
            self.start_agent(node);
            if let Some(server) = &mut self.nodes[node].postgres.server {
                server.silent_until = Duration::ZERO;
                server.frozen_until = Duration::ZERO;
            }
        }
    }
}
