//! Another node holds the leader key.

use std::time::Duration;

use crate::action::{Action, Job, Upstream, WakeReason};
use crate::agent::{Memory, Plan, Situation};
use crate::bootstrap::upstream;
use crate::leader::SLOT_ROUND;
use crate::local::{Divergence, JobOutcome, Postgres, Running, Verdict};
use crate::rule::Rule;
use crate::types::{Boot, Epoch};

/// A standby that does not stream is compared with the leader again after this time.
const NOT_STREAMING: Duration = Duration::from_secs(5);

/// A leader that did not answer the comparison (it may still be in its promotion) is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The pause after a failed rewind or copy.
const RETRY: Duration = Duration::from_secs(5);

pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch) -> Plan {
    // A key of this node's own former session leads nobody.
    let leader = at.view.leader_member().filter(|leader| leader.name != at.me()).and_then(upstream);
    match &at.local.postgres {
        Postgres::Stopped => server_down(at, memory, epoch, leader),
        Postgres::Starting { .. } => follow(at, leader, Rule::StandbyStarting),
        Postgres::Running(running) => following(at, memory, epoch, leader, running),
        Postgres::Silent { .. } | Postgres::Orphans => Plan::wait(Rule::Follow),
    }
}

fn server_down(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch, leader: Option<Upstream>) -> Plan {
    if let (None, Some(leader)) = (known(at, epoch), &leader) {
        return check(at, epoch, leader.clone());
    }
    if let Some(plan) = diverged(at, epoch, leader.as_ref()) {
        return plan;
    }
    match memory.may_start(at.now.boot) {
        Ok(()) => Plan::act(Rule::StartStandby, [Action::Run(Job::StartStandby { upstream: leader })]),
        Err(wake) => Plan::wait(Rule::RetryLater).wake(wake),
    }
}

fn following(
    at: &Situation<'_>,
    memory: &mut Memory,
    epoch: Epoch,
    leader: Option<Upstream>,
    running: &Running,
) -> Plan {
    if leader.is_some() && at.local.following != leader {
        return Plan::act(Rule::ChangeUpstream, [Action::Follow { upstream: leader }])
            .wake(at.soon(Duration::from_millis(100), WakeReason::Settling));
    }
    if let Some(plan) = diverged(at, epoch, leader.as_ref()) {
        return plan;
    }
    let stale = match known(at, epoch) {
        None => true,
        Some(Divergence { verdict: Verdict::Unknown, at: asked, .. }) => at.now.boot.since(asked) >= ASK_AGAIN,
        Some(known) => !running.streaming && at.now.boot.since(known.at) >= NOT_STREAMING,
    };
    match leader {
        Some(leader) if stale => check(at, epoch, leader),
        _ => Plan::act(Rule::Follow, no_slots(at, memory)),
    }
}

/// Now and then: a standby keeps no slots for others. A new primary makes them anew.
fn no_slots(at: &Situation<'_>, memory: &mut Memory) -> Option<Action> {
    let due = at.now.boot.since(memory.slots_synced) >= SLOT_ROUND;
    if memory.slots_synced == Boot::ZERO || due {
        let first = std::mem::replace(&mut memory.slots_synced, at.now.boot) == Boot::ZERO;
        return (at.settings.use_slots && !first).then(|| Action::SyncSlots { members: Vec::new() });
    }
    None
}

pub(crate) fn follow(at: &Situation<'_>, leader: Option<Upstream>, rule: Rule) -> Plan {
    if leader.is_some() && at.local.following != leader {
        return Plan::act(Rule::ChangeUpstream, [Action::Follow { upstream: leader }]);
    }
    let plan = Plan::wait(rule);
    // A starting server tells nobody when it is ready.
    if rule == Rule::StandbyStarting {
        plan.wake(at.soon(Duration::from_millis(50), WakeReason::Settling))
    } else {
        plan
    }
}

fn check(at: &Situation<'_>, epoch: Epoch, leader: Upstream) -> Plan {
    if at.local.job.is_some() {
        return Plan::wait(Rule::CheckHistory);
    }
    Plan::act(Rule::CheckHistory, [Action::Run(Job::CheckDivergence { epoch, leader })])
}

/// What is known of our history against that of this very leader.
fn known(at: &Situation<'_>, epoch: Epoch) -> Option<Divergence> {
    at.local.divergence.filter(|divergence| divergence.epoch == epoch)
}

/// The way back for a node whose log has left the leader's: a rewind, else a fresh copy.
fn diverged(at: &Situation<'_>, epoch: Epoch, leader: Option<&Upstream>) -> Option<Plan> {
    let verdict = known(at, epoch)?.verdict;
    if !matches!(verdict, Verdict::Diverged | Verdict::OnlyCopy) {
        return None;
    }
    let source = leader?.clone();
    let last = at.local.last(|job| matches!(job, Job::Rewind { .. } | Job::Clone { .. }));
    let failed = last.filter(|last| last.outcome != JobOutcome::Done);
    let rewind_failed = failed.is_some_and(|failed| matches!(failed.job, Job::Rewind { .. }));
    if let Some(failed) = failed.filter(|failed| matches!(failed.job, Job::Clone { .. }))
        && at.now.boot < failed.at + RETRY
    {
        return Some(Plan::wait(Rule::RetryLater));
    }
    let rewindable = verdict == Verdict::Diverged
        && at.settings.use_pg_rewind
        && at.local.control().is_some_and(|control| control.rewindable);
    Some(if rewindable && !rewind_failed {
        Plan::act(Rule::Rewind, [Action::Run(Job::Rewind { source })])
    } else {
        Plan::act(Rule::CloneDiverged, [Action::Run(Job::Clone { source })])
    })
}
