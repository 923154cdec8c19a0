//! What operators ask through the REST API, kept until it was carried out or refused.
//!
//! A request becomes a fact of the local view; the decision turns it into a job or refuses it. Here are only the questions that wait for
//! an answer, and the conditions that the interface lets a restart depend on.

use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, Job, JobOutcome, JobResult, Local, Request, Role, Wall};
use tokio::sync::{mpsc, oneshot};

use super::node::Node;
use crate::api::{Command, ReinitializeRefused, RestartFilter, RestartOutcome, ScheduledRestart};
use crate::postgres::Observation;

#[derive(Debug)]
pub struct Commands {
    receiver: mpsc::Receiver<Command>,
    restart: Option<PendingRestart>,
    reinitialize: Option<PendingReinitialize>,
    scheduled: Option<ScheduledRestart>,
    /// When the server was started that it is for.
    scheduled_for: Option<Wall>,
    refused: Option<String>,
}

#[derive(Debug)]
struct PendingRestart {
    since: Boot,
    filter: RestartFilter,
    /// `None` for a restart that was scheduled.
    reply: Option<oneshot::Sender<RestartOutcome>>,
    begun: bool,
}

#[derive(Debug)]
struct PendingReinitialize {
    force: bool,
    from_leader: bool,
    since: Boot,
    reply: Option<oneshot::Sender<Result<(), ReinitializeRefused>>>,
}

impl Commands {
    pub fn new(receiver: mpsc::Receiver<Command>) -> Commands {
        Commands { receiver, restart: None, reinitialize: None, scheduled: None, scheduled_for: None, refused: None }
    }

    /// The next command; never, once the REST API is gone.
    pub async fn receive(&mut self) -> Command {
        match self.receiver.recv().await {
            Some(command) => command,
            None => std::future::pending().await,
        }
    }

    /// What the decision is to see.
    pub fn request(&self) -> Option<Request> {
        match (&self.restart, &self.reinitialize) {
            (Some(restart), _) if !restart.begun => {
                let RestartFilter { unordered, timeout: patience, .. } = restart.filter;
                Some(Request::Restart { unordered, patience })
            }
            (_, Some(pending)) => {
                Some(Request::Reinitialize { force: pending.force, from_leader: pending.from_leader })
            }
            _ => None,
        }
    }

    pub fn scheduled(&self) -> Option<&ScheduledRestart> {
        self.scheduled.as_ref()
    }

    pub fn schedule(&mut self, restart: ScheduledRestart, node: &Node) -> bool {
        if self.scheduled.is_some() {
            return false;
        }
        self.scheduled = Some(restart);
        self.scheduled_for = node.seen.as_ref().map(|seen| seen.postmaster_start_time);
        true
    }

    /// When the server was started that the scheduled restart is for, as its key shows it.
    pub fn scheduled_for(&self) -> Option<Wall> {
        self.scheduled_for.filter(|_| self.scheduled.is_some())
    }

    /// A server that was started meanwhile has had its restart.
    pub fn drop_outdated(&mut self, seen: Option<&Observation>) {
        let Some(seen) = seen.filter(|_| self.scheduled.is_some()) else { return };
        let planned = *self.scheduled_for.get_or_insert(seen.postmaster_start_time);
        if planned != seen.postmaster_start_time {
            tracing::info!(
                "the scheduled restart is dropped: PostgreSQL was restarted at {} already",
                seen.postmaster_start_time
            );
            self.scheduled = None;
        }
    }

    pub fn unschedule(&mut self) -> bool {
        self.scheduled.take().is_some()
    }

    /// Takes up a restart, unless its conditions are not met or something else is in progress.
    pub fn restart(
        &mut self,
        filter: RestartFilter,
        reply: Option<oneshot::Sender<RestartOutcome>>,
        node: &Node,
        busy: Option<&Job>,
    ) {
        let refusal = match busy {
            Some(job) => Some(RestartOutcome::Busy(job.name().into())),
            None if self.restart.is_some() => Some(RestartOutcome::Busy("restart".into())),
            None if !conditions_met(&filter, node.seen.as_ref(), !node.pending.changes.is_empty()) => {
                Some(RestartOutcome::ConditionsNotMet)
            }
            None => None,
        };
        match (refusal, reply) {
            (None, reply) => self.restart = Some(PendingRestart { since: boot_now(), filter, reply, begun: false }),
            (Some(refusal), Some(reply)) => answer(reply, refusal),
            (Some(refusal), None) => tracing::warn!("the scheduled restart is not done: {refusal}"),
        }
    }

