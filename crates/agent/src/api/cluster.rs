//! `GET /cluster`: the members and what is wrong with them, as `pgherd list` and monitoring read it.
//!
//! Pure: a view of the store in, JSON out.

use pgherd_ha::{Lsn, Member, View};
use serde_json::{Map, Value, json};

use super::health::is_true;
use super::schedule::iso;
use super::snapshot::names;

pub fn cluster(view: &View, scope: &str) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("members".into(), view.members.iter().map(|each| Value::Object(member(view, each))).collect());
    if view.is_paused() {
        body.insert("pause".into(), json!(true));
    }
    let failover = view.failover.as_ref().map(|key| &key.value);
    if let Some((request, at)) = failover.and_then(|request| Some((request, request.scheduled_at?))) {
        let mut switchover = Map::from_iter([("at".to_owned(), json!(iso(at)))]);
        let ends = [("from", &request.leader), ("to", &request.member)];
        switchover.extend(ends.into_iter().filter_map(|(key, name)| Some((key.to_owned(), json!(name.as_ref()?)))));
        body.insert("scheduled_switchover".into(), Value::Object(switchover));
    }
    body.insert("scope".into(), json!(scope));
    body
}

/// A truthy value of the dynamic configuration.
pub(super) fn setting(view: &View, name: &str) -> bool {
    view.config.as_ref().and_then(|config| config.value.get(name)).is_some_and(is_true)
}

pub(super) fn is_quorum_mode(view: &View) -> bool {
    config(view, "synchronous_mode").and_then(Value::as_str).is_some_and(|mode| mode.eq_ignore_ascii_case("quorum"))
}

pub(super) fn is_synchronous_mode(view: &View) -> bool {
    (setting(view, "synchronous_mode") || is_quorum_mode(view)) && !is_standby_cluster(view)
}

/// The cluster follows another one: `standby_cluster` says which, by one of these keys.
fn is_standby_cluster(view: &View) -> bool {
    let section = config(view, "standby_cluster").and_then(Value::as_object);
    section
        .is_some_and(|section| ["host", "port", "restore_command"].iter().any(|key| section.get(*key).is_some_and(set)))
}

fn set(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false)) && value.as_str() != Some("") && value.as_i64() != Some(0)
}

fn config<'a>(view: &'a View, name: &str) -> Option<&'a Value> {
    view.config.as_ref().and_then(|config| config.value.get(name))
}

fn role(view: &View, member: &Member) -> &'static str {
    if view.leader.as_ref().is_some_and(|leader| leader.name == member.name) {
        return if is_standby_cluster(view) { "standby_leader" } else { "leader" };
    }
    let named = view.sync.as_ref().is_some_and(|sync| names(&sync.value, &member.name));
    match (is_synchronous_mode(view) && named, is_quorum_mode(view)) {
        (true, true) => "quorum_standby",
        (true, false) => "sync_standby",
        (false, _) => "replica",
    }
}

fn member(view: &View, member: &Member) -> Map<String, Value> {
    let role = role(view, member);
    let replication = member.replication_state.as_deref().filter(|_| role != "leader");
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| body.insert(key.to_owned(), value);
    put("name", json!(member.name));
    put("role", json!(role));
    put("state", json!(replication.unwrap_or(member.state.as_str())));
    put("api_url", json!(member.api_url));
    if let Some((host, port)) = member.postgres_address() {
        put("host", json!(host));
        put("port", json!(port));
    }
    if let Some(timeline) = member.timeline {
        put("timeline", json!(timeline));
    }
    if member.pending_restart {
        put("pending_restart", json!(true));
    }
    for key in ["pending_restart_reason", "scheduled_restart"] {
        if let Some(value) = member.extra.get(key) {
            put(key, value.clone());
        }
    }
    if !member.tags.is_empty() {
        put("tags", Value::Object(member.tags.clone()));
    }
    if view.leader.as_ref().is_none_or(|leader| leader.name != member.name) {
        put_position("receive_lag", "receive_lsn", member.receive_lsn, view, &mut put);
        put_position("replay_lag", "replay_lsn", member.replay_lsn, view, &mut put);
        put_position("lag", "lsn", member.xlog_location, view, &mut put);
    }
    body
}

/// The lag comes first when it is known, and second when it is not: so the tools that print keys in their order show
/// it.
fn put_position<F>(lag: &str, lsn: &str, position: Option<Lsn>, view: &View, put: &mut F)
where
    F: FnMut(&str, Value) -> Option<Value>,
{
    match position.filter(|position| position.0 > 0) {
        Some(position) => {
            put(lag, json!(view.status.optime.0.saturating_sub(position.0)));
            put(lsn, json!(position.to_string()));
        }
        None => {
            put(lsn, json!("unknown"));
            put(lag, json!("unknown"));
        }
    }
}
