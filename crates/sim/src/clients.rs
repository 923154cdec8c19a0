//! What clients remember: each row that was acknowledged, and by whom. One client at each server writes directly, with a session that it
//! keeps as long as a backend lives; the others come through an [entrypoint](crate::entrypoint).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::postgres::{Client, Waiting};
use crate::store::{Key, Value};
use crate::world::{Event, World};

/// Commits of one server that wait at one time; who comes later waits for a session.
const SESSIONS: usize = 4;

/// Bytes of a row in the log.
pub const ROW: u64 = 160;

#[derive(Debug, Default)]
pub struct Clients {
    /// The rows that were acknowledged, in the order in which their clients heard of it.
    pub acknowledged: Vec<Row>,
    /// The row that an entrypoint's client has heard of in this event.
    pub routed: Option<Routed>,
    /// Rows that a client has read on a primary that was open to it.
    pub read: BTreeSet<u64>,
    /// Rows whose client was told success although no standby had them: it had cancelled the wait (`postgres-facts` 9). Nobody promises them.
    pub early: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The record's number.
    pub number: u64,
    pub acknowledged: Duration,
    /// The cluster's identity was in the store: before, it may still be given up for another node's.
    pub announced: bool,
}

/// A row that came through an entrypoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    pub node: usize,
    /// The node held the leader key then, or every listed member was bound to it, or an operator was in charge.
    pub licensed: bool,
    /// When the server wrote it, which is before the client heard of it.
    pub committed: Duration,
}

impl World {
    pub fn direct_write(&mut self, node: usize) {
        let postgres = &self.nodes[node].postgres;
        let open = postgres.lets_clients_in();
        // Sessions of before go on where nobody new is let in.
        let orphaned = postgres.server.as_ref().is_some_and(|server| !server.postmaster);
        if open {
            self.read_rows(node);
            self.consume(node);
        }
        if open || orphaned {
            self.write_row(node, Client::Direct);
        }
        let pause = self.think();
        self.after(pause, Event::DirectClient(node));
    }

    /// A client hears that its row is written.
    pub fn acknowledge(&mut self, number: u64) {
        let announced = self.is_announced();
        self.clients.acknowledged.push(Row { number, acknowledged: self.now, announced });
    }

    fn is_announced(&self) -> bool {
        let cluster = self.store.tree.entry(Key::Initialize).map(|entry| &entry.value);
        matches!(cluster, Some(Value::Initialize(Some(_))))
    }

    pub fn think(&mut self) -> Duration {
        if self.scenario.idle && self.now > Duration::from_secs(20) {
            self.rng.millis(10_000, 60_000)
        } else {
            self.rng.millis(20, 60)
        }
    }

    /// Rows that were acknowledged and that this node does not have.
    pub fn acknowledged_and_not_in(&self, node: usize) -> Vec<Row> {
        let log = self.nodes[node].postgres.data.directory().map(|directory| &directory.log);
        let kept: BTreeSet<u64> = log.into_iter().flatten().map(|record| record.number).collect();
        self.clients.acknowledged.iter().filter(|row| !kept.contains(&row.number)).copied().collect()
    }

    /// A row is written. Its client is told when enough standbys have it; where nobody is waited for, at once. `false`: the server does not
    /// take it.
    pub fn write_row(&mut self, node: usize, client: Client) -> bool {
        if !self.nodes[node].postgres.can_commit() || !self.takes_writes(node) {
            return false;
        }
        let (number, gives_up) = (self.number(), self.rng.chance(20));
        let postgres = &mut self.nodes[node].postgres;
        let (Some(server), Some(directory)) = (&mut postgres.server, postgres.data.directory_mut()) else {
            return false;
        };
        let waiting = &mut server.commits.waiting;
        if waiting.len() >= SESSIONS {
            let direct = waiting.iter().position(|row| row.client == Client::Direct).filter(|_| gives_up);
            if let Some(cancelled) = direct {
                self.clients.early.insert(waiting.remove(cancelled).number);
            }
            return false;
        }
        directory.append(number, ROW);
        waiting.push(Waiting { number, end: directory.end(), client });
        self.release_commits(node);
        true
    }

    /// A client reads everything that is visible: commits that wait are not yet.
    pub fn read_rows(&mut self, node: usize) {
        let postgres = &self.nodes[node].postgres;
        let (Some(server), Some(directory)) = (&postgres.server, postgres.data.directory()) else { return };
        let open = server.answers(self.now) && !server.in_recovery && self.is_announced();
        if self.scenario.synchronous.is_none() || !open {
            return;
        }
        let hidden = |number: u64| server.commits.waiting.iter().any(|row| row.number == number);
        let visible = directory.log.iter().rev().map(|record| record.number);
        let visible = visible.filter(|number| !hidden(*number) && !self.clients.early.contains(number));
        let news: Vec<u64> = visible.take_while(|number| !self.clients.read.contains(number)).collect();
        self.clients.read.extend(news);
    }
}
