//! One look at the running server: everything that a round of the agent's loop needs, in one query.

use std::collections::BTreeMap;

use pgherd_ha::{Lsn, SystemId, Timeline, Wall, Xid};
use serde::{Deserialize, Deserializer};

use super::pending::Flagged;
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
    /// What the checkpointer waits for; `None` while it works.
    pub checkpointer_wait_event: Option<String>,
    /// `synchronous_standby_names` as in force.
    pub synchronous_standby_names: String,
    /// Standby only.
    pub standby: Option<Standby>,
    /// Connected standbys and copies, by pid.
    pub walsenders: Vec<Walsender>,
    pub slots: Vec<Slot>,
    /// Settings that PostgreSQL says wait for a restart.
    pub pending_restart: Vec<Flagged>,
    /// Those of which a standby needs as much as its primary, as in force.
    pub binding: BTreeMap<String, u64>,
    /// When the configuration files were last read, in microseconds since 1970.
    pub loaded: i64,
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
    /// It has no upstream in force.
    pub is_cut: bool,
    /// It has a `restore_command`.
    pub restores: bool,
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
    pub catalog_xmin: Option<Xid>,
    /// `reserved`, `extended`, `unreserved`, `lost`
    pub wal_status: Option<String>,
    /// From PostgreSQL 17 on: the server itself carries it over a failover, and has made it on this standby.
    pub failover: bool,
    pub synced: bool,
}

impl Observation {
    /// How far this server is: flushed on a primary, the greater of received and replayed on a standby.
    pub fn position(&self) -> Option<Lsn> {
        match &self.standby {
            None => self.flush_lsn,
            Some(standby) => standby.receive_lsn.max(standby.replay_lsn),
        }
    }

    /// Where the slots that outlive their session are: what a logical one's consumer has confirmed, from where on a physical one keeps log.
    pub fn slot_positions(&self) -> std::collections::BTreeMap<String, u64> {
        let lasting = self.slots.iter().filter(|slot| !slot.temporary);
        lasting.filter_map(|slot| Some((slot.name.clone(), slot.confirmed_flush_lsn.or(slot.restart_lsn)?.0))).collect()
    }

    /// Minor releases in which a commit right after a start may not wait for a standby (`postgres-facts` 12).
    pub fn may_skip_waits(&self) -> bool {
        let (major, minor) = (self.server_version / 10_000, self.server_version % 10_000);
        let mended = match major {
            13 => 21,
            14 => 18,
            15 => 13,
            16 => 9,
            17 => 5,
            _ => return major < 13,
        };
        minor < mended
    }

    /// A changed configuration has reached the checkpointer, which alone passes on that commits wait for standbys: between two checkpoints, and
    /// in one that takes its time.
    pub fn checkpointer_listens(&self) -> bool {
        matches!(self.checkpointer_wait_event.as_deref(), Some("CheckpointerMain" | "CheckpointWriteDelay"))
    }

    /// In the words of the member key: `streaming`, `in archive recovery`, or nothing.
    pub fn replication_state(&self) -> Option<&'static str> {
        let standby = self.standby.as_ref()?;
        match &standby.receiver {
            Some(receiver) if receiver.status == "streaming" => Some("streaming"),
            _ => standby.restores.then_some("in archive recovery"),
        }
    }
}

impl Standby {
    /// Everything it has is replayed and nothing more comes: only now its position counts in a race (`postgres-facts`
    /// 6).
    pub fn is_at_end_of_wal(&self) -> bool {
        self.is_cut && !self.receiver_alive && self.startup_wait_event.as_deref().is_some_and(is_end_of_wal)
    }

