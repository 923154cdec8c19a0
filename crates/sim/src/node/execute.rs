//! Carrying out the actions of a decision, with the refusals of `crates/agent/src/daemon/execute.rs`.

use std::time::Duration;

use pgherd_ha::{Action, Boot, Epoch, FailoverKey, Job, LeaderOwner, Lease, Status};

use super::client::{Outcome, Purpose};
use super::round::Daemon;
use crate::guard::Guard;
use crate::mutants::Mutant;
use crate::postgres::{PostgresEvent, Server};
use crate::store::{Answer, Expect, Key, Operation, Value};
use crate::world::{Event, World, index};

/// How far an action is carried out at once.
pub enum Effect {
    Now(Result<bool, String>),
    /// The store was asked, for so long at most.
    Asked(Operation, Duration),
}

impl World {
    pub fn execute(&mut self, node: usize, action: &Action) -> Effect {
        if let Err(error) = self.check_epoch(node, action) {
            return Effect::Now(Err(error));
        }
        let limit = self.scenario.retry_timeout;
        let write = |key, value, expect| Effect::Asked(Operation::Write { key, value, expect }, limit);
        match action {
            Action::ClaimInitialize => write(Key::Initialize, Value::Initialize(None), Expect::Absent),
            Action::RemoveClaim { version } => {
                Effect::Asked(Operation::Delete { key: Key::Initialize, expect: Expect::Version(*version) }, limit)
            }
            Action::WriteInitialize { system_id, .. } => {
                write(Key::Initialize, Value::Initialize(Some(*system_id)), Expect::Any)
            }
            Action::WriteConfig { .. } => write(Key::Config, Value::Config { paused: false }, Expect::Absent),
            Action::Acquire => Effect::Asked(Operation::Acquire, limit),
            Action::Renew { epoch } => {
                if self.daemon(node).lease.hold(*epoch) {
                    self.kick_keeper(node);
                }
                Effect::Asked(self.renewal(node), limit)
            }
            Action::Release { epoch } => self.release(node, *epoch, limit),
            Action::WriteStatus { optime, .. } => {
                let status = Status { optime: *optime, ..Status::default() };
                write(Key::Status, Value::Status(status), Expect::Any)
            }
            Action::WriteHistory { .. } => {
                let history = self.nodes[node].postgres.data.directory().map(|d| d.history()).unwrap_or_default();
                write(Key::History, Value::History(history), Expect::Any)
            }
            Action::ClearFailover { version } => {
                write(Key::Failover, Value::Failover(FailoverKey::default()), Expect::Version(*version))
            }
            local => {
                self.execute_here(node, local);
                Effect::Now(Ok(is_news(local)))
            }
        }
    }

    /// What needs no store.
    fn execute_here(&mut self, node: usize, action: &Action) {
        match action {
            Action::PollPeers { names } => self.poll_peers(node, names),
            Action::Follow { upstream } => {
                let from = upstream.as_ref().and_then(|upstream| index(&upstream.name));
                if let Some(directory) = self.nodes[node].postgres.data.directory_mut() {
                    directory.upstream = from;
                }
                self.daemon(node).following = upstream.clone();
            }
            Action::Checkpoint => {
                if let Some(postmaster) = self.daemon(node).held.postmaster {
                    let takes = self.rng.millis(50, 800);
                    let event = PostgresEvent::Checkpointed;
                    self.after(takes, Event::Postgres { node, postmaster, event });
                }
            }
            Action::Guard => self.give_guard(node),
            Action::Fence => self.fence(node),
            Action::Run(job) => self.begin_job(node, job.clone()),
            Action::RefuseRequest { .. } => self.daemon(node).request = None,
            Action::Exit { failure } => self.daemon(node).exit = Some(failure.clone().map_or(Ok(()), Err)),
            _ => {}
        }
    }

    /// The key must still be ours, under the epoch that the decision saw.
    fn check_epoch(&mut self, node: usize, action: &Action) -> Result<(), String> {
        let epoch = match action {
            Action::WriteInitialize { epoch, .. }
            | Action::WriteConfig { epoch }
            | Action::WriteStatus { epoch, .. }
            | Action::WriteHistory { epoch }
            | Action::Run(Job::StartPrimary { epoch } | Job::Promote { epoch } | Job::PostBootstrap { epoch }) => {
                *epoch
            }
            _ => return Ok(()),
        };
        let boot = self.boot(node);
        let stale = self.mutant == Some(Mutant::StalePlan);
        match self.daemon(node).lease.lease {
            Some(lease) if lease.epoch == epoch && boot < lease.end() => Ok(()),
            _ if stale => Ok(()),
            _ => Err(format!("the lease of epoch {epoch} is over: not doing what was decided under it")),
        }
    }

