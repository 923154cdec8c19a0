//! What this node knows of itself: its data directory, its PostgreSQL, the job in progress, its lease. Plain values, made by
//! the driver anew before each decision.

use std::time::Duration;

use crate::action::{Job, Upstream};
use crate::permit::Lease;
use crate::types::{Boot, Epoch, Lsn, SystemId, Timeline};

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
    /// Where the written recovery settings point to; `None`: nowhere.
    pub following: Option<Upstream>,
    /// The answers of the other members to the newest poll.
    pub peers: Option<PeerPoll>,
    /// The newest comparison of our history with a leader's.
    pub divergence: Option<Divergence>,
    /// What an operator asked of this node.
    pub request: Option<Request>,
    /// The agent was told to stop.
    pub stopping: bool,
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
    pub timeline: Timeline,
    /// Primary: flushed; standby: the greater of received and replayed.
    pub position: Lsn,
    /// A standby's WAL receiver is there and streams.
    pub streaming: bool,
    /// The receiver is gone and the startup process waits at the end of the log: the position is final.
    pub settled: bool,
    /// The checkpoint after the promotion is done (always, on a standby).
    pub checkpointed: bool,
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
    Restart,
    /// A fresh copy of the data.
    Reinitialize,
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
    pub check_timeline: bool,
    pub nofailover: bool,
    pub failover_priority: i64,
    /// pg_rewind may be used where the control file allows it.
    pub use_pg_rewind: bool,
    pub use_slots: bool,
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
