//! The cluster is paused: the operator is in charge. Nothing is started, stopped, promoted or rewound by itself; the leader keeps its
//! key while it runs, and an explicit failover to a named candidate is carried out.

use crate::action::Action;
use crate::agent::{Memory, Plan, Situation, Standing};
use crate::local::{DataDirectory, Postgres};
use crate::rule::Rule;
use crate::view::FailoverKey;
use crate::{leader, replica, slots, standby_cluster, switchover, sync, upstream};

pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory) -> Plan {
    if !matches!(at.local.data, DataDirectory::Present(_)) {
        return match at.standing {
            Standing::Mine(epoch) if at.local.postgres == Postgres::Stopped => {
                Plan::act(Rule::PausedReleaseKey, [Action::Release { epoch }])
            }
            _ => Plan::wait(Rule::PausedIdle),
        };
    }
    match at.standing {
        Standing::Mine(epoch) if at.settings.standby_cluster.is_some() && !at.local.is_writer() => {
            standby_cluster::paused(at, epoch)
        }
        Standing::Mine(epoch) => match &at.local.postgres {
            Postgres::Running(running) if !running.in_recovery => leader::lead(at, memory, epoch, running),
            Postgres::Running(running) if named(at) => leader::promote(at, memory, epoch, running),
            Postgres::Running(_) => Plan::act(Rule::PausedReleaseKey, [Action::Release { epoch }]),
            Postgres::Stopped => switchover::hand_over(at, memory, epoch)
                .unwrap_or_else(|| Plan::act(Rule::PausedReleaseKey, [Action::Release { epoch }])),
            Postgres::Starting { .. } | Postgres::Silent { .. } | Postgres::Orphans => Plan::wait(Rule::PausedLead),
        },
        Standing::Other(_) if at.local.is_writer() => Plan::wait(Rule::PausedKeepPrimary),
        Standing::Other(_) => match &at.local.postgres {
            Postgres::Running(running) => {
                let mut plan = replica::follow(at, &upstream::target(at), Rule::PausedFollow);
                plan.actions.extend(slots::on_standby(at, &mut memory.slots, running));
                plan
            }
            Postgres::Stopped => Plan::wait(Rule::PausedDown),
            Postgres::Starting { .. } | Postgres::Silent { .. } | Postgres::Orphans => Plan::wait(Rule::PausedIdle),
        },
        // Left behind by another primary it stays without the key; whether it is to end is the operator's to say.
        Standing::Nobody if at.local.is_writer() && was_succeeded(at) => Plan::wait(Rule::PausedKeepPrimary),
        Standing::Nobody if at.local.is_writer() => Plan::act(Rule::PausedTakeKey, [Action::Acquire]),
        Standing::Nobody => match &at.local.postgres {
            Postgres::Running(_) if named(at) && !at.settings.nofailover => {
                Plan::act(Rule::CandidateAcquire, [Action::Acquire])
            }
            Postgres::Stopped => Plan::wait(Rule::PausedDown),
            _ => Plan::wait(Rule::PausedIdle),
        },
    }
}

/// Another was promoted since: the history has a newer timeline, or the key of the synchronous standbys another name.
fn was_succeeded(at: &Situation<'_>) -> bool {
    let older = at.local.running().is_some_and(|running| running.timeline < at.view.history_timeline());
    older || !sync::may_go_on(at)
}

/// An operator asked for a failover to this node, now: what is scheduled waits for the end of the pause.
fn named(at: &Situation<'_>) -> bool {
    let now = |request: &&FailoverKey| request.scheduled_at.is_none();
    at.view.failover_request().filter(now).is_some_and(|request| request.member.as_deref() == Some(at.me()))
}