    /// Only once no process of the server is left, or while it is a standby that nothing is about to promote.
    fn release(&mut self, node: usize, epoch: Epoch, limit: Duration) -> Effect {
        let idle = self.daemon(node).job.is_none();
        let standby = |server: &Server| server.postmaster && server.in_recovery && !server.promoting;
        let harmless = self.nodes[node].postgres.server.as_ref().is_none_or(|server| idle && standby(server));
        if !harmless && self.mutant != Some(Mutant::ReleaseBeforeDown) {
            return Effect::Now(Err("the leader key is not released: processes of PostgreSQL are left".into()));
        }
        self.daemon(node).lease.let_go();
        Effect::Asked(Operation::Release { epoch, any_owner: false }, limit)
    }

    /// What the answer to an action's request means.
    pub fn action_answered(&mut self, node: usize, action: &Action, outcome: Outcome) -> Result<bool, String> {
        let unknown = || Err("no answer from the store: it may have been done".into());
        match action {
            Action::Acquire => match outcome.answer {
                Some(Answer::Acquired(Some(epoch))) => {
                    let lease: Lease = self.lease_of(node, epoch, &outcome);
                    if self.daemon(node).lease.hold(epoch) {
                        self.kick_keeper(node);
                    }
                    self.prove(node, lease);
                    Ok(true)
                }
                Some(Answer::Acquired(None)) => Ok(true),
                _ => unknown(),
            },
            Action::Renew { epoch } => match self.proof(node, &outcome, *epoch) {
                Some(Some(lease)) => {
                    self.prove(node, lease);
                    // A proof that permits nothing yet is no news: it is repeated when the decision says so.
                    Ok(self.boot(node) < lease.deadline())
                }
                Some(None) => {
                    self.daemon(node).lease.let_go();
                    Ok(true)
                }
                None => unknown(),
            },
            Action::ClaimInitialize => match outcome.answer {
                Some(Answer::Written(won)) => {
                    self.daemon(node).claimed_initialize = won;
                    Ok(true)
                }
                _ => unknown(),
            },
            action => match outcome.answer {
                Some(Answer::Written(true)) => Ok(is_news(action)),
                Some(Answer::Written(false))
                    if matches!(action, Action::Release { .. } | Action::RemoveClaim { .. }) =>
                {
                    Ok(true)
                }
                Some(Answer::Written(false)) => Err("the key was changed by another meanwhile".into()),
                _ => unknown(),
            },
        }
    }

    fn give_guard(&mut self, node: usize) {
        let Some(server) = self.nodes[node].postgres.server.as_mut().filter(|server| server.postmaster) else { return };
        if server.guard.as_ref().is_none_or(|guard| !guard.alive) {
            server.guard = Some(Guard::new(Boot::NEVER, true));
        }
        self.find_guarded(node);
    }

    fn find_guarded(&mut self, node: usize) {
        if self.daemon(node).held.postmaster.is_none() {
            self.find_server(node);
        }
    }

    fn fence(&mut self, node: usize) {
        self.interrupt_job(node);
        self.daemon(node).job = None;
        self.kill_processes(node);
        self.daemon(node).held = super::observe::Held::default();
        self.daemon(node).lease.page = None;
    }

    /// Patroni's way, which the mutant takes: a key with our name must be ours.
    pub fn delete_foreign_key(&mut self, node: usize) {
        let name = crate::world::name(node);
        let limit = self.scenario.retry_timeout;
        let daemon: &mut Daemon = self.daemon(node);
        let leader = daemon.view.as_ref().and_then(|view| view.leader.as_ref());
        let foreign = leader.filter(|leader| leader.name == name && leader.owner == LeaderOwner::Other);
        if let Some(epoch) = foreign.map(|leader| leader.epoch).filter(|_| daemon.reachable) {
            self.request(node, Operation::Release { epoch, any_owner: true }, Purpose::Ping, limit);
        }
    }
}

/// Whether an action asks for another look at once.
pub fn is_news(action: &Action) -> bool {
    matches!(
        action,
        Action::ClaimInitialize
            | Action::RemoveClaim { .. }
            | Action::WriteInitialize { .. }
            | Action::Acquire
            | Action::Renew { .. }
            | Action::Release { .. }
            | Action::ClearFailover { .. }
            | Action::Guard
            | Action::Fence
    )
}
