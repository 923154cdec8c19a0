//! What to do: the pure decision of a highly available PostgreSQL node.
//!
//! No I/O, no clock, no randomness, no threads, no async. Everything that was seen arrives as a value
//! ([`View`], [`Local`]), time is an argument ([`Now`]), and the answer is a [`Decision`]: a named rule
//! and a list of actions as plain values. The daemon (`crates/agent`) and the simulator (`crates/sim`) are
//! two thin drivers of the same [`Agent`].

mod action;
mod agent;
mod bootstrap;
mod callback;
mod disk;
mod failsafe;
mod hook;
mod job;
mod leader;
mod limits;
mod local;
mod pause;
mod permit;
mod race;
mod race_backoff;
mod replica;
mod request;
mod route;
mod rule;
mod shown;
mod signs;
mod slots;
mod standby_cluster;
mod stop;
mod switchover;
mod sync;
mod timeline;
mod types;
mod upstream;
mod view;
mod watchdog;
mod without_store;

pub use action::{Action, Address, Job, Remote, StopMode, Upstream, Wake, WakeReason};
pub use agent::{Agent, Decision, Store};
pub use callback::{Callback, Event as CallbackEvent};
pub use failsafe::{FailsafeAnswer, FailsafeAsk, FailsafeRound, patience as failsafe_patience};
pub use limits::LimitChange;
pub use local::{
    ConnectedStandby, ControlFile, ControlState, DataDirectory, Divergence, JobInProgress, JobOutcome, JobResult,
    Local, Peer, PeerAnswer, PeerPoll, Postgres, Request, Running, Settings, StandbyCluster, SyncState, Verdict,
};
pub use permit::{Lease, Permit, STOP_TIME};
pub use route::{NodeRoute, RouteMessage};
pub use rule::Rule;
pub use signs::SignsOfLife;
pub use slots::{
    LeaderSlots, Slot, SlotChange, SlotFilter, SlotKind, clashes as slot_clashes, needs_feedback, slot_name,
};
pub use sync::{Method, StandbyNames, Synchronous};
pub use timeline::MOST_AHEAD as MOST_TIMELINES_AHEAD;
pub use types::{Boot, Epoch, Lsn, Now, SystemId, Timeline, Wall, Xid};
pub use view::{
    FailoverKey, HistoryLine, Leader, LeaderOwner, Member, MemberState, Reservation, Role, Status, SyncKey, Versioned,
    View, truthy,
};
pub use watchdog::Watchdog;
