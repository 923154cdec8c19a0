//! What the REST API asks of the daemon. Each command that has an answer carries the sender for it; the daemon may take
//! its time, and a caller that went away is an answer that nobody reads, not an error.
//!
//! Not here: carrying them out (the daemon), reading them from requests (`restart`, `router`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use pgherd_ha::{Role, Wall};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

/// How many commands may wait for the daemon. They come from people and tools, one at a time; more than a few waiting
/// means that the daemon hangs, and then an error at once is the better answer.
pub const QUEUE: usize = 16;

#[derive(Debug)]
pub enum Command {
    /// Restart PostgreSQL now; the answer comes when it is over.
    Restart { filter: RestartFilter, reply: oneshot::Sender<RestartOutcome> },
    /// Remember a restart. `false`: another one is scheduled already.
    ScheduleRestart { restart: ScheduledRestart, reply: oneshot::Sender<bool> },
    /// Forget the scheduled restart. `false`: there was none.
    DeleteScheduledRestart { reply: oneshot::Sender<bool> },
    /// Read the configuration file again.
    Reload,
    /// Make the data directory anew. The answer comes when it is decided, not when it is done.
    Reinitialize { force: bool, from_leader: bool, reply: oneshot::Sender<Result<(), ReinitializeRefused>> },
    /// Run a round now, and say when what it saw is published: somebody wants to know how things are, not how they
    /// were.
    Observe { reply: oneshot::Sender<()> },
    /// Something in the store was changed: run a round now.
    Wake,
}

/// Which server a restart is meant for, and how long it may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartFilter {
    pub role: Option<Role>,
    /// Only a server older than this version, given as it was asked for (`15.2`, `9.6.24`).
    pub postgres_version: Option<PostgresVersion>,
    /// Only when a restart is pending.
    pub restart_pending: bool,
    /// Also where standbys would have less of some settings than their primary then. An extension of the interface.
    pub unordered: bool,
    pub timeout: Option<Duration>,
}

/// A version of PostgreSQL as a person writes it, and as `server_version_num` counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresVersion {
    pub text: String,
    pub number: u32,
}

/// The texts are the interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    #[error("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {0}")]
    Format(String),
    #[error("Invalid PostgreSQL version: {0}")]
    Number(String),
}

impl FromStr for PostgresVersion {
    type Err = VersionError;

    /// `15.2` is 150002, `9.6.24` is 90624.
    fn from_str(text: &str) -> Result<PostgresVersion, VersionError> {
        let parts: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        let parts = parts.map_err(|_| VersionError::Number(text.to_owned()))?;
        let number = match parts[..] {
            [major, minor] if (10..100).contains(&major) && minor < 100 => major * 10_000 + minor,
            [major, middle, minor] if major < 100 && middle < 100 && minor < 100 => {
                major * 10_000 + middle * 100 + minor
            }
            _ => return Err(VersionError::Format(text.to_owned())),
        };
        Ok(PostgresVersion { text: text.to_owned(), number })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledRestart {
    pub at: Wall,
    pub filter: RestartFilter,
}

impl ScheduledRestart {
    /// As in the member key and the status, without `postmaster_start_time`.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("schedule".into(), json!(super::schedule::iso(self.at)));
        if let Some(role) = self.filter.role {
            map.insert("role".into(), json!(role.as_str()));
        }
        if let Some(version) = &self.filter.postgres_version {
            map.insert("postgres_version".into(), json!(version.text));
        }
        if let Some(timeout) = self.filter.timeout {
            map.insert("timeout".into(), json!(timeout.as_secs()));
        }
        if self.filter.restart_pending {
            map.insert("restart_pending".into(), json!(true));
        }
        map
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestartOutcome {
    Done,
    /// Started, but not ready within the time.
    StillStarting,
    Failed,
    /// The decision said no, and why.
    Refused(String),
    /// Not the role, not an older version, or no restart pending.
    ConditionsNotMet,
    /// The action that is in progress.
    Busy(String),
}

/// The texts are the interface.
impl fmt::Display for RestartOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestartOutcome::Done => f.write_str("restarted successfully"),
            RestartOutcome::StillStarting => f.write_str("postgres is still starting"),
            RestartOutcome::Failed => f.write_str("restart failed"),
            RestartOutcome::Refused(why) => write!(f, "restart failed: {why}"),
            RestartOutcome::ConditionsNotMet => f.write_str("restart conditions are not satisfied"),
            RestartOutcome::Busy(action) => write!(f, "{action} already in progress"),
        }
    }
}

/// Why a data directory is not made anew; the texts are the interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReinitializeRefused {
    #[error("Cluster has no leader, can not reinitialize")]
    NoLeader,
    #[error("I am the leader, can not reinitialize")]
    IAmLeader,
    #[error("{0} already in progress")]
    Busy(String),
}
