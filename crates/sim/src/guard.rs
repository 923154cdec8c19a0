//! The guard of a postmaster: it reads a page with a deadline, and kills when the deadline is over, whatever becomes of the agent.
//!
//! Its promise is [`STOP_TIME`]: from the deadline until no process is left. Not modelled: a guard that the kernel does not run.

use pgherd_ha::{Boot, STOP_TIME};

use crate::mutants::Mutant;
use crate::postgres::{Phase, PostgresEvent};
use crate::world::{Event, World};

#[derive(Clone, Debug)]
pub struct Guard {
    /// [`Boot::ZERO`]: ended for good. [`Boot::NEVER`]: no end.
    pub deadline: Boot,
    /// It was given to a postmaster that it did not start: its own death stops nothing.
    pub adopted: bool,
    pub alive: bool,
}

impl Guard {
    pub fn new(deadline: Boot, adopted: bool) -> Guard {
        Guard { deadline, adopted, alive: true }
    }
}

impl World {
    /// Writes the page of this postmaster's guard. `false`: there is none, or its permit has ended for good.
    pub fn write_page(&mut self, node: usize, postmaster: u64, deadline: Boot) -> bool {
        let Some(server) = self.nodes[node].postgres.server.as_mut().filter(|server| server.id == postmaster) else {
            return false;
        };
        let Some(guard) = server.guard.as_mut().filter(|guard| guard.alive && guard.deadline != Boot::ZERO) else {
            return false;
        };
        if guard.deadline == deadline {
            return true;
        }
        guard.deadline = deadline;
        self.watch_deadline(node, postmaster, deadline);
        true
    }

    /// The guard's timer. It runs at real-time priority: late by milliseconds, with a heavily loaded machine by a hundred.
    pub fn watch_deadline(&mut self, node: usize, postmaster: u64, deadline: Boot) {
        if deadline == Boot::NEVER {
            return;
        }
        let wait = self.nodes[node].clock.takes(deadline.since(self.boot(node)));
        let late = if self.rng.chance(20) { self.rng.millis(10, 120) } else { self.rng.micros(50, 2000) };
        self.after(wait + late, Event::Postgres { node, postmaster, event: PostgresEvent::Deadline });
    }

    pub fn guard_deadline(&mut self, node: usize, postmaster: u64) {
        let boot = self.boot(node);
        let Some(server) = self.nodes[node].postgres.server.as_mut().filter(|server| server.id == postmaster) else {
            return;
        };
        let Some(guard) = server.guard.as_mut() else { return };
        if !guard.alive || guard.deadline > boot || matches!(server.phase, Phase::Dying | Phase::DiskWait) {
            return;
        }
        guard.deadline = Boot::ZERO;
        self.note(node, "guard", || "the permit is over: killing".into());
        if self.mutant == Some(Mutant::GuardKillsPostmasterOnly) {
            self.postmaster_dies(node);
        } else {
            self.kill_processes(node);
        }
    }

    /// Kills every process of the server; they go on until they are reached.
    pub fn kill_processes(&mut self, node: usize) {
        // Being late has taken some of the time that the guard promises already.
        let longest = u64::try_from(STOP_TIME.as_millis()).expect("half a second") - 150;
        let takes = if self.rng.chance(100) { self.rng.millis(100, longest) } else { self.rng.millis(20, 180) };
        let Some(server) = self.nodes[node].postgres.server.as_mut() else { return };
        if matches!(server.phase, Phase::Dying | Phase::DiskWait) {
            return;
        }
        server.phase = Phase::Dying;
        if let Some(guard) = &mut server.guard {
            guard.deadline = Boot::ZERO;
        }
        let postmaster = server.id;
        self.after(takes, Event::Postgres { node, postmaster, event: PostgresEvent::Killed });
    }

    /// Somebody killed the postmaster only. A living guard kills what is left; else its backends go on.
    pub fn postmaster_dies(&mut self, node: usize) {
        let mutant = self.mutant;
        let Some(server) = self.nodes[node].postgres.server.as_mut() else { return };
        if !server.postmaster {
            return;
        }
        server.postmaster = false;
        let guarded = server.guard.as_ref().is_some_and(|guard| guard.alive);
        // What is not busy ends with its postmaster.
        let backends = server.phase == Phase::Up && !server.in_recovery;
        self.note(node, "pg", || "the postmaster is killed".into());
        self.tell_agent_of_exit(node);
        if guarded && mutant != Some(Mutant::GuardKillsPostmasterOnly) {
            self.kill_processes(node);
        } else if !backends {
            self.processes_gone(node, false);
        }
    }

    /// The guard is killed: the kernel sends its postmaster SIGQUIT, unless it was adopted.
    pub fn guard_dies(&mut self, node: usize) {
        let Some(server) = self.nodes[node].postgres.server.as_mut() else { return };
        let Some(guard) = server.guard.as_mut().filter(|guard| guard.alive) else { return };
        guard.alive = false;
        let adopted = guard.adopted;
        self.note(node, "guard", || "killed".into());
        self.tell_agent_of_exit(node);
        if !adopted && self.mutant != Some(Mutant::GuardDeathIgnored) {
            self.kill_processes(node);
        }
    }
}
