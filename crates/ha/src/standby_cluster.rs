//! This cluster follows another one: none of its servers writes. The holder of the leader key, the standby leader, streams from the other
//! cluster (or restores from its archive), and the others stream from it.
//!
//! What must hold: nobody is promoted here ([`forbids`] is asked of every plan), and a primary that is found, as when `standby_cluster` has just
//! been added, is stopped in order and becomes a standby. Once `standby_cluster` is removed, the holder is promoted as any leader is
//! (`leader`). Which server is followed: `upstream`. The race for the key: `race`, where nobody has to be asked for rows, for the other
//! cluster has them all.

use std::time::Duration;

use crate::action::{Action, Job, StopMode, WakeReason};
use crate::agent::{Memory, Plan, Situation, Standing};
use crate::bootstrap::RETRY;
use crate::leader::another_could_lead;
use crate::local::{JobOutcome, Local, Postgres, Running};
use crate::replica::Way;
use crate::rule::Rule;
use crate::types::{Boot, Epoch, Timeline};
use crate::view::{Status, SyncKey};
use crate::{failsafe, leader, replica, slots, switchover, upstream};

/// What comes from an archive comes in whole files. Less than this may be what a server of this cluster has written itself.
const NEWS: u64 = 64 << 10;

/// Makes a writer, which a standby cluster must not have. (A server that runs as a primary in a paused one may be restarted.)
pub(crate) fn forbids(at: &Situation<'_>, action: &Action) -> bool {
    at.settings.standby_cluster.is_some()
        && matches!(action, Action::Run(Job::Promote { .. } | Job::StartPrimary { .. } | Job::PostBootstrap { .. }))
}

/// There is a writer, or one may be about to come of what was begun before: it keeps its permit until it is stopped.
pub(crate) fn may_have_writer(local: &Local) -> bool {
    let about_to_write = local.job.as_ref().is_some_and(|running| running.job.makes_writer());
    local.is_writer() || about_to_write || matches!(local.postgres, Postgres::Starting { .. })
}

/// The server is a primary, which it must not be here.
pub(crate) fn demote(at: &Situation<'_>) -> Option<Plan> {
    at.settings.standby_cluster.as_ref()?;
    if at.paused || !at.local.is_writer() {
        return None;
    }
    let stopped = at.local.last(|job| matches!(job, Job::Stop(_)));
    let hangs = stopped.is_some_and(|last| last.outcome == JobOutcome::Failed) && at.local.running().is_none();
    let mode = if hangs { StopMode::Immediate } else { StopMode::Demotion };
    Some(Plan::act(Rule::DemoteCluster, [Action::Run(Job::Stop(mode))]))
}

/// This node is the one to make the standby cluster, as a copy of the other. `None`: it is not.
pub(crate) fn made_here(at: &Situation<'_>, make_room: bool) -> Option<Plan> {
    let standby = at.settings.standby_cluster.as_ref()?;
    let claimed = match (at.standing, &at.view.initialize) {
        (Standing::Nobody, None) if !at.settings.nofailover => {
            return Some(Plan::act(Rule::ClaimBootstrap, [Action::ClaimInitialize]));
        }
        (Standing::Nobody, Some(key)) => key.value.is_empty() && at.local.claimed_initialize,
        _ => false,
    };
    if !claimed {
        return None;
    }
    let failed = at.local.last(|job| matches!(job, Job::Clone { .. })).filter(|last| last.outcome != JobOutcome::Done);
    if failed.is_some_and(|failed| at.now.boot < failed.at + RETRY) {
        return Some(Plan::wait(Rule::RetryLater));
    }
    Some(match standby.upstream.clone() {
        None if !at.settings.copies_without_leader => Plan::wait(Rule::NothingToClone),
        source => Plan::act(Rule::CloneRemote, [Action::Run(Job::Clone { source, make_room, from_leader: false })]),
    })
}

/// This node holds the leader key.
pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch) -> Plan {
    let way = Way {
        epoch,
        origin: at.settings.standby_cluster.as_ref().and_then(|it| it.upstream.clone()),
        target: upstream::target(at),
    };
    match &at.local.postgres {
        Postgres::Running(running) if running.in_recovery && memory.give_up == Some(epoch) => {
            Plan::act(Rule::GiveKeyBack, [Action::Release { epoch }])
        }
        Postgres::Stopped if gives_up(at, memory, epoch) => {
            Plan::act(Rule::PrimaryStartFailed, [Action::Release { epoch }])
        }
        _ if !is_proven(at, epoch) => prove(at, epoch),
        Postgres::Stopped => server_down(at, memory, &way),
        Postgres::Starting { since } => starting(at, memory, epoch, *since),
        Postgres::Silent { since, .. } => leader::silent(at, memory, epoch, *since),
        Postgres::Running(running) => lead(at, memory, &way, running),
        Postgres::Orphans => Plan::act(Rule::KillOrphans, [Action::Fence]),
    }
}

/// Paused: the standby leader keeps its key while it runs, and nothing else is done.
pub(crate) fn paused(at: &Situation<'_>, epoch: Epoch) -> Plan {
    match &at.local.postgres {
        _ if !is_proven(at, epoch) => prove(at, epoch),
        Postgres::Running(_) => replica::follow(at, &upstream::target(at), Rule::PausedLead),
        Postgres::Stopped => Plan::act(Rule::PausedReleaseKey, [Action::Release { epoch }]),
        _ => Plan::wait(Rule::PausedLead),
    }
}

