//! The store's client in the agent's process: one session, one connection at a time, requests that die with their connection.
//! As `crates/dcs/src/zookeeper` does it, with its times.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_ha::{Boot, SignsOfLife};

use super::AgentEvent;
use crate::network::Place;
use crate::store::{Answer, ConnectionId, Operation, RequestId, SessionId, ToClient, ToServer};
use crate::world::{Event, World};

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// An operation waits so long for a connection.
const RECONNECT: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Client {
    pub session: Option<SessionId>,
    pub granted: Duration,
    link: Link,
    server: usize,
    pending: BTreeMap<RequestId, Pending>,
    /// Since when the server owes an answer.
    owed_since: Option<Boot>,
    last_sent: Boot,
    /// Of this connection.
    pub signs: SignsOfLife,
    connecting_since: Boot,
}

#[derive(Debug, PartialEq, Eq)]
enum Link {
    Down,
    Connecting(ConnectionId),
    Up(ConnectionId),
}

#[derive(Debug)]
struct Pending {
    purpose: Purpose,
    sent: Boot,
}

/// Who waits for the answer.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// The step of the loop.
    Loop(u64),
    Keeper,
    Ping,
}

/// What has come of a request, and when it was sent. `None`: no verdict, it may have happened.
#[derive(Debug)]
pub struct Outcome {
    pub answer: Option<Answer>,
    pub sent: Boot,
}

impl Client {
    pub fn new(session: Option<SessionId>, server: usize) -> Client {
        Client {
            session,
            granted: Duration::ZERO,
            link: Link::Down,
            server,
            pending: BTreeMap::new(),
            owed_since: None,
            last_sent: Boot::ZERO,
            signs: SignsOfLife::new(Boot::ZERO),
            connecting_since: Boot::ZERO,
        }
    }

    fn patience(&self) -> Duration {
        self.granted / 3
    }
}

impl World {
    /// Begins to connect to the next server.
    pub fn connect(&mut self, node: usize) {
        let (connection, boot) = (self.number(), self.boot(node));
        let asked = self.scenario.ttl;
        let servers = self.store.servers.len();
        let client = &mut self.daemon(node).client;
        client.server = (client.server + 1) % servers;
        client.link = Link::Connecting(connection);
        client.connecting_since = boot;
        let (server, session) = (client.server, client.session);
        let hello = ToServer::Hello { connection, node, session, asked };
        self.send(Place::Node(node), Place::Store(server), Event::ToServer { server, message: hello });
        let limit = (asked / 4).clamp(Duration::from_secs(1), Duration::from_secs(5));
        self.agent_after(node, limit, AgentEvent::Connect(connection));
    }

    /// The try to connect has taken too long, or the pause before the next is over.
    pub fn connect_timer(&mut self, node: usize, connection: ConnectionId) {
        let client = &self.daemon(node).client;
        if client.link == Link::Connecting(connection) || (connection == 0 && client.link == Link::Down) {
            self.connect(node);
        }
    }

    pub fn hear_server(&mut self, node: usize, message: ToClient) {
        let boot = self.boot(node);
        match message {
            ToClient::Welcome { connection, session, granted } => {
                let client = &mut self.daemon(node).client;
                if client.link != Link::Connecting(connection) {
                    return;
                }
                client.link = Link::Up(connection);
                client.session = Some(session);
                client.granted = granted;
                client.signs = SignsOfLife::new(client.connecting_since);
                client.owed_since = None;
                client.last_sent = boot;
                self.nodes[node].session_file = Some(session);
                self.note(node, "client", || format!("connected, session {session} of {} ms", granted.as_millis()));
                self.agent_after(node, granted / 16, AgentEvent::Beat(connection));
                self.news(node, super::round::News::Changed);
            }
            ToClient::Expired { connection } => {
                let client = &mut self.daemon(node).client;
                if client.link == Link::Connecting(connection) {
                    client.session = None;
                    self.nodes[node].session_file = None;
                    self.note(node, "client", || "its session has expired".into());
                    self.connect(node);
                }
            }
            ToClient::Answer { connection, id, answer } => {
                let client = &mut self.daemon(node).client;
                if client.link != Link::Up(connection) {
                    return;
                }
                let pending = client.pending.remove(&id);
                client.owed_since = (!client.pending.is_empty()).then_some(boot);
                if let Some(Pending { purpose, sent }) = pending {
                    client.signs.answered(sent, boot);
                    self.request_done(node, purpose, Outcome { answer: Some(answer), sent });
                }
            }
            ToClient::Changed { connection } => {
                if self.daemon(node).client.link == Link::Up(connection) {
                    self.news(node, super::round::News::Changed);
                }
            }
            ToClient::Reset { connection } => {
                let client = &self.daemon(node).client;
                if client.link == Link::Up(connection) || client.link == Link::Connecting(connection) {
                    self.disconnect(node);
                }
            }
        }
    }

    /// Everything that is on its way has no verdict any more.
    fn disconnect(&mut self, node: usize) {
        let client = &mut self.daemon(node).client;
        client.link = Link::Down;
        let pending = std::mem::take(&mut client.pending);
        self.agent_after(node, PAUSE, AgentEvent::Connect(0));
        for Pending { purpose, sent } in pending.into_values() {
            self.request_done(node, purpose, Outcome { answer: None, sent });
        }
    }

    /// Sends a request; its outcome comes within `limit`.
    pub fn request(&mut self, node: usize, operation: Operation, purpose: Purpose, limit: Duration) {
        let (id, boot) = (self.number(), self.boot(node));
        let client = &mut self.daemon(node).client;
        client.pending.insert(id, Pending { purpose, sent: boot });
        let Link::Up(connection) = client.link else {
            return self.agent_after(node, RECONNECT.min(limit), AgentEvent::RequestTimeout(id));
        };
        client.owed_since.get_or_insert(boot);
        client.last_sent = boot;
        let server = client.server;
        let message = ToServer::Request { connection, id, operation };
        self.send(Place::Node(node), Place::Store(server), Event::ToServer { server, message });
        self.agent_after(node, limit, AgentEvent::RequestTimeout(id));
    }

    pub fn request_failed(&mut self, node: usize, id: RequestId) {
        if let Some(Pending { purpose, sent }) = self.daemon(node).client.pending.remove(&id) {
            self.request_done(node, purpose, Outcome { answer: None, sent });
        }
    }

    fn request_done(&mut self, node: usize, purpose: Purpose, outcome: Outcome) {
        if let Some(Answer::SessionExpired | Answer::SessionMoved) = outcome.answer {
            self.disconnect(node);
        }
        match purpose {
            Purpose::Loop(step) => self.answered(node, step, outcome),
            Purpose::Keeper => self.keeper_answered(node, outcome),
            Purpose::Ping => {}
        }
    }

    /// The heartbeat, and the end of patience with a server that says nothing.
    pub fn beat(&mut self, node: usize, connection: ConnectionId) {
        let boot = self.boot(node);
        let client = &self.daemon(node).client;
        if client.link != Link::Up(connection) {
            return;
        }
        let every = (client.granted / 16).clamp(Duration::from_millis(100), Duration::from_millis(500));
        if client.owed_since.is_some_and(|since| boot.since(since) >= client.patience()) {
            self.note(node, "client", || "the server says nothing: connecting to another".into());
            return self.disconnect(node);
        }
        if boot.since(client.last_sent) >= every {
            let limit = client.patience();
            self.request(node, Operation::Ping, Purpose::Ping, limit);
        }
        self.agent_after(node, every, AgentEvent::Beat(connection));
    }
}
