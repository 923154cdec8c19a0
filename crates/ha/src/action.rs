//! What a decision asks for: plain values, specific enough that carrying them out leaves nothing to choose.
//!
//! An action that needs the lease carries its epoch, and the executor refuses it when the lease is of another.

use crate::types::{Boot, Epoch, Lsn, SystemId};

/// The server to stream from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The member's name.
    pub name: String,
    pub host: String,
    pub port: u16,
}

/// Something to do now. All but [`Action::Run`] take milliseconds, and have a deadline of `retry_timeout`.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create `initialize` with an empty value, unless it exists.
    ClaimInitialize,
    /// The one who claimed it is gone: remove the empty key, if it still is the one that was seen.
    RemoveClaim {
        version: i64,
    },
    WriteInitialize {
        epoch: Epoch,
        system_id: SystemId,
    },
    /// Write `config`, which is absent, from what this node knows.
    WriteConfig {
        epoch: Epoch,
    },
    /// Create `leader`.
    Acquire,
    /// Prove that the leader key is still ours, now (the keeper of the lease does it regularly by itself).
    Renew {
        epoch: Epoch,
    },
    /// Delete `leader`; no process of PostgreSQL may be left.
    Release {
        epoch: Epoch,
    },
    WriteStatus {
        epoch: Epoch,
        optime: Lsn,
    },
    /// Bring `history` up to date with the server's history file.
    WriteHistory {
        epoch: Epoch,
    },
    /// Write `{}` over the request of this version.
    ClearFailover {
        version: i64,
    },
    /// Ask the REST API of these members where they are. The answers come with a later observation.
    PollPeers {
        names: Vec<String>,
    },
    /// Point the running standby at another upstream, or at none, and reload it.
    Follow {
        upstream: Option<Upstream>,
    },
    /// Keep exactly these physical replication slots of members. On a standby none: what a former primary keeps for others would hold
    /// its log for ever.
    SyncSlots {
        members: Vec<String>,
    },
    /// A checkpoint in the background, which rewinding others needs to see the new timeline.
    Checkpoint,
    /// Give the running postmaster a guard.
    Guard,
    /// Kill every process of PostgreSQL, now.
    Fence,
    /// Begin a job. A job in progress is cancelled first.
    Run(Job),
    /// Tell the operator that the request cannot be done.
    RefuseRequest {
        why: &'static str,
    },
    /// End the agent; PostgreSQL is left as it is.
    Exit {
        failure: Option<String>,
    },
}

/// A long action. One runs at a time, in the background, and the decision goes on meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Fill the empty directory with a new cluster; starts nothing.
    Initdb,
    /// Make the roles of a new cluster.
    PostBootstrap {
        epoch: Epoch,
    },
    /// Stop our server, copy the upstream's data beside ours, and put the copy in its place when it is complete.
    Clone {
        source: Upstream,
    },
    /// Compare our history with the leader's.
    CheckDivergence {
        epoch: Epoch,
        leader: Upstream,
    },
    /// Stop, finish crash recovery where needed, and rewind to the source.
    Rewind {
        source: Upstream,
    },
    /// Start out of recovery, under the permit of `epoch`.
    StartPrimary {
        epoch: Epoch,
    },
    StartStandby {
        upstream: Option<Upstream>,
    },
    /// Leave recovery, under the permit of `epoch`.
    Promote {
        epoch: Epoch,
    },
    Stop(StopMode),
    /// Stop and start in the same role.
    Restart {
        epoch: Option<Epoch>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Planned: a checkpoint first, then cut the standbys that do not answer, then fast.
    Planned,
    /// Sessions are ended, the shutdown checkpoint is written and sent.
    Fast,
    /// As a crash, when every millisecond counts.
    Immediate,
}

impl Job {
    /// The job itself ends or replaces the running server, so a server that goes away meanwhile is no crash.
    pub fn takes_server_down(&self) -> bool {
        matches!(self, Job::Stop(_) | Job::Restart { .. } | Job::Rewind { .. } | Job::Clone { .. })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Job::Initdb => "initdb",
            Job::PostBootstrap { .. } => "post-bootstrap",
            Job::Clone { .. } => "base backup",
            Job::CheckDivergence { .. } => "history check",
            Job::Rewind { .. } => "rewind",
            Job::StartPrimary { .. } => "start as primary",
            Job::StartStandby { .. } => "start as standby",
            Job::Promote { .. } => "promote",
            Job::Stop(_) => "stop",
            Job::Restart { .. } => "restart",
        }
    }
}

/// When to decide again at the latest, and why; anything that happens earlier wakes the agent too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    pub at: Boot,
    pub reason: WakeReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    /// `loop_wait` is over.
    Round,
    /// The permit runs out, less the time for an orderly stop.
    PermitEnds,
    /// A standby is settling, a peer is asked: look again soon.
    Settling,
    /// A failed attempt is repeated.
    Retry,
    /// A scheduled switchover is due.
    Schedule,
}
