//! What this node knows of itself: its data directory, its PostgreSQL, the job in progress, its lease. Plain values, made by
//! the driver anew before each decision.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::action::{Job, Upstream};
use crate::failsafe::FailsafeRound;
use crate::limits::LimitChange;
use crate::permit::Lease;
use crate::slots::{LeaderSlots, Slot, SlotFilter, SlotKind};
use crate::sync::Synchronous;
use crate::types::{Boot, Epoch, Lsn, SystemId, Timeline};
use crate::watchdog::Watchdog;

#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    pub data: DataDirectory,
    pub postgres: Postgres,
    /// The long action in progress; there is at most one.
    pub job: Option<JobInProgress>,
    /// How the last one ended. Stays until the next begins.
    pub last_job: Option<JobResult>,
    /// The newest proof that the leader key of its epoch is ours.
    pub lease: Option<Lease>,
    /// This process created `initialize`, so it is the one to run initdb.
    pub claimed_initialize: bool,
    /// A guard watches the running postmaster (or none is demanded).
    pub guarded: bool,
    pub watchdog: Watchdog,
    /// A write to the data directory has been waited for longer than a lease.
    pub disk_stuck: bool,
    /// Where the written recovery settings point to; `None`: nowhere.
    pub following: Option<Upstream>,
    /// The answers of the other members to the newest poll.
    pub peers: Option<PeerPoll>,
    /// What has come of the newest round of questions in failsafe mode.
    pub failsafe: Option<FailsafeRound>,
    /// The newest comparison of our history with a leader's.
    pub divergence: Option<Divergence>,
    /// What an operator asked of this node.
    pub request: Option<Request>,
    /// The agent was told to stop.
    pub stopping: bool,
    /// `synchronous_standby_names` is ours to set and not the user's.
    pub manages_standby_names: bool,
    /// What a restart would change of the settings of which a standby needs as much as its primary, by name.
    pub limits: BTreeMap<String, LimitChange>,
    /// The positions of the slots right before the server was last stopped in order.
    pub last_slots: BTreeMap<String, u64>,
    /// What the leader was last heard to keep for its slots.
    pub leader_slots: Option<LeaderSlots>,
    /// Clients may log in directly; `false` while the access rules are narrowed to members and the superuser.
    pub admits_clients: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataDirectory {
    /// Absent or without content: may be filled.
    Empty,
    /// The marker of an interrupted copy or rewind is in it: must never be started, may be replaced.
    Incomplete,
    Present(ControlFile),
    /// Not readable, not ours, of another major version: never touched. The text says what and what to do.
    Unusable(String),
}

