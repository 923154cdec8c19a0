//! Looking at the own server and directory, as `crates/agent/src/daemon/node.rs` does.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_ha::{Boot, DataDirectory, JobInProgress, LeaderOwner, LimitChange, Local, Lsn, Postgres, Running};

use crate::mutants::Mutant;
use crate::world::World;

/// The server as the agent knows it between two looks.
#[derive(Debug, Default)]
pub struct Held {
    pub postmaster: Option<u64>,
    pub starting_since: Option<Boot>,
    silent_since: Option<Boot>,
    pub seen: Option<Running>,
}

impl Held {
    pub fn new(postmaster: Option<u64>, now: Boot) -> Held {
        Held { postmaster, starting_since: postmaster.map(|_| now), ..Held::default() }
    }
}

impl World {
    /// A server that runs already is found, with its guard.
    pub fn find_server(&mut self, node: usize) {
        let boot = self.boot(node);
        let server = self.nodes[node].postgres.server.as_ref();
        let postmaster = server.filter(|server| server.postmaster).map(|server| server.id);
        self.daemon(node).held = Held::new(postmaster, boot);
    }

    /// How long the look takes: a silent server's heartbeat runs into its limit.
    pub fn look(&mut self, node: usize) -> Duration {
        let now = self.now;
        let server = self.nodes[node].postgres.server.as_ref();
        match server {
            Some(server) if server.postmaster && server.silent_until > now => Duration::from_secs(1),
            _ => self.rng.micros(300, 3000),
        }
    }

    pub fn observe(&mut self, node: usize) -> Local {
        let boot = self.boot(node);
        let alive = |id: &u64| {
            let server = self.nodes[node].postgres.server.as_ref();
            server.is_some_and(|server| server.id == *id && server.postmaster)
        };
        if self.nodes[node].agent.as_ref().and_then(|agent| agent.held.postmaster).is_some_and(|id| !alive(&id)) {
            self.daemon(node).held = Held::default();
        }
        let postgres = match self.daemon(node).held.postmaster {
            Some(_) => self.ask(node, boot),
            None => self.without_postmaster(node, boot),
        };
        self.after_observation(node, &postgres);
        self.local(node, postgres)
    }

    fn without_postmaster(&mut self, node: usize, boot: Boot) -> Postgres {
        match &self.nodes[node].postgres.server {
            None => Postgres::Stopped,
            Some(server) if server.postmaster => {
                self.find_server(node);
                Postgres::Starting { since: boot }
            }
            Some(_) => Postgres::Orphans,
        }
    }

    fn ask(&mut self, node: usize, boot: Boot) -> Postgres {
        let now = self.now;
        let server = self.nodes[node].postgres.server.as_ref();
        let answer = server.filter(|server| server.answers(now)).and_then(|_| self.nodes[node].postgres.running());
        let standbys = self.connected_standbys(node);
        let slots = self.slots(node, &standbys);
        let server = self.nodes[node].postgres.server.as_ref();
        let asked = self.mutant != Some(Mutant::CheckpointerNotAsked);
        let checkpointer_listens = !asked || server.is_none_or(|server| server.commits.took_effect(now));
        let seen_starving = self.mutant != Some(Mutant::StarvationNotSeen);
        let held = &mut self.daemon(node).held;
        match answer {
            Some(running) => {
                let starved = running.starved && seen_starving;
                let running = Running { standbys, checkpointer_listens, slots, starved, ..running };
                held.starting_since = None;
                held.silent_since = None;
                held.seen = Some(running.clone());
                Postgres::Running(running)
            }
            None => match (&held.seen, held.starting_since) {
                (None, Some(since)) => Postgres::Starting { since },
                (Some(seen), _) => {
                    let since = *held.silent_since.get_or_insert(boot);
                    Postgres::Silent { since, in_recovery: seen.in_recovery }
                }
                (None, None) => Postgres::Starting { since: boot },
            },
        }
    }

