//! The store does not answer. A primary goes on until its permit is about to end, and is gone before the lease is; everybody else
//! waits.

use std::time::Duration;

use crate::action::{Action, Job, StopMode, Wake, WakeReason};
use crate::agent::{Memory, Plan, Situation};
use crate::local::Postgres;
use crate::permit::Permit;
use crate::rule::Rule;

/// The time that an orderly stop gets before the permit ends and the guard kills. A fast stop takes 20 to 200 ms
/// when nobody blocks it.
const ORDERLY_STOP: Duration = Duration::from_millis(500);

pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory) -> Plan {
    if at.local.is_writer() {
        return writer(at, memory);
    }
    if at.local.job.is_some() {
        return Plan::wait(Rule::JobInProgress);
    }
    match at.local.postgres {
        Postgres::Stopped if !at.paused && is_known_data(at) => match memory.may_start(at.now.boot) {
            Ok(()) => {
                let upstream = at.local.following.clone();
                Plan::act(Rule::StartWithoutStore, [Action::Run(Job::StartStandby { upstream })])
            }
            Err(wake) => Plan::wait(Rule::RetryLater).wake(wake),
        },
        _ => Plan::wait(Rule::StoreUnreachable),
    }
}

/// The directory is a complete one of the cluster that the store showed when it last answered.
fn is_known_data(at: &Situation<'_>) -> bool {
    at.local
        .control()
        .is_some_and(|control| !control.bootstrap_pending && at.view.system_id() == Some(control.system_id))
}

fn writer(at: &Situation<'_>, memory: &Memory) -> Plan {
    let stopping = at.local.job.as_ref().is_some_and(|job| matches!(job.job, Job::Stop(_)));
    match at.permit {
        Permit::Paused { .. } => Plan::wait(Rule::StoreUnreachable),
        Permit::Until { .. } if at.permit.remaining(at.now.boot) > ORDERLY_STOP => {
            Plan::wait(if memory.failsafe.gives(at.permit) { Rule::LeadByFailsafe } else { Rule::LeadWithoutStore })
        }
        Permit::Until { .. } if !at.permitted() => Plan::act(Rule::PermitOver, [Action::Fence]),
        Permit::Until { .. } if stopping => Plan::wait(Rule::JobInProgress),
        Permit::Until { .. } => Plan::act(Rule::StopBeforePermitEnds, [Action::Run(Job::Stop(StopMode::Fast))]),
        // An agent that came back and found its server running and its store gone: the guard still holds the deadline that the
        // former agent gave it. Without a guard, nobody but this agent can end it, once a lease must be over.
        Permit::None => {
            let unreachable = memory.unreachable_since.map_or(Duration::ZERO, |since| at.now.boot.since(since));
            if unreachable >= at.settings.ttl {
                Plan::act(Rule::FenceWithoutPermit, [Action::Fence])
            } else {
                Plan::wait(Rule::StoreUnreachable)
            }
        }
    }
}

/// A writer must be looked at when its permit is about to end, and when it has.
pub(crate) fn permit_wake(at: &Situation<'_>) -> Option<Wake> {
    let Permit::Until { deadline, .. } = at.permit else { return crate::switchover::schedule_wake(at) };
    let orderly = deadline - ORDERLY_STOP;
    let wake = Wake { at: if at.now.boot < orderly { orderly } else { deadline }, reason: WakeReason::PermitEnds };
    let scheduled = crate::switchover::schedule_wake(at).filter(|scheduled| scheduled.at < wake.at);
    Some(scheduled.unwrap_or(wake))
}
