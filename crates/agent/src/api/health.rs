//! The health checks: which status code a path answers, as one pure function of the facts about this node.
//!
//! The matching by parts of the path, and its order, is the interface: `/replicafoo` is `/replica`. Tested as data in
//! `health_tests`, row by row of the contract.

use axum::http::StatusCode;
use pgherd_ha::{Boot, MemberState, Permit, Role};
use serde_json::{Map, Value};

use super::query::{Query, parse_bytes};
use super::snapshot::{Snapshot, SynchronousMode, WalPosition};
use crate::python_text::representation;

/// What the checks depend on, at the moment of the request.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The leader key is believed ours.
    pub leader: bool,
    pub clients_held: bool,
    pub standby_cluster: bool,
    pub paused: bool,
    /// The last load of the store is recent.
    pub view_fresh: bool,
    /// The server answers queries.
    pub running: bool,
    /// By the server's own answer; `None` without one.
    pub role: Option<Role>,
    pub sync_standby: bool,
    pub quorum_standby: bool,
    pub replication_state: Option<&'a str>,
    /// The furthest position of the leader that is known, 0 if none is.
    pub leader_lsn: u64,
    /// 0 if not known.
    pub received_lsn: u64,
    pub replayed_lsn: u64,
    pub tags: &'a Map<String, Value>,
    pub failsafe_active: bool,
    pub maximum_lag_on_failover: u64,
    /// The walreceiver knows where the primary's log ends.
    pub latest_end_known: bool,
}

