//! Starting, promoting, stopping, being killed.

use std::time::Duration;

use pgherd_ha::{Boot, ControlState, StopMode, Timeline};

use super::{Client, Commits, Phase, PostgresEvent, Receiver, Server};
use crate::guard::Guard;
use crate::world::{Event, World};

/// How a server is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Out of recovery, with a guard of this deadline.
    Primary {
        deadline: Boot,
    },
    Standby {
        upstream: Option<usize>,
        guarded: bool,
    },
}

/// A walsender whose standby takes nothing is given up after this time (`wal_sender_timeout`).
const WALSENDER: Duration = Duration::from_secs(5);

/// What a promotion may sleep when it meets a receiver that is about to start (`postgres-facts` 1).
const TRAP: Duration = Duration::from_secs(5);

impl World {
    pub fn postgres_event(&mut self, node: usize, postmaster: u64, event: PostgresEvent) {
        if self.nodes[node].postgres.server.as_ref().is_none_or(|server| server.id != postmaster) {
            return;
        }
        if self.must_wait(node, event) {
            return self.postgres_waits(node, postmaster, event);
        }
        match event {
            PostgresEvent::Started => self.server_started(node),
            PostgresEvent::Recovered => self.recovered(node),
            PostgresEvent::Promoted => self.promoted(node),
            PostgresEvent::ShutdownCheckpoint => self.shutdown_checkpoint(node),
            PostgresEvent::Stopping { until } => self.stopping(node, until),
            PostgresEvent::Killed => self.processes_gone(node, false),
            PostgresEvent::Stream => self.stream(node),
            PostgresEvent::Deadline => self.guard_deadline(node, postmaster),
            PostgresEvent::Reloaded => self.reloaded(node),
            PostgresEvent::Flushed { standby, of, flushed } => self.flushed(node, standby, of, flushed),
            PostgresEvent::Checkpointed => {
                if let Some(server) = self.running_server(node) {
                    server.checkpointed = true;
                }
            }
        }
    }

    fn running_server(&mut self, node: usize) -> Option<&mut Server> {
        self.nodes[node].postgres.server.as_mut().filter(|server| server.phase == Phase::Up && server.postmaster)
    }

    /// Starts a postmaster. `None`: there is no directory to start, or processes are left in it.
    pub fn start_server(&mut self, node: usize, start: Start) -> Option<u64> {
        let id = self.number();
        let (full, configured) = (self.nodes[node].disk.full, self.limit);
        let postgres = &mut self.nodes[node].postgres;
        let directory = postgres.data.directory_mut()?;
        if postgres.server.is_some() || full {
            return None;
        }
        let crashed = !matches!(directory.state, ControlState::ShutDown | ControlState::ShutDownInRecovery);
        let (standby, guard) = match start {
            Start::Primary { deadline } => (false, Some(Guard::new(deadline, false))),
            Start::Standby { guarded, .. } => (true, guarded.then(|| Guard::new(Boot::NEVER, false))),
        };
        let before = directory.state;
        let replayed_before = matches!(before, ControlState::InArchiveRecovery | ControlState::ShutDownInRecovery);
        let left = standby && replayed_before && directory.histories.leave_before(directory.timeline, directory.end());
        directory.standby_signal = standby;
        let limit = if standby { configured.max(directory.limit) } else { configured };
        if !standby {
            directory.limit = limit;
        }
        directory.upstream = match start {
            Start::Primary { .. } => None,
            Start::Standby { upstream, .. } => upstream,
        };
        directory.state = match (left, standby) {
            (true, _) => before,
            (false, true) => ControlState::InArchiveRecovery,
            (false, false) => ControlState::InCrashRecovery,
        };
        // A restart replays from the checkpoint on.
        let replayed = if crashed { directory.log.len().saturating_sub(40) } else { directory.log.len() };
        postgres.server = Some(Server {
            id,
            postmaster: true,
            phase: Phase::Starting,
            in_recovery: true,
            refuses: left,
            replayed,
            receiver: Receiver::Off,
            received: false,
            silent_until: Duration::ZERO,
            frozen_until: Duration::ZERO,
            archive_hangs_until: Duration::ZERO,
            guard,
            promoting: false,
            checkpointed: true,
            limit,
            commits: Commits::new(directory.names.clone()),
        });
        if let Start::Primary { deadline } = start {
            self.watch_deadline(node, id, deadline);
        }
        // A crashed primary recovers and writes a whole checkpoint first (`postgres-facts` 3).
        let takes = if crashed && !standby { self.rng.millis(200, 2600) } else { self.rng.millis(50, 300) };
        self.note(node, "pg", || format!("starts as {}", if standby { "a standby" } else { "a primary" }));
        self.after(takes, Event::Postgres { node, postmaster: id, event: PostgresEvent::Started });
        Some(id)
    }

