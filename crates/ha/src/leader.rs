//! This node holds the leader key.

use std::time::Duration;

use crate::action::{Action, Job, StopMode, WakeReason};
use crate::agent::{Memory, Plan, Situation};
use crate::local::{ControlState, JobOutcome, Postgres, Running};
use crate::rule::Rule;
use crate::types::{Boot, Epoch, Timeline};
use crate::view::MemberState;
use crate::{failsafe, hook, slots, switchover, sync, timeline};

/// Between two looks while clients are held.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch) -> Plan {
    match &at.local.postgres {
        Postgres::Stopped => server_down(at, memory, epoch),
        Postgres::Running(running) if running.in_recovery && memory.give_up == Some(epoch) => {
            Plan::act(Rule::GiveKeyBack, [Action::Release { epoch }])
        }
        Postgres::Starting { since } => starting(at, memory, epoch, *since),
        _ if at.local.is_writer() && at.lease_is_over(epoch) => Plan::act(Rule::PermitOver, [Action::Fence]),
        _ if !at.local.guarded => unguarded(at, memory, epoch),
        _ if !at.permitted() => Plan::act(Rule::ProveLease, [Action::Renew { epoch }])
            .wake(at.soon(at.settings.retry_timeout / 4, WakeReason::Retry)),
        Postgres::Silent { since, .. } => silent(at, memory, epoch, *since),
        Postgres::Running(running) if running.in_recovery => promote(at, memory, epoch, running),
        Postgres::Running(running) => lead(at, memory, epoch, running),
        Postgres::Orphans => Plan::act(Rule::KillOrphans, [Action::Fence]),
    }
}

/// Another registered member runs and may be promoted.
pub(crate) fn another_could_lead(at: &Situation<'_>) -> bool {
    at.view
        .members
        .iter()
        .any(|member| member.name != at.me() && member.state == MemberState::Running && !member.nofailover())
}

fn server_down(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch) -> Plan {
    if let Some(plan) = switchover::hand_over(at, memory, epoch) {
        return plan;
    }
    if memory.give_up == Some(epoch) || (memory.starts.count >= 2 && another_could_lead(at)) {
        return Plan::act(Rule::PrimaryStartFailed, [Action::Release { epoch }]);
    }
    let was_primary = at.local.control().is_some_and(|control| control.was_primary());
    if was_primary && !sync::may_go_on(at) {
        return Plan::act(Rule::NotSynchronous, [Action::Release { epoch }]);
    }
    if !at.permitted() {
        return Plan::act(Rule::ProveLease, [Action::Renew { epoch }])
            .wake(at.soon(at.settings.retry_timeout / 4, WakeReason::Retry));
    }
    if let Err(wake) = memory.may_start(at.now.boot) {
        return Plan::wait(Rule::RetryLater).wake(wake);
    }
    // One that was stopped in order has not crashed, and nobody else may have its last record.
    let crashed = at.local.control().is_some_and(|control| control.state != ControlState::ShutDown);
    if was_primary && crashed && at.settings.primary_start_timeout.is_zero() && another_could_lead(at) {
        return Plan::act(Rule::FailOverAfterCrash, [Action::Release { epoch }]);
    }
    // The file with its last record is in the archive as it is: it goes on in another one, on a timeline of its own.
    let demoted =
        at.local.last(|job| *job == Job::Stop(StopMode::Demotion)).is_some_and(|it| it.outcome == JobOutcome::Done);
    if was_primary && !demoted {
        Plan::act(Rule::RestartCrashedPrimary, [start_primary(at, memory, epoch)])
    } else {
        Plan::act(Rule::StartStandbyToPromote, [Action::Run(Job::StartStandby { upstream: None })])
    }
}

/// What a server shows that comes up again may be more than any standby has.
pub(crate) fn start_primary(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch) -> Action {
    sync::starts(at, &mut memory.sync);
    Action::Run(Job::StartPrimary { epoch, names: sync::names_at_start(at) })
}

fn starting(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch, since: Boot) -> Plan {
    if at.now.boot.since(since) > memory.start_patience(at) && another_could_lead(at) {
        memory.give_up = Some(epoch);
        return Plan::act(Rule::PrimaryStartTimeout, [Action::Run(Job::Stop(StopMode::Immediate))]);
    }
    let plan = if at.permitted() {
        Plan::wait(Rule::PrimaryStarting)
    } else {
        Plan::act(Rule::ProveLease, [Action::Renew { epoch }])
    };
    plan.wake(at.soon(Duration::from_millis(50), WakeReason::Settling))
}

/// Without a guard nobody leads for long. A primary that cannot be given one (its last was killed, say, and no process can be started) is
/// stopped in order, to be started again as the child of a new one; a standby that was to be promoted leaves the key to others.
fn unguarded(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch) -> Plan {
    if !memory.is_unguarded_for(at, at.settings.retry_timeout) {
        return Plan::act(Rule::WaitForGuard, [Action::Guard, Action::Renew { epoch }]);
    }
    if at.local.is_writer() {
        let stopped = at.local.last(|job| matches!(job, Job::Stop(_)));
        let hangs = stopped.is_some_and(|last| memory.unguarded_since.is_some_and(|since| last.at >= since));
        let mode = if hangs { StopMode::Immediate } else { StopMode::Planned };
        return Plan::act(Rule::NoGuard, [Action::Run(Job::Stop(mode))]);
    }
    memory.no_race_until = at.now.boot + at.settings.ttl;
    Plan::act(Rule::NoGuard, [Action::Release { epoch }])
}

