//! The agent was told to stop: stop the server in order, hand the key over, end. Paused, everything is left as it is.

use crate::action::{Action, Job, StopMode};
use crate::agent::{Memory, Plan, Situation, Standing};
use crate::local::{JobOutcome, Postgres};
use crate::rule::Rule;
use crate::switchover;

pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory) -> Plan {
    if at.paused {
        return Plan::act(Rule::StopDetached, [Action::Exit { failure: None }]);
    }
    let leads = matches!(at.standing, Standing::Mine(_));
    match (&at.local.job, &at.local.postgres) {
        (Some(running), _) if matches!(running.job, Job::Stop(_)) => Plan::wait(Rule::JobInProgress),
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
                .unwrap_or_else(|| Plan::act(Rule::HandOver, [Action::Release { epoch }])),
            _ => Plan::act(Rule::StopDone, [Action::Exit { failure: None }]),
        },
    }
}
