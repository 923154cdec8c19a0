//! The members of a cluster as operators see them: role, state, address, position and lag, from what the store says.
//!
//! Pure. Not here: how they are printed (`list`). Tested through the tables of `list`.

use std::time::Duration;

use pgherd_ha::{Lsn, Member, MemberState, View};
use serde_json::{Map, Value};

/// The port of a PostgreSQL that nobody configured otherwise.
const DEFAULT_PORT: u16 = 5432;

/// One member, in the words of the tables.
#[derive(Clone, Debug)]
pub struct ShownMember<'a> {
    pub name: &'a str,
    /// Host, with the port if it says something (see [`shown`]).
    pub host: String,
    pub role: ShownRole,
    pub state: &'a str,
    pub timeline: Option<u32>,
    /// `None` on the leader: its log is what the others are measured by.
    pub positions: Option<Positions>,
    pub pending_restart: bool,
    /// Parameter, and its value before and after the restart.
    pub pending_restart_reason: Vec<(&'a str, String)>,
    /// When, and under which condition.
    pub scheduled_restart: String,
    pub tags: &'a Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownRole {
    Leader,
    StandbyLeader,
    SyncStandby,
    QuorumStandby,
    Replica,
}

impl ShownRole {
    pub fn is_leader(self) -> bool {
        matches!(self, ShownRole::Leader | ShownRole::StandbyLeader)
    }

    pub fn title(self) -> &'static str {
        match self {
            ShownRole::Leader => "Leader",
            ShownRole::StandbyLeader => "Standby Leader",
            ShownRole::SyncStandby => "Sync Standby",
            ShownRole::QuorumStandby => "Quorum Standby",
            ShownRole::Replica => "Replica",
        }
    }
}

/// How far a standby has received and replayed the leader's log.
#[derive(Clone, Copy, Debug)]
pub struct Positions {
    pub received: Position,
    pub replayed: Position,
}

#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub lsn: Option<Lsn>,
    /// Bytes behind the leader.
    pub lag: Option<u64>,
}

/// The members in the order of their names. The port is shown on all if one has another than 5432 or two share a host.
pub fn shown(view: &View) -> Vec<ShownMember<'_>> {
    let addresses: Vec<Option<(String, u16)>> = view.members.iter().map(Member::postgres_address).collect();
    let mut hosts: Vec<&str> = addresses.iter().flatten().map(|(host, _)| host.as_str()).collect();
    hosts.sort_unstable();
    let with_port = hosts.windows(2).any(|pair| pair[0] == pair[1])
        || addresses.iter().flatten().any(|(_, port)| *port != DEFAULT_PORT);
    view.members
        .iter()
        .zip(&addresses)
        .map(|(member, address)| ShownMember {
            host: match address {
                Some((host, port)) if with_port => format!("{host}:{port}"),
                Some((host, _)) => host.clone(),
                None => String::new(),
            },
            ..shown_member(view, member)
        })
        .collect()
}

fn shown_member<'a>(view: &View, member: &'a Member) -> ShownMember<'a> {
    let role = role(view, member);
    let streaming = member.replication_state.as_deref();
    ShownMember {
        name: &member.name,
        host: String::new(),
        role,
        state: streaming.filter(|_| role != ShownRole::Leader).unwrap_or_else(|| state(member)),
        timeline: member.timeline.map(|timeline| timeline.0),
        positions: (!role.is_leader()).then(|| positions(view, member)),
        pending_restart: member.pending_restart,
        pending_restart_reason: pending_restart_reason(member),
        scheduled_restart: scheduled_restart(member),
        tags: &member.tags,
    }
}

/// In the member's own words where pgherd knows none for it.
fn state(member: &Member) -> &str {
    let foreign = member.extra.get("state").and_then(Value::as_str);
    foreign.filter(|_| member.state == MemberState::Unknown).unwrap_or(member.state.as_str())
}

