//! The REST API on port 8008: health checks, status, configuration, orders of an operator, and the pushed route.
//!
//! It reads what the daemon publishes ([`Snapshot`], the permit, the route) and asks it for actions ([`Command`]); it
//! decides nothing about the cluster. The interface is Patroni's, so that its tools and real Patroni members work
//! unchanged. [`PeerClient`] is the other end: how this member asks the others.

mod access;
mod body;
mod cluster;
mod command;
mod dynamic_config;
mod failsafe;
pub(crate) mod fuzz;
mod health;
mod json;
mod metrics;
mod peer;
mod query;
mod reply;
mod restart;
mod route_stream;
mod router;
mod schedule;
mod server;
mod snapshot;
mod state;
mod status;
mod switchover;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod health_tests;
#[cfg(test)]
mod peer_tests;
#[cfg(test)]
mod router_tests;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod switchover_tests;

pub use access::{Access, BasicAuth, Network, NetworkError};
pub use command::{
    Command, PostgresVersion, QUEUE, ReinitializeRefused, RestartFilter, RestartOutcome, ScheduledRestart, VersionError,
};
pub use failsafe::{FAILSAFE_QUEUE, FailsafeQuestion, FailsafeRequest};
pub(crate) use json::spaced;
pub use peer::{PeerAnswer, PeerClient, PeerClientError, PeerStatus};
pub use route_stream::RouteSource;
pub use router::router;
pub use schedule::{iso, with_fraction};
pub use server::{ApiError, ServerHandle, resolve_listen, serve};
pub use snapshot::{
    DynamicSettings, LeaderBelief, LoadedView, Observation, PATRONI_VERSION, PermitCell, Snapshot, SynchronousMode,
    WalPosition, Walsender,
};
pub use state::{ApiState, Settings};