/// A server that does not answer may be busy, so it keeps the key for as long as one that starts may. One that was told to stop in
/// order and has not (a hung `archive_command` holds it up for ever) serves nobody any more: it is ended as in a crash, and
/// started again.
pub(crate) fn silent(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch, since: Boot) -> Plan {
    let stop_failed = at
        .local
        .last(|job| matches!(job, Job::Stop(_)))
        .is_some_and(|last| last.outcome == JobOutcome::Failed && last.at >= since);
    if stop_failed {
        let request = at.view.failover.as_ref().filter(|key| !key.value.is_empty());
        let clear = request.map(|key| Action::ClearFailover { version: key.version });
        let stop = Action::Run(Job::Stop(StopMode::Immediate));
        return Plan::act(Rule::StopHangs, clear.into_iter().chain([stop]));
    }
    // A slow answer is no crash, however short the time is that a start may take.
    let patience = at.settings.primary_start_timeout.max(at.settings.ttl);
    if at.now.boot.since(since) > patience && another_could_lead(at) {
        memory.give_up = Some(epoch);
        return Plan::act(Rule::PrimarySilent, [Action::Run(Job::Stop(StopMode::Immediate))]);
    }
    Plan::wait(Rule::Lead)
}

/// Nothing that can wait comes before the promotion.
pub(crate) fn promote(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch, running: &Running) -> Plan {
    let of_epoch = |job: &Job| matches!(job, Job::Promote { epoch: of, .. } if *of == epoch);
    let failed = at.local.last(of_epoch).is_some_and(|last| last.outcome != JobOutcome::Done);
    if failed {
        memory.no_race_until = at.now.boot + at.settings.ttl;
        memory.give_up = Some(epoch);
        return Plan::act(Rule::PrimaryStartFailed, [Action::Run(Job::Stop(StopMode::Fast))]);
    }
    if let Some(plan) = hook::before_promotion(at, memory, epoch) {
        return plan;
    }
    if let Some(plan) = sync::before_promotion(at, epoch, running) {
        if plan.rule == Rule::GiveKeyBack {
            memory.no_race_until = at.now.boot + at.settings.loop_wait;
        }
        return plan;
    }
    sync::starts(at, &mut memory.sync);
    Plan::act(Rule::Promote, timeline::promotion(at, epoch, running, &memory.slots))
}

pub(crate) fn lead(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch, running: &Running) -> Plan {
    if let Some(plan) = announce(at, epoch) {
        return plan;
    }
    if let Some(plan) = failsafe::list(at, &mut memory.failsafe, epoch) {
        return plan;
    }
    if let Some(plan) = sync::gate(at, &mut memory.sync, running) {
        return plan;
    }
    if let Some(plan) = switchover::requested(at, memory, running) {
        return plan;
    }
    if let Some(plan) = sync::maintain(at, &mut memory.sync, epoch, running) {
        return plan;
    }
    // Those that others wait for come first: an action that fails ends the round.
    let mut actions = Vec::from_iter(missing_config(at, epoch));
    let status_due = at.now.boot.since(memory.status_written) >= at.settings.loop_wait;
    let changes = slots::on_leader(at, &mut memory.slots, running);
    let status = slots::status(at, &memory.slots, running);
    if status_due && slots::is_news(at, &status) {
        memory.status_written = at.now.boot;
        actions.push(Action::WriteStatus { epoch, status });
    }
    if !running.checkpointed {
        actions.push(Action::Checkpoint);
    }
    actions.extend(changes);
    if history_is_behind(at, running.timeline) {
        actions.push(Action::WriteHistory { epoch });
    }
    actions.extend(timeline::correction(at, epoch, running));
    let rule = match at.paused {
        true => Rule::PausedLead,
        false if memory.sync.gate.is_some() => Rule::HoldClients,
        false => Rule::Lead,
    };
    // Nothing tells when the standbys have it.
    let held = memory.sync.gate.is_some().then(|| at.soon(LOOK_AGAIN, WakeReason::Settling));
    Plan { wake: held.or(memory.sync.wake), ..Plan::act(rule, actions) }
}

/// The keys that every cluster has.
pub(crate) fn announce(at: &Situation<'_>, epoch: Epoch) -> Option<Plan> {
    if at.view.system_id().is_some() {
        return None;
    }
    let identity = Action::WriteInitialize { epoch, system_id: at.local.control()?.system_id };
    Some(Plan::act(Rule::AnnounceCluster, [identity].into_iter().chain(missing_config(at, epoch))))
}

/// `config` is also missing while it holds what is no configuration, which is not ours to overwrite; so this never keeps the leader
/// from its other duties.
pub(crate) fn missing_config(at: &Situation<'_>, epoch: Epoch) -> Option<Action> {
    at.view.config.is_none().then_some(Action::WriteConfig { epoch })
}

fn history_is_behind(at: &Situation<'_>, timeline: Timeline) -> bool {
    match timeline {
        Timeline(0) => false,
        Timeline(1) => !at.view.history.is_empty(),
        timeline => at.view.history_timeline() != timeline,
    }
}
