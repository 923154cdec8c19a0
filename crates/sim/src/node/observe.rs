//! Looking at the own server and directory, as `crates/agent/src/daemon/node.rs` does.

use std::time::Duration;

use pgherd_ha::{Boot, JobInProgress, LeaderOwner, Local, Postgres, Running};

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
        let held = &mut self.daemon(node).held;
        match answer {
            Some(running) => {
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
        let held = self.daemon(node).held.postmaster;
        if *postgres == Postgres::Stopped || held.is_none() {
            self.daemon(node).lease.page = None;
        }
        // A primary that was found running: its guard follows the permit as soon as there is one.
        if let (Postgres::Running(running), Some(postmaster)) = (postgres, held)
            && !running.in_recovery
            && self.guarded(node)
        {
            self.daemon(node).lease.page = Some(postmaster);
        }
    }

    /// The server has a living guard, or there is no server.
    pub fn guarded(&self, node: usize) -> bool {
        let held = self.nodes[node].agent.as_ref().and_then(|agent| agent.held.postmaster);
        let server = self.nodes[node].postgres.server.as_ref().filter(|server| Some(server.id) == held);
        server.is_none_or(|server| server.guard.as_ref().is_some_and(|guard| guard.alive))
    }

    fn local(&mut self, node: usize, postgres: Postgres) -> Local {
        let guarded = self.guarded(node);
        let data = self.nodes[node].postgres.data.as_seen();
        let daemon = self.daemon(node);
        let leader = daemon.view.as_ref().and_then(|view| view.leader.as_ref());
        let mine = leader.filter(|leader| leader.owner == LeaderOwner::Me).map(|leader| leader.epoch);
        Local {
            data,
            postgres,
            job: daemon.job.as_ref().map(|run| JobInProgress { job: run.job.clone(), since: run.since }),
            last_job: daemon.last_job.clone(),
            lease: daemon.lease.lease.filter(|lease| Some(lease.epoch) == mine),
            claimed_initialize: daemon.claimed_initialize,
            guarded,
            following: daemon.following.clone(),
            peers: daemon.peers.clone(),
            divergence: daemon.divergence,
            request: daemon.request,
            stopping: daemon.stopping,
        }
    }
}
