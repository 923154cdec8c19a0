//! Faults between the processes: the network, and the store's ensemble.

use super::{Fault, FaultEvent};
use crate::entrypoint::ENTRYPOINTS;
use crate::network::Place;
use crate::scenario::Kind;
use crate::world::{NODES, World};

impl World {
    /// Without a leader the servers turn their clients away; the new one has everything that was committed.
    fn elect_store_leader(&mut self) {
        let whole = self.store.servers.iter().all(|server| server.linked && server.up);
        if whole {
            self.stop_ensemble();
            self.store.leader = (self.store.leader + 1) % self.store.servers.len();
            self.later(100, 2500, FaultEvent::StartEnsemble);
        }
    }

    pub(super) fn inject_between(&mut self, fault: Fault, node: usize) {
        let here = Place::Node(node);
        let stores: Vec<Place> = (0..self.store.servers.len()).map(Place::Store).collect();
        let peers: Vec<Place> = (0..NODES).filter(|peer| *peer != node).map(Place::Node).collect();
        let entries: Vec<Place> = (0..ENTRYPOINTS).map(Place::Entry).collect();
        match fault {
            Fault::PartitionNode => self.part(here, &[stores, peers, entries].concat(), true),
            Fault::PartitionFromStore => {
                let some: Vec<Place> = stores.into_iter().filter(|_| self.rng.chance(800)).collect();
                self.part(here, &some, true);
            }
            Fault::OneWay => self.part(here, &[stores, peers, entries].concat(), false),
            Fault::PartitionEntrypoint => {
                let both = self.rng.chance(600);
                let entry = self.rng.pick(&entries);
                self.part(here, &[entry], both);
            }
            Fault::PartitionPeers => self.part(here, &peers, true),
            Fault::SlowNetwork => {
                self.network.slow = self.rng.millis(5, 400);
                self.later(1000, 10_000, FaultEvent::NormalSpeed);
            }
            Fault::CutFollower => {
                let server = self.rng.index(self.store.servers.len());
                let whole = self.store.servers.iter().all(|server| server.linked && server.up);
                if whole {
                    self.unlink_server(server);
                    self.later(500, 20_000, FaultEvent::Link(server));
                }
            }
            Fault::StopEnsemble => {
                let whole = self.store.servers.iter().all(|server| server.linked && server.up);
                if whole {
                    self.stop_ensemble();
                    let longest =
                        if self.scenario.kind == Kind::Gentle || self.rng.chance(700) { 3000 } else { 15_000 };
                    self.later(200, longest, FaultEvent::StartEnsemble);
                }
            }
            Fault::LongOutage => {
                let whole = self.store.servers.iter().all(|server| server.linked && server.up);
                if whole {
                    self.stop_ensemble();
                    self.later(5_000, 40_000, FaultEvent::StartEnsemble);
                }
            }
            Fault::CutLeaderFromStore => {
                let leader = self.store.tree.leader().unwrap_or(node);
                self.part_for(Place::Node(leader), &stores, true, 40_000);
            }
            Fault::ElectStoreLeader => self.elect_store_leader(),
            Fault::LosePolls => {
                self.network.lost_polls = self.rng.pick(&[100, 500, 900]);
                self.later(1000, 10_000, FaultEvent::PollsArrive);
            }
            Fault::Duplicates => {
                self.network.duplicates = true;
                self.later(1000, 10_000, FaultEvent::DuplicatesEnd);
            }
            Fault::LoseAnswers => {
                self.store.lost_answers = self.rng.pick(&[20, 100, 400]);
                self.later(500, 8000, FaultEvent::AnswersArrive);
            }
            Fault::LateWatches => {
                self.store.late_watch = self.rng.millis(200, 6000);
                self.later(5000, 20_000, FaultEvent::AnswersArrive);
            }
            _ => {}
        }
    }

    fn part(&mut self, here: Place, others: &[Place], both: bool) {
        let longest = if self.scenario.kind == Kind::Gentle { 1000 } else { 15_000 };
        self.part_for(here, others, both, longest);
    }

    fn part_for(&mut self, here: Place, others: &[Place], both: bool, longest_ms: u64) {
        let mut pairs = Vec::new();
        // One way: either what it says or what it hears is lost.
        let outward = self.rng.chance(500);
        for there in others {
            if both || outward {
                pairs.push((here, *there));
            }
            if both || !outward {
                pairs.push((*there, here));
            }
        }
        pairs.iter().for_each(|(from, to)| self.network.block(*from, *to));
        self.later(200, longest_ms, FaultEvent::Unblock(pairs));
    }
}