/// What `pg_controldata` and the signal files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    pub system_id: SystemId,
    pub state: ControlState,
    pub timeline: Timeline,
    /// The latest checkpoint record's own position.
    pub checkpoint: Lsn,
    /// `standby.signal` or `recovery.signal` is there.
    pub standby_signal: bool,
    /// initdb is done but the roles are not yet made: nobody else may have copied it.
    pub bootstrap_pending: bool,
    /// `wal_log_hints` or checksums are on, so pg_rewind can work.
    pub rewindable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlState {
    InProduction,
    ShuttingDown,
    ShutDown,
    ShutDownInRecovery,
    InCrashRecovery,
    InArchiveRecovery,
    StartingUp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Postgres {
    /// No process of it is left.
    Stopped,
    /// The postmaster is gone, but processes still work in the data directory.
    Orphans,
    /// The postmaster runs and does not let anyone in yet.
    Starting {
        since: Boot,
    },
    Running(Running),
    /// The postmaster runs and the heartbeat query has failed since.
    Silent {
        since: Boot,
        in_recovery: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    pub in_recovery: bool,
    /// In recovery, and it leaves it by itself: a restored backup that becomes a new cluster. Not a standby, then.
    pub restores: bool,
    pub timeline: Timeline,
    /// Primary: flushed; standby: the greater of received and replayed.
    pub position: Lsn,
    /// The newest timeline of those that follow on `timeline` without a gap and whose history file is there; `timeline` itself if there is
    /// none. PostgreSQL begins none but greater ones.
    pub newest_history: Timeline,
    /// A standby's WAL receiver is there and streams.
    pub streaming: bool,
    /// The receiver is gone and the startup process waits at the end of the log: the position is final.
    pub settled: bool,
    /// The checkpoint after the promotion is done (always, on a standby).
    pub checkpointed: bool,
    /// As in force.
    pub synchronous_standby_names: String,
    /// Replay has paused for good: the log needs more of some settings than this standby was started with.
    pub starved: bool,
    /// The checkpointer is where it reads a changed configuration at once. It alone passes on that commits wait at all.
    pub checkpointer_listens: bool,
    /// Who streams from here.
    pub standbys: Vec<ConnectedStandby>,
    /// Replayed, on a standby; `position` on a primary.
    pub replayed: Lsn,
    pub slots: Vec<Slot>,
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectedStandby {
    /// The member's name (`application_name`).
    pub name: String,
    /// In step with the primary, no longer catching up.
    pub streaming: bool,
    pub flushed: Lsn,
    pub sync_state: SyncState,
    /// Its walsender has read names that list it (`sync_priority` above 0).
    pub listed: bool,
}

/// Ordered as the interface prefers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncState {
    #[default]
    Async,
    Potential,
    Quorum,
    Sync,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JobInProgress {
    pub job: Job,
    pub since: Boot,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JobResult {
    pub job: Job,
    pub at: Boot,
    pub outcome: JobOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    Done,
    Failed,
    /// Cut short by a newer decision.
    Cancelled,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PeerPoll {
    /// Before the first question was sent.
    pub asked: Boot,
    /// Those that were asked; unreachable ones with `answer: None`.
    pub peers: Vec<Peer>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    pub name: String,
    pub answer: Option<PeerAnswer>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PeerAnswer {
    pub in_recovery: bool,
    pub position: Lsn,
    pub timeline: Option<Timeline>,
    pub nofailover: bool,
    pub failover_priority: i64,
    pub watchdog_failed: bool,
    /// It receives nothing any more, and its position is its last word until it follows another leader.
    pub settled: bool,
}

/// Whether our log has left the leader's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The leader that was asked, by its epoch.
    pub epoch: Epoch,
    pub verdict: Verdict,
    pub at: Boot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Our log is a beginning of the leader's.
    Same,
    /// Our log has records that the leader's does not have.
    Diverged,
    /// The same, in a way that pg_rewind cannot see or mend.
    OnlyCopy,
    /// The leader did not answer.
    Unknown,
}

/// What an operator asked of this node; it stays until it was carried out or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Restart {
        /// Also where standbys would have less of some settings than this primary then.
        unordered: bool,
        /// How long it may take to start, in place of `primary_start_timeout`.
        patience: Option<Duration>,
    },
    /// A fresh copy of the data.
    Reinitialize {
        /// The operator does not need what is there.
        force: bool,
        /// By pg_basebackup from the leader, whatever the configuration prefers.
        from_leader: bool,
    },
}

impl Request {
    pub const RESTART: Request = Request::Restart { unordered: false, patience: None };
}

/// The settings that the decision reads, from the dynamic and the local configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub name: String,
    /// The pause between two rounds in which nothing happened.
    pub loop_wait: Duration,
    /// The time-out of a single call.
    pub retry_timeout: Duration,
    pub ttl: Duration,
    /// In bytes, against the last position that the leader wrote to `status`.
    pub maximum_lag_on_failover: u64,
    /// How long a leader's PostgreSQL may take to start before it gives up the key; 0: it gives it up without trying, after a crash.
    pub primary_start_timeout: Duration,
    /// How long a primary may take to stop in order; `None`: as long as it takes.
    pub primary_stop_timeout: Option<Duration>,
    /// How long a race is put off while the former primary still sends; 0: not at all.
    pub primary_race_backoff: Duration,
    pub check_timeline: bool,
    pub nofailover: bool,
    pub failover_priority: i64,
    /// pg_rewind may be used where the control file allows it.
    pub use_pg_rewind: bool,
    /// After a failed rewind the data may be removed before its copy is complete, if there is no room for both.
    pub remove_on_rewind_failure: bool,
    /// The same for data that cannot be rewound.
    pub remove_on_diverged: bool,
    pub use_slots: bool,
    /// `None`: commits wait for no standby.
    pub synchronous: Option<Synchronous>,
    /// A primary goes on without the store while every member agrees.
    pub failsafe_mode: bool,
    /// `pre_promote` names a command.
    pub pre_promote: bool,
    /// A new cluster is made by the user's own command.
    pub custom_bootstrap: bool,
    /// The user's own command is run on a new cluster.
    pub post_bootstrap: bool,
    /// One of the methods to make a replica needs no server to copy from.
    pub copies_without_leader: bool,
    /// How long the slot of a member that is no longer registered is kept, so that it finds the log it needs when it comes back.
    pub member_slots_ttl: Duration,
    /// This cluster follows another one, and none of its servers writes.
    pub standby_cluster: Option<StandbyCluster>,
    /// The member that this node streams from in place of the leader, if it can (tag `replicatefrom`).
    pub replicatefrom: Option<String>,
    /// This node streams from nobody and lives by the archive (tag `nostream`).
    pub nostream: bool,
    /// Slots that outlive a failover, by name: those that this kind of cluster (its own, or one that follows another) is to have.
    pub permanent_slots: BTreeMap<String, SlotKind>,
    pub ignore_slots: Vec<SlotFilter>,
}

/// What a standby cluster follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StandbyCluster {
    /// `None`: the log comes from an archive alone.
    pub upstream: Option<Upstream>,
}

impl Settings {
    /// How long a start may take that has been begun. With `primary_start_timeout` 0 a crash is failed over before any start; one that is
    /// made all the same (after an orderly stop, or since nobody else can lead) gets its chance.
    pub(crate) fn start_patience(&self) -> Duration {
        if self.primary_start_timeout.is_zero() { self.ttl } else { self.primary_start_timeout }
    }
}

impl Local {
    pub fn running(&self) -> Option<&Running> {
        match &self.postgres {
            Postgres::Running(running) => Some(running),
            _ => None,
        }
    }

    /// A server that is (or was when it last answered) out of recovery.
    pub fn is_writer(&self) -> bool {
        match &self.postgres {
            Postgres::Running(running) => !running.in_recovery,
            Postgres::Silent { in_recovery, .. } => !in_recovery,
            Postgres::Stopped | Postgres::Orphans | Postgres::Starting { .. } => false,
        }
    }

    pub fn control(&self) -> Option<&ControlFile> {
        match &self.data {
            DataDirectory::Present(control) => Some(control),
            _ => None,
        }
    }

    /// How the last job ended, if it was one of `kind`.
    pub(crate) fn last(&self, kind: impl Fn(&Job) -> bool) -> Option<&JobResult> {
        self.last_job.as_ref().filter(|result| kind(&result.job))
    }
}

impl ControlFile {
    /// The server was last a primary, so its log may hold records that nobody else has.
    pub fn was_primary(&self) -> bool {
        use ControlState::{
            InArchiveRecovery, InCrashRecovery, InProduction, ShutDown, ShutDownInRecovery, ShuttingDown, StartingUp,
        };
        match self.state {
            InProduction | ShuttingDown | ShutDown | InCrashRecovery => !self.standby_signal,
            ShutDownInRecovery | InArchiveRecovery => false,
            StartingUp => !self.standby_signal,
        }
    }
}
