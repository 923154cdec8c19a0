//! What members and clients say to each other: frames of JSON, a length of four bytes before each. One question, one answer, one after the other on a
//! connection; who has more to ask at once opens another.

use std::io;
use std::time::Duration;

use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::kv::{Answer, Command, Entry, LeaseId, Revision};
use crate::types::{Member, MemberId, Types};

/// Of this protocol. One that differs is refused at the start of a connection.
pub const PROTOCOL: u32 = 1;

/// A snapshot comes in pieces, so nothing is nearly as long.
const LONGEST: usize = 8 << 20;

/// The first frame of a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    /// The store's name: two stores that reach each other by mistake do not mix.
    pub cluster: String,
}

/// The answer to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Welcome {
    Welcome,
    Refused { why: String },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Of the engine, to this member and no other that may be at the address of one that is gone.
    Append(MemberId, AppendEntriesRequest<Types>),
    Vote(MemberId, VoteRequest<MemberId>),
    Snapshot(MemberId, InstallSnapshotRequest<Types>),
    /// About this member itself, from what it knows.
    Status,
    Write(Command),
    /// The whole time of this lease anew, and whether it holds this key, which was created then.
    Renew {
        lease: LeaseId,
        holds: Option<(String, Revision)>,
    },
    /// One more voter, which is new and runs there.
    Add {
        address: String,
    },
    /// One less, by its name.
    Remove {
        name: String,
    },
    /// Linearizable: the keys that begin so.
    Read {
        prefix: String,
    },
    /// Answered when one of the keys that begin so has changed since then, or after some seconds. From what this member knows.
    Watch {
        prefix: String,
        since: Revision,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Append(Result<AppendEntriesResponse<MemberId>, RaftError<MemberId>>),
    Vote(Result<VoteResponse<MemberId>, RaftError<MemberId>>),
    Snapshot(Result<InstallSnapshotResponse<MemberId>, RaftError<MemberId, InstallSnapshotError>>),
    Status(Status),
    Written(Answer),
    /// The members are those from now on.
    Members(Vec<Member>),
    Renewed(Renewal),
    Contents {
        revision: Revision,
        keys: Vec<(String, Entry)>,
    },
    /// `None`: which keys is not known any more.
    Changed {
        revision: Revision,
        keys: Option<Vec<String>>,
    },
    /// This member does not lead: ask that one.
    Elsewhere {
        leader: Option<Member>,
    },
    /// The quorum could not be had in time. A write may have been done, or be done yet.
    NoQuorum {
        why: String,
    },
    /// Nothing was done.
    Refused {
        why: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Renewal {
    /// With its time in milliseconds, from when the question was asked.
    Done {
        ttl_ms: u64,
        holds: bool,
    },
    NoLease,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub id: MemberId,
    pub name: String,
    /// The store has been made; this member may be one of it or not.
    pub initialized: bool,
    pub leader: Option<Member>,
    pub term: u64,
    /// Of the log: what this member has, what it has applied, and up to where a snapshot has it.
    pub last: Option<u64>,
    pub applied: Option<u64>,
    pub snapshot: Option<u64>,
    pub revision: Revision,
    /// Who votes, and who only learns.
    pub voters: Vec<Member>,
    pub learners: Vec<Member>,
    /// On the leader: since when a quorum has not answered.
    pub quorum_silent: Option<Duration>,
}

pub async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= LONGEST);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    stream.write_all(&frame).await?;
    stream.flush().await
}

pub async fn receive<M: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let length = stream.read_u32().await? as usize;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut body = Vec::new();
    // Not all at once: whoever only says that much is to come takes no memory.
    let read = stream.take(length as u64).read_to_end(&mut body).await?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&body)?)
}
