//! Carrying out the actions of a decision, with the refusals of `crates/agent/src/daemon/execute.rs`.

use std::time::Duration;

use pgherd_ha::{Action, Boot, Epoch, FailoverKey, JobOutcome, JobResult, LeaderOwner, Lease, Reservation};

use super::client::{Outcome, Purpose};
use super::round::Daemon;
use crate::guard::Guard;
use crate::mutants::Mutant;
use crate::postgres::{Phase, PostgresEvent, Server};
use crate::store::{Answer, Expect, Key, Operation, Value};
use crate::world::{Event, World, index};

/// How far an action is carried out at once.
pub enum Effect {
    Now(Result<bool, String>),
    /// The store was asked, for so long at most.
    Asked(Operation, Duration),
    /// Every process of the server was killed, and is waited for.
    Killing,
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
            Action::WriteConfig { .. } => {
                let synchronous = self.scenario.synchronous;
                let follows = self.scenario.born_following.as_ref().map(|standby| standby.upstream.is_some());
                write(Key::Config, Value::Config { paused: false, synchronous, follows }, Expect::Absent)
            }
            Action::Acquire => Effect::Asked(Operation::Acquire, limit),
            Action::Renew { epoch } => {
                if self.daemon(node).lease.hold(*epoch) {
                    self.kick_keeper(node);
                }
                Effect::Asked(self.renewal(node), limit)
            }
            Action::Release { epoch } => self.release(node, *epoch, limit),
            Action::WriteStatus { status, .. } => write(Key::Status, Value::Status(status.clone()), Expect::Any),
            Action::WriteHistory { .. } => {
                let history = self.nodes[node].postgres.data.directory().map(|d| d.history()).unwrap_or_default();
                write(Key::History, Value::History(history), Expect::Any)
            }
            Action::WriteSync { version, key, .. } => {
                let expect = version.map_or(Expect::Absent, Expect::Version);
                write(Key::Sync, Value::Sync(key.clone()), expect)
            }
            Action::ReserveTimeline { .. } if self.mutant == Some(Mutant::PromoteUnreserved) => Effect::Now(Ok(false)),
            Action::ReserveTimeline { epoch, timeline, version } => {
                let leader = crate::world::name(node);
                let reservation = Reservation { timeline: *timeline, epoch: *epoch, leader };
                let expect = version.map_or(Expect::Absent, Expect::Version);
                write(Key::Timelines, Value::Reservation(reservation), expect)
            }
            Action::WriteFailsafe { members, .. } => {
                write(Key::Failsafe, Value::Failsafe(members.clone()), Expect::Any)
            }
            Action::ClearFailover { version } => {
                write(Key::Failover, Value::Failover(FailoverKey::default()), Expect::Version(*version))
            }
            Action::Fence => {
                self.fence(node);
                Effect::Killing
            }
            Action::ArmWatchdog { .. } => Effect::Now(self.arm_watchdog(node)),
            local => {
                self.execute_here(node, local);
                Effect::Now(Ok(local.is_news()))
            }
        }
    }

    /// What needs no store.
    fn execute_here(&mut self, node: usize, action: &Action) {
        match action {
            Action::PollPeers { names } => self.poll_peers(node, names),
            Action::AskFailsafe { epoch, ttl, members } => self.ask_failsafe(node, *epoch, *ttl, members),
            Action::Follow { upstream } => {
                let from = upstream.as_ref().and_then(|upstream| index(&upstream.name));
                if let Some(directory) = self.nodes[node].postgres.data.directory_mut() {
                    directory.upstream = from;
                    if from.is_some() {
                        directory.histories.remove_unused();
                    }
                }
                self.daemon(node).following = upstream.clone();
            }
            Action::SetStandbyNames { names, .. } => self.set_standby_names(node, names.clone().unwrap_or_default()),
            Action::AdmitClients => {
                if let Some(directory) = self.nodes[node].postgres.data.directory_mut() {
                    directory.admits_clients = true;
                }
            }
            Action::Checkpoint => {
                if let Some(postmaster) = self.daemon(node).held.postmaster {
                    let takes = self.rng.millis(50, 800);
                    let event = PostgresEvent::Checkpointed;
                    self.after(takes, Event::Postgres { node, postmaster, event });
                }
            }
            Action::DisarmWatchdog => self.disarm_watchdog(node),
            Action::ChangeSlots { changes } => self.change_slots(node, changes),
            Action::Guard => self.give_guard(node),
            Action::Run(job) => self.begin_job(node, job.clone()),
            Action::CutOff => {
                if let Some(job) = self.daemon(node).job.as_ref().map(|run| run.job.clone()) {
                    self.interrupt_job(node);
                    let at = self.boot(node);
                    self.daemon(node).last_job = Some(JobResult { job, at, outcome: JobOutcome::Cancelled });
                }
            }
            Action::RefuseRequest { .. } => self.daemon(node).request = None,
            Action::Exit { failure } => self.daemon(node).exit = Some(failure.clone().map_or(Ok(()), Err)),
            _ => {}
        }
    }

    /// The key must still be ours, under the epoch that the decision saw.
    fn check_epoch(&mut self, node: usize, action: &Action) -> Result<(), String> {
        let Some(epoch) = action.under() else { return Ok(()) };
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
        if self.daemon(node).job.as_ref().is_some_and(|run| run.job.makes_writer()) {
            return Effect::Now(Err("the leader key is not released: a start is in progress".into()));
        }
        let idle = self.daemon(node).job.is_none();
        // A restore leaves recovery by itself.
        let restores = self.nodes[node].postgres.data.directory().is_some_and(|directory| directory.restores);
        let standby = |server: &Server| server.postmaster && server.in_recovery && !server.promoting && !restores;
        // What is killed and waits for the disk never comes back to a client.
        let doomed = |server: &Server| server.phase == Phase::DiskWait;
        let harmless =
            self.nodes[node].postgres.server.as_ref().is_none_or(|server| doomed(server) || idle && standby(server));
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
                Some(Answer::Written(true)) => Ok(action.is_news()),
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

    /// Whether all of them are gone. `None`: not yet, and their time is not over.
    pub fn killed(&mut self, node: usize, until: Boot) -> Option<Result<bool, String>> {
        if self.nodes[node].postgres.server.is_none() {
            return Some(Ok(true));
        }
        let late = self.boot(node) >= until;
        late.then(|| Err("processes of PostgreSQL have survived SIGKILL: their disk may hang".into()))
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
