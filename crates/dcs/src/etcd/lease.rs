//! The two keys that live and die with the lease: `leader` and this node's member key; and what proves that we hold them.
//!
//! etcd's leader alone keeps the time of the leases, in its memory, and a deposed one goes on answering for a while (measured: for
//! 1.2 to 1.6 s, and after it was frozen for as long as it takes to notice). So a lease is proven by three answers of one server in one
//! term: a linearizable one from before, the keep-alive, and a linearizable read of `leader` after it. The server was in that term
//! throughout, so the keep-alive was the business of the term's leader; and the last read says that a quorum still followed that leader
//! afterwards. Whoever leads etcd later starts every lease anew, with its full time. The lease counts from before the keep-alive was
//! sent.
//!
//! All that holds where only etcd's leader ends leases. Before 3.4.31 and 3.5.13 one that was frozen may do so after it was deposed, which
//! nothing here can make up for; `session` names such a version.

use std::time::Duration;

use bytes::Bytes;
use pgherd_ha::{Epoch, Lease};

use super::Client;
use super::gateway::Again;
use super::session::Session;
use super::verdict::CallError;
use super::wire::{Act, Compare, Header, KeyValue, RangeAnswer, TxnAnswer, one_key, txn};
use crate::member_key::Put;
use crate::{Acquired, boot_now};

/// Rounds of an operation that races with others for a key, or with a change of the servers.
const ROUNDS: usize = 4;

/// Where and when an answer was given: the server and its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    member: u64,
    term: u64,
}

impl From<Header> for Place {
    fn from(header: Header) -> Place {
        Place { member: header.member_id, term: header.raft_term }
    }
}

impl Client {
    pub(super) async fn acquire_leader(&self) -> Result<Acquired, CallError> {
        let name = self.name.as_deref().ok_or_else(|| CallError::NotSent("this client has no node name".into()))?;
        let path = self.layout.leader();
        let mut stale = None;
        for _ in 0..ROUNDS {
            let session = self.session(stale).await?;
            let body = txn(&[Compare::Created(&path, 0)], Act::Put(&path, name.as_bytes(), session.id));
            let answer: TxnAnswer = match self.gateway.call("kv/txn", body, Again::No).await {
                Err(CallError::NoLease) => {
                    stale = Some(session.id);
                    continue;
                }
                answer => answer?,
            };
            self.saw(answer.header);
            let epoch = match (answer.succeeded, answer.header.revision) {
                (true, revision) => Epoch(u64::try_from(revision).unwrap_or(0)),
                // An earlier attempt of ours whose answer was lost, or somebody else's.
                (false, _) => match answer.found().filter(|key| session.owns(key.lease)) {
                    Some(key) => epoch(&key),
                    None => return Ok(Acquired::Taken),
                },
            };
            let lease = self.renew_leader(epoch).await.map_err(CallError::after_a_write)?;
            return Ok(lease.map_or(Acquired::Taken, Acquired::Ours));
        }
        Err(CallError::NoLease)
    }

    pub(super) async fn renew_leader(&self, wanted: Epoch) -> Result<Option<Lease>, CallError> {
        let mut session = self.session(None).await?;
        let mut kept = session.id;
        for _ in 0..ROUNDS {
            let before = self.last_seen();
            let sent = boot_now();
            let Some(alive) = self.keep_alive(kept).await? else {
                if kept != session.id {
                    // The former one, whose time is over: its keys have moved.
                    kept = session.id;
                    continue;
                }
                self.session.check.notify_one();
                return Ok(None);
            };
            let (leader, header) = self.read_leader().await?;
            self.saw(header);
            let Some(leader) = leader.filter(|key| epoch(key) == wanted) else { return Ok(None) };
            if leader.lease != kept {
                // The key may be on its way from one lease of ours to the next, and the keeper done with it before the answer came.
                let now = self.session(None).await?;
                if !session.owns(leader.lease) && !now.owns(leader.lease) {
                    return Ok(None);
                }
                session = now;
                kept = leader.lease;
                continue;
            }
            let place = Place::from(header);
            if before == Some(place) && Place::from(alive.header) == place {
                let granted = Duration::from_secs(alive.ttl.into());
                return Ok(Some(Lease { epoch: wanted, sent, granted, tick: Some(allowance(granted)) }));
            }
        }
        Err(CallError::Lost("the servers of etcd change their leader, or take turns in answering".into()))
    }