impl<'a> Facts<'a> {
    pub fn of(snapshot: &'a Snapshot, permit: &Permit, now: Boot) -> Facts<'a> {
        let seen = snapshot.fresh_observation(now);
        let view = snapshot.fresh_view(now);
        let role = seen.map(|seen| snapshot.shown_role(seen));
        let sync = role == Some(Role::Replica) && snapshot.is_sync_standby(now);
        let (received, replayed, latest_end) = match seen.map(|seen| seen.wal) {
            Some(WalPosition::Standby { received, replayed, latest_end, .. }) => (received.0, replayed.0, latest_end),
            _ => (0, 0, None),
        };
        let optime = view.map_or(0, |view| view.status.optime.0);
        Facts {
            leader: snapshot.is_leader(permit, now),
            clients_held: snapshot.clients_held,
            standby_cluster: snapshot.dynamic.standby_cluster,
            paused: snapshot.paused,
            view_fresh: view.is_some(),
            running: snapshot.state == MemberState::Running && seen.is_some(),
            role,
            sync_standby: sync && snapshot.dynamic.synchronous == SynchronousMode::Priority,
            quorum_standby: sync && snapshot.dynamic.synchronous == SynchronousMode::Quorum,
            replication_state: seen.and_then(|seen| seen.replication_state.as_deref()),
            leader_lsn: optime.max(latest_end.map_or(0, |lsn| lsn.0)),
            received_lsn: received,
            replayed_lsn: replayed,
            tags: &snapshot.tags,
            failsafe_active: snapshot.is_failsafe_active(now),
            maximum_lag_on_failover: snapshot.dynamic.maximum_lag_on_failover,
            latest_end_known: latest_end.is_some_and(|lsn| lsn.0 > 0),
        }
    }
}

/// The answer of every path that is no other endpoint.
pub fn health(path: &str, query: &Query, facts: &Facts<'_>) -> StatusCode {
    let code = Codes::of(query, facts);
    let has = |part: &str| path.contains(part);
    let matches_tags = || query.tags().all(|(name, wanted)| tag_is(facts.tags, name, wanted));
    let is_writer = code.primary || code.standby_leader;
    let healthy = if has("standby_leader") || has("standby-leader") {
        code.standby_leader
    } else if has("leader") {
        code.leader
    } else if path == "/" || has("master") || has("primary") || has("read-write") {
        code.primary
    } else if has("replica") {
        code.replica && matches_tags()
    } else if has("read-only") && !has("sync") && !has("quorum") {
        (is_writer || code.replica) && matches_tags()
    } else if has("health") {
        facts.running && matches_tags()
    } else {
        // These know nothing without the store, for the `sync` key lives there.
        facts.view_fresh && matches_tags() && exact(path, is_writer, code.replica, facts)
    };
    status(healthy)
}

/// The paths that must match in full.
fn exact(path: &str, is_writer: bool, replica: bool, facts: &Facts<'_>) -> bool {
    match path {
        "/sync" | "/synchronous" => facts.sync_standby && replica,
        "/quorum" => facts.quorum_standby && replica,
        "/async" | "/asynchronous" => !facts.sync_standby && !facts.quorum_standby && replica,
        "/read-only-quorum" => is_writer || (facts.quorum_standby && replica),
        "/read-only-sync" | "/read-only-synchronous" => is_writer || (facts.sync_standby && replica),
        _ => false,
    }
}

/// `GET /readiness`: may traffic of any kind come here, as an orchestrator asks before it goes on to the next node.
pub fn readiness(query: &Query, facts: &Facts<'_>) -> StatusCode {
    if facts.leader && !facts.clients_held {
        return StatusCode::OK;
    }
    if !facts.running || facts.replication_state != Some("streaming") {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    if !facts.view_fresh && !facts.latest_end_known {
        return status(facts.failsafe_active);
    }
    let position = if query.first("mode") == Some("write") { facts.received_lsn } else { facts.replayed_lsn };
    let limit = query.first("lag").and_then(parse_bytes).map_or(facts.maximum_lag_on_failover.into(), i128::from);
    status(i128::from(facts.leader_lsn) - i128::from(position) <= limit)
}

/// `GET /liveness`: does the daemon still run its rounds. A replica may be late for longer: restarting it helps nobody.
pub fn liveness(snapshot: &Snapshot, now: Boot) -> StatusCode {
    let runs_primary = snapshot.role == Role::Primary && snapshot.state == MemberState::Running;
    let patience = snapshot.dynamic.ttl * if runs_primary { 1 } else { 2 };
    status(snapshot.paused || snapshot.next_round + patience > now)
}

fn status(healthy: bool) -> StatusCode {
    if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The answers that the paths combine.
#[derive(Clone, Copy, Debug)]
struct Codes {
    leader: bool,
    primary: bool,
    standby_leader: bool,
    replica: bool,
}

impl Codes {
    fn of(query: &Query, facts: &Facts<'_>) -> Codes {
        if facts.clients_held {
            return Codes { leader: false, primary: false, standby_leader: false, replica: false };
        }
        let wanted_state = query.first("replication_state");
        let replica = facts.role == Some(Role::Replica)
            && facts.running
            && !facts.tags.get("noloadbalance").is_some_and(is_true)
            && !is_lagging(query, facts)
            && wanted_state.is_none_or(|wanted| facts.replication_state == Some(wanted));
        if !facts.view_fresh && facts.paused {
            let primary = facts.role == Some(Role::Primary);
            let standby_leader = facts.role == Some(Role::StandbyLeader);
            return Codes { leader: primary || standby_leader, primary, standby_leader, replica };
        }
        if !facts.leader {
            return Codes { leader: false, primary: false, standby_leader: false, replica };
        }
        if facts.standby_cluster {
            let standby_leader = matches!(facts.role, Some(Role::Replica | Role::StandbyLeader));
            return Codes { leader: true, primary: false, standby_leader, replica: false };
        }
        Codes { leader: true, primary: true, standby_leader: false, replica }
    }
}

fn is_lagging(query: &Query, facts: &Facts<'_>) -> bool {
    let Some(limit) = query.first("lag").and_then(parse_bytes) else { return false };
    facts.leader_lsn > 0 && i128::from(facts.leader_lsn) > i128::from(facts.replayed_lsn) + i128::from(limit)
}

/// Values that are not strings compare as Python shows them, in lower case: `true`, `1.4`, `none`.
fn tag_is(tags: &Map<String, Value>, name: &str, wanted: &str) -> bool {
    match tags.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => text == wanted,
        Some(other) => representation(other).to_lowercase() == wanted,
    }
}

/// The spellings of a boolean that the interface takes for true.
pub(super) fn is_true(value: &Value) -> bool {
    let text = match value {
        Value::String(text) => text.to_lowercase(),
        other => other.to_string(),
    };
    matches!(text.as_str(), "on" | "true" | "yes" | "1")
}