/// It cannot be started, and another may do better.
fn gives_up(at: &Situation<'_>, memory: &Memory, epoch: Epoch) -> bool {
    memory.give_up == Some(epoch) || (memory.starts.count >= 2 && another_could_lead(at))
}

/// Without a writer there is no permit; but what is written to the store as the leader needs the lease all the same.
fn is_proven(at: &Situation<'_>, epoch: Epoch) -> bool {
    at.local.lease.is_some_and(|lease| lease.epoch == epoch && at.now.boot < lease.end())
}

fn prove(at: &Situation<'_>, epoch: Epoch) -> Plan {
    Plan::act(Rule::ProveLease, [Action::Renew { epoch }])
        .wake(at.soon(at.settings.retry_timeout / 4, WakeReason::Retry))
}

/// After a demotion the store is told where the primary has ended.
fn server_down(at: &Situation<'_>, memory: &mut Memory, way: &Way) -> Plan {
    let ended = at.local.control().filter(|control| control.was_primary()).map(|control| control.checkpoint);
    let news = ended.filter(|ended| *ended > at.view.status.optime);
    let mut plan = replica::server_down(at, memory, way);
    if plan.rule == Rule::StartStandby {
        plan.rule = Rule::StartStandbyLeader;
    }
    let status = news.map(|optime| Status { optime, ..at.view.status.clone() });
    plan.actions.splice(0..0, status.map(|status| Action::WriteStatus { epoch: way.epoch, status }));
    plan
}

fn starting(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch, since: Boot) -> Plan {
    if at.now.boot.since(since) > at.settings.start_patience() && another_could_lead(at) {
        memory.give_up = Some(epoch);
        return Plan::act(Rule::PrimaryStartTimeout, [Action::Run(Job::Stop(StopMode::Immediate))]);
    }
    Plan::wait(Rule::StandbyStarting).wake(at.soon(Duration::from_millis(50), WakeReason::Settling))
}

fn lead(at: &Situation<'_>, memory: &mut Memory, way: &Way, running: &Running) -> Plan {
    let epoch = way.epoch;
    let since = memory.streams_since.filter(|(of, _)| *of == epoch).unwrap_or((epoch, at.now.boot));
    memory.streams_since = running.streaming.then_some(since);
    if let Some(plan) = leader::announce(at, epoch) {
        return plan;
    }
    if let Some(plan) = failsafe::list(at, &mut memory.failsafe, epoch) {
        return plan;
    }
    if let Some(plan) = switchover::requested(at, memory, running) {
        // A standby that stops leading goes on as it is: nothing is stopped for it.
        return match plan.rule {
            Rule::SwitchoverStop => Plan::act(Rule::HandOver, [Action::Release { epoch }]),
            _ => plan,
        };
    }
    let mut plan = replica::following(at, memory, way, running);
    if plan.rule != Rule::Follow {
        return plan;
    }
    plan.rule = Rule::StandbyLead;
    let follows = follows_on(at, memory, way, running);
    if follows
        && has_gone_over(at, memory, way, running)
        && let Some(forget) = forget_synchronous(at, epoch)
    {
        return Plan::act(Rule::SyncOff, [forget]);
    }
    plan.actions.extend(leader::missing_config(at, epoch));
    let status_due = at.now.boot.since(memory.status_written) >= at.settings.loop_wait;
    let status = slots::status(at, &memory.slots, running);
    if follows && status_due && slots::is_news(at, &status) {
        memory.status_written = at.now.boot;
        plan.actions.push(Action::WriteStatus { epoch, status });
    }
    plan
}

/// The other cluster's log has been seen to go on where this one's ended. Before that this node's position says nothing about how far that one is.
fn follows_on(at: &Situation<'_>, memory: &mut Memory, way: &Way, running: &Running) -> bool {
    let from_archive = way.origin.is_none() && running.position.0 > at.view.status.optime.0.saturating_add(NEWS);
    if running.streaming || from_archive {
        memory.follows_on = Some(way.epoch);
    }
    memory.follows_on == Some(way.epoch)
}

/// What is here is the other cluster's log beyond doubt. A stream may be the last of this cluster's own primary for a moment, until the server has
/// taken in whom it follows; and an archive may bring that primary's log, of which the store knows less than was acknowledged.
fn has_gone_over(at: &Situation<'_>, memory: &Memory, way: &Way, running: &Running) -> bool {
    let reserved = at.view.reservation.as_ref().map_or(Timeline(1), |key| key.value.timeline);
    let on_another = running.timeline != at.view.history_timeline().max(reserved);
    match way.origin {
        Some(_) => memory.streams_since.is_some_and(|(_, since)| at.now.boot.since(since) >= at.settings.ttl),
        None => on_another,
    }
}

/// Who may take over is the other cluster's matter, from when its log is followed on. Until then the key stays: should `standby_cluster` be taken
/// back before, it still says who has what this cluster has acknowledged.
fn forget_synchronous(at: &Situation<'_>, epoch: Epoch) -> Option<Action> {
    let key = at.view.sync.as_ref().filter(|key| key.value.leader.is_some())?;
    Some(Action::WriteSync { epoch, version: Some(key.version), key: SyncKey::default() })
}
