//! The REST API on port 8008: health checks, status, configuration, orders of an operator, and the pushed route.
//!
//! It reads what the daemon publishes ([`Snapshot`], the permit, the route) and asks it for actions ([`Command`]); it decides
//! nothing about the cluster. The interface is Patroni's, so that its tools and real Patroni members work unchanged.

mod command;
pub mod schedule;
mod snapshot;

pub use command::{
    Command, PostgresVersion, QUEUE, ReinitializeRefused, RestartFilter, RestartOutcome, ScheduledRestart,
};

pub use snapshot::{
    DynamicSettings, LeaderBelief, LoadedView, Observation, PATRONI_VERSION, PermitCell, Snapshot, SynchronousMode,
    WalPosition, Walsender,
};
