//! What this node registers of itself: the member key, and the route that is pushed to entrypoints.

use pgherd_ha::{
    DataDirectory, Job, JobOutcome, Local, Lsn, Member, MemberState, NodeRoute, Permit, Postgres, Role, View,
};
use serde_json::{Map, Value};

use super::node::Node;
use crate::api::{PATRONI_VERSION, ScheduledRestart};

/// What does not change from round to round.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: String,
    pub scope: String,
    pub conn_url: String,
    pub api_url: String,
    /// Host and port of the server, for entrypoints.
    pub address: String,
    pub tags: Map<String, Value>,
    pub proxy_url: Option<String>,
}

/// The member key of this node.
pub fn member(
    identity: &Identity,
    local: &Local,
    node: &Node,
    paused: bool,
    scheduled: Option<&ScheduledRestart>,
) -> Member {
    let seen = node.seen.as_ref().filter(|_| local.running().is_some());
    let standby = seen.and_then(|seen| seen.standby.as_ref());
    let nonzero = |lsn: Option<Lsn>| lsn.filter(|lsn| lsn.0 > 0);
    let leads = matches!(&local.postgres, Postgres::Running(running) if !running.in_recovery);
    let mut extra = Map::new();
    if let Some(url) = &identity.proxy_url {
        extra.insert("proxy_url".into(), url.clone().into());
    }
    // The tables show it, and whoever takes it back asks only members that have one.
    if let Some(restart) = scheduled {
        extra.insert("scheduled_restart".into(), restart.to_json().into());
    }
    Member {
        name: identity.name.clone(),
        conn_url: identity.conn_url.clone(),
        api_url: identity.api_url.clone(),
        state: state(local),
        role: role(local),
        version: PATRONI_VERSION.into(),
        pgherd: Some(env!("CARGO_PKG_VERSION").into()),
        tags: tags(identity, node),
        xlog_location: seen.and_then(|seen| seen.position()),
        replay_lsn: standby.and_then(|standby| nonzero(standby.replay_lsn)),
        receive_lsn: standby.and_then(|standby| nonzero(standby.receive_lsn)),
        replication_state: seen.and_then(|seen| seen.replication_state()).map(Into::into),
        timeline: seen.and(node.timeline()),
        checkpoint_after_promote: (leads && !node.checkpointed).then_some(false),
        pending_restart: seen.is_some_and(|seen| !seen.pending_restart.is_empty()),
        pause: paused,
        extra,
    }
}

/// What the others see of this node's tags. A node that must not be promoted for now says so: they would wait for ever for one that
/// is ahead of them and does not take the key.
pub fn tags(identity: &Identity, node: &Node) -> Map<String, Value> {
    let mut tags = identity.tags.clone();
    if node.unproven || node.barred {
        tags.insert("nofailover".into(), true.into());
    }
    tags
}

pub fn state(local: &Local) -> MemberState {
    match local.job.as_ref().map(|job| &job.job) {
        Some(Job::Initdb | Job::PostBootstrap { .. }) => return MemberState::InitializingNewCluster,
        Some(Job::Clone { .. }) => return MemberState::CreatingReplica,
        Some(Job::Restart { .. }) => return MemberState::Restarting,
        Some(Job::Stop(_)) => return MemberState::Stopping,
        Some(Job::StartPrimary { .. } | Job::StartStandby { .. }) => return MemberState::Starting,
        Some(Job::Rewind { .. }) => return MemberState::Stopped,
        Some(Job::Promote { .. } | Job::CheckDivergence { .. }) | None => {}
    }
    match &local.postgres {
        Postgres::Running(_) | Postgres::Silent { .. } => MemberState::Running,
        Postgres::Starting { .. } => MemberState::Starting,
        Postgres::Orphans => MemberState::Crashed,
        Postgres::Stopped => stopped(local),
    }
}

fn stopped(local: &Local) -> MemberState {
    match &local.last_job {
        Some(last) => match (&last.job, last.outcome) {
            (Job::Initdb | Job::PostBootstrap { .. }, JobOutcome::Failed) => MemberState::InitdbFailed,
            (Job::StartPrimary { .. } | Job::StartStandby { .. }, JobOutcome::Failed) => MemberState::StartFailed,
            (Job::Restart { .. }, JobOutcome::Failed) => MemberState::RestartFailed,
            (Job::Stop(_), JobOutcome::Failed) => MemberState::StopFailed,
            (Job::StartPrimary { .. } | Job::StartStandby { .. } | Job::Promote { .. }, JobOutcome::Done) => {
                MemberState::Crashed
            }
            _ => MemberState::Stopped,
        },
        None => MemberState::Stopped,
    }
}

pub fn role(local: &Local) -> Role {
    match (&local.data, &local.job) {
        (_, Some(job)) if matches!(job.job, Job::Promote { .. }) => Role::Promoted,
        (DataDirectory::Empty | DataDirectory::Incomplete, _) => Role::Uninitialized,
        _ if local.is_writer() => Role::Primary,
        (DataDirectory::Present(control), _) if local.postgres == Postgres::Stopped && control.was_primary() => {
            Role::Demoted
        }
        _ => Role::Replica,
    }
}

/// `None`: it takes no sessions. A server that is late with its heartbeat is busy: its sessions go on, and cutting them would
/// make an overload an outage. Unless it is being taken down, or is dead and its guard is burying it.
fn in_recovery(local: &Local, node: &Node) -> Option<bool> {
    let going_down = local.job.as_ref().is_some_and(|running| running.job.takes_server_down());
    match &local.postgres {
        Postgres::Running(running) => Some(running.in_recovery),
        Postgres::Silent { in_recovery, .. } => {
            let runs = node.postmaster.as_ref().is_some_and(|postmaster| postmaster.runs());
            (runs && !going_down).then_some(*in_recovery)
        }
        Postgres::Stopped | Postgres::Orphans | Postgres::Starting { .. } => None,
    }
}

/// The route of this node. `permit_ms` is filled in when a line is sent.
pub fn route(identity: &Identity, local: &Local, node: &Node, view: Option<&View>, permit: Permit) -> NodeRoute {
    let running = in_recovery(local, node);
    let leads = running == Some(false);
    let position = node.seen.as_ref().filter(|_| running.is_some()).and_then(|seen| match &seen.standby {
        Some(standby) => standby.replay_lsn,
        None => seen.flush_lsn,
    });
    let leader_at = view.map(|view| view.status.optime).filter(|optime| optime.0 > 0);
    NodeRoute {
        name: identity.name.clone(),
        scope: identity.scope.clone(),
        address: identity.address.clone(),
        running: running.is_some(),
        in_recovery: running,
        epoch: if leads { permit.epoch() } else { None },
        permit_ms: None,
        paused: matches!(permit, Permit::Paused { .. }),
        timeline: node.timeline().filter(|_| running.is_some()),
        lsn: position,
        lag: if leads { None } else { leader_at.zip(position).map(|(leader, own)| leader.0.saturating_sub(own.0)) },
        noloadbalance: identity.tags.get("noloadbalance").is_some_and(|tag| *tag == Value::Bool(true)),
        state: state(local).as_str().into(),
    }
}
