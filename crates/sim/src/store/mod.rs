//! A model of ZooKeeper: an ensemble whose followers lag behind its leader, sessions that only the quorum ends, ephemeral keys,
//! one-shot watches that come late.
//!
//! What it is true to (measured on 3.8): a follower that is cut off goes on answering reads from its own old keys and acknowledges
//! nothing (and once a session has written there, its reads wait behind that write); a session lives from its last sign of life *that the leader has heard of*, and a follower tells of those only every half
//! tick; its end is rounded up to a tick; a server that starts gives every session its full time anew. Not modelled: the
//! ensemble's own elections (the quorum is a promise here).

mod serve;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgherd_ha::{Epoch, Leader, Member, View};

pub use tree::{Key, SessionId, Transaction, Tree, Value, standby_cluster_of, synchronous_of};

use crate::rng::Rng;

/// What a compare-and-set expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Any,
    Absent,
    Version(i64),
}

/// One connection of a client to a server; never used twice.
pub type ConnectionId = u64;
pub type RequestId = u64;

#[derive(Clone, Debug)]
pub enum Operation {
    Load,
    Ping,
    /// Reads the leader key; proves nothing.
    ReadLeader,
    Write {
        key: Key,
        value: Value,
        expect: Expect,
    },
    Delete {
        key: Key,
        expect: Expect,
    },
    Acquire,
    /// Writes the member key, then reads the leader key.
    Renew {
        member: Box<Member>,
    },
    WriteMember {
        member: Box<Member>,
    },
    Release {
        epoch: Epoch,
        any_owner: bool,
    },
}

#[derive(Clone, Debug)]
pub enum Answer {
    View(Box<View>),
    Pong,
    Leader(Option<Leader>),
    /// `false`: the expectation was not met.
    Written(bool),
    /// The epoch, if this request created the key.
    Acquired(Option<Epoch>),
    /// The leader key as it is after the write was applied.
    Renewed(Option<Leader>),
    SessionExpired,
    /// The session is on another connection by now.
    SessionMoved,
}

#[derive(Clone, Debug)]
pub enum ToServer {
    Hello { connection: ConnectionId, node: usize, session: Option<SessionId>, asked: Duration },
    Request { connection: ConnectionId, id: RequestId, operation: Operation },
}

#[derive(Clone, Debug)]
pub enum ToClient {
    Welcome {
        connection: ConnectionId,
        session: SessionId,
        granted: Duration,
    },
    Expired {
        connection: ConnectionId,
    },
    Answer {
        connection: ConnectionId,
        id: RequestId,
        answer: Answer,
    },
    /// A watch has fired.
    Changed {
        connection: ConnectionId,
    },
    Reset {
        connection: ConnectionId,
    },
}

/// What happens inside the ensemble.
#[derive(Clone, Debug)]
pub enum StoreEvent {
    /// A follower's question about a session has reached the leader.
    Validate { server: usize, life: u64, hello: Hello },
    /// A write has reached the leader.
    Propose { server: usize, life: u64, connection: ConnectionId, id: RequestId, operation: Operation },
    /// Committed transactions have reached a follower.
    Apply { server: usize, life: u64, upto: usize },
    /// The second half of a load.
    LoadRest { server: usize, life: u64, connection: ConnectionId, id: RequestId, leader: Option<Leader> },
    /// Followers tell the leader which sessions they have heard of.
    Sweep,
    /// The leader looks for sessions whose time is over.
    Expire,
    /// A follower without a leader gives its clients up.
    Abandon { server: usize, life: u64, since: Duration },
}

#[derive(Clone, Debug)]
pub struct Hello {
    pub connection: ConnectionId,
    pub node: usize,
    pub session: Option<SessionId>,
    pub asked: Duration,
}

#[derive(Debug)]
pub struct Ensemble {
    pub tick: Duration,
    /// The longest session that is granted (`maxSessionTimeout`).
    pub longest: Duration,
    pub servers: Vec<Server>,
    pub leader: usize,
    log: Vec<Transaction>,
    /// The committed state, as the leader has it.
    pub tree: Tree,
    sessions: BTreeMap<SessionId, Session>,
    next_session: SessionId,
    /// Answers that are lost with their connection, in a thousand.
    pub lost_answers: u64,
    /// How late a watch may come.
    pub late_watch: Duration,
}

#[derive(Debug)]
struct Session {
    timeout: Duration,
    /// When the leader last heard of it.
    heard: Duration,
    /// The server that its newest connection is with.
    server: usize,
}

