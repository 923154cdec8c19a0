//! A model of one node's PostgreSQL: a directory and, at most, the processes of one server in it.
//!
//! What it is true to: killing the postmaster leaves busy backends that go on committing; a fast stop waits for its walsenders; a crash is
//! followed by a recovery that takes time; a restarted standby under-reports its position until it has replayed; a promotion with an upstream
//! still set may sleep five seconds; timelines chosen apart may have the same number. Not modelled: synchronous replication, slots,
//! archives, disks that lie.

mod directory;
mod lifecycle;
mod replication;

use std::time::Duration;

use pgherd_ha::{Running, Timeline};

pub use directory::{Data, Directory};
pub use lifecycle::Start;

use crate::guard::Guard;

#[derive(Debug)]
pub struct Postgres {
    pub data: Data,
    pub server: Option<Server>,
}

/// The processes of a server.
#[derive(Debug)]
pub struct Server {
    /// The postmaster's process, never used twice.
    pub id: u64,
    /// `false`: only its backends are left.
    pub postmaster: bool,
    pub phase: Phase,
    pub in_recovery: bool,
    /// Records that are replayed.
    pub replayed: usize,
    pub receiver: Receiver,
    /// The receiver has run since this server's start, so its position is known.
    pub received: bool,
    /// Does not answer queries until then.
    pub silent_until: Duration,
    /// A standby that does not take what is sent to it until then.
    pub frozen_until: Duration,
    pub guard: Option<Guard>,
    pub promoting: bool,
    pub checkpointed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Recovers and lets nobody in.
    Starting,
    Up,
    /// Sessions are ended; the shutdown checkpoint is written and sent.
    Stopping,
    /// Its processes are being killed, one after the other.
    Dying,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    Off,
    Streaming { from: usize },
}

/// What happens to a server without anybody asking any more.
#[derive(Clone, Copy, Debug)]
pub enum PostgresEvent {
    Started,
    Promoted,
    /// The sessions are ended and the shutdown checkpoint is written.
    ShutdownCheckpoint,
    /// Another look at whether the walsenders are done, until then.
    Stopping {
        until: Duration,
    },
    Killed,
    Stream,
    /// The guard's timer.
    Deadline,
    Checkpointed,
}

impl Server {
    /// A process of it could acknowledge a client's write. Those that are being killed count until the last is gone.
    pub fn can_commit(&self) -> bool {
        !self.in_recovery && matches!(self.phase, Phase::Up | Phase::Dying)
    }

    pub fn answers(&self, now: Duration) -> bool {
        self.postmaster && self.phase == Phase::Up && self.silent_until <= now
    }
}

impl Postgres {
    pub fn empty() -> Postgres {
        Postgres { data: Data::Empty, server: None }
    }

    pub fn can_commit(&self) -> bool {
        self.server.as_ref().is_some_and(Server::can_commit)
    }

    /// What the server says of itself.
    pub fn running(&self) -> Option<Running> {
        let (server, directory) = (self.server.as_ref()?, self.data.directory()?);
        let records = if !server.in_recovery || server.received { directory.log.len() } else { server.replayed };
        Some(Running {
            in_recovery: server.in_recovery,
            timeline: self.timeline(),
            position: directory.position(records),
            streaming: server.receiver != Receiver::Off,
            settled: server.in_recovery
                && server.receiver == Receiver::Off
                && directory.upstream.is_none()
                && server.replayed == directory.log.len(),
            checkpointed: server.in_recovery || server.checkpointed,
        })
    }

    pub fn timeline(&self) -> Timeline {
        self.data.directory().map_or(Timeline(0), |directory| directory.timeline)
    }
}
