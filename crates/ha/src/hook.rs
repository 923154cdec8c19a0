//! The user's command before a promotion (`pre_promote`): a fencing script, say. While it runs nobody is primary, so its time is bounded; if it
//! fails the key goes to another.

use crate::action::{Action, Job};
use crate::agent::{Memory, Plan, Situation, Standing};
use crate::local::{JobInProgress, JobOutcome, Postgres};
use crate::rule::Rule;
use crate::types::Epoch;

/// What comes before a promotion under `epoch`; `None`: nothing any more.
pub(crate) fn before_promotion(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch) -> Option<Plan> {
    if !at.settings.pre_promote || memory.pre_promoted == Some(epoch) {
        return None;
    }
    let job = Job::PrePromote { epoch };
    match at.local.last(|last| *last == job).map(|last| last.outcome) {
        None => Some(Plan::act(Rule::PrePromote, [Action::Run(job)])),
        Some(JobOutcome::Done) => {
            memory.pre_promoted = Some(epoch);
            None
        }
        Some(JobOutcome::Failed | JobOutcome::Cancelled) => {
            memory.no_race_until = at.now.boot + at.settings.ttl;
            Some(Plan::act(Rule::PrePromoteFailed, [Action::Release { epoch }]))
        }
    }
}

/// It has had the time that a start may take, or there is nothing any more to promote: no server, or not the key that it was begun under.
pub(crate) fn cut_off(at: &Situation<'_>, running: &JobInProgress) -> Option<Plan> {
    let Job::PrePromote { epoch } = running.job else { return None };
    let overdue = at.now.boot.since(running.since) > at.settings.start_patience();
    let lost = at.reachable && at.standing != Standing::Mine(epoch);
    let gone = matches!(at.local.postgres, Postgres::Stopped | Postgres::Orphans);
    (overdue || lost || gone).then(|| Plan::act(Rule::PrePromoteCutOff, [Action::CutOff]))
}
