//! The cluster as the store shows it: plain values, read by the decision and written by the store's clients.
//!
//! The JSON of each key is the business of `crates/dcs`; here are only its meanings.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::types::{Epoch, Lsn, Timeline};

/// A value with the version that a compare-and-set of it must name. ZooKeeper's znode version (0 is a version
/// like any other), etcd's mod_revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    pub value: T,
    pub version: i64,
}

/// Everything under the cluster's prefix, as one load saw it. On ZooKeeper a load is not a snapshot: `leader` is read first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// `None`: nobody bootstrapped. `Some("")`: somebody does now. Else the system identifier in decimal.
    pub initialize: Option<Versioned<String>>,
    /// The dynamic configuration, as the user wrote it. `None` if absent or not a JSON object.
    pub config: Option<Versioned<Map<String, Value>>>,
    pub leader: Option<Leader>,
    /// Sorted by name.
    pub members: Vec<Member>,
    pub status: Status,
    /// Oldest first.
    pub history: Vec<HistoryLine>,
    /// The newest reservation of a timeline; one of timeline 0 where the key holds what cannot be read.
    pub reservation: Option<Versioned<Reservation>>,
    pub sync: Option<Versioned<SyncKey>>,
    /// `Some` with an empty value when the key holds `{}`: no request, but a version for compare-and-set.
    pub failover: Option<Versioned<FailoverKey>>,
    /// Member name to api_url, as the leader last wrote it.
    pub failsafe: BTreeMap<String, String>,
}

impl View {
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The member that holds the leader key, if it is registered.
    pub fn leader_member(&self) -> Option<&Member> {
        self.leader.as_ref().and_then(|leader| self.member(&leader.name))
    }

    pub fn is_paused(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.value.get("pause").is_some_and(truthy))
    }

    /// The identifier in `initialize`, if it is a valid one (ten digits or more, and nothing else).
    pub fn system_id(&self) -> Option<crate::SystemId> {
        let text = &self.initialize.as_ref()?.value;
        let valid = text.len() >= 10 && text.bytes().all(|b| b.is_ascii_digit());
        valid.then(|| text.parse().ok().map(crate::SystemId)).flatten()
    }

    /// A pending manual switchover or failover.
    pub fn failover_request(&self) -> Option<&FailoverKey> {
        self.failover.as_ref().map(|key| &key.value).filter(|key| !key.is_empty())
    }

    /// Members that streamed from the last leader, as its slots tell, and are not registered now.
    pub fn has_absent_members(&self) -> bool {
        let registered = |slot: &String| self.members.iter().any(|member| crate::slot_name(&member.name) == *slot);
        !self.status.retain_slots.iter().all(registered)
    }

    /// The timeline after the newest line of the history; 0 while there is none.
    pub fn history_timeline(&self) -> Timeline {
        self.history.last().map_or(Timeline(0), |line| Timeline(line.timeline.0.saturating_add(1)))
    }

    /// The newest timeline that a server of this cluster has shown itself on.
    pub fn newest_timeline(&self) -> Timeline {
        let of_members = self.members.iter().filter_map(|member| member.timeline);
        of_members.fold(self.history_timeline(), Timeline::max)
    }
}

/// The booleans of the interface: JSON `true`, or one of PostgreSQL's spellings of it.
pub fn truthy(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64().is_some_and(|n| n != 0.0),
        Value::String(text) => ["on", "true", "yes", "1"].iter().any(|yes| text.eq_ignore_ascii_case(yes)),
        _ => false,
    }
}

/// The `leader` key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    pub name: String,
    pub epoch: Epoch,
    pub owner: LeaderOwner,
}

/// Whose lease the `leader` key hangs on; the name in the key does not prove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderOwner {
    /// The session that this agent holds now.
    Me,
    /// Another session: another node, or this node's own before a restart.
    Other,
}

/// A member key.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub name: String,
    /// `postgres://HOST:PORT/DBNAME`
    pub conn_url: String,
    /// `http(s)://HOST:PORT/patroni`
    pub api_url: String,
    pub state: MemberState,
    pub role: Role,
    /// The level of Patroni's interface that the member speaks.
    pub version: String,
    /// The version of pgherd, absent on a plain Patroni.
    pub pgherd: Option<String>,
    pub tags: Map<String, Value>,
    /// Primary: flushed; standby: the greater of received and replayed.
    pub xlog_location: Option<Lsn>,
    pub replay_lsn: Option<Lsn>,
    pub receive_lsn: Option<Lsn>,
    /// `streaming` or `in archive recovery`
    pub replication_state: Option<String>,
    pub timeline: Option<Timeline>,
    /// `false` until the checkpoint after a promotion is done, else absent.
    pub checkpoint_after_promote: Option<bool>,
    pub pending_restart: bool,
    pub pause: bool,
    /// Fields of the interface that have no field here (proxy_url, pending_restart_reason, scheduled_restart), kept as they are for the
    /// tables and the REST API.
    pub extra: Map<String, Value>,
}

