//! The agent was told to stop: stop the server in order, hand the key over, end. Paused, everything is left as it is.

use crate::action::{Action, Job, StopMode, Wake, WakeReason};
use crate::agent::{Memory, Plan, Situation, Standing};
use crate::local::{JobOutcome, Postgres};
use crate::rule::Rule;
use crate::{leader, switchover, sync};

pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory) -> Plan {
    if at.paused {
        return Plan::act(Rule::StopDetached, [Action::Exit { failure: None }]);
    }
    if let Some(plan) = sync::leave_first(at, &mut memory.sync) {
        return plan;
    }
    let leads = matches!(at.standing, Standing::Mine(_));
    match (&at.local.job, &at.local.postgres) {
        (Some(running), _) if matches!(running.job, Job::Stop(_)) => overdue(at, memory).unwrap_or_else(|| {
            let plan = Plan::wait(Rule::JobInProgress);
            match due(at) {
                Some(due) => plan.wake(due),
                None => plan,
            }
        }),
        (_, Postgres::Running(_) | Postgres::Starting { .. } | Postgres::Silent { .. }) => {
            let last = at.local.last(|job| matches!(job, Job::Stop(_)));
            let mode = match last.map(|last| last.outcome) {
                // A hung `archive_command`, say, holds an orderly stop up for ever.
                Some(JobOutcome::Failed) if at.local.running().is_none() => StopMode::Immediate,
                _ if leads && at.reachable => StopMode::Planned,
                _ => StopMode::Fast,
            };
            Plan::act(Rule::StopServer, [Action::Run(Job::Stop(mode))])
        }
        // A start or a copy that is cut off later could leave a server behind when the key is another node's already.
        (Some(_), Postgres::Stopped) => Plan::act(Rule::StopServer, [Action::Run(Job::Stop(StopMode::Fast))]),
        (_, Postgres::Orphans) => Plan::act(Rule::KillOrphans, [Action::Fence]),
        (_, Postgres::Stopped) => match at.standing {
            Standing::Mine(epoch) if at.reachable => switchover::hand_over(at, memory, epoch)
                .unwrap_or_else(|| Plan::act(Rule::LeaveKey, [Action::Release { epoch }])),
            _ => Plan::act(Rule::StopDone, [Action::Exit { failure: None }]),
        },
    }
}

/// The orderly stop of a primary has had `primary_stop_timeout`. It is ended as in a crash, and its key goes to another: that setting counts
/// only where a standby has every acknowledged commit.
pub(crate) fn overdue(at: &Situation<'_>, memory: &mut Memory) -> Option<Plan> {
    let wake = due(at)?;
    if at.now.boot < wake.at {
        return None;
    }
    if let Standing::Mine(epoch) = at.standing
        && leader::another_could_lead(at)
    {
        memory.give_up = Some(epoch);
    }
    Some(Plan::act(Rule::PrimaryStopTimeout, [Action::Run(Job::Stop(StopMode::Immediate))]))
}

/// When the orderly stop of a primary that is under way has had its time.
pub(crate) fn due(at: &Situation<'_>) -> Option<Wake> {
    let limit = at.settings.primary_stop_timeout?;
    sync::active(at).filter(|key| !key.sync_standby.is_empty())?;
    let stop = at
        .local
        .job
        .as_ref()
        .filter(|job| matches!(job.job, Job::Stop(StopMode::Planned | StopMode::Demotion | StopMode::Fast)))?;
    at.local.is_writer().then(|| Wake { at: stop.since + limit, reason: WakeReason::Retry })
}
