//! One look at the running server: everything that a round of the agent's loop needs, in one query.

use pgherd_ha::{Lsn, SystemId, Timeline, Wall};
use serde::{Deserialize, Deserializer};

use super::{Connection, Error};

/// What a running server says of itself. Positions are of one lineage: that of `timeline`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Observation {
    /// As `server_version_num`: 150018.
    pub server_version: u32,
    pub system_id: SystemId,
    #[serde(deserialize_with = "microseconds")]
    pub postmaster_start_time: Wall,
    pub in_recovery: bool,
    /// Primary: that of its WAL. Standby: that of the receiver's stream, or of the control file.
    pub timeline: Timeline,
    /// Primary only: flushed to disk.
    pub flush_lsn: Option<Lsn>,
    /// `synchronous_standby_names` as in force.
    pub synchronous_standby_names: String,
    /// Standby only.
    pub standby: Option<Standby>,
    /// Connected standbys and copies, by pid.
    pub walsenders: Vec<Walsender>,
    pub slots: Vec<Slot>,
    /// Settings that wait for a restart.
    pub pending_restart: Vec<String>,
}

/// The standby's side of replication.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Standby {
    /// Received and flushed to disk; can go backwards when the standby restarts (`postgres-facts` 6).
    pub receive_lsn: Option<Lsn>,
    pub replay_lsn: Option<Lsn>,
    /// When the last replayed commit or abort was made, on the primary's clock.
    #[serde(deserialize_with = "optional_microseconds")]
    pub replay_timestamp: Option<Wall>,
    pub replay_paused: bool,
    /// What the startup process waits for; `None` while it is replaying.
    pub startup_wait_event: Option<String>,
    /// A WAL receiver process exists, streaming or not.
    pub receiver_alive: bool,
    /// Once it has connected.
    pub receiver: Option<Receiver>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Receiver {
    /// `starting`, `streaming`, `waiting`, `restarting`, `stopping`
    pub status: String,
    pub sender_host: Option<String>,
    pub sender_port: Option<u16>,
    /// Passwords are hidden by PostgreSQL.
    pub conninfo: Option<String>,
    pub slot_name: Option<String>,
    pub timeline: Option<Timeline>,
    /// How far the sender was, when it last told.
    pub latest_end_lsn: Option<Lsn>,
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Walsender {
    pub pid: i32,
    pub usename: Option<String>,
    pub application_name: String,
    pub client_addr: Option<String>,
    /// `startup`, `catchup`, `streaming`, `backup`, `stopping`
    pub state: Option<String>,
    pub sent_lsn: Option<Lsn>,
    pub write_lsn: Option<Lsn>,
    pub flush_lsn: Option<Lsn>,
    pub replay_lsn: Option<Lsn>,
    /// `async`, `potential`, `sync`, `quorum`
    pub sync_state: Option<String>,
    pub sync_priority: i32,
    /// How long ago it last answered, in milliseconds; negative if its clock is ahead.
    pub reply_age_ms: Option<i64>,
}

/// A row of `pg_replication_slots`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Slot {
    pub name: String,
    /// `physical` or `logical`
    pub slot_type: String,
    pub database: Option<String>,
    pub plugin: Option<String>,
    pub active: bool,
    pub temporary: bool,
    pub restart_lsn: Option<Lsn>,
    pub confirmed_flush_lsn: Option<Lsn>,
    pub has_xmin: bool,
    /// `reserved`, `extended`, `unreserved`, `lost`
    pub wal_status: Option<String>,
}

impl Observation {
    /// How far this server is: flushed on a primary, the greater of received and replayed on a standby.
    pub fn position(&self) -> Option<Lsn> {
        match &self.standby {
            None => self.flush_lsn,
            Some(standby) => standby.receive_lsn.max(standby.replay_lsn),
        }
    }

    /// In the words of the member key: `streaming`, `in archive recovery`, or nothing.
    pub fn replication_state(&self) -> Option<&'static str> {
        let standby = self.standby.as_ref()?;
        match &standby.receiver {
            Some(receiver) if receiver.status == "streaming" => Some("streaming"),
            _ => Some("in archive recovery"),
        }
    }
}

impl Standby {
    /// Everything it has is replayed and nothing more comes: only now its position counts in a race (`postgres-facts`
    /// 6).
    pub fn is_at_end_of_wal(&self) -> bool {
        !self.receiver_alive && self.startup_wait_event.as_deref().is_some_and(is_end_of_wal)
    }
}

/// The startup process has nothing left to replay (`postgres-facts` 1).
pub(super) fn is_end_of_wal(wait_event: &str) -> bool {
    // RecoveryWalAll was the name before 13; both spellings of the stream wait occur.
    matches!(wait_event, "RecoveryRetrieveRetryInterval" | "RecoveryWalStream")
}

impl Connection {
    /// Asks the server for its state, connecting first if need be. Bounded by the limits of the connection (some
    /// seconds).
    pub async fn observe(&mut self) -> Result<Observation, Error> {
        let text = self.query_prepared("observing PostgreSQL", QUERY).await?;
        serde_json::from_str(&text).map_err(|error| Error::answer("PostgreSQL", format!("{error} in {text}")))
    }
}