    fn after_observation(&mut self, node: usize, postgres: &Postgres) {
        let boot = self.boot(node);
        let held = self.daemon(node).held.postmaster;
        // The probe's own thread writes; a round only passes on when it last succeeded.
        if held.is_none() || self.nodes[node].disk.stuck_since.is_none() {
            self.daemon(node).lease.disk_answered = boot;
        }
        // A job may have licensed a server that it is starting since we looked.
        let busy = self.daemon(node).job.is_some();
        if !busy && (*postgres == Postgres::Stopped || held.is_none()) {
            self.daemon(node).lease.page = None;
        }
        // The guard of a primary that was found running follows the permit as soon as there is one. So does that of a server which lets nobody
        // in yet and was licensed by a former agent: it is a primary in its crash recovery.
        let Some(postmaster) = held.filter(|_| self.guarded(node)) else { return };
        let server = self.nodes[node].postgres.server.as_ref();
        let bound = server.and_then(|server| server.guard.as_ref()).is_some_and(|guard| guard.deadline < Boot::NEVER);
        let writer = match postgres {
            Postgres::Running(running) => !running.in_recovery,
            Postgres::Starting { .. } => bound,
            Postgres::Silent { .. } | Postgres::Stopped | Postgres::Orphans => false,
        };
        if writer {
            self.daemon(node).lease.page = Some(postmaster);
        }
    }

    /// The server has a living guard, or there is no server.
    pub fn guarded(&self, node: usize) -> bool {
        let held = self.nodes[node].agent.as_ref().and_then(|agent| agent.held.postmaster);
        let server = self.nodes[node].postgres.server.as_ref().filter(|server| Some(server.id) == held);
        server.is_none_or(|server| server.guard.as_ref().is_some_and(|guard| guard.alive))
    }

    /// What a restart would change.
    fn limits(&self, node: usize) -> BTreeMap<String, LimitChange> {
        let server = self.nodes[node].postgres.server.as_ref().filter(|server| server.limit != self.limit);
        let change = server.map(|server| LimitChange { from: server.limit, to: self.limit });
        change.into_iter().map(|change| ("max_connections".to_owned(), change)).collect()
    }

    fn local(&mut self, node: usize, postgres: Postgres) -> Local {
        let guarded = self.guarded(node);
        let data = match self.nodes[node].directory_unreadable {
            true => DataDirectory::Unusable("permission denied".into()),
            false => self.nodes[node].postgres.data.as_seen(),
        };
        let watchdog = self.watchdog(node);
        let directory = self.nodes[node].postgres.data.directory();
        let admits_clients = directory.is_none_or(|directory| directory.admits_clients);
        let manages_standby_names = directory.is_some_and(|directory| directory.names.count > 0);
        let since = self.nodes[node].disk.stuck_since;
        let asked = self.mutant != Some(Mutant::ProbeNotAsked);
        let disk_stuck = asked && since.is_some_and(|since| self.now > since + self.scenario.ttl);
        let lag_not_seen = self.mutant == Some(Mutant::LagNotSeen);
        let limits = self.limits(node);
        let daemon = self.daemon(node);
        let leader = daemon.view.as_ref().and_then(|view| view.leader.as_ref());
        let mine = leader.filter(|leader| leader.owner == LeaderOwner::Me).map(|leader| leader.epoch);
        Local {
            data,
            postgres: if lag_not_seen { further_than_anybody(postgres) } else { postgres },
            job: daemon.job.as_ref().map(|run| JobInProgress { job: run.job.clone(), since: run.since }),
            last_job: daemon.last_job.clone(),
            lease: daemon.lease.lease.filter(|lease| Some(lease.epoch) == mine),
            claimed_initialize: daemon.claimed_initialize,
            guarded,
            watchdog,
            disk_stuck,
            following: daemon.following.clone(),
            peers: daemon.peers.clone(),
            failsafe: daemon.failsafe.heard.clone(),
            divergence: daemon.divergence,
            request: daemon.request,
            stopping: daemon.stopping,
            manages_standby_names,
            last_slots: Default::default(),
            leader_slots: None,
            admits_clients,
            limits,
        }
    }
}

fn further_than_anybody(postgres: Postgres) -> Postgres {
    match postgres {
        Postgres::Running(running) if running.in_recovery => {
            Postgres::Running(Running { position: Lsn(u64::MAX), ..running })
        }
        other => other,
    }
}