    pub fn reinitialize(
        &mut self,
        force: bool,
        from_leader: bool,
        reply: oneshot::Sender<Result<(), ReinitializeRefused>>,
        busy: Option<&Job>,
    ) {
        match busy {
            Some(job) if !force => answer(reply, Err(ReinitializeRefused::Busy(job.name().into()))),
            _ if self.reinitialize.is_some() => answer(reply, Err(ReinitializeRefused::Busy("reinitialize".into()))),
            _ => {
                self.reinitialize =
                    Some(PendingReinitialize { since: boot_now(), force, from_leader, reply: Some(reply) })
            }
        }
    }

    /// The decision said no.
    pub fn refuse(&mut self, why: String) {
        tracing::warn!("an operator's request is refused: {why}");
        self.refused = Some(why);
    }

    /// A scheduled restart whose time has come.
    pub fn due(&mut self, now: pgherd_ha::Wall) -> Option<ScheduledRestart> {
        if self.scheduled.as_ref().is_some_and(|restart| restart.at <= now) { self.scheduled.take() } else { None }
    }

    /// Answers what the round has settled.
    pub fn answer(&mut self, local: &Local, last: &Option<JobResult>) {
        let refused = self.refused.take();
        if let Some(mut restart) = self.restart.take() {
            let begun = restart.begun || matches!(&local.job, Some(job) if matches!(job.job, Job::Restart { .. }));
            restart.begun = begun;
            match restart_outcome(&restart, local, last, refused) {
                Some(outcome) => restart.reply.map_or((), |reply| answer(reply, outcome)),
                None => self.restart = Some(restart),
            }
        } else if let Some(mut pending) = self.reinitialize.take() {
            let begun = matches!(&local.job, Some(job) if matches!(job.job, Job::Clone { .. }));
            let ended =
                last.as_ref().is_some_and(|last| matches!(last.job, Job::Clone { .. }) && last.at >= pending.since);
            match (refused, begun || ended) {
                (Some(_), _) => pending.reply.take().map_or((), |reply| answer(reply, Err(refusal(local)))),
                (None, true) => pending.reply.take().map_or((), |reply| answer(reply, Ok(()))),
                (None, false) => self.reinitialize = Some(pending),
            }
        }
    }
}

fn refusal(local: &Local) -> ReinitializeRefused {
    if local.lease.is_some() { ReinitializeRefused::IAmLeader } else { ReinitializeRefused::NoLeader }
}

/// `None` while it goes on.
fn restart_outcome(
    restart: &PendingRestart,
    local: &Local,
    last: &Option<JobResult>,
    refused: Option<String>,
) -> Option<RestartOutcome> {
    if let Some(why) = refused {
        return Some(RestartOutcome::Refused(why));
    }
    let late = restart.filter.timeout.is_some_and(|timeout| boot_now().since(restart.since) >= timeout);
    let late = (late && restart.begun).then_some(RestartOutcome::StillStarting);
    let ended = last.as_ref().filter(|last| matches!(last.job, Job::Restart { .. }) && last.at >= restart.since);
    let Some(ended) = ended else { return late };
    if ended.outcome != JobOutcome::Done {
        return Some(RestartOutcome::Failed);
    }
    if local.running().is_some() {
        return Some(RestartOutcome::Done);
    }
    if local.postgres == pgherd_ha::Postgres::Stopped && local.job.is_none() {
        return Some(RestartOutcome::Failed);
    }
    late
}

fn conditions_met(filter: &RestartFilter, seen: Option<&Observation>, pending: bool) -> bool {
    // A server that does not answer may be restarted, but nothing is known of it that a condition could be compared with.
    let Some(seen) = seen else {
        let RestartFilter { timeout, unordered, .. } = *filter;
        return *filter == RestartFilter { timeout, unordered, ..RestartFilter::default() };
    };
    let role = match filter.role {
        None => true,
        Some(Role::Primary) => !seen.in_recovery,
        Some(Role::Replica) => seen.in_recovery,
        Some(_) => false,
    };
    let version = filter.postgres_version.as_ref().is_none_or(|version| seen.server_version < version.number);
    role && version && (!filter.restart_pending || pending)
}

fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    // Whoever asked may have gone away; the request was carried out or refused all the same.
    let _ = reply.send(value);
}
