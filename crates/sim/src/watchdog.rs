//! A machine's watchdog, which some runs require: it resets its machine unless it hears in time that the lease was proven.
//!
//! Not modelled: that a lease ends before the reset (`crates/agent/src/daemon/lease.rs`, `before_reset`), so here more machines are reset.

use std::time::Duration;

use pgherd_ha::{Lease, Watchdog};

use crate::faults::FaultEvent;
use crate::world::{Event, World};

#[derive(Debug, Default)]
pub struct Device {
    /// It takes no order. What it was told before it goes through with.
    broken: bool,
    /// Armed: when it resets the machine.
    resets_at: Option<Duration>,
}

impl World {
    pub fn watchdog(&self, node: usize) -> Watchdog {
        let device = &self.nodes[node].watchdog;
        match device.resets_at {
            _ if !self.scenario.watchdog => Watchdog::Unused,
            _ if device.broken => Watchdog::Failed,
            Some(_) => Watchdog::Armed,
            None => Watchdog::Idle,
        }
    }

    pub fn arm_watchdog(&mut self, node: usize) -> Result<bool, String> {
        if self.nodes[node].watchdog.broken {
            return Err("the watchdog takes no order".into());
        }
        self.wind_up(node);
        Ok(false)
    }

    pub fn disarm_watchdog(&mut self, node: usize) {
        let device = &mut self.nodes[node].watchdog;
        if !device.broken {
            device.resets_at = None;
        }
    }

    /// Of a proof that is too old it does not hear.
    pub fn keep_alive(&mut self, node: usize, lease: &Lease) {
        let fresh = self.boot(node).since(lease.sent) <= self.reset_after();
        if fresh && self.watchdog(node) == Watchdog::Armed {
            self.wind_up(node);
        }
    }

    /// Together with the age of the newest proof that winds it up: no longer than the lease.
    fn reset_after(&self) -> Duration {
        self.scenario.ttl / 2
    }

    fn wind_up(&mut self, node: usize) {
        let after = self.reset_after();
        self.nodes[node].watchdog.resets_at = Some(self.now + after);
        self.after(after, Event::Fault(FaultEvent::WatchdogRunsOut(node)));
    }

    pub fn watchdog_runs_out(&mut self, node: usize) {
        if self.nodes[node].watchdog.resets_at.is_some_and(|at| at <= self.now) {
            self.note(node, "watchdog", || "resets the machine".into());
            self.nodes[node].watchdog.resets_at = None;
            self.kill_host(node);
        }
    }

    /// The machine was without power.
    pub fn watchdog_is_off(&mut self, node: usize) {
        self.nodes[node].watchdog.resets_at = None;
    }

    pub fn break_watchdog(&mut self, node: usize) {
        self.nodes[node].watchdog.broken = true;
    }

    pub fn repair_watchdog(&mut self, node: usize) {
        self.nodes[node].watchdog.broken = false;
    }
}
