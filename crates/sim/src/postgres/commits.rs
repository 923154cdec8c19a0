//! Commits that wait for standbys, and when they stop to (`postgres-facts` 9 and 10).

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_ha::{ConnectedStandby, Lsn, Method, StandbyNames, SyncState};

use super::{Directory, Phase, PostgresEvent, Receiver};
use crate::mutants::Mutant;
use crate::network::Place;
use crate::world::{Event, World, index, name};

/// A row that is written and not yet acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub number: u64,
    pub end: Lsn,
    pub client: Client,
}

/// Who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Direct,
    /// One of an entrypoint, with the number of its write.
    Entry {
        entry: usize,
        write: u64,
    },
}

/// Whom the commits of a running server wait for.
#[derive(Debug, Default)]
pub struct Commits {
    pub names: StandbyNames,
    /// Walsenders that have not read the new names yet release by the old ones, until then.
    before: Option<(StandbyNames, Duration)>,
    pub waiting: Vec<Waiting>,
    /// What each standby has said that it has flushed.
    pub flushed: BTreeMap<usize, Lsn>,
}

impl Commits {
    pub fn new(names: StandbyNames) -> Commits {
        Commits { names, ..Commits::default() }
    }

    /// The checkpointer has read the newest names.
    pub fn took_effect(&self, now: Duration) -> bool {
        self.before.as_ref().is_none_or(|(_, until)| now >= *until)
    }

    fn releases(&self, now: Duration, end: Lsn) -> bool {
        let old = self.before.as_ref().filter(|(_, until)| now < *until);
        old.is_some_and(|(names, _)| enough(names, &self.flushed, end)) || enough(&self.names, &self.flushed, end)
    }
}

fn enough(names: &StandbyNames, flushed: &BTreeMap<usize, Lsn>, end: Lsn) -> bool {
    let connected = names.names.iter().filter_map(|name| flushed.get(&index(name)?));
    match names.method {
        Method::Any => connected.filter(|position| **position >= end).count() >= names.count,
        Method::First => {
            let first: Vec<&Lsn> = connected.take(names.count).collect();
            first.len() >= names.count && first.iter().all(|position| **position >= end)
        }
    }
}

impl World {
    /// `synchronous_standby_names` in the server's file, and a reload that takes a moment.
    pub fn set_standby_names(&mut self, node: usize, names: StandbyNames) {
        if let Some(directory) = self.nodes[node].postgres.data.directory_mut() {
            directory.names = names;
        }
        if let Some(postmaster) = self.nodes[node].postgres.server.as_ref().map(|server| server.id) {
            let takes = self.rng.millis(1, 60);
            self.after(takes, Event::Postgres { node, postmaster, event: PostgresEvent::Reloaded });
        }
    }

    pub fn reloaded(&mut self, node: usize) {
        // A busy checkpointer passes on late that commits wait at all.
        let late = if self.rng.chance(200) { self.rng.millis(900, 4000) } else { self.rng.millis(0, 900) };
        let until = self.now + late;
        let postgres = &mut self.nodes[node].postgres;
        let (Some(server), Some(directory)) = (&mut postgres.server, postgres.data.directory()) else { return };
        if !server.postmaster || server.commits.names == directory.names {
            return;
        }
        let old = std::mem::replace(&mut server.commits.names, directory.names.clone());
        server.commits.before = Some((old, until));
        let names = server.commits.names.text();
        self.note(node, "pg", || format!("its commits wait for `{names}`"));
        self.release_commits(node);
    }

    /// The standby tells its upstream how far it has flushed.
    pub fn report_flushed(&mut self, node: usize, from: usize) {
        let Some(directory) = self.nodes[node].postgres.data.directory() else { return };
        let flushed = directory.end();
        let Some(of) = self.nodes[node].postgres.server.as_ref().map(|server| server.id) else { return };
        let Some(postmaster) = self.nodes[from].postgres.server.as_ref().map(|server| server.id) else { return };
        let event =
            Event::Postgres { node: from, postmaster, event: PostgresEvent::Flushed { standby: node, of, flushed } };
        self.send(Place::Node(node), Place::Node(from), event);
    }

    pub fn flushed(&mut self, node: usize, standby: usize, of: u64, position: Lsn) {
        // What was on its way when the connection ended is lost.
        let receiver = self.nodes[standby].postgres.server.as_ref().filter(|server| server.id == of);
        if receiver.is_none_or(|server| server.receiver != Receiver::Streaming { from: node }) {
            return;
        }
        let Some(server) = self.nodes[node].postgres.server.as_mut() else { return };
        // Without its postmaster a walsender ends at once.
        if !server.postmaster {
            return;
        }
        server.commits.flushed.insert(standby, position);
        self.release_commits(node);
    }

    pub fn release_commits(&mut self, node: usize) {
        let now = self.now;
        let Some(server) = self.nodes[node].postgres.server.as_mut() else { return };
        if !matches!(server.phase, Phase::Up | Phase::Dying) {
            return;
        }
        let commits = &mut server.commits;
        let done = commits.waiting.iter().take_while(|row| commits.releases(now, row.end)).count();
        let rows: Vec<Waiting> = commits.waiting.drain(..done).collect();
        for row in rows {
            match row.client {
                Client::Direct => self.acknowledge(row.number),
                Client::Entry { entry, write } => self.answer_entry(node, entry, write, Some(row.number)),
            }
        }
    }

    /// What `pg_stat_replication` shows.
    pub fn connected_standbys(&self, node: usize) -> Vec<ConnectedStandby> {
        let Some(server) = &self.nodes[node].postgres.server else { return Vec::new() };
        let streams = |standby: usize| {
            let theirs = self.nodes[standby].postgres.server.as_ref();
            theirs.is_some_and(|theirs| theirs.receiver == Receiver::Streaming { from: node })
        };
        let believed = self.mutant == Some(Mutant::StandbysAlwaysFlushed);
        let own = self.nodes[node].postgres.data.directory().map_or(Lsn(0), Directory::end);
        let row = |(standby, flushed): (&usize, &Lsn)| {
            let flushed = if believed { &own } else { flushed };
            let listed = believed || server.commits.names.contains(&name(*standby));
            let state = if server.commits.names.method == Method::Any { SyncState::Quorum } else { SyncState::Sync };
            ConnectedStandby {
                name: name(*standby),
                streaming: true,
                flushed: *flushed,
                sync_state: if listed { state } else { SyncState::Async },
                listed,
            }
        };
        server.commits.flushed.iter().filter(|(standby, _)| streams(**standby)).map(row).collect()
    }
}
