//! What this node registers of itself: the member key, and the route that is pushed to entrypoints.

use pgherd_ha::{Decision, Job, Local, Lsn, Member, NodeRoute, Permit, Postgres, StopMode, View};
use serde_json::{Map, Value, json};

use super::commands::Commands;
use super::node::Node;
use crate::api::{PATRONI_VERSION, with_fraction};
use crate::postgres::pending::Change;

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
    standby_leader: bool,
    commands: &Commands,
) -> Member {
    let seen = node.seen.as_ref().filter(|_| local.running().is_some());
    let standby = seen.and_then(|seen| seen.standby.as_ref());
    let nonzero = |lsn: Option<Lsn>| lsn.filter(|lsn| lsn.0 > 0);
    let leads = matches!(&local.postgres, Postgres::Running(running) if !running.in_recovery);
    let (state, role) = local.shown(paused, standby_leader);
    let mut extra = Map::new();
    if let Some(url) = &identity.proxy_url {
        extra.insert("proxy_url".into(), url.clone().into());
    }
    let pending = seen.is_some().then(|| pending_restart(node)).flatten();
    if let Some(reasons) = &pending {
        extra.insert("pending_restart_reason".into(), reasons.clone().into());
    }
    // The tables show it, and whoever takes it back asks only members that have one.
    if let Some(restart) = commands.scheduled() {
        let mut value = restart.to_json();
        if let Some(started) = commands.scheduled_for() {
            value.insert("postmaster_start_time".into(), with_fraction(started).into());
        }
        extra.insert("scheduled_restart".into(), value.into());
    }
    Member {
        name: identity.name.clone(),
        conn_url: identity.conn_url.clone(),
        api_url: identity.api_url.clone(),
        state,
        role,
        version: PATRONI_VERSION.into(),
        pgherd: Some(env!("CARGO_PKG_VERSION").into()),
        tags: tags(identity, node),
        xlog_location: seen.and_then(|seen| seen.position()),
        replay_lsn: standby.and_then(|standby| nonzero(standby.replay_lsn)),
        receive_lsn: standby.and_then(|standby| nonzero(standby.receive_lsn)),
        replication_state: seen.and_then(|seen| seen.replication_state()).map(Into::into),
        timeline: seen.and(node.timeline()),
        checkpoint_after_promote: (leads && !node.checkpointed).then_some(false),
        pending_restart: pending.is_some(),
        pause: paused,
        extra,
    }
}

/// Parameter by parameter, as the interface has it; `None`: nothing waits for a restart.
pub fn pending_restart(node: &Node) -> Option<Map<String, Value>> {
    let reason = |change: &Change| json!({ "old_value": change.old, "new_value": change.new });
    let reasons: Map<String, Value> =
        node.pending.changes.iter().map(|(name, change)| (name.clone(), reason(change))).collect();
    (!reasons.is_empty()).then_some(reasons)
}

/// What the others see of this node's tags. A node that must not be promoted for now says so: they would wait for ever for one that
/// is ahead of them and does not take the key.
pub fn tags(identity: &Identity, node: &Node) -> Map<String, Value> {
    let mut tags = identity.tags.clone();
    if node.barred {
        tags.insert("nofailover".into(), true.into());
    }
    if node.leaves_sync {
        tags.insert("nosync".into(), true.into());
        tags.insert("sync_priority".into(), 0.into());
    }
    tags
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

/// A fast shutdown lets its walsenders send all that there is, and whoever follows gets it.
fn stops_in_order(local: &Local) -> bool {
    let job = local.job.as_ref().map(|running| &running.job);
    job.is_some_and(|job| matches!(job, Job::Stop(mode) if *mode != StopMode::Immediate))
}

/// The route of this node. `permit_ms` and `stopping_ms` are filled in when a line is sent.
pub fn route(identity: &Identity, local: &Local, node: &Node, view: Option<&View>, decision: &Decision) -> NodeRoute {
    let Decision { permit, admits, .. } = *decision;
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
        epoch: if leads && admits { permit.epoch() } else { None },
        permit_ms: None,
        stopping_ms: stops_in_order(local).then_some(0),
        paused: matches!(permit, Permit::Paused { .. }),
        timeline: node.timeline().filter(|_| running.is_some()),
        lsn: position,
        lag: if leads { None } else { leader_at.zip(position).map(|(leader, own)| leader.0.saturating_sub(own.0)) },
        noloadbalance: identity.tags.get("noloadbalance").is_some_and(pgherd_ha::truthy),
        standby_leader: decision.standby_leader,
        state: local.member_state().as_str().into(),
    }
}
