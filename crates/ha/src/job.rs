//! A long action is in progress: what must go on meanwhile, and what must cut it short.

use crate::action::{Action, Job, StopMode, WakeReason};
use crate::agent::{Memory, Plan, Situation, Standing};
use crate::local::{JobInProgress, Postgres};
use crate::rule::Rule;
use crate::{hook, leader, stop};

pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory) -> Option<Plan> {
    let running = at.local.job.as_ref()?;
    // It touches nothing, and must not keep this node from a race while a dead leader does not answer.
    if let Job::CheckDivergence { .. } = running.job {
        return None;
    }
    if let Some(plan) = hook::cut_off(at, running) {
        return Some(plan);
    }
    if !at.paused && unlicensed(at, running) {
        return Some(Plan::act(Rule::PermitOver, [Action::Fence]));
    }
    if let Standing::Mine(epoch) = at.standing
        && (!at.paused && at.local.is_writer() && at.lease_is_over(epoch))
    {
        return Some(Plan::act(Rule::PermitOver, [Action::Fence]));
    }
    if let (Standing::Mine(epoch), Job::StartPrimary { .. }) = (at.standing, &running.job)
        && at.now.boot.since(running.since) > memory.start_patience(at)
        && leader::another_could_lead(at)
    {
        memory.give_up = Some(epoch);
        return Some(Plan::act(Rule::PrimaryStartTimeout, [Action::Run(Job::Stop(StopMode::Immediate))]));
    }
    if let Some(plan) = stop::overdue(at, memory) {
        return Some(plan);
    }
    let rule = if let Job::Promote { .. } = running.job { Rule::Promoting } else { Rule::JobInProgress };
    Some(match needs_proof(at) {
        Some(epoch) => {
            Plan::act(rule, [Action::Renew { epoch }]).wake(at.soon(at.settings.retry_timeout / 4, WakeReason::Retry))
        }
        None => match stop::due(at) {
            Some(due) => Plan::wait(rule).wake(due),
            None => Plan::wait(rule),
        },
    })
}

/// Processes in the data directory without a postmaster are the job's own work: a server that is being started and has not written
/// its number yet, or the crash recovery in single-user mode before a rewind, which may take minutes.
pub(crate) fn owns_processes(at: &Situation<'_>) -> bool {
    at.local.job.as_ref().is_some_and(|running| match running.job {
        Job::StartPrimary { .. }
        | Job::StartStandby { .. }
        | Job::Restart { .. }
        | Job::Rewind { .. }
        | Job::CopySlots { .. } => true,
        // The user's own command may start a server to restore into, and ends it again.
        Job::CustomBootstrap | Job::Clone { .. } => true,
        Job::Initdb
        | Job::PostBootstrap { .. }
        | Job::AbandonBootstrap
        | Job::CheckDivergence { .. }
        | Job::PrePromote { .. }
        | Job::Promote { .. }
        | Job::Stop(_) => false,
    })
}

/// The job makes or keeps a writer, and the key that it was begun under is not ours any more.
fn unlicensed(at: &Situation<'_>, running: &JobInProgress) -> bool {
    let epoch = match &running.job {
        Job::StartPrimary { epoch, .. } | Job::Promote { epoch, .. } | Job::PostBootstrap { epoch } => Some(*epoch),
        Job::Restart { epoch, .. } => *epoch,
        _ => None,
    };
    let lost = epoch.is_some_and(|epoch| at.standing != Standing::Mine(epoch));
    let writer_of_another = at.local.is_writer() && matches!(at.standing, Standing::Other(_));
    (lost || writer_of_another) && at.local.postgres != Postgres::Stopped
}

/// A writer is there, the key is ours, and the proof of it has run out: a renewal may still bring it back before the guard acts.
fn needs_proof(at: &Situation<'_>) -> Option<crate::Epoch> {
    match at.standing {
        Standing::Mine(epoch) if at.local.is_writer() && !at.permitted() => Some(epoch),
        _ => None,
    }
}
