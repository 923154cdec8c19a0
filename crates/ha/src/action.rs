//! What a decision asks for: plain values, specific enough that carrying them out leaves nothing to choose.
//!
//! An action that needs the lease carries its epoch, and the executor refuses it when the lease is of another.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::slots::{SlotChange, SlotKind};
use crate::sync::StandbyNames;
use crate::types::{Boot, Epoch, SystemId, Timeline};
use crate::view::{Status, SyncKey};

/// The server to stream from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The member's name; of another cluster, what the log calls it.
    pub name: String,
    /// Of another cluster perhaps several, which are tried in their order.
    pub addresses: Vec<Address>,
    /// It is a server of another cluster, which knows nothing of this node.
    pub remote: Option<Remote>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or address; a directory for a unix socket.
    pub host: String,
    pub port: u16,
}

impl Address {
    pub fn new(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What a standby cluster knows of a server of the cluster that it follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// The replication slot that was made there for this cluster.
    pub slot: Option<String>,
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
    /// Delete `leader`; no process of PostgreSQL may be left that could still run.
    Release {
        epoch: Epoch,
    },
    WriteStatus {
        epoch: Epoch,
        status: Status,
    },
    /// Bring `history` up to date with the server's history file.
    WriteHistory {
        epoch: Epoch,
    },
    /// Write the `sync` key over the value of this version; `None`: where there is none.
    WriteSync {
        epoch: Epoch,
        version: Option<i64>,
        key: SyncKey,
    },
    /// Tell the running primary whom its commits wait for; `None`: what the user's own configuration says.
    SetStandbyNames {
        epoch: Epoch,
        names: Option<StandbyNames>,
    },
    /// Let clients log in directly again.
    AdmitClients,
    /// Record in the store that `timeline` is taken, over exactly this version of the key (`None`: over none).
    ReserveTimeline {
        epoch: Epoch,
        timeline: Timeline,
        version: Option<i64>,
    },
    /// Bring `failsafe` up to date: whom a primary asks that has lost the store.
    WriteFailsafe {
        epoch: Epoch,
        members: BTreeMap<String, String>,
    },
    /// Ask these members (name to api_url), all at once, whether this primary may go on without the store for `ttl`. What comes of it
    /// comes with a later observation, whole.
    AskFailsafe {
        epoch: Epoch,
        ttl: Duration,
        members: BTreeMap<String, String>,
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
    /// In this order; one that fails is no reason to leave out the others.
    ChangeSlots {
        changes: Vec<SlotChange>,
    },
    /// Ask this leader how far back it keeps rows of its catalogs for these slots of its own. The answer comes with a later observation.
    AskLeaderSlots {
        epoch: Epoch,
        leader: Upstream,
        names: Vec<String>,
    },
    /// A checkpoint in the background, which rewinding others needs to see the new timeline.
    Checkpoint,
    /// Give the running postmaster a guard.
    Guard,
    /// Start the machine's watchdog: from now on it resets the machine unless it hears of proofs of this lease.
    ArmWatchdog {
        epoch: Epoch,
    },
    DisarmWatchdog,
    /// Kill every process of PostgreSQL, now.
    Fence,
    /// Begin a job. A job in progress is cancelled first.
    Run(Job),
    /// End the job in progress, in place of none.
    CutOff,
    /// Tell the operator that the request cannot be done.
    RefuseRequest {
        why: String,
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
    /// The same with the user's own command (`bootstrap.method`); what a failed one leaves is moved aside.
    CustomBootstrap,
    /// Make the roles of a new cluster, and run the user's command on it (`post_bootstrap`).
    PostBootstrap {
        epoch: Epoch,
    },
    /// A new cluster that could not be completed: stop its server and move its data aside, as evidence.
    AbandonBootstrap,
    /// Stop our server, make a copy by the first of the user's methods that succeeds, and put it in the place of ours when it is complete.
    Clone {
        /// `None`: by a method that needs no server to copy from.
        source: Option<Upstream>,
        /// What is there may be removed before the copy is complete, if there is no room for both.
        make_room: bool,
        /// By pg_basebackup from the leader, whatever the configuration prefers.
        from_leader: bool,
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
        /// Whom its commits wait for, from the first one on; `None`: the user's own setting counts.
        names: Option<StandbyNames>,
    },
    StartStandby {
        upstream: Option<Upstream>,
    },
    /// The user's command before a promotion (`pre_promote`).
    PrePromote {
        epoch: Epoch,
    },
    /// Bring these logical slots of the leader here. The standby is stopped for it and started again, as the server reads them then only.
    CopySlots {
        source: Upstream,
        slots: BTreeMap<String, SlotKind>,
    },
    /// Leave recovery onto `timeline`, which is reserved, under the permit of `epoch`; `names` as for [`Job::StartPrimary`].
    Promote {
        epoch: Epoch,
        timeline: Timeline,
        names: Option<StandbyNames>,
        /// Logical slots that are brought to where their consumers were, as far as that takes no time.
        slots: Vec<SlotChange>,
        /// Logical slots of which it is not known that the rows are here which their consumers need: for a warning.
        unproven: Vec<String>,
    },
    Stop(StopMode),
    /// Stop and start in the same role.
    /// `names` as for [`Job::StartPrimary`], where it is a primary's (`epoch`).
    Restart {
        epoch: Option<Epoch>,
        names: Option<StandbyNames>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Planned: a checkpoint first, then cut the standbys that do not answer, then fast.
    Planned,
    /// The same for the primary of a cluster that is to follow another one: the log with the shutdown checkpoint is archived, too, so that a
    /// cluster that lives by the archive can have all of it.
    Demotion,
    /// Sessions are ended, the shutdown checkpoint is written and sent.
    Fast,
    /// As a crash, when every millisecond counts.
    Immediate,
}

impl Action {
    /// The epoch whose lease it needs. Giving the key up and proving it need none.
    pub fn under(&self) -> Option<Epoch> {
        match self {
            Action::WriteInitialize { epoch, .. }
            | Action::WriteConfig { epoch }
            | Action::WriteStatus { epoch, .. }
            | Action::WriteHistory { epoch }
            | Action::WriteSync { epoch, .. }
            | Action::SetStandbyNames { epoch, .. }
            | Action::ReserveTimeline { epoch, .. }
            | Action::WriteFailsafe { epoch, .. }
            | Action::ArmWatchdog { epoch }
            | Action::Run(
                Job::StartPrimary { epoch, .. }
                | Job::Promote { epoch, .. }
                | Job::PrePromote { epoch }
                | Job::PostBootstrap { epoch },
            ) => Some(*epoch),
            _ => None,
        }
    }

    /// Once it is done, things have changed: another look at once.
    pub fn is_news(&self) -> bool {
        matches!(
            self,
            Action::ClaimInitialize
                | Action::RemoveClaim { .. }
                | Action::WriteInitialize { .. }
                | Action::Acquire
                | Action::Renew { .. }
                | Action::Release { .. }
                | Action::ClearFailover { .. }
                | Action::WriteSync { .. }
                | Action::AdmitClients
                | Action::WriteFailsafe { .. }
                | Action::Guard
                | Action::Fence
                | Action::CutOff
        )
    }
}

impl Job {
    /// The job itself ends or replaces the running server, so a server that goes away meanwhile is no crash.
    pub fn takes_server_down(&self) -> bool {
        matches!(
            self,
            Job::Stop(_)
                | Job::Restart { .. }
                | Job::Rewind { .. }
                | Job::Clone { .. }
                | Job::AbandonBootstrap
                | Job::CopySlots { .. }
        )
    }

    /// A postmaster comes out of it.
    pub fn starts_server(&self) -> bool {
        matches!(self, Job::StartPrimary { .. } | Job::StartStandby { .. } | Job::Restart { .. })
    }

    /// A server may come out of it that writes: while it is in progress the leader key is not given up.
    pub fn makes_writer(&self) -> bool {
        matches!(self, Job::StartPrimary { .. } | Job::Promote { .. } | Job::Restart { epoch: Some(_), .. })
    }

    /// Synchronous mode: the primary that comes out of it keeps its clients out until [`Action::AdmitClients`].
    pub fn holds_clients(&self) -> bool {
        match self {
            Job::StartPrimary { names, .. } | Job::Promote { names, .. } | Job::Restart { epoch: Some(_), names } => {
                names.is_some()
            }
            _ => false,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Job::Initdb => "initdb",
            Job::CustomBootstrap => "custom bootstrap",
            Job::PostBootstrap { .. } => "post-bootstrap",
            Job::AbandonBootstrap => "giving up the new cluster",
            Job::Clone { .. } => "replica creation",
            Job::CheckDivergence { .. } => "history check",
            Job::Rewind { .. } => "rewind",
            Job::StartPrimary { .. } => "start as primary",
            Job::StartStandby { .. } => "start as standby",
            Job::PrePromote { .. } => "pre_promote",
            Job::CopySlots { .. } => "copy of logical slots",
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
