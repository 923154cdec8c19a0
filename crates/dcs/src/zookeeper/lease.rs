//! The two keys that live and die with the session: `leader` and this node's member key.
//!
//! A heartbeat proves nothing about the lease, nor does a read: a server that is cut off from its quorum answers both. A write
//! is acknowledged by a quorum, and only for a session that lives. So every lease here comes from a write (the
//! `leader` key's creation, or the member key rewritten) and counts from before that write was sent. The write does not
//! itself prolong the session; heartbeats and requests do, and the quorum learns of them every half tick. So after a silence a
//! lease counts from before the silence (`pgherd_ha::SignsOfLife`). A server does not tell its tick; [`tick`] assumes one.

use std::time::Duration;

use bytes::Bytes;
use pgherd_ha::{Boot, Epoch, Lease};

use super::ZooKeeper;
use super::link::{Answer, CallError, Link, Refusal};
use super::load::epoch;
use super::wire::Stat;
use crate::member_key::StillRacing;
use crate::{Acquired, boot_now};

/// Rounds of an operation that races with others for a key. Each round is lost only to another change of the
/// same key; three in a row mean that two nodes run under one name.
const ROUNDS: usize = 3;

impl ZooKeeper {
    pub(super) async fn acquire_leader(&self) -> Result<Acquired, CallError> {
        let link = &*self.link().await?;
        let path = self.layout.leader();
        let name = self.name.as_deref().ok_or_else(|| CallError::NotSent("this client has no node name".into()))?;
        for _ in 0..ROUNDS {
            let sent = boot_now();
            match link.create(&path, name.as_bytes(), true).get().await {
                Ok(stat) => return Ok(Acquired::Ours(lease(link, &stat, sent))),
                Err(CallError::Refused(Refusal::NoNode)) => self.create_parents(link, &path).await?,
                Err(CallError::Refused(Refusal::NodeExists)) => match link.stat(&path).optional().await? {
                    // An earlier attempt of ours whose answer was lost.
                    Some(stat) if stat.owner == link.session => {
                        let lease = self.renew_leader(epoch(&stat)).await?;
                        return Ok(lease.map_or(Acquired::Taken, Acquired::Ours));
                    }
                    Some(_) => return Ok(Acquired::Taken),
                    None => {}
                },
                Err(error) => return Err(error),
            }
        }
        // It came and went each time: somebody else is at it.
        Ok(Acquired::Taken)
    }

