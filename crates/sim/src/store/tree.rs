//! The keys of the cluster, their transactions, and what a client reads of them.

use std::collections::BTreeMap;

use pgherd_ha::{Epoch, FailoverKey, HistoryLine, Leader, LeaderOwner, Member, Status, SystemId, Versioned, View};
use serde_json::Map;

/// A session's number; never used twice.
pub type SessionId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Leader,
    Initialize,
    Config,
    Member(usize),
    Status,
    History,
    Failover,
}

/// Values as they are meant; their JSON is the business of `crates/dcs`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The node that leads.
    Leader(usize),
    /// `None`: claimed.
    Initialize(Option<SystemId>),
    Config {
        paused: bool,
    },
    Member(Box<Member>),
    Status(Status),
    History(Vec<HistoryLine>),
    Failover(FailoverKey),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub value: Value,
    pub version: i64,
    /// The transaction that created it (`czxid`).
    pub created: u64,
    /// Set on an ephemeral key.
    pub owner: Option<SessionId>,
}

#[derive(Clone, Debug)]
pub enum Transaction {
    Create {
        key: Key,
        value: Value,
        owner: Option<SessionId>,
    },
    Set {
        key: Key,
        value: Value,
    },
    Delete {
        key: Key,
    },
    /// With all its keys.
    CloseSession(SessionId),
}

#[derive(Clone, Debug, Default)]
pub struct Tree(BTreeMap<Key, Entry>);

impl Tree {
    pub fn entry(&self, key: Key) -> Option<&Entry> {
        self.0.get(&key)
    }

    pub fn leader(&self) -> Option<usize> {
        match self.entry(Key::Leader)?.value {
            Value::Leader(node) => Some(node),
            _ => None,
        }
    }

    pub fn paused(&self) -> bool {
        matches!(self.entry(Key::Config), Some(Entry { value: Value::Config { paused: true }, .. }))
    }

    /// Applies the transaction of this number; answers whether a watch of a client fires.
    pub fn apply(&mut self, number: u64, transaction: &Transaction) -> bool {
        match transaction {
            Transaction::Create { key, value, owner } => {
                let entry = Entry { value: value.clone(), version: 0, created: number, owner: *owner };
                self.0.insert(*key, entry);
                true
            }
            Transaction::Set { key, value } => {
                if let Some(entry) = self.0.get_mut(key) {
                    entry.value = value.clone();
                    entry.version += 1;
                }
                // Of members, only coming and going is watched.
                !matches!(key, Key::Member(_) | Key::History)
            }
            Transaction::Delete { key } => self.0.remove(key).is_some(),
            Transaction::CloseSession(session) => {
                let before = self.0.len();
                self.0.retain(|_, entry| entry.owner != Some(*session));
                self.0.len() != before
            }
        }
    }

    /// The leader as the client of `session` reads it.
    pub fn read_leader(&self, session: SessionId) -> Option<Leader> {
        let entry = self.entry(Key::Leader)?;
        let Value::Leader(node) = entry.value else { return None };
        let owner = if entry.owner == Some(session) { LeaderOwner::Me } else { LeaderOwner::Other };
        Some(Leader { name: crate::world::name(node), epoch: Epoch(entry.created), owner })
    }

    /// Everything else. A load is no snapshot: `leader` was read before.
    pub fn read(&self, leader: Option<Leader>) -> View {
        let mut view = View { leader, ..View::default() };
        for (key, entry) in &self.0 {
            match &entry.value {
                Value::Leader(_) => {}
                Value::Initialize(id) => {
                    let value = id.map(|id| id.to_string()).unwrap_or_default();
                    view.initialize = Some(Versioned { value, version: entry.version });
                }
                Value::Config { paused } => {
                    let value = Map::from_iter([("pause".to_owned(), (*paused).into())]);
                    view.config = Some(Versioned { value, version: entry.version });
                }
                Value::Member(member) => {
                    debug_assert!(matches!(key, Key::Member(_)));
                    view.members.push((**member).clone());
                }
                Value::Status(status) => view.status = status.clone(),
                Value::History(lines) => view.history = lines.clone(),
                Value::Failover(request) => {
                    view.failover = Some(Versioned { value: request.clone(), version: entry.version });
                }
            }
        }
        view
    }
}
