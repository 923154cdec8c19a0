//! Everything that the answers of the REST API need, as values: the daemon replaces the [`Snapshot`] whole after each
//! round.
//!
//! Not here: the decisions made of it (`health`), its JSON (`status`, `cluster`). What depends on the time is evaluated
//! at the moment of the request, so that an answer of a daemon that hangs ages as it should. Tested in `health` and
//! `status`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pgherd_ha::{Boot, Epoch, Lsn, MemberState, Permit, Role, SyncKey, SystemId, Timeline, View, Wall};
use serde_json::{Map, Value};

use super::command::ScheduledRestart;

/// The level of Patroni's interface that pgherd speaks; peers and tools gate on it.
pub const PATRONI_VERSION: &str = "4.1.4";

/// The permit as the thread that renews the lease last stored it: without a lock, and between two rounds of the daemon.
pub type PermitCell = Arc<ArcSwap<Permit>>;

/// What the daemon knows after a round.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub scope: String,
    pub name: String,
    pub state: MemberState,
    /// The role that the daemon means the server to have, whatever the server says.
    pub role: Role,
    /// `Some` while the daemon believes that it holds the leader key.
    pub leader: Option<LeaderBelief>,
    /// No client is to be sent here, and `pg_hba.conf` lets none in: it is being made a primary, or the synchronous standbys do not have yet
    /// what it shows.
    pub clients_held: bool,
    /// The last successful query of the server; `None` if the last one failed.
    pub observation: Option<Observation>,
    /// The last load of the store; `None` if the last one failed. Older than `ttl` it counts as none.
    pub view: Option<LoadedView>,
    pub paused: bool,
    /// A standby without an upstream whose position is final.
    pub settled: bool,
    /// Until when failsafe mode is active here: as a primary without the store, or as a member that has agreed to one.
    pub failsafe_until: Option<Boot>,
    /// Whom a primary without the store asks (name to api_url), as the store last showed it.
    pub failsafe_members: BTreeMap<String, String>,
    /// Seconds since 1970 of the last successful load, 0 before the first.
    pub dcs_last_seen: i64,
    /// The effective tags, in the order of the file.
    pub tags: Map<String, Value>,
    pub system_id: Option<SystemId>,
    /// `Some` when the server needs a restart: setting -> `{"old_value", "new_value"}`.
    pub pending_restart: Option<Map<String, Value>>,
    /// What is configured and not in force, a sentence each.
    pub left_out: Vec<String>,
    pub scheduled_restart: Option<ScheduledRestart>,
    /// A watchdog is required and does not work.
    pub watchdog_failed: bool,
    /// When the current or the next round of the daemon was planned to start.
    pub next_round: Boot,
    pub dynamic: DynamicSettings,
}

/// The leader key is ours, as far as the daemon knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderBelief {
    pub epoch: Epoch,
    /// The end of the lease that the daemon last saw.
    pub until: Boot,
}

#[derive(Clone, Debug)]
pub struct LoadedView {
    pub view: Arc<View>,
    pub loaded: Boot,
}

/// The values of the dynamic configuration that answers depend on.
#[derive(Clone, Debug)]
pub struct DynamicSettings {
    pub ttl: Duration,
    pub loop_wait: Duration,
    /// Bytes.
    pub maximum_lag_on_failover: u64,
    pub standby_cluster: bool,
    pub synchronous: SynchronousMode,
    pub failsafe_mode: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SynchronousMode {
    #[default]
    Off,
    Priority,
    Quorum,
}

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Before the query was sent.
    pub taken: Boot,
    pub postmaster_start_time: Wall,
    /// `server_version_num`, 150018.
    pub server_version: u32,
    pub wal: WalPosition,
    /// On a primary its own; on a standby the received one, if known.
    pub timeline: Option<Timeline>,
    /// `streaming` or `in archive recovery`, on a standby.
    pub replication_state: Option<String>,
    pub walsenders: Vec<Walsender>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalPosition {
    /// Out of recovery.
    Primary { flushed: Lsn },
    /// In recovery.
    Standby {
        /// The first known of written, received, replayed.
        received: Lsn,
        replayed: Lsn,
        replayed_at: Option<Wall>,
        replay_paused: bool,
        /// The end of the primary's log, as its last message to the walreceiver said.
        latest_end: Option<Lsn>,
    },
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walsender {
    pub usename: Option<String>,
    pub application_name: Option<String>,
    pub client_addr: Option<String>,
    pub state: Option<String>,
    pub sync_state: Option<String>,
    pub sync_priority: Option<i32>,
}

impl Snapshot {
    /// Whether this node holds the leader key now. The permit in the cell is the fresher witness, since the lease is
    /// renewed between rounds; without one only a standby leader, which has no writer, may still be it.
    pub fn is_leader(&self, permit: &Permit, now: Boot) -> bool {
        let Some(belief) = self.leader else { return false };
        match permit {
            Permit::Until { deadline, .. } => now < *deadline,
            Permit::Paused { .. } => now < belief.until,
            Permit::None => self.dynamic.standby_cluster && now < belief.until,
        }
    }

    pub fn is_failsafe_active(&self, now: Boot) -> bool {
        self.failsafe_until.is_some_and(|until| now < until)
    }

    /// The last load of the store, unless it is older than `ttl`.
    pub fn fresh_view(&self, now: Boot) -> Option<&View> {
        self.view.as_ref().filter(|view| now.since(view.loaded) <= self.dynamic.ttl).map(|view| &*view.view)
    }

    /// The last answer of the server, while its state lets it answer, unless it is older than `ttl`.
    pub fn fresh_observation(&self, now: Boot) -> Option<&Observation> {
        let answers = matches!(self.state, MemberState::Running | MemberState::Restarting | MemberState::Starting);
        self.observation.as_ref().filter(|seen| answers && now.since(seen.taken) <= self.dynamic.ttl)
    }

    /// What the server is by its own answer; in a standby cluster what the daemon means it to be.
    pub fn shown_role(&self, seen: &Observation) -> Role {
        match seen.wal {
            WalPosition::Primary { .. } => Role::Primary,
            WalPosition::Standby { .. } if self.dynamic.standby_cluster => self.role,
            WalPosition::Standby { .. } => Role::Replica,
        }
    }

    /// Whether the `sync` key names this node as a standby.
    pub fn is_sync_standby(&self, now: Boot) -> bool {
        self.dynamic.synchronous != SynchronousMode::Off
            && self
                .fresh_view(now)
                .and_then(|view| view.sync.as_ref())
                .is_some_and(|sync| names(&sync.value, &self.name))
    }
}

/// Names in the `sync` key match in any case of letters.
pub(super) fn names(sync: &SyncKey, name: &str) -> bool {
    sync.leader.is_some() && sync.sync_standby.iter().any(|standby| standby.eq_ignore_ascii_case(name))
}
