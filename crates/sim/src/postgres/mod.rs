//! A model of one node's PostgreSQL: a directory and, at most, the processes of one server in it.
//!
//! What it is true to: killing the postmaster leaves busy backends that go on committing; a fast stop waits for its walsenders; a crash is
//! followed by a recovery that takes time; a restarted standby under-reports its position until it has replayed; a promotion with an upstream
//! still set may sleep five seconds; a promotion begins the first timeline that its server has no history of, so promotions apart may begin
//! the same; a commit waits for the standbys that are named, and shows after a restart although nobody was told. Its disk is in `crate::disk`.
//! Not modelled: archives; of slots see `slots`.

mod commits;
mod directory;
mod histories;
mod lifecycle;
mod replication;
mod slots;

use std::time::Duration;

use pgherd_ha::{Lsn, Running, Timeline};

pub use commits::{Client, Commits, Waiting};
pub use directory::{Data, Directory};
pub use histories::Histories;
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
    /// It ends as soon as it has read its control file.
    pub refuses: bool,
    /// Records that are replayed.
    pub replayed: usize,
    pub receiver: Receiver,
    /// The receiver has run since this server's start, so its position is known.
    pub received: bool,
    /// Does not answer queries until then.
    pub silent_until: Duration,
    /// A standby that does not take what is sent to it until then.
    pub frozen_until: Duration,
    /// It cannot stop in order until then: its `archive_command` does not come back.
    pub archive_hangs_until: Duration,
    pub guard: Option<Guard>,
    pub promoting: bool,
    pub checkpointed: bool,
    /// `max_connections`, of which a standby needs as much as its primary.
    pub limit: u64,
    pub commits: Commits,
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
    /// They are killed, and go when the disk that they wait for answers; none of them comes back to a client.
    DiskWait,
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
    /// A restore has reached where it was to go.
    Recovered,
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
    /// The names of the synchronous standbys are in force.
    Reloaded,
    /// A standby has flushed.
    Flushed {
        standby: usize,
        /// Its postmaster.
        of: u64,
        flushed: Lsn,
    },
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

    /// A new session can be had without an entrypoint.
    pub fn lets_clients_in(&self) -> bool {
        let up = self.server.as_ref().is_some_and(|server| server.postmaster && server.phase == Phase::Up);
        up && self.data.directory().is_some_and(|directory| directory.admits_clients)
    }

    /// What the server says of itself.
    pub fn running(&self) -> Option<Running> {
        let (server, directory) = (self.server.as_ref()?, self.data.directory()?);
        let records = if !server.in_recovery || server.received { directory.log.len() } else { server.replayed };
        Some(Running {
            in_recovery: server.in_recovery,
            restores: server.in_recovery && directory.restores,
            timeline: self.timeline(),
            newest_history: directory.histories.newest_after(directory.timeline),
            position: directory.position(records),
            streaming: server.receiver != Receiver::Off,
            starved: self.starved(),
            settled: server.in_recovery
                && !self.starved()
                && server.receiver == Receiver::Off
                && directory.upstream.is_none()
                && server.replayed == directory.log.len(),
            checkpointed: server.in_recovery || server.checkpointed,
            synchronous_standby_names: server.commits.names.text(),
            checkpointer_listens: true,
            standbys: Vec::new(),
            replayed: directory.position(if server.in_recovery { server.replayed } else { records }),
            slots: Vec::new(),
        })
    }

    /// Replay has paused: the log needs more than this standby was started with.
    pub fn starved(&self) -> bool {
        let server = self.server.as_ref().filter(|server| server.in_recovery);
        server.zip(self.data.directory()).is_some_and(|(server, directory)| server.limit < directory.limit)
    }

    pub fn timeline(&self) -> Timeline {
        self.data.directory().map_or(Timeline(0), |directory| directory.timeline)
    }
}