fn role(view: &View, member: &Member) -> ShownRole {
    let is_leader = view.leader.as_ref().is_some_and(|leader| leader.name == member.name);
    if is_leader {
        return if is_standby_cluster(view) { ShownRole::StandbyLeader } else { ShownRole::Leader };
    }
    let standby = match &view.sync {
        Some(sync) if sync.value.leader.is_some() => {
            sync.value.sync_standby.iter().any(|name| name.eq_ignore_ascii_case(&member.name))
        }
        _ => false,
    };
    match synchronous_mode(view) {
        Synchronous::Priority if standby => ShownRole::SyncStandby,
        Synchronous::Quorum if standby => ShownRole::QuorumStandby,
        _ => ShownRole::Replica,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    Off,
    Priority,
    Quorum,
}

/// The dynamic configuration's `synchronous_mode`; a standby cluster has none.
pub fn synchronous_mode(view: &View) -> Synchronous {
    let mode = view.config.as_ref().and_then(|config| config.value.get("synchronous_mode"));
    match mode {
        _ if is_standby_cluster(view) => Synchronous::Off,
        Some(Value::String(text)) if text.eq_ignore_ascii_case("quorum") => Synchronous::Quorum,
        Some(Value::Bool(true)) => Synchronous::Priority,
        Some(Value::String(text)) if ["on", "true", "yes", "1"].iter().any(|yes| text.eq_ignore_ascii_case(yes)) => {
            Synchronous::Priority
        }
        Some(Value::Number(number)) if number.as_i64() == Some(1) => Synchronous::Priority,
        _ => Synchronous::Off,
    }
}

/// The cluster follows another one: `standby_cluster` names a host, a port or a restore command.
pub fn is_standby_cluster(view: &View) -> bool {
    let source = view.config.as_ref().and_then(|config| config.value.get("standby_cluster")?.as_object());
    source.is_some_and(|source| {
        ["host", "port", "restore_command"].iter().any(|key| match source.get(*key) {
            None | Some(Value::Null) | Some(Value::Bool(false)) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        })
    })
}

/// How often a member looks at the cluster, from the dynamic configuration; an hour at most, since commands wait by it.
pub fn loop_wait(view: &View) -> Duration {
    let value = view.config.as_ref().and_then(|config| config.value.get("loop_wait"));
    let seconds = value.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    Duration::from_secs(seconds.unwrap_or(10).min(3600))
}

/// The members that can be asked for something that any of them can do, the leader first.
pub fn leader_first(view: &View) -> Vec<&Member> {
    let leader = view.leader.as_ref().map(|leader| leader.name.as_str());
    let mut members: Vec<&Member> = view.members.iter().filter(|member| !member.api_url.is_empty()).collect();
    members.sort_by_key(|member| Some(member.name.as_str()) != leader);
    members
}

fn positions(view: &View, member: &Member) -> Positions {
    let leader = view.status.optime;
    let position = |lsn: Option<Lsn>| Position { lsn, lag: lsn.map(|lsn| leader.0.saturating_sub(lsn.0)) };
    // Members of an old version publish one position only; what it means depends on whether they stream.
    let streaming = member.replication_state.as_deref() == Some("streaming");
    let (received, replayed) = match (member.receive_lsn, member.replay_lsn) {
        (None, None) if streaming => (member.xlog_location, None),
        (None, None) => (None, member.xlog_location),
        both => both,
    };
    Positions { received: position(received), replayed: position(replayed) }
}

fn pending_restart_reason(member: &Member) -> Vec<(&str, String)> {
    let Some(Value::Object(reasons)) = member.extra.get("pending_restart_reason") else { return Vec::new() };
    let value = |reason: &Value, field: &str| match reason.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    reasons
        .iter()
        .map(|(name, reason)| {
            (name.as_str(), format!("{}->{}", value(reason, "old_value"), value(reason, "new_value")))
        })
        .collect()
}

fn scheduled_restart(member: &Member) -> String {
    let Some(Value::Object(restart)) = member.extra.get("scheduled_restart") else { return String::new() };
    let field = |name: &str| restart.get(name).and_then(Value::as_str);
    match (field("schedule"), field("postgres_version")) {
        (Some(at), Some(version)) => format!("{at} if version < {version}"),
        (Some(at), None) => at.to_owned(),
        (None, _) => String::new(),
    }
}
