//! The value of `members/<name>`.

use pgherd_ha::{Lsn, Member, MemberState, Role, Timeline};
use serde_json::{Map, Value};

use super::json::compact;

/// The fields of the interface that have no field of their own in [`Member`]; they have fixed places in the object.
const KEPT: [&str; 3] = ["proxy_url", "pending_restart_reason", "scheduled_restart"];

/// The fields that a `Member` is made of, and that are therefore not in its `extra`.
const READ: [&str; 14] = [
    "conn_url",
    "api_url",
    "state",
    "role",
    "version",
    "pgherd",
    "tags",
    "xlog_location",
    "replay_lsn",
    "receive_lsn",
    "replication_state",
    "timeline",
    "pending_restart",
    "pause",
];

/// The member's key as it stands in the store: the fields in the order of the interface, `pgherd` at the end.
pub fn encode_member(member: &Member) -> Vec<u8> {
    compact(&Value::Object(member_object(member)))
}

fn member_object(member: &Member) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(name.to_owned(), value);
        }
    };
    let kept = |name: &str| member.extra.get(name).cloned();
    let position = |lsn: Option<Lsn>| lsn.map(|lsn| Value::from(lsn.0));
    let flag = |set: bool| set.then_some(Value::Bool(true));
    put("conn_url", Some(member.conn_url.as_str().into()));
    put("api_url", Some(member.api_url.as_str().into()));
    put("state", Some(member.state.as_str().into()));
    put("role", Some(member.role.as_str().into()));
    put("version", Some(member.version.as_str().into()));
    put("proxy_url", kept("proxy_url"));
    // Only ever `false`: its absence means that the checkpoint is done.
    put("checkpoint_after_promote", member.checkpoint_after_promote.filter(|done| !done).map(Value::Bool));
    put("tags", (!member.tags.is_empty()).then(|| Value::Object(member.tags.clone())));
    put("pending_restart", flag(member.pending_restart));
    put("pending_restart_reason", kept("pending_restart_reason"));
    put("xlog_location", position(member.xlog_location));
    put("replay_lsn", position(member.replay_lsn));
    put("receive_lsn", position(member.receive_lsn));
    put("replication_state", member.replication_state.as_deref().map(Value::from));
    put("timeline", member.timeline.filter(|timeline| timeline.0 != 0).map(|timeline| timeline.0.into()));
    put("scheduled_restart", kept("scheduled_restart"));
    put("pause", flag(member.pause));
    for (name, value) in member.extra.iter().filter(|(name, _)| !KEPT.contains(&name.as_str())) {
        put(name, Some(value.clone()));
    }
    put("pgherd", member.pgherd.as_deref().map(Value::from));
    object
}

/// What the key says of the member `name`; `None` if it is neither an object nor the legacy URL.
pub fn decode_member(name: &str, bytes: &[u8]) -> Option<Member> {
    if bytes.starts_with(b"postgres") {
        return Some(legacy_member(name, std::str::from_utf8(bytes).ok()?));
    }
    let object: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    let text = |field: &str| object.get(field).and_then(Value::as_str);
    let position = |field: &str| object.get(field).and_then(number).map(Lsn);
    let flag = |field: &str| object.get(field).and_then(Value::as_bool).unwrap_or(false);
    let state = MemberState::parse(text("state").unwrap_or_default());
    // A state that only others know is kept as its text, for the tables.
    let is_extra = |name: &str| match name {
        "state" => state == MemberState::Unknown,
        _ => !READ.contains(&name) && name != "checkpoint_after_promote",
    };
    Some(Member {
        name: name.to_owned(),
        conn_url: text("conn_url").unwrap_or_default().to_owned(),
        api_url: text("api_url").unwrap_or_default().to_owned(),
        state,
        role: Role::parse(text("role").unwrap_or_default()),
        version: text("version").unwrap_or_default().to_owned(),
        pgherd: text("pgherd").map(str::to_owned),
        tags: object.get("tags").and_then(Value::as_object).cloned().unwrap_or_default(),
        xlog_location: position("xlog_location"),
        replay_lsn: position("replay_lsn"),
        receive_lsn: position("receive_lsn"),
        replication_state: text("replication_state").map(str::to_owned),
        timeline: object
            .get("timeline")
            .and_then(number)
            .and_then(|timeline| u32::try_from(timeline).ok())
            .map(Timeline),
        checkpoint_after_promote: object.get("checkpoint_after_promote").and_then(Value::as_bool),
        pending_restart: flag("pending_restart"),
        pause: flag("pause"),
        extra: object.iter().filter(|(name, _)| is_extra(name)).map(|(k, v)| (k.clone(), v.clone())).collect(),
    })
}

/// A whole number, also when somebody wrote it as text.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_u64(),
    }
}

/// Very old members wrote `postgres://host:port/db?application_name=API_URL` instead of an object.
fn legacy_member(name: &str, url: &str) -> Member {
    let (before_fragment, fragment) = match url.split_once('#') {
        Some((url, fragment)) => (url, format!("#{fragment}")),
        None => (url, String::new()),
    };
    let (conn_url, query) = before_fragment.split_once('?').unwrap_or((before_fragment, ""));
    let api_url = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, value)| *key == "application_name" && !value.is_empty())
        .map(|(_, value)| percent_decoded(value))
        .unwrap_or_default();
    Member {
        name: name.to_owned(),
        conn_url: format!("{conn_url}{fragment}"),
        api_url,
        state: MemberState::Unknown,
        role: Role::Replica,
        version: String::new(),
        pgherd: None,
        tags: Map::new(),
        xlog_location: None,
        replay_lsn: None,
        receive_lsn: None,
        replication_state: None,
        timeline: None,
        checkpoint_after_promote: None,
        pending_restart: false,
        pause: false,
        extra: Map::new(),
    }
}

fn percent_decoded(text: &str) -> String {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.extend(hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low));
                rest = after;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(*first),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