#[derive(Debug)]
pub struct Server {
    pub up: bool,
    /// Rises with each start.
    pub life: u64,
    /// In touch with the quorum.
    pub linked: bool,
    pub unlinked_at: Duration,
    tree: Tree,
    applied: usize,
    /// Sessions that were heard of here since the last sweep.
    touched: BTreeSet<SessionId>,
    connections: BTreeMap<ConnectionId, Connection>,
    waiting: Vec<Waiting>,
}

#[derive(Clone, Debug)]
struct Connection {
    node: usize,
    session: SessionId,
    watching: bool,
    /// Writes without an answer: whatever this session reads next waits for them.
    unanswered: usize,
    held_back: Vec<(RequestId, Operation)>,
}

/// An answer that is given once the server has applied that much of the log.
#[derive(Clone, Debug)]
struct Waiting {
    at: usize,
    connection: ConnectionId,
    id: RequestId,
    answer: Answer,
}

impl Ensemble {
    pub fn new(rng: &mut Rng, tick: Duration, longest: Duration) -> Ensemble {
        let server = || Server {
            up: true,
            life: 1,
            linked: true,
            unlinked_at: Duration::ZERO,
            tree: Tree::default(),
            applied: 0,
            touched: BTreeSet::new(),
            connections: BTreeMap::new(),
            waiting: Vec::new(),
        };
        Ensemble {
            tick,
            longest: longest.max(tick * 2),
            servers: (0..3).map(|_| server()).collect(),
            leader: rng.index(3),
            log: Vec::new(),
            tree: Tree::default(),
            sessions: BTreeMap::new(),
            next_session: 1,
            lost_answers: 0,
            late_watch: Duration::ZERO,
        }
    }

    fn granted(&self, asked: Duration) -> Duration {
        asked.clamp(self.tick * 2, self.longest)
    }

    fn commit(&mut self, transaction: Transaction) -> u64 {
        self.log.push(transaction);
        let number = self.log.len() as u64;
        self.tree.apply(number, &self.log[self.log.len() - 1]);
        number
    }

    /// Carries out a write of a live session; the answer, as far as the quorum decides it.
    fn decide(&mut self, node: usize, session: SessionId, operation: Operation) -> Answer {
        match operation {
            Operation::Write { key, value, expect } => {
                let version = self.tree.entry(key).map(|entry| entry.version);
                let met = match expect {
                    Expect::Any => true,
                    Expect::Absent => version.is_none(),
                    Expect::Version(wanted) => version == Some(wanted),
                };
                if met {
                    self.commit(match version {
                        Some(_) => Transaction::Set { key, value },
                        None => Transaction::Create { key, value, owner: None },
                    });
                }
                Answer::Written(met)
            }
            Operation::Delete { key, expect } => {
                let version = self.tree.entry(key).map(|entry| entry.version);
                let met = match expect {
                    Expect::Any => version.is_some(),
                    Expect::Absent => false,
                    Expect::Version(wanted) => version == Some(wanted),
                };
                if met {
                    self.commit(Transaction::Delete { key });
                }
                Answer::Written(met)
            }
            Operation::Acquire => match self.tree.entry(Key::Leader) {
                Some(_) => Answer::Acquired(None),
                None => {
                    let (key, value) = (Key::Leader, Value::Leader(node));
                    let epoch = self.commit(Transaction::Create { key, value, owner: Some(session) });
                    Answer::Acquired(Some(Epoch(epoch)))
                }
            },
            Operation::Renew { member } => {
                self.write_member(node, session, member);
                // Filled in by the server that answers, from its own keys.
                Answer::Renewed(None)
            }
            Operation::WriteMember { member } => {
                self.write_member(node, session, member);
                Answer::Written(true)
            }
            Operation::Load | Operation::Ping | Operation::ReadLeader | Operation::Release { .. } => Answer::Pong,
        }
    }

    fn write_member(&mut self, node: usize, session: SessionId, member: Box<Member>) {
        let (key, value) = (Key::Member(node), Value::Member(member));
        match self.tree.entry(key) {
            Some(entry) if entry.owner == Some(session) => {
                self.commit(Transaction::Set { key, value });
            }
            found => {
                if found.is_some() {
                    self.commit(Transaction::Delete { key });
                }
                self.commit(Transaction::Create { key, value, owner: Some(session) });
            }
        }
    }

    /// The sessions whose time is over at `now`: never before their time-out, and rounded up to a tick.
    fn overdue(&self, now: Duration) -> Vec<SessionId> {
        let tick = self.tick.as_micros();
        let bucket = |at: Duration| (at.as_micros() / tick + 1) * tick;
        let over = |session: &Session| bucket(session.heard + session.timeout) <= now.as_micros();
        self.sessions.iter().filter(|(_, session)| over(session)).map(|(id, _)| *id).collect()
    }
}