    fn server_started(&mut self, node: usize) {
        let number = self.number();
        let postgres = &mut self.nodes[node].postgres;
        let (Some(server), Some(directory)) = (&mut postgres.server, postgres.data.directory_mut()) else { return };
        if server.phase != Phase::Starting || !server.postmaster {
            return;
        }
        if server.refuses {
            self.note(node, "pg", || "refuses to start: the newest timeline leaves its own before what it has".into());
            return self.processes_gone(node, false);
        }
        if directory.standby_signal && !directory.histories.let_start(directory.timeline) {
            return self.note(node, "pg", || "waits for its own checkpoint in the history of a placeholder".into());
        }
        server.phase = Phase::Up;
        let postmaster = server.id;
        if directory.standby_signal {
            self.after(Duration::from_millis(10), Event::Postgres { node, postmaster, event: PostgresEvent::Stream });
        } else if directory.restores {
            let takes = self.rng.millis(50, 4000);
            self.after(takes, Event::Postgres { node, postmaster, event: PostgresEvent::Recovered });
        } else {
            server.in_recovery = false;
            server.replayed = directory.log.len();
            directory.checkpoint = directory.end();
            directory.append(number, 100);
            directory.state = ControlState::InProduction;
            self.note(node, "pg", || "is up and out of recovery".into());
        }
    }

    /// A restore ends as a primary, or as PostgreSQL does when its target is not in the archive.
    fn recovered(&mut self, node: usize) {
        let failures = self.scenario.hooks.failures;
        if failures > 0 && self.rng.chance(failures) {
            self.note(node, "pg", || "ends its recovery before its target".into());
            return self.processes_gone(node, false);
        }
        let number = self.number();
        let postgres = &mut self.nodes[node].postgres;
        let (Some(server), Some(directory)) = (&mut postgres.server, postgres.data.directory_mut()) else { return };
        if server.phase != Phase::Up || !server.postmaster || !std::mem::take(&mut directory.restores) {
            return;
        }
        server.in_recovery = false;
        server.replayed = directory.log.len();
        directory.append(number, 100);
        directory.state = ControlState::InProduction;
        self.note(node, "pg", || "has recovered and is out of recovery".into());
    }

    /// `pg_promote()`: from here on the server does it by itself. `false`: there is nothing to promote.
    pub fn promote_server(&mut self, node: usize) -> bool {
        let upstream = self.nodes[node].postgres.data.directory().is_some_and(|directory| directory.upstream.is_some());
        let Some(server) = self.running_server(node) else { return false };
        if !server.in_recovery {
            return false;
        }
        let (postmaster, again) = (server.id, std::mem::replace(&mut server.promoting, true));
        if !again {
            let trap = if upstream && self.rng.chance(500) { TRAP } else { Duration::ZERO };
            let takes = self.rng.millis(20, 160) + trap;
            crate::checkers::promoted(self, node);
            self.after(takes, Event::Postgres { node, postmaster, event: PostgresEvent::Promoted });
        }
        true
    }

    fn promoted(&mut self, node: usize) {
        if self.nodes[node].disk.full {
            return self.panics(node);
        }
        let number = self.number();
        let postgres = &mut self.nodes[node].postgres;
        // "Promotion is not possible because of insufficient parameter settings."
        if postgres.starved() {
            return;
        }
        let (Some(server), Some(directory)) = (&mut postgres.server, postgres.data.directory_mut()) else { return };
        if server.phase != Phase::Up || !server.postmaster {
            return;
        }
        server.in_recovery = false;
        directory.limit = server.limit;
        server.promoting = false;
        server.checkpointed = false;
        server.receiver = Receiver::Off;
        server.replayed = directory.log.len();
        let switch = directory.end();
        directory.timeline = Timeline(directory.histories.newest_after(directory.timeline).0 + 1);
        directory.histories.begin(directory.timeline, switch);
        directory.append(number, 100);
        directory.state = ControlState::InProduction;
        directory.standby_signal = false;
        directory.upstream = None;
        let timeline = directory.timeline;
        self.checks.beginnings.note(node, timeline, switch);
        let lost = self.account_for_losses(node);
        self.note(node, "pg", || {
            format!("is promoted, timeline {timeline}; {lost} acknowledged rows are not in its log")
        });
    }

