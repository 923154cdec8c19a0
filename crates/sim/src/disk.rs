//! The disk under a data directory: it may be full, it may not answer, and it may say that it has written what it has not.
//!
//! While it does not answer, whatever writes waits: commits, starts, promotions, checkpoints, copies. Queries that read still answer
//! (`postgres-facts` 20). Its processes survive even SIGKILL as long, without ever coming back to a client (`postgres-facts` 4). A disk that lies
//! loses the newest records when its machine loses power.

use std::time::Duration;

use pgherd_ha::ControlState;

use crate::postgres::{Phase, PostgresEvent};
use crate::world::{Event, World};

/// Records in the cache of a disk that lies: a second of writes.
const CACHED: u64 = 40;

#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// It does not answer.
    pub stuck_since: Option<Duration>,
    pub full: bool,
    /// It acknowledges a flush before it has written.
    pub lies: bool,
}

impl World {
    /// Whether the event of a server must wait: it would write to a disk that does not answer, or its machine is suspended.
    pub fn must_wait(&mut self, node: usize, event: PostgresEvent) -> bool {
        let at = &self.nodes[node];
        if at.suspended {
            return true;
        }
        match event {
            PostgresEvent::Deadline => false,
            PostgresEvent::Killed => {
                if at.disk.stuck_since.is_some()
                    && let Some(server) = &mut self.nodes[node].postgres.server
                {
                    server.phase = Phase::DiskWait;
                    server.postmaster = false;
                }
                self.nodes[node].disk.stuck_since.is_some()
            }
            _ => at.disk.stuck_since.is_some(),
        }
    }

    pub fn disk_sticks(&mut self, node: usize) {
        let now = self.now;
        self.nodes[node].disk.stuck_since = Some(now);
        self.note(node, "disk", || "does not answer".into());
    }

    /// PostgreSQL cannot write its log: it ends as in a crash (it reports a PANIC). One that can write its log and not its tables serves on.
    pub fn disk_is_full(&mut self, node: usize, log_too: bool) {
        self.nodes[node].disk.full = true;
        self.note(node, "disk", || if log_too { "is full, and so is the log's" } else { "is full" }.into());
        if log_too && self.nodes[node].postgres.can_commit() {
            self.panics(node);
        }
    }

    /// `restart_after_crash` is off: the postmaster kills its backends and ends.
    pub fn panics(&mut self, node: usize) {
        let Some(server) = self.nodes[node].postgres.server.as_ref() else { return };
        if server.postmaster && server.phase == Phase::Up {
            self.note(node, "pg", || "PANIC: it cannot write its log".into());
            self.processes_gone(node, false);
        }
    }

    pub fn disk_is_well(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        if disk.stuck_since.is_some() || disk.full {
            disk.stuck_since = None;
            disk.full = false;
            self.note(node, "disk", || "is well".into());
            self.machine_goes_on(node);
        }
    }

    /// The machine has lost power: what a lying disk had not written is gone.
    pub fn power_lost(&mut self, node: usize) {
        if !self.nodes[node].disk.lies {
            return;
        }
        let lost = self.rng.below(CACHED);
        let Some(directory) = self.nodes[node].postgres.data.directory_mut() else { return };
        let lost = directory.lose(usize::try_from(lost).expect("some tens"));
        if directory.state == ControlState::ShutDown {
            directory.state = ControlState::InProduction;
        }
        self.checks.a_disk_lied |= lost > 0;
        self.note(node, "disk", || format!("lied: {lost} records are lost"));
    }

    pub fn postgres_waits(&mut self, node: usize, postmaster: u64, event: PostgresEvent) {
        self.wait_for_machine(node, Event::Postgres { node, postmaster, event });
    }

    /// The writer could write a row now, as far as machine and disk go.
    pub fn takes_writes(&self, node: usize) -> bool {
        let at = &self.nodes[node];
        let silent = at.postgres.server.as_ref().is_some_and(|server| server.silent_until > self.now);
        !at.suspended && at.disk.stuck_since.is_none() && !at.disk.full && !silent
    }
}
