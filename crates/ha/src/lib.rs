//! What to do: the pure decision of a highly available PostgreSQL node.
//!
//! No I/O, no clock, no randomness, no threads, no async. Everything that was seen arrives as a value
//! ([`View`], [`Local`]), time is an argument ([`Now`]), and the answer is a [`Decision`]: a named rule
//! and a list of actions as plain values. The daemon (`crates/agent`) and the simulator (`crates/sim`) are
//! two thin drivers of the same [`Agent`].

mod permit;
mod route;
mod types;
mod view;

pub use permit::{Lease, Permit, STOP_TIME};
pub use route::{NodeRoute, RouteMessage};
pub use types::{Boot, Epoch, Lsn, Now, SystemId, Timeline, Wall};
pub use view::{
    FailoverKey, HistoryLine, Leader, LeaderOwner, Member, MemberState, Role, Status, SyncKey, Versioned, View,
};