fn microseconds<'de, D: Deserializer<'de>>(source: D) -> Result<Wall, D::Error> {
    Wall::from_microsecond(i64::deserialize(source)?).map_err(serde::de::Error::custom)
}

fn optional_microseconds<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Wall>, D::Error> {
    let value = Option::<i64>::deserialize(source)?;
    value.map(Wall::from_microsecond).transpose().map_err(serde::de::Error::custom)
}

/// Positions as numbers of bytes, times as microseconds since 1970. A function that fails in (or out of) recovery is
/// behind a CASE. A standby whose receiver is between two connections has its timeline from the control file, which
/// may be behind. A change of recovery settings that waits for a restart means nothing: a standby's are written anew at
/// each start, and a primary has none.
const QUERY: &str = "
SELECT row_to_json(o)::text FROM (SELECT
  current_setting('server_version_num')::int AS server_version,
  (SELECT system_identifier FROM pg_control_system()) AS system_id,
  (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS postmaster_start_time,
  r.in_recovery,
  CASE WHEN r.in_recovery
    THEN greatest((SELECT received_tli FROM pg_stat_get_wal_receiver()),
                  (SELECT timeline_id FROM pg_control_checkpoint()),
                  (SELECT min_recovery_end_timeline FROM pg_control_recovery()))
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int
  END AS timeline,
  CASE WHEN NOT r.in_recovery THEN pg_current_wal_flush_lsn() - '0/0' END AS flush_lsn,
  current_setting('synchronous_standby_names') AS synchronous_standby_names,
  CASE WHEN r.in_recovery THEN (SELECT row_to_json(s) FROM (SELECT
    greatest(pg_last_wal_receive_lsn(), w.flushed_lsn) - '0/0' AS receive_lsn,
    pg_last_wal_replay_lsn() - '0/0' AS replay_lsn,
    (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint AS replay_timestamp,
    pg_is_wal_replay_paused() AS replay_paused,
    (SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup' LIMIT 1) AS startup_wait_event,
    EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver') AS receiver_alive,
    CASE WHEN w.pid IS NOT NULL THEN json_build_object(
      'status', w.status, 'sender_host', w.sender_host, 'sender_port', w.sender_port, 'conninfo', w.conninfo,
      'slot_name', w.slot_name, 'timeline', w.received_tli, 'latest_end_lsn', w.latest_end_lsn - '0/0') END AS receiver
    FROM (SELECT) one LEFT JOIN pg_stat_get_wal_receiver() w ON true) s) END AS standby,
  (SELECT coalesce(json_agg(row_to_json(x) ORDER BY x.pid), '[]') FROM (SELECT
    pid, usename, application_name, host(client_addr) AS client_addr, state,
    sent_lsn - '0/0' AS sent_lsn, write_lsn - '0/0' AS write_lsn, flush_lsn - '0/0' AS flush_lsn,
    replay_lsn - '0/0' AS replay_lsn, sync_state, sync_priority,
    (extract(epoch FROM clock_timestamp() - reply_time) * 1000)::bigint AS reply_age_ms
    FROM pg_stat_replication) x) AS walsenders,
  (SELECT coalesce(json_agg(row_to_json(x) ORDER BY x.name), '[]') FROM (SELECT
    slot_name AS name, slot_type, database, plugin, active, temporary, restart_lsn - '0/0' AS restart_lsn,
    confirmed_flush_lsn - '0/0' AS confirmed_flush_lsn,
    (xmin IS NOT NULL OR catalog_xmin IS NOT NULL) AS has_xmin, wal_status
    FROM pg_replication_slots) x) AS slots,
  (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_settings
    WHERE pending_restart AND name NOT LIKE 'recovery%') AS pending_restart
  FROM (SELECT pg_is_in_recovery() AS in_recovery) r) o";

#[cfg(test)]
mod tests {
    use super::*;

    const STANDBY: &str = r#"{"server_version":150018,"system_id":7412345678901234567,
        "postmaster_start_time":1700000000000000,"in_recovery":true,"timeline":2,"flush_lsn":null,
        "synchronous_standby_names":"","standby":{"receive_lsn":50331648,"replay_lsn":50331904,"replay_timestamp":null,
        "replay_paused":false,"startup_wait_event":"RecoveryRetrieveRetryInterval","receiver_alive":false,
        "receiver":null},"walsenders":[],"slots":[],"pending_restart":["max_connections"]}"#;

    #[test]
    fn a_standby_that_was_restarted_counts_what_it_has_replayed() {
        let seen: Observation = serde_json::from_str(STANDBY).expect("an observation");
        assert_eq!(seen.position(), Some(Lsn(50_331_904)));
        assert_eq!(seen.replication_state(), Some("in archive recovery"));
        assert_eq!(seen.postmaster_start_time.to_string(), "2023-11-14T22:13:20Z");
        let standby = seen.standby.expect("a standby");
        assert!(standby.is_at_end_of_wal());
        assert!(!Standby { receiver_alive: true, ..standby.clone() }.is_at_end_of_wal());
        assert!(!Standby { startup_wait_event: None, ..standby }.is_at_end_of_wal());
    }
}