impl Member {
    pub fn tag(&self, name: &str) -> bool {
        self.tags.get(name).is_some_and(truthy)
    }

    /// The member that it is to stream from, instead of the leader.
    pub fn replicatefrom(&self) -> Option<&str> {
        self.tags.get("replicatefrom").and_then(Value::as_str).filter(|name| !name.is_empty())
    }

    /// Tagged never to be promoted, in either spelling.
    pub fn nofailover(&self) -> bool {
        match self.tags.get("nofailover") {
            Some(value) => truthy(value),
            None => self.tags.get("failover_priority").and_then(Value::as_i64).is_some_and(|priority| priority <= 0),
        }
    }

    /// What its server runs with, of a setting that a restart would change; `None`: nothing else than is configured.
    pub fn limit(&self, setting: &str) -> Option<u64> {
        let value = self.extra.get("pending_restart_reason")?.get(setting)?.get("old_value")?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }

    /// The address of the member's PostgreSQL, from `conn_url`: host (without brackets) and port.
    pub fn postgres_address(&self) -> Option<(String, u16)> {
        let rest = self.conn_url.split_once("://")?.1;
        let authority = rest.split(['/', '?']).next()?;
        let authority = authority.rsplit('@').next()?;
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']')?;
                (host, after.strip_prefix(':'))
            }
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.map_or(Some(5432), |text| text.parse().ok())?;
        (!host.is_empty()).then(|| (host.to_owned(), port))
    }
}

/// What a member says of its PostgreSQL; the texts are the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    InitializingNewCluster,
    InitdbFailed,
    CustomBootstrap,
    CustomBootstrapFailed,
    CreatingReplica,
    Running,
    Starting,
    StartFailed,
    Restarting,
    RestartFailed,
    Stopping,
    Stopped,
    StopFailed,
    Crashed,
    /// A state that only others report (starting after a custom bootstrap), or one of a later version.
    Unknown,
}

impl MemberState {
    pub const ALL: [MemberState; 15] = [
        MemberState::InitializingNewCluster,
        MemberState::InitdbFailed,
        MemberState::CustomBootstrap,
        MemberState::CustomBootstrapFailed,
        MemberState::CreatingReplica,
        MemberState::Running,
        MemberState::Starting,
        MemberState::StartFailed,
        MemberState::Restarting,
        MemberState::RestartFailed,
        MemberState::Stopping,
        MemberState::Stopped,
        MemberState::StopFailed,
        MemberState::Crashed,
        MemberState::Unknown,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            MemberState::InitializingNewCluster => "initializing new cluster",
            MemberState::InitdbFailed => "initdb failed",
            MemberState::CustomBootstrap => "running custom bootstrap script",
            MemberState::CustomBootstrapFailed => "custom bootstrap failed",
            MemberState::CreatingReplica => "creating replica",
            MemberState::Running => "running",
            MemberState::Starting => "starting",
            MemberState::StartFailed => "start failed",
            MemberState::Restarting => "restarting",
            MemberState::RestartFailed => "restart failed",
            MemberState::Stopping => "stopping",
            MemberState::Stopped => "stopped",
            MemberState::StopFailed => "stop failed",
            MemberState::Crashed => "crashed",
            MemberState::Unknown => "unknown",
        }
    }

    pub fn parse(text: &str) -> MemberState {
        MemberState::ALL.into_iter().find(|state| state.as_str() == text).unwrap_or(MemberState::Unknown)
    }
}

