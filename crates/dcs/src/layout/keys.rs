//! The values of the keys beside the members: status, history, sync, failover, failsafe, config.

use std::collections::BTreeMap;

use pgherd_ha::{FailoverKey, HistoryLine, Lsn, Status, SyncKey, Timeline, Wall};
use serde_json::{Map, Value, json};

use super::json::compact;
use super::member::number;

/// `{"optime":…,"slots":{…},"retain_slots":[…]}`; what is empty is left out.
pub fn encode_status(status: &Status) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("optime".into(), status.optime.0.into());
    if !status.slots.is_empty() {
        object.insert("slots".into(), json!(status.slots));
    }
    if !status.retain_slots.is_empty() {
        object.insert("retain_slots".into(), json!(status.retain_slots));
    }
    compact(&Value::Object(object))
}

/// Reads the object, its fields as JSON in strings (written by the Kubernetes variant), and the bare position that is also
/// the value of the legacy `optime/leader`.
pub fn decode_status(bytes: &[u8]) -> Status {
    let object = match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => object,
        Ok(bare) => return Status { optime: Lsn(number(&bare).unwrap_or(0)), ..Status::default() },
        Err(_) => return Status::default(),
    };
    let unpacked = |field: &str| match object.get(field) {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
        Some(value) => value.clone(),
        None => Value::Null,
    };
    let slots = unpacked("slots");
    let slots = slots.as_object().into_iter().flatten();
    Status {
        optime: Lsn(object.get("optime").and_then(number).unwrap_or(0)),
        slots: slots.filter_map(|(slot, lsn)| Some((slot.clone(), number(lsn)?))).collect(),
        retain_slots: strings(&unpacked("retain_slots")),
    }
}

/// `[[timeline, lsn, reason, timestamp, leader], …]`; a line ends where its first unknown field is.
pub fn encode_history(lines: &[HistoryLine]) -> Vec<u8> {
    let line = |line: &HistoryLine| {
        let mut fields = vec![json!(line.timeline), json!(line.switch_lsn), json!(line.reason)];
        if let Some(timestamp) = &line.timestamp {
            fields.push(json!(timestamp));
            fields.extend(line.new_leader.as_ref().map(|leader| json!(leader)));
        }
        Value::Array(fields)
    };
    compact(&Value::Array(lines.iter().map(line).collect()))
}

/// Lines that do not begin with a timeline and a position are left out.
pub fn decode_history(bytes: &[u8]) -> Vec<HistoryLine> {
    let line = |line: &Value| {
        let fields = line.as_array()?;
        let text = |at: usize| fields.get(at).and_then(Value::as_str).map(str::to_owned);
        Some(HistoryLine {
            timeline: Timeline(u32::try_from(number(fields.first()?)?).ok()?),
            switch_lsn: Lsn(number(fields.get(1)?)?),
            reason: text(2).unwrap_or_default(),
            timestamp: text(3),
            new_leader: text(4),
        })
    };
    let lines: Vec<Value> = serde_json::from_slice(bytes).unwrap_or_default();
    lines.iter().filter_map(line).collect()
}

/// `{"leader":…,"quorum":…,"sync_standby":"a,b"}`; without a leader `{}`: synchronous replication is off.
pub fn encode_sync(sync: &SyncKey) -> Vec<u8> {
    let Some(leader) = &sync.leader else { return b"{}".to_vec() };
    let mut names = sync.sync_standby.clone();
    names.sort();
    let names = if names.is_empty() { Value::Null } else { names.join(",").into() };
    compact(&json!({ "leader": leader, "quorum": sync.quorum, "sync_standby": names }))
}

pub fn decode_sync(bytes: &[u8]) -> SyncKey {
    let object: Map<String, Value> = serde_json::from_slice(bytes).unwrap_or_default();
    let Some(leader) = filled(&object, "leader") else { return SyncKey::default() };
    let names = object.get("sync_standby").and_then(Value::as_str).unwrap_or_default();
    let mut names: Vec<String> =
        names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    names.sort();
    let quorum = object.get("quorum").and_then(number).and_then(|quorum| u32::try_from(quorum).ok()).unwrap_or(0);
    SyncKey { leader: Some(leader), quorum, sync_standby: names }
}

/// Only what is set; a cleared request is `{}`.
pub fn encode_failover(request: &FailoverKey) -> Vec<u8> {
    let mut object = Map::new();
    if let Some(leader) = &request.leader {
        object.insert("leader".into(), leader.as_str().into());
    }
    if let Some(member) = &request.member {
        object.insert("member".into(), member.as_str().into());
    }
    if let Some(at) = request.scheduled_at {
        object.insert("scheduled_at".into(), iso(at).into());
    }
    compact(&Value::Object(object))
}

/// Reads the object and the legacy text `leader:candidate`. A schedule that cannot be read makes the whole request
/// void: without it the request would be carried out now.
pub fn decode_failover(bytes: &[u8]) -> FailoverKey {
    let object = match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return FailoverKey::default(),
        Err(_) => return legacy_failover(bytes),
    };
    let scheduled_at = match filled(&object, "scheduled_at") {
        None => None,
        Some(text) => match text.parse::<Wall>() {
            Ok(at) => Some(at),
            Err(_) => return FailoverKey::default(),
        },
    };
    FailoverKey { leader: filled(&object, "leader"), member: filled(&object, "member"), scheduled_at }
}

fn legacy_failover(bytes: &[u8]) -> FailoverKey {
    // An object that was cut off is no pair of names.
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| !text.contains(['{', '[', '"'])) else {
        return FailoverKey::default();
    };
    let mut names = text.split(':').map(|name| Some(name.trim().to_owned()).filter(|name| !name.is_empty()));
    FailoverKey { leader: names.next().flatten(), member: names.next().flatten(), scheduled_at: None }
}

/// Member name to api_url.
pub fn encode_failsafe(members: &BTreeMap<String, String>) -> Vec<u8> {
    compact(&json!(members))
}

pub fn decode_failsafe(bytes: &[u8]) -> BTreeMap<String, String> {
    let object: Map<String, Value> = serde_json::from_slice(bytes).unwrap_or_default();
    object.into_iter().filter_map(|(name, url)| Some((name, url.as_str()?.to_owned()))).collect()
}

/// The dynamic configuration; `None` if it is not an object.
pub fn decode_config(bytes: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(bytes).ok()
}

/// A text field that is there and not empty.
fn filled(object: &Map<String, Value>, field: &str) -> Option<String> {
    object.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// As Python prints a time with its zone: `2026-11-23T00:23:21.389539+00:00`, whole seconds without a fraction.
fn iso(at: Wall) -> String {
    let format =
        if at.subsec_nanosecond() / 1_000 == 0 { "%Y-%m-%dT%H:%M:%S+00:00" } else { "%Y-%m-%dT%H:%M:%S.%6f+00:00" };
    at.strftime(format).to_string()
}
