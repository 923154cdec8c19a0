//! What a server of the ensemble does with a message, and the ensemble with its time.

use std::time::Duration;

use pgherd_ha::LeaderOwner;

use super::{
    Answer, Connection, ConnectionId, Expect, Hello, Key, Operation, RequestId, StoreEvent, ToClient, ToServer,
    Transaction, Waiting,
};
use crate::network::Place;
use crate::store::Session;
use crate::world::{Event, World};

/// A follower looks for a new leader for so many ticks (`syncLimit`) before it turns its clients away.
const SYNC_LIMIT: u32 = 5;

impl World {
    pub fn store_receives(&mut self, server: usize, message: ToServer) {
        match message {
            ToServer::Hello { connection, node, session, asked } => {
                self.hello(server, Hello { connection, node, session, asked });
            }
            ToServer::Request { connection, id, operation } => self.requested(server, connection, id, operation),
        }
    }

    pub fn store_event(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Validate { server, life, hello } => self.validate(server, life, hello),
            StoreEvent::Propose { server, life, connection, id, operation } => {
                self.propose(server, life, connection, id, operation);
            }
            StoreEvent::Apply { server, life, upto } => {
                let at = &self.store.servers[server];
                if at.up && at.linked && at.life == life {
                    self.apply(server, upto);
                }
            }
            StoreEvent::LoadRest { server, life, connection, id, leader } => {
                let at = &self.store.servers[server];
                if at.up && at.life == life {
                    let view = at.tree.read(leader);
                    self.answer(server, connection, id, Answer::View(Box::new(view)));
                }
            }
            StoreEvent::Sweep => self.sweep(),
            StoreEvent::Expire => self.expire(),
            StoreEvent::Abandon { server, life, since } => {
                let at = &self.store.servers[server];
                if at.life == life && !at.linked && at.unlinked_at == since {
                    self.note_store(server, || "has no leader: turns its clients away".into());
                    self.close_connections(server);
                }
            }
        }
    }

    fn hello(&mut self, server: usize, hello: Hello) {
        let at = &self.store.servers[server];
        if !at.up || !at.linked && self.now >= at.unlinked_at + self.store.tick * SYNC_LIMIT {
            let (node, connection) = (hello.node, hello.connection);
            self.send_client(server, node, ToClient::Reset { connection });
        } else if at.linked {
            let life = at.life;
            let delay = self.inside(server);
            self.after(delay, Event::Store(StoreEvent::Validate { server, life, hello }));
        }
        // A server without a quorum does not answer.
    }

    fn validate(&mut self, server: usize, life: u64, hello: Hello) {
        let at = &self.store.servers[server];
        if !at.up || at.life != life || !at.linked {
            return;
        }
        let Hello { connection, node, session, asked } = hello;
        let granted = self.store.granted(asked);
        let id = match session {
            None => {
                let id = self.store.next_session;
                self.store.next_session += 1;
                id
            }
            Some(id) if self.store.sessions.contains_key(&id) => id,
            Some(_) => return self.send_client(server, node, ToClient::Expired { connection }),
        };
        self.store.sessions.insert(id, Session { timeout: granted, heard: self.now, server });
        let entry = Connection { node, session: id, watching: false, unanswered: 0, held_back: Vec::new() };
        self.store.servers[server].connections.insert(connection, entry);
        self.send_client(server, node, ToClient::Welcome { connection, session: id, granted });
    }

    fn requested(&mut self, server: usize, connection: ConnectionId, id: RequestId, operation: Operation) {
        let now = self.now;
        let leads = self.store.leader == server;
        let at = &mut self.store.servers[server];
        let Some(found) = at.connections.get_mut(&connection) else { return };
        let session = found.session;
        at.touched.insert(session);
        if leads && let Some(session) = self.store.sessions.get_mut(&session) {
            session.heard = now;
        }
        let reads =
            matches!(operation, Operation::Ping | Operation::ReadLeader | Operation::Load | Operation::Release { .. });
        if reads && found.unanswered > 0 {
            // The server answers a session in order (its CommitProcessor).
            return found.held_back.push((id, operation));
        }
        match operation {
            Operation::Ping => self.answer(server, connection, id, Answer::Pong),
            Operation::ReadLeader => {
                let leader = at.tree.read_leader(session);
                self.answer(server, connection, id, Answer::Leader(leader));
            }
            Operation::Load => {
                found.watching = true;
                let (leader, life) = (at.tree.read_leader(session), at.life);
                let rest = self.rng.micros(200, 1500);
                self.after(rest, Event::Store(StoreEvent::LoadRest { server, life, connection, id, leader }));
            }
            Operation::Release { epoch, any_owner } => {
                // Read first, here; the delete then names the version that was read.
                let read = at.tree.read_leader(session);
                let mine = |leader: &pgherd_ha::Leader| leader.owner == LeaderOwner::Me && leader.epoch == epoch;
                let version = at.tree.entry(Key::Leader).map(|entry| entry.version);
                match version.filter(|_| any_owner || read.as_ref().is_some_and(mine)) {
                    Some(version) => {
                        let expect = Expect::Version(version);
                        self.forward(server, connection, id, Operation::Delete { key: Key::Leader, expect });
                    }
                    None => self.answer(server, connection, id, Answer::Written(false)),
                }
            }
            write => self.forward(server, connection, id, write),
        }
    }

    /// To the leader. A server without one keeps the write, and never answers it.
    fn forward(&mut self, server: usize, connection: ConnectionId, id: RequestId, operation: Operation) {
        let at = &mut self.store.servers[server];
        if let Some(found) = at.connections.get_mut(&connection) {
            found.unanswered += 1;
        }
        if at.linked {
            let life = at.life;
            let delay = self.inside(server);
            self.after(delay, Event::Store(StoreEvent::Propose { server, life, connection, id, operation }));
        }
    }

    fn propose(&mut self, server: usize, life: u64, connection: ConnectionId, id: RequestId, operation: Operation) {
        if !self.store.servers[self.store.leader].up {
            return;
        }
        let at = &self.store.servers[server];
        if at.life != life {
            return;
        }
        let Some(Connection { node, session, .. }) = at.connections.get(&connection).cloned() else { return };
        if let Operation::Write { key: Key::Status, .. } = operation {
            self.checks.losses.reported = self.now;
        }
        let answer = match self.store.sessions.get(&session) {
            None => Answer::SessionExpired,
            Some(found) if found.server != server => Answer::SessionMoved,
            Some(_) => self.store.decide(node, session, operation),
        };
        let at = self.store.log.len();
        self.store.servers[server].waiting.push(Waiting { at, connection, id, answer });
        self.spread();
        self.apply_here(server);
    }

    /// The committed transactions go to everybody; the leader has them at once.
    fn spread(&mut self) {
        let upto = self.store.log.len();
        let leader = self.store.leader;
        self.apply(leader, upto);
        for server in (0..self.store.servers.len()).filter(|server| *server != leader) {
            let at = &self.store.servers[server];
            if at.up && at.linked && at.applied < upto {
                let life = at.life;
                let delay = self.inside(server);
                self.after(delay, Event::Store(StoreEvent::Apply { server, life, upto }));
            }
        }
    }

    fn apply_here(&mut self, server: usize) {
        let upto = self.store.servers[server].applied;
        self.apply(server, upto);
    }

    fn apply(&mut self, server: usize, upto: usize) {
        let at = &mut self.store.servers[server];
        let mut fired = false;
        let mut ended = Vec::new();
        while at.applied < upto {
            let transaction = &self.store.log[at.applied];
            at.applied += 1;
            fired |= at.tree.apply(at.applied as u64, transaction);
            if let Transaction::CloseSession(session) = transaction {
                ended.extend(at.connections.extract_if(.., |_, connection| connection.session == *session));
            }
        }
        let applied = at.applied;
        let ready: Vec<Waiting> = at.waiting.extract_if(.., |waiting| waiting.at <= applied).collect();
        let watchers: Vec<(ConnectionId, usize)> = if fired {
            let watching = at.connections.iter_mut().filter(|(_, connection)| connection.watching);
            let fire = |(id, connection): (&ConnectionId, &mut Connection)| {
                connection.watching = false;
                (*id, connection.node)
            };
            watching.map(fire).collect()
        } else {
            Vec::new()
        };
        // The server hangs up on a session that is over.
        for (connection, Connection { node, .. }) in ended {
            self.send_client(server, node, ToClient::Reset { connection });
        }
        for Waiting { connection, id, answer, .. } in ready {
            let answer = match answer {
                Answer::Renewed(_) => {
                    let at = &self.store.servers[server];
                    let session = at.connections.get(&connection).map_or(0, |connection| connection.session);
                    Answer::Renewed(at.tree.read_leader(session))
                }
                answer => answer,
            };
            self.answer(server, connection, id, answer);
            self.answer_held_back(server, connection);
        }
        for (connection, node) in watchers {
            let late = u64::try_from(self.store.late_watch.as_micros()).unwrap_or(0);
            let late = self.rng.micros(0, late);
            self.send_client_late(server, node, ToClient::Changed { connection }, late);
        }
    }

    fn answer_held_back(&mut self, server: usize, connection: ConnectionId) {
        let Some(found) = self.store.servers[server].connections.get_mut(&connection) else { return };
        found.unanswered = found.unanswered.saturating_sub(1);
        if found.unanswered == 0 {
            for (id, operation) in std::mem::take(&mut found.held_back) {
                self.requested(server, connection, id, operation);
            }
        }
    }

    fn answer(&mut self, server: usize, connection: ConnectionId, id: RequestId, answer: Answer) {
        let Some(node) = self.store.servers[server].connections.get(&connection).map(|found| found.node) else {
            return;
        };
        let lost = self.store.lost_answers;
        if lost > 0 && self.rng.chance(lost) {
            self.note_store(server, || format!("the answer to n{} is lost with its connection", node + 1));
            self.store.servers[server].connections.remove(&connection);
            return self.send_client(server, node, ToClient::Reset { connection });
        }
        self.send_client(server, node, ToClient::Answer { connection, id, answer });
    }

    fn send_client(&mut self, server: usize, node: usize, message: ToClient) {
        self.send_client_late(server, node, message, Duration::ZERO);
    }

    fn send_client_late(&mut self, server: usize, node: usize, message: ToClient, late: Duration) {
        let life = self.nodes[node].life;
        self.send_late(Place::Store(server), Place::Node(node), Event::ToClient { node, life, message }, late);
    }

    /// Between a server and the leader; the leader's own work takes time as well.
    fn inside(&mut self, server: usize) -> Duration {
        if server == self.store.leader { self.rng.micros(50, 500) } else { self.rng.micros(300, 3000) }
    }

    fn sweep(&mut self) {
        let now = self.now;
        for server in &mut self.store.servers {
            if server.up && server.linked {
                for id in std::mem::take(&mut server.touched) {
                    if let Some(session) = self.store.sessions.get_mut(&id) {
                        session.heard = now;
                    }
                }
            }
        }
        self.after(self.store.tick / 2, Event::Store(StoreEvent::Sweep));
    }

    fn expire(&mut self) {
        if self.store.servers[self.store.leader].up {
            for session in self.store.overdue(self.now) {
                self.store.sessions.remove(&session);
                self.store.commit(Transaction::CloseSession(session));
                self.note_who("store", || format!("session {session} has expired"));
            }
            self.spread();
        }
        // At the boundaries of the ticks.
        let tick = self.store.tick.as_micros();
        let next = (self.now.as_micros() / tick + 1) * tick - self.now.as_micros();
        let next = Duration::from_micros(u64::try_from(next).expect("at most a tick"));
        self.after(next, Event::Store(StoreEvent::Expire));
    }

    /// Cuts a server off from the others. If it led, another one does after a while.
    pub fn unlink_server(&mut self, server: usize) {
        let now = self.now;
        let at = &mut self.store.servers[server];
        at.linked = false;
        at.unlinked_at = now;
        let life = at.life;
        self.note_store(server, || "is cut off from its quorum".into());
        if self.store.leader == server {
            self.store.leader = (server + 1) % self.store.servers.len();
            let leader = self.store.leader;
            let upto = self.store.log.len();
            self.apply(leader, upto);
            self.refresh_sessions();
        }
        let limit = self.store.tick * SYNC_LIMIT;
        self.after(limit, Event::Store(StoreEvent::Abandon { server, life, since: now }));
    }

    pub fn link_server(&mut self, server: usize) {
        self.store.servers[server].linked = true;
        // What was waiting for the leader is lost with the connections, as when a server synchronises anew.
        self.close_connections(server);
        let upto = self.store.log.len();
        self.apply(server, upto);
        self.note_store(server, || "is back with its quorum".into());
    }

    pub fn stop_ensemble(&mut self) {
        self.note_who("store", || "all servers are down".into());
        for server in 0..self.store.servers.len() {
            self.close_connections(server);
            self.store.servers[server].up = false;
        }
    }

    pub fn start_ensemble(&mut self) {
        self.note_who("store", || "all servers are up".into());
        let upto = self.store.log.len();
        for server in 0..self.store.servers.len() {
            self.store.servers[server].up = true;
            self.apply(server, upto);
        }
        self.refresh_sessions();
    }

    /// A leader that begins gives every session its full time.
    fn refresh_sessions(&mut self) {
        for session in self.store.sessions.values_mut() {
            session.heard = self.now;
        }
    }

    /// A transaction of somebody who is no node: an operator's tool.
    pub fn commit_outside(&mut self, transaction: Transaction) {
        self.store.commit(transaction);
        self.spread();
    }

    pub fn close_connections(&mut self, server: usize) {
        let at = &mut self.store.servers[server];
        at.life += 1;
        at.waiting.clear();
        at.touched.clear();
        for (connection, Connection { node, .. }) in std::mem::take(&mut at.connections) {
            self.send_client(server, node, ToClient::Reset { connection });
        }
    }
}