    pub(super) async fn release_leader(&self, wanted: Epoch) -> Result<bool, CallError> {
        let path = self.layout.leader();
        let session = self.session(None).await?;
        let created = i64::try_from(wanted.0).unwrap_or(0);
        if created == 0 {
            return Ok(false);
        }
        for lease in [Some(session.id), session.former].into_iter().flatten() {
            let compare = [Compare::Created(&path, created), Compare::Lease(&path, lease)];
            let answer: TxnAnswer = self.gateway.call("kv/txn", txn(&compare, Act::Delete(&path)), Again::No).await?;
            if answer.succeeded {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) async fn write_own_member(&self, value: &[u8]) -> Result<(), CallError> {
        let count = self.member.set(value);
        let mut stale = None;
        for _ in 0..ROUNDS {
            let session = self.session(stale).await?;
            match self.put_member(session.id, count).await {
                Err(CallError::NoLease) => stale = Some(session.id),
                written => return written,
            }
        }
        Err(CallError::NoLease)
    }

    async fn put_member(&self, lease: i64, count: u64) -> Result<(), CallError> {
        let path = &self.own_member()?;
        // No key has the revision 0.
        let write = |value: Bytes, replaced: Option<i64>| async move {
            let compare = [Compare::Modified(path, replaced.unwrap_or(0))];
            let body = txn(&compare, Act::Put(path, &value, lease));
            let answer: TxnAnswer = self.gateway.call("kv/txn", body, Again::No).await?;
            Ok(match answer.succeeded {
                true => Put::Done(answer.header.revision),
                false => Put::Found(answer.found().map(|key| key.mod_revision)),
            })
        };
        self.member.put(lease, count, write).await
    }

    /// Puts what is under the former lease under the new one; the keys stay what they are.
    pub(super) async fn move_keys(&self, to: i64, from: i64) -> Result<(), CallError> {
        self.adopt_member_value(from).await?;
        self.put_member(to, u64::MAX).await?;
        let name = self.name.as_deref().unwrap_or_default();
        let path = self.layout.leader();
        let body = txn(&[Compare::Lease(&path, from)], Act::Put(&path, name.as_bytes(), to));
        let _: TxnAnswer = self.gateway.call("kv/txn", body, Again::Yes).await?;
        Ok(())
    }

    /// An agent that took up its predecessor's lease may have to move the member key before it knows what to say of its server: it
    /// repeats what stands there.
    async fn adopt_member_value(&self, lease: i64) -> Result<(), CallError> {
        if self.member.has_a_value() {
            return Ok(());
        }
        let answer: RangeAnswer = self.gateway.call("kv/range", one_key(&self.own_member()?), Again::Yes).await?;
        if let Some(key) = answer.kvs.into_iter().next().filter(|key| key.lease == lease) {
            self.member.adopt(key.value.0.into());
        }
        Ok(())
    }

    pub(super) async fn read_leader(&self) -> Result<(Option<KeyValue>, Header), CallError> {
        let answer: RangeAnswer = self.gateway.call("kv/range", one_key(&self.layout.leader()), Again::Yes).await?;
        Ok((answer.kvs.into_iter().next(), answer.header))
    }

    pub(super) fn own_session(&self) -> Option<Session> {
        self.session.now()
    }
}

/// The epoch of the `leader` key; revisions are never negative.
pub(super) fn epoch(leader: &KeyValue) -> Epoch {
    Epoch(u64::try_from(leader.create_revision).unwrap_or(0))
}

/// etcd never frees a key early; but its clock is not ours. The kernel's is corrected by half a thousandth at most while it runs.
fn allowance(granted: Duration) -> Duration {
    granted / 50
}
