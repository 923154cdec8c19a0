//! The types of the Raft library as they are here.

use std::fmt;
use std::io::Cursor;

use serde::{Deserialize, Serialize};

use crate::kv::{Answer, Command};

/// A member of the store, by a number that is drawn when its directory is made and never used again.
pub type MemberId = u64;

/// How a member is known to the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// As in the configuration: a node's `name`.
    pub name: String,
    /// `HOST:PORT` of its store.
    pub address: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.address)
    }
}

openraft::declare_raft_types!(
    /// One runtime, our commands.
    pub Types:
        D = Command,
        R = Option<Answer>,
        NodeId = MemberId,
        Node = Member,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub type LogId = openraft::LogId<MemberId>;
pub type Vote = openraft::Vote<MemberId>;
pub type LogEntry = openraft::Entry<Types>;
pub type Membership = openraft::StoredMembership<MemberId, Member>;
pub type SnapshotMeta = openraft::SnapshotMeta<MemberId, Member>;
pub type StorageError = openraft::StorageError<MemberId>;
pub type StorageIoError = openraft::StorageIOError<MemberId>;

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Write { expect, then } => write!(f, "write ({} conditions, {} changes)", expect.len(), then.len()),
            Command::Grant { ttl_ms, .. } => write!(f, "grant a lease of {ttl_ms} ms"),
            Command::End { .. } => f.write_str("end a lease"),
        }
    }
}
