//! Streaming: asynchronous, in pieces, and only for a log that is a beginning of the sender's.

use super::directory::Record;
use super::{Directory, Phase, PostgresEvent, Receiver};
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
        if self.nodes[node].disk.full {
            self.receive(node, None);
        } else if !frozen {
            let from = self.upstream_that_sends(node);
            let fits = from.filter(|from| self.is_continued_by(node, *from));
            if let (Some(from), None) = (from, fits) {
                self.fetch_histories(node, from);
            }
            self.receive(node, fits);
            let receiver = self.nodes[node].postgres.server.as_ref().map(|server| server.receiver);
            if let Some(Receiver::Streaming { from }) = receiver {
                self.report_flushed(node, from);
            }
        }
        let pause = if self.scenario.replication_lag_ms > 0 && self.rng.chance(300) {
            self.rng.millis(1, self.scenario.replication_lag_ms)
        } else {
            self.rng.millis(3, 30)
        };
        self.after(pause, Event::Postgres { node, postmaster, event: PostgresEvent::Stream });
    }

    /// The upstream, if it takes a receiver now.
    fn upstream_that_sends(&self, node: usize) -> Option<usize> {
        let directory = self.nodes[node].postgres.data.directory()?;
        let from = directory.upstream.filter(|from| *from != node)?;
        let upstream = &self.nodes[from].postgres;
        let sends = upstream.server.as_ref().is_some_and(|server| {
            server.postmaster && (server.phase == Phase::Up || (server.phase == Phase::Stopping && !server.in_recovery))
        });
        let fetches = upstream.data.directory().is_some_and(|theirs| {
            directory.histories.can_fetch(directory.timeline, &theirs.histories, theirs.timeline)
        });
        (sends && fetches && self.network.connects(Place::Node(node), Place::Node(from))).then_some(from)
    }

    fn is_continued_by(&self, node: usize, from: usize) -> bool {
        let directory = |node: usize| self.nodes[node].postgres.data.directory();
        directory(node).zip(directory(from)).is_some_and(|(own, theirs)| {
            own.is_prefix_of(theirs) || (self.checks.a_disk_lied && looks_alike(own, theirs))
        })
    }

    /// A receiver does this first, and only then finds that its log is not continued there.
    fn fetch_histories(&mut self, node: usize, from: usize) {
        let Some((histories, timeline)) =
            self.nodes[from].postgres.data.directory().map(|theirs| (theirs.histories.clone(), theirs.timeline))
        else {
            return;
        };
        if let Some(directory) = self.nodes[node].postgres.data.directory_mut() {
            directory.histories.fetch(directory.timeline, &histories, timeline);
        }
    }

    fn receive(&mut self, node: usize, from: Option<usize>) {
        let news = from.and_then(|from| {
            let theirs = self.nodes[from].postgres.data.directory()?;
            let own = self.nodes[node].postgres.data.directory()?;
            let own = if own.is_prefix_of(theirs) { own.log.len() } else { own.common(theirs) };
            Some((own, theirs.log[own..].to_vec(), theirs.timeline, theirs.histories.clone(), theirs.limit))
        });
        let starts = self.rng.chance(300);
        let postgres = &mut self.nodes[node].postgres;
        let (Some(server), Some(directory)) = (&mut postgres.server, postgres.data.directory_mut()) else { return };
        let replay = if server.limit < directory.limit { 0 } else { REPLAY };
        server.replayed = (server.replayed + replay / 4).min(directory.log.len());
        match (from, news) {
            // It first replays what it has, and then tries again every 100 ms.
            (Some(_), _) if server.receiver == Receiver::Off && (server.replayed < directory.log.len() || !starts) => {}
            (Some(from), Some((own, records, timeline, histories, limit))) => {
                directory.histories.fetch(directory.timeline, &histories, timeline);
                server.receiver = Receiver::Streaming { from };
                server.received = true;
                directory.from_archive = false;
                directory.log.truncate(own);
                directory.log.extend(records);
                directory.timeline = timeline;
                directory.limit = limit;
                server.replayed = (server.replayed + replay).min(directory.log.len());
            }
            _ => server.receiver = Receiver::Off,
        }
    }
}

/// Where a disk has lied, a primary may have gone on from less than its standby has, on the same timeline: PostgreSQL sees nothing wrong as soon
/// as it is further (`postgres-facts` 8).
fn looks_alike(own: &Directory, theirs: &Directory) -> bool {
    let (common, timeline) = (own.common(theirs), |record: &Record| record.timeline);
    let same_timeline = own.log.get(common).map(timeline) == theirs.log.get(common).map(timeline);
    same_timeline && own.end() <= theirs.end()
}
