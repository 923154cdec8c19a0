//! Streaming: asynchronous, in pieces, and only for a log that is a beginning of the sender's.

use super::{Phase, PostgresEvent, Receiver};
use crate::network::Place;
use crate::world::{Event, World};

/// Records that a busy standby replays between two looks.
const REPLAY: usize = 200;

impl World {
    /// One round of a standby's receiver and its replay.
    pub fn stream(&mut self, node: usize) {
        let server = self.nodes[node].postgres.server.as_ref().expect("the caller has checked that it is there");
        if !server.in_recovery || server.phase != Phase::Up || !server.postmaster {
            return;
        }
        let postmaster = server.id;
        let frozen = server.frozen_until > self.now;
        if !frozen {
            let from = self.sender(node);
            self.receive(node, from);
        }
        let pause = if self.scenario.replication_lag_ms > 0 && self.rng.chance(300) {
            self.rng.millis(1, self.scenario.replication_lag_ms)
        } else {
            self.rng.millis(3, 30)
        };
        self.after(pause, Event::Postgres { node, postmaster, event: PostgresEvent::Stream });
    }

    /// The upstream, if it can be streamed from now.
    fn sender(&self, node: usize) -> Option<usize> {
        let directory = self.nodes[node].postgres.data.directory()?;
        let from = directory.upstream.filter(|from| *from != node)?;
        let upstream = &self.nodes[from].postgres;
        let sends = upstream.server.as_ref().is_some_and(|server| {
            server.postmaster && (server.phase == Phase::Up || (server.phase == Phase::Stopping && !server.in_recovery))
        });
        let fits = upstream.data.directory().is_some_and(|theirs| directory.is_prefix_of(theirs));
        (sends && fits && self.network.connects(Place::Node(node), Place::Node(from))).then_some(from)
    }

    fn receive(&mut self, node: usize, from: Option<usize>) {
        let news = from.and_then(|from| {
            let own = self.nodes[node].postgres.data.directory()?.log.len();
            let theirs = self.nodes[from].postgres.data.directory()?;
            Some((theirs.log[own..].to_vec(), theirs.timeline))
        });
        let starts = self.rng.chance(300);
        let postgres = &mut self.nodes[node].postgres;
        let (Some(server), Some(directory)) = (&mut postgres.server, postgres.data.directory_mut()) else { return };
        server.replayed = (server.replayed + REPLAY / 4).min(directory.log.len());
        match (from, news) {
            // It first replays what it has, and then tries again every 100 ms.
            (Some(_), _) if server.receiver == Receiver::Off && (server.replayed < directory.log.len() || !starts) => {}
            (Some(from), Some((records, timeline))) => {
                server.receiver = Receiver::Streaming { from };
                server.received = true;
                directory.log.extend(records);
                directory.timeline = timeline;
                server.replayed = (server.replayed + REPLAY).min(directory.log.len());
            }
            _ => server.receiver = Receiver::Off,
        }
    }
}
