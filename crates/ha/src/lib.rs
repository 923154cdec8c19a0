//! What to do: the pure decision of a highly available PostgreSQL node.
//!
//! No I/O, no clock, no randomness, no threads, no async. Everything that was seen arrives as a value
//! ([`View`], [`Local`]), time is an argument ([`Now`]), and the answer is a [`Decision`]: a named rule
//! and a list of actions as plain values. The daemon (`crates/agent`) and the simulator (`crates/sim`) are
//! two thin drivers of the same [`Agent`].

mod action;
mod agent;
mod bootstrap;
mod job;
mod leader;
mod local;
mod pause;
mod permit;
mod race;
mod replica;
mod request;
mod route;
mod rule;
mod signs;
mod stop;
mod switchover;
mod types;
mod view;
mod without_store;

pub use action::{Action, Job, StopMode, Upstream, Wake, WakeReason};
pub use agent::{Agent, Decision, Store};
pub use local::{
    ControlFile, ControlState, DataDirectory, Divergence, JobInProgress, JobOutcome, JobResult, Local, Peer,
    PeerAnswer, PeerPoll, Postgres, Request, Running, Settings, Verdict,
};
pub use permit::{Lease, Permit, STOP_TIME};
pub use route::{NodeRoute, RouteMessage};
pub use rule::Rule;
pub use signs::SignsOfLife;
pub use types::{Boot, Epoch, Lsn, Now, SystemId, Timeline, Wall};
pub use view::{
    FailoverKey, HistoryLine, Leader, LeaderOwner, Member, MemberState, Role, Status, SyncKey, Versioned, View,
};