    /// Sends the postmaster the signal of this mode.
    pub fn stop_server(&mut self, node: usize, mode: StopMode) {
        let Some(server) = self.nodes[node].postgres.server.as_mut() else { return };
        if !server.postmaster || matches!(server.phase, Phase::Dying | Phase::DiskWait | Phase::Stopping) {
            if mode == StopMode::Immediate {
                self.kill_processes(node);
            }
            return;
        }
        match mode {
            StopMode::Immediate => self.kill_processes(node),
            // It is still recovering: there is nobody to wait for.
            StopMode::Planned | StopMode::Demotion | StopMode::Fast if server.phase == Phase::Starting => {
                self.kill_processes(node)
            }
            StopMode::Planned | StopMode::Demotion | StopMode::Fast => {
                let postmaster = server.id;
                self.note(node, "pg", || "stops".into());
                if matches!(mode, StopMode::Planned | StopMode::Demotion) {
                    self.cut_silent_walsenders(node);
                }
                let takes = self.rng.millis(10, 150);
                let event = PostgresEvent::ShutdownCheckpoint;
                self.after(takes, Event::Postgres { node, postmaster, event });
            }
        }
    }

    /// A planned stop does not wait for standbys that do not answer (`postgres-facts` 13).
    fn cut_silent_walsenders(&mut self, node: usize) {
        let now = self.now;
        for server in self.nodes.iter_mut().filter_map(|other| other.postgres.server.as_mut()) {
            if server.receiver == (Receiver::Streaming { from: node }) && server.frozen_until > now {
                server.receiver = Receiver::Off;
            }
        }
    }

    fn shutdown_checkpoint(&mut self, node: usize) {
        let number = self.number();
        let (now, full) = (self.now, self.nodes[node].disk.full);
        let postgres = &mut self.nodes[node].postgres;
        let (Some(server), Some(directory)) = (&mut postgres.server, postgres.data.directory_mut()) else { return };
        if server.phase != Phase::Up || !server.postmaster {
            return;
        }
        if full && !server.in_recovery {
            return self.panics(node);
        }
        server.phase = Phase::Stopping;
        if !server.in_recovery {
            directory.state = ControlState::ShuttingDown;
            directory.checkpoint = directory.end();
            directory.append(number, 120);
        }
        self.stopping(node, now + WALSENDER);
    }

    /// Standbys that stream are sent everything before the server ends.
    fn stopping(&mut self, node: usize, until: Duration) {
        let postgres = &self.nodes[node].postgres;
        let (Some(server), Some(directory)) = (&postgres.server, postgres.data.directory()) else { return };
        if server.phase != Phase::Stopping {
            return;
        }
        let (postmaster, length) = (server.id, directory.log.len());
        let archive_hangs = self.now < server.archive_hangs_until;
        let owed = self.nodes.iter().any(|other| {
            let streams =
                other.postgres.server.as_ref().is_some_and(|s| s.receiver == Receiver::Streaming { from: node });
            streams && other.postgres.data.directory().is_some_and(|theirs| theirs.log.len() < length)
        });
        if archive_hangs || owed && self.now < until {
            let event = PostgresEvent::Stopping { until };
            self.after(Duration::from_millis(10), Event::Postgres { node, postmaster, event });
        } else {
            self.processes_gone(node, true);
        }
    }

    /// No process is left.
    pub fn processes_gone(&mut self, node: usize, in_order: bool) {
        let postgres = &mut self.nodes[node].postgres;
        let Some(server) = postgres.server.take() else { return };
        let sessions_end = server.commits.waiting.clone();
        if let Some(directory) = postgres.data.directory_mut()
            && in_order
        {
            directory.state =
                if server.in_recovery { ControlState::ShutDownInRecovery } else { ControlState::ShutDown };
        }
        for row in sessions_end {
            if let Client::Entry { entry, write } = row.client {
                self.answer_entry(node, entry, write, None);
            }
        }
        self.note(node, "pg", || format!("is {}", if in_order { "stopped" } else { "gone without a shutdown" }));
        self.tell_agent_of_exit(node);
    }
}
