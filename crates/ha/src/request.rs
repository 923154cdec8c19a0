//! An operator's request to this node: a restart, or a fresh copy of its data.

use crate::action::{Action, Job};
use crate::agent::{Plan, Situation, Standing};
use crate::bootstrap::copy_source;
use crate::local::{Postgres, Request};
use crate::rule::Rule;

pub(crate) fn plan(at: &Situation<'_>) -> Option<Plan> {
    match at.local.request? {
        Request::Restart => Some(restart(at)),
        Request::Reinitialize => Some(reinitialize(at)),
    }
}

fn restart(at: &Situation<'_>) -> Plan {
    let epoch = match at.standing {
        Standing::Mine(epoch) => Some(epoch),
        Standing::Other(_) | Standing::Nobody => None,
    };
    match &at.local.postgres {
        // A primary without the key has no epoch to be started again under, and would come back as a standby.
        Postgres::Running(running) if running.in_recovery || epoch.is_some() => Plan::act(
            Rule::OperatorRestart,
            [Action::Run(Job::Restart { epoch: epoch.filter(|_| !running.in_recovery) })],
        ),
        _ => refuse("PostgreSQL is not running in a role that this node may restart now; look at `pgherd list`"),
    }
}

fn reinitialize(at: &Situation<'_>) -> Plan {
    match (at.standing, copy_source(at.view, at.me())) {
        (Standing::Mine(_), _) => refuse("I am the leader, can not reinitialize"),
        (Standing::Nobody, _) | (_, None) => refuse("Cluster has no leader, can not reinitialize"),
        (Standing::Other(_), Some(source)) => {
            Plan::act(Rule::OperatorReinitialize, [Action::Run(Job::Clone { source })])
        }
    }
}

fn refuse(why: &'static str) -> Plan {
    Plan::act(Rule::RequestRefused, [Action::RefuseRequest { why }])
}
