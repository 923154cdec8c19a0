//! Asking other members where they are. Their agents answer, about how things are at that moment.

use std::time::Duration;

use pgherd_ha::{Lsn, Peer, PeerAnswer, PeerPoll, Watchdog};

use super::{AgentEvent, Process};
use crate::mutants::Mutant;
use crate::network::Place;
use crate::world::{World, index};

impl World {
    /// One poll at a time; its answers come as news.
    pub fn poll_peers(&mut self, node: usize, names: &[String]) {
        let asked = self.boot(node);
        if std::mem::replace(&mut self.daemon(node).polling, true) {
            return;
        }
        let lost = self.network.lost_polls;
        let mut answer = |name: &String| self.ask_peer(node, name).filter(|_| !self.rng.chance(lost));
        let peers: Vec<Peer> = names.iter().map(|name| Peer { name: name.clone(), answer: answer(name) }).collect();
        let silent = names.iter().filter_map(|name| index(name)).any(|peer| self.says_nothing(node, peer));
        // An agent that is not there refuses at once; a dead host, a cut network and a stopped agent are waited for.
        let takes = if silent || lost > 0 { self.scenario.retry_timeout / 3 } else { self.rng.millis(1, 15) };
        self.agent_after(node, takes.max(Duration::from_millis(1)), AgentEvent::Peers(PeerPoll { asked, peers }));
    }

    fn says_nothing(&self, node: usize, peer: usize) -> bool {
        let at = &self.nodes[peer];
        let connects = self.network.connects(Place::Node(node), Place::Node(peer));
        at.host_down || at.process == Process::Stopped || !connects
    }

    fn ask_peer(&self, node: usize, name: &str) -> Option<PeerAnswer> {
        let peer = index(name)?;
        let at = &self.nodes[peer];
        if at.process != Process::Running || !self.network.connects(Place::Node(node), Place::Node(peer)) {
            return None;
        }
        at.postgres.server.as_ref().filter(|server| server.answers(self.now))?;
        let running = at.postgres.running()?;
        // Only who hands over is deceived, not who races.
        let deceived = self.mutant == Some(Mutant::HandOverToAnyone) && self.nodes[node].postgres.server.is_none();
        let position = if deceived { Lsn(u64::MAX) } else { running.position };
        Some(PeerAnswer {
            in_recovery: running.in_recovery,
            position,
            timeline: Some(running.timeline),
            nofailover: false,
            failover_priority: 1,
            watchdog_failed: self.watchdog(peer) == Watchdog::Failed,
            settled: running.settled,
        })
    }
}