/// What a member is in the cluster; the texts are the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary,
    StandbyLeader,
    Replica,
    Demoted,
    Promoted,
    Uninitialized,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::StandbyLeader => "standby_leader",
            Role::Replica => "replica",
            Role::Demoted => "demoted",
            Role::Promoted => "promoted",
            Role::Uninitialized => "uninitialized",
        }
    }

    /// Older members say `master`; what is unknown counts as a replica, which nothing trusts to write.
    pub fn parse(text: &str) -> Role {
        match text {
            "primary" | "master" => Role::Primary,
            "standby_leader" => Role::StandbyLeader,
            "demoted" => Role::Demoted,
            "promoted" => Role::Promoted,
            "uninitialized" => Role::Uninitialized,
            _ => Role::Replica,
        }
    }
}

/// The `status` key: how far the leader's log had got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub optime: Lsn,
    pub slots: BTreeMap<String, u64>,
    pub retain_slots: Vec<String>,
}

/// One line of the `history` key: how a timeline ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLine {
    pub timeline: Timeline,
    pub switch_lsn: Lsn,
    pub reason: String,
    /// ISO 8601 with offset.
    pub timestamp: Option<String>,
    pub new_leader: Option<String>,
}

/// pgherd's own key `pgherd/timelines`: the newest timeline that was reserved for a promotion. It only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    pub timeline: Timeline,
    /// The leadership that reserved it; a promotion that is repeated under it takes the same one.
    pub epoch: Epoch,
    /// For people who look at the key.
    pub leader: String,
}

/// The `sync` key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncKey {
    pub leader: Option<String>,
    pub quorum: u32,
    /// Sorted names.
    pub sync_standby: Vec<String>,
}

/// The `failover` key: an operator's request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailoverKey {
    /// Set: a switchover away from this leader. Unset: a manual failover.
    pub leader: Option<String>,
    /// The candidate.
    pub member: Option<String>,
    pub scheduled_at: Option<crate::Wall>,
}

impl FailoverKey {
    /// `{}` is a cleared request; a schedule alone is none either.
    pub fn is_empty(&self) -> bool {
        self.leader.is_none() && self.member.is_none()
    }
}

/// A running replica, for tests written as data.
#[cfg(test)]
pub(crate) fn test_member(name: &str) -> Member {
    Member {
        name: name.into(),
        conn_url: format!("postgres://{name}:5432/postgres"),
        api_url: format!("http://{name}:8008/patroni"),
        state: MemberState::Running,
        role: Role::Replica,
        version: "4.1.4".into(),
        pgherd: Some("0.1.0".into()),
        tags: Map::new(),
        xlog_location: None,
        replay_lsn: None,
        receive_lsn: None,
        replication_state: None,
        timeline: Some(Timeline(1)),
        checkpoint_after_promote: None,
        pending_restart: false,
        pause: false,
        extra: Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_members() {
        let cases = [
            ("postgres://pg-slave:5432/postgres", Some(("pg-slave", 5432))),
            ("postgres://10.0.0.1/postgres", Some(("10.0.0.1", 5432))),
            ("postgres://[::1]:5433/db", Some(("::1", 5433))),
            ("postgres://user@host:1/db", Some(("host", 1))),
            ("postgres://host:99999/db", None),
            ("postgres://:1/db", None),
            ("nonsense", None),
        ];
        for (url, expected) in cases {
            let member = Member { conn_url: url.into(), ..crate::view::test_member("m") };
            let expected = expected.map(|(host, port): (&str, u16)| (host.to_owned(), port));
            assert_eq!(member.postgres_address(), expected, "{url}");
        }
    }

    #[test]
    fn a_valid_initialize_is_ten_digits_or_more() {
        for (text, valid) in [("7123456789012345678", true), ("", false), ("123456789", false), ("12345678901x", false)]
        {
            let view = View { initialize: Some(Versioned { value: text.into(), version: 0 }), ..View::default() };
            assert_eq!(view.system_id().is_some(), valid, "{text:?}");
        }
    }

    #[test]
    fn nofailover_wins_over_failover_priority() {
        let cases = [
            (r#"{}"#, false),
            (r#"{"nofailover":true}"#, true),
            (r#"{"nofailover":"on"}"#, true),
            (r#"{"nofailover":false,"failover_priority":0}"#, false),
            (r#"{"failover_priority":0}"#, true),
            (r#"{"failover_priority":2}"#, false),
        ];
        for (tags, expected) in cases {
            let tags = serde_json::from_str(tags).expect("a JSON object");
            assert_eq!(Member { tags, ..test_member("m") }.nofailover(), expected);
        }
    }

    #[test]
    fn states_read_back_as_written() {
        for state in MemberState::ALL {
            assert_eq!(MemberState::parse(state.as_str()), state);
        }
    }
}
