//! One client after the other, each with one row to write. Before the write goes to the server, and before the answer goes to the client,
//! the route is asked whether that is still allowed.

use std::time::Duration;

use super::EntryEvent;
use crate::clients::Routed;
use crate::mutants::Mutant;
use crate::network::Place;
use crate::postgres::Client;
use crate::world::{Event, World};

/// A held client is looked at again after this time.
const HELD: Duration = Duration::from_millis(50);

/// A client that gets no answer for so long goes away.
const PATIENCE: Duration = Duration::from_secs(8);

impl World {
    pub(super) fn client_writes(&mut self, entry: usize) {
        let boot = self.entry_boot(entry);
        let node = self.entrypoints[entry].routes.writer(boot);
        let server = node.and_then(|node| self.nodes[node].postgres.server.as_ref());
        let Some((node, postmaster)) = node.zip(server.map(|server| server.id)) else {
            return self.entry_after(entry, HELD, EntryEvent::Write);
        };
        let write = self.number();
        self.entrypoints[entry].session = Some(write);
        let query = Event::Query { node, postmaster, entry, write };
        self.send(Place::Entry(entry), Place::Node(node), query);
        self.entry_after(entry, PATIENCE, EntryEvent::GiveUp(write));
    }

    /// The write has reached the server that it was sent to, or what is left of it.
    pub fn query_arrives(&mut self, node: usize, postmaster: u64, entry: usize, write: u64) {
        let at = &self.nodes[node];
        let same = at.postgres.server.as_ref().is_some_and(|server| server.id == postmaster);
        if at.suspended || (same && at.disk.stuck_since.is_some()) {
            return self.wait_for_machine(node, Event::Query { node, postmaster, entry, write });
        }
        // An entrypoint may still follow a route from before a crash; a server that holds its clients refuses the new session.
        let open = same && at.postgres.data.directory().is_none_or(|directory| directory.admits_clients);
        // What a server without the key shows is not passed on.
        if open && self.routed(node).licensed {
            self.read_rows(node);
        }
        if !open || !self.write_row(node, Client::Entry { entry, write }) {
            self.answer_entry(node, entry, write, None);
        }
    }

    /// The server says what has become of the write; `None`: it was refused, or the session has ended.
    pub fn answer_entry(&mut self, node: usize, entry: usize, write: u64, row: Option<u64>) {
        let committed = row.map(|row| (row, self.routed(node)));
        let takes = self.rng.micros(200, 4000);
        let event = EntryEvent::Answered { write, node, committed };
        self.send_late(Place::Node(node), Place::Entry(entry), Event::Entry { entry, event }, takes);
    }

    fn routed(&self, node: usize) -> Routed {
        let promised = self.promised_until(node).is_some_and(|until| self.now < until);
        let licensed = self.store.tree.leader() == Some(node) || promised || self.checks.operator_in_charge;
        Routed { node, licensed, committed: self.now }
    }

    pub(super) fn server_answers(&mut self, entry: usize, write: u64, node: usize, committed: Option<(u64, Routed)>) {
        if self.entrypoints[entry].session.take_if(|session| *session == write).is_none() {
            return;
        }
        let boot = self.entry_boot(entry);
        let open = self.entrypoints[entry].routes.writer(boot) == Some(node);
        let open = open || self.mutant == Some(Mutant::AnswerAfterTheRoute);
        let next = match committed.filter(|_| open) {
            Some((row, routed)) => {
                let now = self.now;
                self.entrypoints[entry].served = now;
                self.acknowledge(row);
                self.clients.routed = Some(routed);
                self.think()
            }
            None => HELD,
        };
        self.entry_after(entry, next, EntryEvent::Write);
    }

    pub(super) fn client_gives_up(&mut self, entry: usize, write: u64) {
        if self.entrypoints[entry].session.take_if(|session| *session == write).is_some() {
            self.entry_after(entry, HELD, EntryEvent::Write);
        }
    }
}
