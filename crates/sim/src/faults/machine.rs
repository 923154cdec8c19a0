//! Faults of a whole machine: it loses power, or is suspended while its clock goes on; its clock is set; its disk.

use std::time::Duration;

use pgherd_ha::STOP_TIME;

use super::{Fault, FaultEvent};
use crate::entrypoint::ENTRYPOINTS;
use crate::network::Place;
use crate::postgres::Data;
use crate::scenario::Kind;
use crate::world::{NODES, World};

impl World {
    /// The whole machine, its clocks or its disk.
    pub(super) fn hit_machine(&mut self, fault: Fault, node: usize) {
        match fault {
            Fault::KillHost => self.kill_host(node),
            Fault::SuspendMachine => {
                self.suspend_machine(node);
                self.later(200, 20_000, FaultEvent::WakeMachine(node));
            }
            Fault::SetWallClock => {
                let jump = i64::try_from(self.rng.below(7_200_000)).expect("two hours") - 3_600_000;
                self.nodes[node].clock.wall_offset_ms += jump;
            }
            Fault::StuckDisk => {
                self.disk_sticks(node);
                // Where it is the only fault, long enough that somebody must have taken over.
                let (shortest, longest) =
                    if self.scenario.kind == Kind::StuckDisks { (30_000, 50_000) } else { (200, 25_000) };
                self.later(shortest, longest, FaultEvent::DiskIsWell(node));
            }
            Fault::FullDisk => {
                let log_too = self.rng.chance(500);
                self.disk_is_full(node, log_too);
                self.later(500, 20_000, FaultEvent::DiskIsWell(node));
            }
            Fault::NewDisk => self.replace_disk(node),
            Fault::UnreadableDirectory => {
                self.nodes[node].directory_unreadable = true;
                self.later(500, 15_000, FaultEvent::DirectoryIsReadable(node));
            }
            Fault::BreakWatchdog => {
                self.break_watchdog(node);
                self.later(500, 20_000, FaultEvent::RepairWatchdog(node));
            }
            _ => {}
        }
    }

    pub fn kill_host(&mut self, node: usize) {
        self.kill_agent(node);
        self.wake_machine(node);
        self.watchdog_is_off(node);
        self.nodes[node].host_down = true;
        if self.nodes[node].postgres.server.is_some() {
            self.processes_gone(node, false);
        }
        self.power_lost(node);
        self.later(1000, 20_000, FaultEvent::HostUp(node));
    }

    /// In a cluster that is well and where another node has everything, or nobody might lead afterwards.
    pub(super) fn replace_disk(&mut self, node: usize) {
        self.checks.a_disk_is_new = true;
        let records =
            |node: usize| self.nodes[node].postgres.data.directory().map_or(0, |directory| directory.log.len());
        let another_has_all = (0..NODES).any(|other| other != node && records(other) >= records(node));
        if self.missing().is_none() && another_has_all {
            self.kill_host(node);
            self.nodes[node].postgres.data = Data::Empty;
            if self.rng.chance(500) {
                self.nodes[node].lose_session_file();
            }
            self.checks.a_disk_lied = true;
        }
    }

    /// Nothing runs, nothing is received. When it wakes up its backends run as soon as its guard does.
    pub(super) fn suspend_machine(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        if at.suspended || at.host_down {
            return;
        }
        at.suspended = true;
        at.unwatched_until = Duration::MAX;
        for (from, to) in self.every_way(node) {
            self.network.block(from, to);
        }
    }

    pub(super) fn wake_machine(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].suspended, false) {
            return;
        }
        self.note(node, "host", || "wakes up".into());
        self.nodes[node].unwatched_until = self.now + STOP_TIME;
        for (from, to) in self.every_way(node) {
            self.network.unblock(from, to);
        }
        self.machine_goes_on(node);
    }

    fn every_way(&self, node: usize) -> Vec<(Place, Place)> {
        let here = Place::Node(node);
        let peers = (0..NODES).filter(|peer| *peer != node).map(Place::Node);
        let stores = (0..self.store.servers.len()).map(Place::Store);
        let entries = (0..ENTRYPOINTS).map(Place::Entry);
        peers.chain(stores).chain(entries).flat_map(|there| [(here, there), (there, here)]).collect()
    }
}