    pub(super) async fn renew_leader(&self, wanted: Epoch) -> Result<Option<Lease>, CallError> {
        let link = &*self.link().await?;
        self.adopt_member_value(link).await?;
        let sent = boot_now();
        // Both at once: the server reads the leader key after it has applied the write.
        let written = self.send_member(link)?;
        let leader = link.stat(&self.layout.leader());
        let leader = match self.settle_member(link, written).await {
            Ok(Settled::InPlace) => leader.optional().await?,
            // The proof is a later write than the read was.
            Ok(Settled::Recreated) => link.stat(&self.layout.leader()).optional().await?,
            Err(CallError::Refused(Refusal::SessionExpired)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let ours = leader.filter(|stat| stat.owner == link.session && epoch(stat) == wanted);
        Ok(ours.map(|stat| lease(link, &stat, sent)))
    }

    /// The delete names the version only, so it could meet a successor's key if the one that was read vanished in
    /// between. It cannot vanish with our session: a delete of an expired session is refused.
    pub(super) async fn release_leader(&self, wanted: Epoch) -> Result<bool, CallError> {
        let link = &*self.link().await?;
        let path = self.layout.leader();
        let found = link.stat(&path).optional().await?;
        let Some(stat) = found.filter(|stat| stat.owner == link.session && epoch(stat) == wanted) else {
            return Ok(false);
        };
        match link.delete(&path, Some(stat.version)).get().await {
            Ok(()) => Ok(true),
            Err(CallError::Refused(Refusal::NoNode | Refusal::BadVersion | Refusal::SessionExpired)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn write_own_member(&self, value: &[u8]) -> Result<(), CallError> {
        *self.lock_member() = Some(Bytes::copy_from_slice(value));
        let link = &*self.link().await?;
        let written = self.send_member(link)?;
        self.settle_member(link, written).await.map(|_| ())
    }

    /// An agent that took up its predecessor's session renews before it knows what to say of its server: it repeats
    /// what stands there.
    async fn adopt_member_value(&self, link: &Link) -> Result<(), CallError> {
        if self.lock_member().is_some() {
            return Ok(());
        }
        if let Some((value, _)) = link.read(&self.own_member()?).optional().await? {
            self.lock_member().get_or_insert(value);
        }
        Ok(())
    }

    /// Puts the rewrite of the member key in the queue, with the value that is the newest at that moment.
    fn send_member(&self, link: &Link) -> Result<Answer<Stat>, CallError> {
        let path = self.own_member()?;
        let value = self.lock_member();
        let value = value.as_ref().ok_or_else(|| CallError::NotSent("the member key was never written".into()))?;
        Ok(link.set(&path, value, None))
    }

    /// Sees to it that the member key exists and is ours, starting from the answer to [`send_member`](Self::send_member).
    async fn settle_member(&self, link: &Link, written: Answer<Stat>) -> Result<Settled, CallError> {
        let path = self.own_member()?;
        match written.get().await {
            Ok(stat) if stat.owner == link.session => return Ok(Settled::InPlace),
            // Of a former session of this node: it would vanish with that one.
            Ok(stat) => drop_version(link, &path, stat.version).await?,
            Err(CallError::Refused(Refusal::NoNode)) => {}
            Err(error) => return Err(error),
        }
        for _ in 0..ROUNDS {
            let created = {
                let value = self.lock_member();
                link.create(&path, value.as_deref().unwrap_or_default(), true)
            };
            match created.get().await {
                Ok(_) => return Ok(Settled::Recreated),
                Err(CallError::Refused(Refusal::NoNode)) => self.create_parents(link, &path).await?,
                Err(CallError::Refused(Refusal::NodeExists)) => match link.stat(&path).optional().await? {
                    // Our own, from a request whose answer was lost: its value may be an older one.
                    Some(stat) if stat.owner == link.session => {
                        self.send_member(link)?.get().await?;
                        return Ok(Settled::Recreated);
                    }
                    Some(stat) => drop_version(link, &path, stat.version).await?,
                    None => {}
                },
                Err(error) => return Err(error),
            }
        }
        Err(StillRacing.into())
    }

    fn lock_member(&self) -> std::sync::MutexGuard<'_, Option<Bytes>> {
        self.member_value.lock().expect("nobody panics while holding this lock")
    }
}

/// How the member key came to be as it should.
enum Settled {
    InPlace,
    Recreated,
}

/// Deletes the key if it still has this version; whatever else became of it shows at the next step.
async fn drop_version(link: &Link, path: &str, version: i32) -> Result<(), CallError> {
    match link.delete(path, Some(version)).get().await {
        Ok(()) | Err(CallError::Refused(Refusal::NoNode | Refusal::BadVersion)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn lease(link: &Link, leader: &Stat, sent: Boot) -> Lease {
    let tick = tick(link.granted);
    Lease { epoch: epoch(leader), sent: link.counts_from(sent, tick), granted: link.granted, tick: Some(tick) }
}

/// How early the quorum may end a session, counted from a proven sign of life: a tick. Two seconds is the usual one; a
/// session has at least two ticks; a server with a longer tick grants longer sessions, of which a quarter is left.
fn tick(granted: Duration) -> Duration {
    const USUAL: Duration = Duration::from_secs(2);
    (granted / 4).max(USUAL.min(granted / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_a_tick_before_the_session_may() {
        for (granted_ms, tick_ms) in [(1_000, 500), (4_000, 2_000), (5_000, 2_000), (8_000, 2_000), (30_000, 7_500)] {
            assert_eq!(tick(Duration::from_millis(granted_ms)), Duration::from_millis(tick_ms), "{granted_ms} ms");
        }
    }
}
