//! An operator's request to this node: a restart, or a fresh copy of its data.

use crate::action::{Action, Job};
use crate::agent::{Memory, Plan, Situation, Standing};
use crate::bootstrap::copy_source;
use crate::limits;
use crate::local::{Postgres, Request};
use crate::rule::Rule;
use crate::sync;
use crate::upstream::of_member;

pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory) -> Option<Plan> {
    let request = at.local.request?;
    if let Request::Restart { unordered: false, .. } = request
        && let (Standing::Mine(_), true) = (at.standing, at.local.is_writer())
        && let Some(why) = limits::standbys_behind(at)
    {
        return Some(refuse(why));
    }
    if let Some(plan) = sync::leave_first(at, &mut memory.sync) {
        return Some(plan);
    }
    match request {
        Request::Restart { patience, .. } => {
            memory.start_patience = patience;
            Some(restart(at, memory))
        }
        Request::Reinitialize { force, from_leader } => Some(reinitialize(at, force, from_leader)),
    }
}

fn restart(at: &Situation<'_>, memory: &mut Memory) -> Plan {
    let epoch = match at.standing {
        Standing::Mine(epoch) => Some(epoch),
        Standing::Other(_) | Standing::Nobody => None,
    };
    // It may be a restore on its way, which would come back as a standby.
    if at.local.control().is_some_and(|control| control.bootstrap_pending) {
        return refuse("the new cluster is not complete yet; wait until `pgherd list` shows it running");
    }
    match &at.local.postgres {
        // A primary without the key has no epoch to be started again under, and would come back as a standby.
        Postgres::Running(running) if running.in_recovery || epoch.is_some() => {
            let epoch = epoch.filter(|_| !running.in_recovery);
            if epoch.is_some() {
                sync::starts(at, &mut memory.sync);
            }
            let names = epoch.and_then(|_| sync::names_at_start(at));
            Plan::act(Rule::OperatorRestart, [Action::Run(Job::Restart { epoch, names })])
        }
        _ => refuse("PostgreSQL is not running in a role that this node may restart now; look at `pgherd list`"),
    }
}

fn reinitialize(at: &Situation<'_>, force: bool, from_leader: bool) -> Plan {
    let source = match from_leader {
        true => at.view.leader_member().filter(|leader| leader.name != at.me()).and_then(of_member),
        false => copy_source(at),
    };
    match (at.standing, source) {
        (Standing::Mine(_), _) => refuse("I am the leader, can not reinitialize"),
        (Standing::Nobody, _) | (_, None) => refuse("Cluster has no leader, can not reinitialize"),
        (Standing::Other(_), Some(source)) => {
            let job = Job::Clone { source: Some(source), make_room: force, from_leader };
            Plan::act(Rule::OperatorReinitialize, [Action::Run(job)])
        }
    }
}

fn refuse(why: impl Into<String>) -> Plan {
    Plan::act(Rule::RequestRefused, [Action::RefuseRequest { why: why.into() }])
}
