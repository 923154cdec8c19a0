//! Faults of single processes: agents, guards, servers, entrypoints.

use std::time::Duration;

use super::{Fault, FaultEvent};
use crate::entrypoint::ENTRYPOINTS;
use crate::node::{Ambush, Process};
use crate::scenario::Kind;
use crate::world::World;

/// What a sleeper was late by under sixteenfold load (`postgres-facts` 21).
const OVERLOAD: Duration = Duration::from_millis(121);

impl World {
    /// Not a machine, and nothing between them.
    pub(super) fn hit_processes(&mut self, fault: Fault, node: usize) {
        match fault {
            Fault::KillAgent => {
                self.kill_agent(node);
                // The file was not written yet, or its disk is new.
                if self.rng.chance(300) {
                    self.nodes[node].lose_session_file();
                }
                self.later(100, 14_000, FaultEvent::StartAgent(node));
            }
            Fault::HangAgent => {
                self.hang_agent(node);
                let longest = if self.scenario.kind == Kind::Gentle { 2000 } else { 16_000 };
                self.later(500, longest, FaultEvent::ResumeAgent(node));
            }
            Fault::Ambush => {
                let hang = self.rng.millis(500, 16_000);
                let ambush = if self.rng.chance(300) { Ambush::Kill } else { Ambush::Hang(hang) };
                self.nodes[node].ambush = Some(ambush);
            }
            Fault::UpgradeAgent => {
                self.kill_agent(node);
                self.later(50, 800, FaultEvent::StartAgent(node));
            }
            Fault::Overload => {
                self.overload = OVERLOAD;
                self.later(1000, 10_000, FaultEvent::NormalLoad);
            }
            Fault::KillPostmaster => self.kill_postmaster(node),
            Fault::KillGuard => self.kill_guard(node),
            Fault::KillGuardAndAgent => {
                self.kill_agent(node);
                self.kill_guard(node);
                self.later(100, 14_000, FaultEvent::StartAgent(node));
            }
            Fault::SilentServer => {
                // Rarely longer than any patience with it.
                let longest = if self.rng.chance(200) { 25_000 } else { 6000 };
                let until = self.now + self.rng.millis(500, longest);
                if let Some(server) = &mut self.nodes[node].postgres.server {
                    server.silent_until = until;
                }
            }
            Fault::FreezeStandby => {
                // Rarely until it lags by more than any lease.
                let longest = if self.rng.chance(200) { 45_000 } else { 9000 };
                let until = self.now + self.rng.millis(200, longest);
                let all = self.rng.chance(300);
                let nodes = self.nodes.iter_mut().enumerate().filter(|(index, _)| all || *index == node);
                for server in nodes.filter_map(|(_, at)| at.postgres.server.as_mut()) {
                    server.frozen_until = until;
                }
            }
            Fault::HungArchive => {
                let until = self.now + self.rng.millis(5000, 100_000);
                if let Some(server) = &mut self.nodes[node].postgres.server {
                    server.archive_hangs_until = until;
                }
            }
            Fault::FreezeEntrypoint => {
                let entry = self.rng.index(ENTRYPOINTS);
                self.freeze_entrypoint(entry);
                self.later(200, 16_000, FaultEvent::WakeEntrypoint(entry));
            }
            _ => {}
        }
    }

    fn kill_postmaster(&mut self, node: usize) {
        let guarded = |server: &crate::postgres::Server| server.guard.as_ref().is_some_and(|guard| guard.alive);
        let at = &self.nodes[node];
        if at.postgres.server.as_ref().is_some_and(guarded) || at.process == Process::Running {
            self.postmaster_dies(node);
        }
    }

    fn kill_guard(&mut self, node: usize) {
        let server = self.nodes[node].postgres.server.as_ref();
        let own =
            server.is_some_and(|s| s.postmaster && s.guard.as_ref().is_some_and(|guard| guard.alive && !guard.adopted));
        if own {
            self.guard_dies(node);
        }
    }
}
