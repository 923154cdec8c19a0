//! The keys of the cluster, their transactions, and what a client reads of them.

use std::collections::BTreeMap;

use pgherd_ha::{
    Epoch, FailoverKey, HistoryLine, Leader, LeaderOwner, Member, Reservation, StandbyCluster, Status, SyncKey,
    Synchronous, SystemId, Versioned, View,
};
use serde_json::{Map, Value as Json};

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
    Sync,
    Timelines,
    Failsafe,
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
        synchronous: Option<Synchronous>,
        /// Whether it streams from the cluster that it follows.
        follows: Option<bool>,
    },
    Member(Box<Member>),
    Status(Status),
    History(Vec<HistoryLine>),
    Failover(FailoverKey),
    Sync(SyncKey),
    Reservation(Reservation),
    /// Member name to api_url.
    Failsafe(BTreeMap<String, String>),
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

    /// The nodes that the key `failsafe` lists.
    pub fn listed(&self) -> Vec<usize> {
        match self.entry(Key::Failsafe).map(|entry| &entry.value) {
            Some(Value::Failsafe(members)) => members.keys().filter_map(|name| crate::world::index(name)).collect(),
            _ => Vec::new(),
        }
    }

    pub fn paused(&self) -> bool {
        matches!(self.entry(Key::Config), Some(Entry { value: Value::Config { paused: true, .. }, .. }))
    }

    pub fn synchronous(&self) -> Option<Synchronous> {
        match self.entry(Key::Config)?.value {
            Value::Config { synchronous, .. } => synchronous,
            _ => None,
        }
    }

    pub fn follows(&self) -> Option<bool> {
        match self.entry(Key::Config)?.value {
            Value::Config { follows, .. } => follows,
            _ => None,
        }
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
                !matches!(key, Key::Member(_) | Key::History | Key::Timelines | Key::Failsafe)
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
                Value::Config { paused, synchronous, follows } => {
                    let value = configuration(*paused, *synchronous, *follows);
                    view.config = Some(Versioned { value, version: entry.version });
                }
                Value::Member(member) => {
                    debug_assert!(matches!(key, Key::Member(_)));
                    view.members.push((**member).clone());
                }
                Value::Status(status) => view.status = status.clone(),
                Value::History(lines) => view.history = lines.clone(),
                Value::Sync(key) => view.sync = Some(Versioned { value: key.clone(), version: entry.version }),
                Value::Reservation(reservation) => {
                    view.reservation = Some(Versioned { value: reservation.clone(), version: entry.version });
                }
                Value::Failsafe(members) => view.failsafe.clone_from(members),
                Value::Failover(request) => {
                    view.failover = Some(Versioned { value: request.clone(), version: entry.version });
                }
            }
        }
        view
    }
}

fn configuration(paused: bool, synchronous: Option<Synchronous>, follows: Option<bool>) -> Map<String, Json> {
    let mut value = Map::from_iter([("pause".to_owned(), paused.into())]);
    if let Some(mode) = synchronous {
        let name: Json = if mode.quorum { "quorum".into() } else { true.into() };
        value.insert("synchronous_mode".into(), name);
        value.insert("synchronous_mode_strict".into(), mode.strict.into());
        value.insert("synchronous_node_count".into(), mode.node_count.into());
    }
    if let Some(streams) = follows {
        value.insert("standby_cluster".into(), streams.into());
    }
    value
}

/// What the daemon's configuration makes of the key.
pub fn standby_cluster_of(view: &View) -> Option<StandbyCluster> {
    let streams = view.config.as_ref()?.value.get("standby_cluster")?;
    Some(crate::scenario::other_cluster(*streams == Json::Bool(true)))
}

/// The same of the synchronous mode.
pub fn synchronous_of(view: &View) -> Option<Synchronous> {
    let config = &view.config.as_ref()?.value;
    let mode = config.get("synchronous_mode")?;
    let count = config.get("synchronous_node_count").and_then(Json::as_u64);
    Some(Synchronous {
        quorum: mode.is_string(),
        strict: config.get("synchronous_mode_strict").is_some_and(|strict| *strict == Json::Bool(true)),
        node_count: count.and_then(|count| count.try_into().ok()).unwrap_or(1),
        maximum_lag: None,
    })
}