    /// Nothing more comes, and its position is all that it has, replayed or not. A receiver begins where the server's own log ends, so once one
    /// has brought more than is replayed, what it has received is the end.
    pub fn is_final(&self) -> bool {
        let received_more =
            self.receive_lsn.is_some_and(|received| self.replay_lsn.is_some_and(|replayed| received > replayed));
        self.is_cut && !self.receiver_alive && (received_more || self.is_at_end_of_wal())
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
  (SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'checkpointer' LIMIT 1) AS checkpointer_wait_event,
  current_setting('synchronous_standby_names') AS synchronous_standby_names,
  CASE WHEN r.in_recovery THEN (SELECT row_to_json(s) FROM (SELECT
    greatest(pg_last_wal_receive_lsn(), w.flushed_lsn) - '0/0' AS receive_lsn,
    pg_last_wal_replay_lsn() - '0/0' AS replay_lsn,
    (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint AS replay_timestamp,
    pg_is_wal_replay_paused() AS replay_paused,
    current_setting('primary_conninfo') = '' AS is_cut,
    current_setting('restore_command') <> '' AS restores,
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
    (xmin IS NOT NULL OR catalog_xmin IS NOT NULL) AS has_xmin, catalog_xmin::text::bigint AS catalog_xmin, wal_status,
    coalesce((to_jsonb(s) ->> 'failover')::boolean, false) AS failover,
    coalesce((to_jsonb(s) ->> 'synced')::boolean, false) AS synced
    FROM pg_replication_slots s) x) AS slots,
  (SELECT coalesce(json_agg(row_to_json(x) ORDER BY x.name), '[]') FROM (SELECT
    name, current_setting(name) AS shown, setting, unit
    FROM pg_settings WHERE pending_restart AND name NOT LIKE 'recovery%') x) AS pending_restart,
  (SELECT json_object_agg(name, current_setting(name)::bigint) FROM unnest(ARRAY['max_connections', 'max_worker_processes',
    'max_wal_senders', 'max_prepared_transactions', 'max_locks_per_transaction']) name) AS binding,
  (extract(epoch FROM pg_conf_load_time()) * 1000000)::bigint AS loaded
  FROM (SELECT pg_is_in_recovery() AS in_recovery) r) o";

#[cfg(test)]
mod tests {
    use super::*;

    const STANDBY: &str = r#"{"server_version":150018,"system_id":7412345678901234567,
        "postmaster_start_time":1700000000000000,"in_recovery":true,"timeline":2,"flush_lsn":null,
        "checkpointer_wait_event":"CheckpointerMain","synchronous_standby_names":"","standby":{"receive_lsn":50331648,"replay_lsn":50331904,"replay_timestamp":null,
        "replay_paused":false,"is_cut":true,"restores":true,"startup_wait_event":"RecoveryRetrieveRetryInterval","receiver_alive":false,
        "receiver":null},"walsenders":[],"slots":[],"binding":{"max_connections":100},"loaded":1700000000000000,
        "pending_restart":[{"name":"shared_buffers","shown":"128MB","setting":"16384","unit":"8kB"}]}"#;

    #[test]
    fn a_standby_that_was_restarted_counts_what_it_has_replayed() {
        let seen: Observation = serde_json::from_str(STANDBY).expect("an observation");
        assert_eq!(seen.position(), Some(Lsn(50_331_904)));
        assert_eq!(seen.replication_state(), Some("in archive recovery"));
        assert_eq!(seen.postmaster_start_time.to_string(), "2023-11-14T22:13:20Z");
        assert!(!Observation { server_version: 150_013, ..seen.clone() }.may_skip_waits());
        assert!(Observation { server_version: 150_012, ..seen.clone() }.may_skip_waits());
        assert!(!Observation { server_version: 180_000, ..seen.clone() }.may_skip_waits());
        let mut alone = seen.clone();
        alone.standby.as_mut().expect("a standby").restores = false;
        assert_eq!(alone.replication_state(), None);
        let standby = seen.standby.expect("a standby");
        assert!(standby.is_at_end_of_wal());
        assert!(!Standby { receiver_alive: true, ..standby.clone() }.is_at_end_of_wal());
        assert!(!Standby { startup_wait_event: None, ..standby }.is_at_end_of_wal());
    }
}
