//! Another node holds the leader key.

use std::time::Duration;

use crate::action::{Action, Job, Upstream, WakeReason};
use crate::agent::{Memory, Plan, Situation, Standing};
use crate::local::{Divergence, JobOutcome, Postgres, Running, Verdict};
use crate::rule::Rule;
use crate::types::Epoch;
use crate::upstream::{self, Target};
use crate::{slots, sync};

/// A standby that does not stream is compared with the leader again after this time.
const NOT_STREAMING: Duration = Duration::from_secs(5);

/// A leader that did not answer the comparison (it may still be in its promotion) is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The pause after a failed rewind or copy.
const RETRY: Duration = Duration::from_secs(5);

/// Whom this standby follows, and whose history counts for it.
pub(crate) struct Way {
    /// Under which its history is compared.
    pub epoch: Epoch,
    /// Its history must lead into that of this server; what has left it is rewound to it. `None`: nobody can be asked.
    pub origin: Option<Upstream>,
    pub target: Target,
}

pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch) -> Plan {
    let way = Way { epoch, origin: upstream::leader(at), target: upstream::target(at) };
    match &at.local.postgres {
        Postgres::Stopped => server_down(at, memory, &way),
        Postgres::Starting { .. } => follow(at, &way.target, Rule::StandbyStarting),
        Postgres::Running(running) => following(at, memory, &way, running),
        Postgres::Silent { .. } | Postgres::Orphans => Plan::wait(Rule::Follow),
    }
}

pub(crate) fn server_down(at: &Situation<'_>, memory: &mut Memory, way: &Way) -> Plan {
    let stale = match known(at, way.epoch) {
        None => true,
        // One that cannot start may have left the leader's history: it then refuses to replay what it has.
        Some(known) => known.verdict == Verdict::Unknown && memory.starts.count > 0 && is_old(at, known),
    };
    if let Some(origin) = way.origin.as_ref().filter(|_| stale) {
        return check(at, way.epoch, origin.clone());
    }
    if let Some(plan) = diverged(at, memory, way) {
        return plan;
    }
    match memory.may_start(at.now.boot) {
        Ok(()) => Plan::act(Rule::StartStandby, [Action::Run(Job::StartStandby { upstream: way.target.upstream() })]),
        Err(wake) => Plan::wait(Rule::RetryLater).wake(wake),
    }
}

pub(crate) fn following(at: &Situation<'_>, memory: &mut Memory, way: &Way, running: &Running) -> Plan {
    if !at.local.admits_clients {
        return Plan::act(Rule::AdmitClients, [Action::AdmitClients]);
    }
    if way.target.differs_from(at.local.following.as_ref()) {
        return change(&way.target).wake(at.soon(Duration::from_millis(100), WakeReason::Settling));
    }
    if let Some(plan) = diverged(at, memory, way) {
        return plan;
    }
    let stale = match known(at, way.epoch) {
        None => true,
        Some(known) if known.verdict == Verdict::Unknown => {
            // Another cluster may never let this node ask, and whoever streams from it has its history.
            let remote = way.origin.as_ref().is_some_and(|origin| origin.remote.is_some());
            match remote {
                true => !running.streaming && at.now.boot.since(known.at) >= NOT_STREAMING,
                false => is_old(at, known),
            }
        }
        Some(known) => !running.streaming && at.now.boot.since(known.at) >= NOT_STREAMING,
    };
    if let Some(origin) = way.origin.as_ref().filter(|_| stale) {
        return check(at, way.epoch, origin.clone());
    }
    match way.origin.as_ref().and_then(|leader| copy_slots(at, memory, way.epoch, running, leader)) {
        Some(plan) => plan,
        None => {
            let leader = way.origin.as_ref().filter(|_| matches!(at.standing, Standing::Other(_)));
            let question = leader.and_then(|leader| slots::ask_leader(at, &mut memory.slots, running, leader));
            // One that another has started, as a Patroni before this agent: until it is watched it may not lead, and tells everybody so.
            let unwatched = !at.local.guarded && !memory.is_unguarded_for(at, at.settings.retry_timeout);
            let guard = (unwatched && matches!(at.standing, Standing::Other(_))).then_some(Action::Guard);
            Plan::act(Rule::Follow, slots(at, memory, running).into_iter().chain(question).chain(guard))
        }
    }
}

/// The standby leader's slots are used, as a primary's are.
fn slots(at: &Situation<'_>, memory: &mut Memory, running: &Running) -> Option<Action> {
    match at.standing {
        Standing::Mine(_) => slots::on_leader(at, &mut memory.slots, running),
        Standing::Other(_) | Standing::Nobody => slots::on_standby(at, &mut memory.slots, running),
    }
}

/// Logical slots that are missing here are copied; those who wait for this standby in synchronous mode are told first, for it is stopped.
fn copy_slots(
    at: &Situation<'_>,
    memory: &mut Memory,
    epoch: Epoch,
    running: &Running,
    leader: &Upstream,
) -> Option<Plan> {
    let slots = slots::copies(at, &memory.slots, running);
    memory.sync.stops_for_slots = !slots.is_empty();
    if slots.is_empty() {
        return None;
    }
    if let Some(plan) = sync::leave_first(at, &mut memory.sync) {
        return Some(plan);
    }
    memory.slots.copied = Some((epoch, at.now.boot));
    Some(Plan::act(Rule::CopySlots, [Action::Run(Job::CopySlots { source: leader.clone(), slots })]))
}

pub(crate) fn follow(at: &Situation<'_>, target: &Target, rule: Rule) -> Plan {
    if target.differs_from(at.local.following.as_ref()) {
        return change(target);
    }
    let plan = Plan::wait(rule);
    // A starting server tells nobody when it is ready.
    if rule == Rule::StandbyStarting {
        plan.wake(at.soon(Duration::from_millis(50), WakeReason::Settling))
    } else {
        plan
    }
}

fn change(target: &Target) -> Plan {
    Plan::act(Rule::ChangeUpstream, [Action::Follow { upstream: target.upstream() }])
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

/// An answer that was none, for long enough to ask again.
fn is_old(at: &Situation<'_>, unknown: Divergence) -> bool {
    at.now.boot.since(unknown.at) >= ASK_AGAIN
}

/// The way back for a node whose log has left the leader's: a rewind, else a fresh copy.
fn diverged(at: &Situation<'_>, memory: &Memory, way: &Way) -> Option<Plan> {
    let epoch = way.epoch;
    let verdict = known(at, epoch)?.verdict;
    if !matches!(verdict, Verdict::Diverged | Verdict::OnlyCopy) {
        return None;
    }
    let source = way.origin.clone()?;
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
    // pg_rewind may find nothing to do where we see a difference; doing it again changes nothing.
    let in_vain = memory.rewound == Some(epoch);
    if !rewindable || rewind_failed || in_vain {
        let settings = at.settings;
        let after_rewind = (rewind_failed || in_vain) && settings.remove_on_rewind_failure;
        let make_room = settings.remove_on_diverged || after_rewind;
        let job = Job::Clone { source: Some(source), make_room, from_leader: false };
        return Some(Plan::act(Rule::CloneDiverged, [Action::Run(job)]));
    }
    // pg_rewind reads the source's timeline from its control file, which the checkpoint after the promotion brings up to date.
    let leader = at.view.leader_member();
    if leader.is_some_and(|leader| leader.checkpoint_after_promote == Some(false)) {
        return Some(Plan::wait(Rule::RewindWait));
    }
    Some(Plan::act(Rule::Rewind, [Action::Run(Job::Rewind { source })]))
}
