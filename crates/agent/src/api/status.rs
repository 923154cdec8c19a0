//! The JSON that describes this node: the body of every health check and of `/patroni`. Peers read it in the leader
//! race.
//!
//! The order of the keys is the interface. Tested below against whole bodies.

use pgherd_ha::{Boot, MemberState, Role};
use serde_json::{Map, Value, json};

use super::schedule::with_fraction;
use super::snapshot::{Observation, PATRONI_VERSION, Snapshot, SynchronousMode, WalPosition, Walsender};

pub fn status(snapshot: &Snapshot, now: Boot) -> Map<String, Value> {
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| body.insert(key.to_owned(), value);
    match snapshot.fresh_observation(now) {
        Some(seen) => put_observation(snapshot, seen, now, &mut put),
        None => {
            let state = if snapshot.state == MemberState::Running { MemberState::Unknown } else { snapshot.state };
            put("state", json!(state.as_str()));
            put("role", json!(snapshot.role.as_str()));
        }
    }
    if snapshot.paused {
        put("pause", json!(true));
    }
    if snapshot.fresh_view(now).is_none_or(|view| view.leader.is_none()) {
        put("cluster_unlocked", json!(true));
    }
    if snapshot.is_failsafe_active(now) {
        put("failsafe_mode_is_active", json!(true));
    }
    put("dcs_last_seen", json!(snapshot.dcs_last_seen));
    if !snapshot.tags.is_empty() {
        put("tags", Value::Object(snapshot.tags.clone()));
    }
    if let Some(id) = snapshot.system_id {
        put("database_system_identifier", json!(id.to_string()));
    }
    if let Some(reason) = &snapshot.pending_restart {
        put("pending_restart", json!(true));
        put("pending_restart_reason", Value::Object(reason.clone()));
    }
    put("patroni", json!({"version": PATRONI_VERSION, "scope": snapshot.scope, "name": snapshot.name}));
    put("pgherd", json!(env!("CARGO_PKG_VERSION")));
    if !snapshot.left_out.is_empty() {
        put("left_out", json!(snapshot.left_out));
    }
    if snapshot.settled {
        put("settled", json!(true));
    }
    if let Some(restart) = &snapshot.scheduled_restart {
        put("scheduled_restart", Value::Object(restart.to_json()));
    }
    if snapshot.watchdog_failed {
        put("watchdog_failed", json!(true));
    }
    let (waiting, lost) = crate::log::figures();
    // As Patroni: two lines a round are usual.
    if waiting > 2 {
        put("logger_queue_size", json!(waiting));
    }
    if lost > 0 {
        put("logger_records_lost", json!(lost));
    }
    body
}

fn put_observation<F>(snapshot: &Snapshot, seen: &Observation, now: Boot, put: &mut F)
where
    F: FnMut(&str, Value) -> Option<Value>,
{
    let role = snapshot.shown_role(seen);
    put("state", json!(snapshot.state.as_str()));
    put("postmaster_start_time", json!(with_fraction(seen.postmaster_start_time)));
    put("role", json!(role.as_str()));
    put("server_version", json!(seen.server_version));
    put("xlog", xlog(&seen.wal));
    if role == Role::Replica && snapshot.is_sync_standby(now) {
        let quorum = snapshot.dynamic.synchronous == SynchronousMode::Quorum;
        put(if quorum { "quorum_standby" } else { "sync_standby" }, json!(true));
    }
    put("timeline", json!(seen.timeline));
    if let Some(state) = &seen.replication_state {
        put("replication_state", json!(state));
    }
    if !seen.walsenders.is_empty() {
        put("replication", seen.walsenders.iter().map(walsender).collect());
    }
}

fn xlog(wal: &WalPosition) -> Value {
    match wal {
        WalPosition::Primary { flushed } => json!({"location": flushed}),
        WalPosition::Standby { received, replayed, replayed_at, replay_paused, .. } => json!({
            "received_location": received,
            "replayed_location": replayed,
            "replayed_timestamp": replayed_at.map(with_fraction),
            "paused": replay_paused,
        }),
    }
}

fn walsender(row: &Walsender) -> Value {
    json!({
        "usename": row.usename,
        "application_name": row.application_name,
        "client_addr": row.client_addr,
        "state": row.state,
        "sync_state": row.sync_state,
        "sync_priority": row.sync_priority,
    })
}
