//! The keys: those that live and die with the lease, and the persistent ones.

use std::time::Duration;

use bytes::Bytes;
use pgherd_ha::{Epoch, LeaderOwner, Lease, View};
use pgherd_store::kv::{Answer, Bytes as Value, Change, Command, Condition, Entry, LeaseId, Revision};
use pgherd_store::wire::Renewal;
use tokio::time::Instant;

use super::{CallError, Client};
use crate::member_key::Put;
use crate::snapshot::{self, Found};
use crate::{Acquired, Expect, Written, boot_now};

/// Rounds of an operation that races with others for a key.
const ROUNDS: usize = 4;

/// As on the other stores.
const LARGEST_VALUE: usize = 1 << 20;

impl Client {
    /// A command, in the thread of the connections.
    pub(super) async fn command(&self, command: Command) -> Result<Answer, CallError> {
        let (members, until) = (self.members.clone(), self.operations.until());
        self.at_home(async move { members.write(command, until).await }).await
    }

    async fn change(&self, expect: Vec<Condition>, change: Change) -> Result<Answer, CallError> {
        self.command(Command::Write { expect, then: vec![change] }).await
    }

    async fn read(&self, prefix: &str, until: Instant) -> Result<Vec<(String, Entry)>, CallError> {
        let (members, prefix) = (self.members.clone(), prefix.to_owned());
        let (_, keys) = self.at_home(async move { members.read(&prefix, until).await }).await?;
        Ok(keys)
    }

    /// One key; others that begin so are passed over.
    async fn read_one(&self, key: &str, until: Instant) -> Result<Option<Entry>, CallError> {
        let keys = self.read(key, until).await?;
        Ok(keys.into_iter().find(|(found, _)| found == key).map(|(_, entry)| entry))
    }

    pub(super) async fn read_leader(&self, until: Instant) -> Result<Option<Entry>, CallError> {
        self.read_one(&self.layout.leader(), until).await
    }

    pub(super) async fn renew_lease(
        &self,
        lease: LeaseId,
        holds: Option<(String, Revision)>,
    ) -> Result<Renewal, CallError> {
        let (members, until) = (self.members.clone(), self.operations.until());
        self.at_home(async move { members.renew(lease, holds, until).await }).await
    }

    pub(super) async fn acquire_leader(&self) -> Result<Acquired, CallError> {
        let name = self.own_name()?;
        let key = self.layout.leader();
        let mut stale = None;
        for _ in 0..ROUNDS {
            let session = self.session(stale).await?;
            let value = Value(name.as_bytes().to_vec());
            let put = Change::Put { key: key.clone(), value, lease: Some(session.id) };
            let epoch = match self.change(vec![Condition::Absent { key: key.clone() }], put).await? {
                Answer::NoLease => {
                    stale = Some(session.id);
                    continue;
                }
                Answer::Done { revision } => Epoch(revision.0),
                // An earlier attempt of ours whose answer was lost, or somebody else's.
                Answer::Refused => match self.read_leader(self.operations.until()).await? {
                    Some(entry) if entry.lease == Some(session.id) => Epoch(entry.created.0),
                    Some(_) => return Ok(Acquired::Taken),
                    None => continue,
                },
            };
            return match self.renew_leader(epoch).await {
                Ok(lease) => Ok(lease.map_or(Acquired::Taken, Acquired::Ours)),
                // The key was written all the same.
                Err(error) => Err(CallError::Lost(error.to_string())),
            };
        }
        Err(CallError::NoLease)
    }

    pub(super) async fn renew_leader(&self, epoch: Epoch) -> Result<Option<Lease>, CallError> {
        let session = self.session(None).await?;
        let sent = boot_now();
        match self.renew_lease(session.id, Some((self.layout.leader(), Revision(epoch.0)))).await? {
            Renewal::Done { ttl_ms, holds: true } => {
                let granted = Duration::from_millis(ttl_ms);
                Ok(Some(Lease { epoch, sent, granted, tick: Some(allowance(granted)) }))
            }
            Renewal::Done { holds: false, .. } => Ok(None),
            Renewal::NoLease => {
                self.session.check.notify_one();
                Ok(None)
            }
        }
    }

    pub(super) async fn release_leader(&self, epoch: Epoch) -> Result<bool, CallError> {
        let session = self.session(None).await?;
        let key = self.layout.leader();
        let ours = vec![
            Condition::Created { key: key.clone(), at: Revision(epoch.0) },
            Condition::HeldBy { key: key.clone(), lease: session.id },
        ];
        Ok(matches!(self.change(ours, Change::Delete { key }).await?, Answer::Done { .. }))
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

    async fn put_member(&self, lease: LeaseId, count: u64) -> Result<(), CallError> {
        let key = &self.layout.member(self.own_name()?).map_err(|error| CallError::NotSent(error.to_string()))?;
        let write = |value: Bytes, replaced: Option<Revision>| async move {
            let condition = match replaced {
                Some(at) => Condition::Modified { key: key.clone(), at },
                None => Condition::Absent { key: key.clone() },
            };
            let put = Change::Put { key: key.clone(), value: Value(value.to_vec()), lease: Some(lease) };
            match self.change(vec![condition], put).await? {
                Answer::Done { revision } => Ok(Put::Done(revision)),
                Answer::NoLease => Err(CallError::NoLease),
                Answer::Refused => {
                    let found = self.read_one(key, self.operations.until()).await?;
                    Ok(Put::Found(found.map(|entry| entry.modified)))
                }
            }
        };
        self.member.put(lease, count, write).await
    }

    fn own_name(&self) -> Result<&str, CallError> {
        self.name.as_deref().ok_or_else(|| CallError::NotSent("this client has no node name".into()))
    }

    pub(super) async fn write_key(&self, path: &str, value: &[u8], expect: Expect) -> Result<Written, CallError> {
        if value.len() > LARGEST_VALUE {
            let cause = format!("a value has {} bytes, and at most {LARGEST_VALUE} can be stored", value.len());
            return Err(CallError::Refused(cause));
        }
        let put = Change::Put { key: path.to_owned(), value: Value(value.to_vec()), lease: None };
        match self.change(conditions(path, expect), put).await? {
            Answer::Done { revision } => Ok(Written::Done { version: version(revision) }),
            Answer::Refused | Answer::NoLease => Ok(Written::Conflict),
        }
    }

    pub(super) async fn delete_key(&self, path: &str, expect: Expect) -> Result<bool, CallError> {
        let at = match expect {
            Expect::Absent => return Ok(false),
            Expect::Any => match self.read_one(path, self.operations.until()).await? {
                Some(entry) => entry.modified,
                None => return Ok(false),
            },
            Expect::Version(version) => Revision(u64::try_from(version).unwrap_or(0)),
        };
        let same = vec![Condition::Modified { key: path.to_owned(), at }];
        Ok(matches!(self.change(same, Change::Delete { key: path.to_owned() }).await?, Answer::Done { .. }))
    }

    pub(super) async fn delete_tree(&self) -> Result<(), CallError> {
        let prefix = format!("{}/", self.layout.base());
        self.change(Vec::new(), Change::DeleteAll { prefix }).await.map(|_| ())
    }

    pub(super) async fn list_clusters(&self) -> Result<Vec<String>, CallError> {
        let keys = self.read(&snapshot::namespace_prefix(&self.layout), self.operations.until()).await?;
        Ok(snapshot::clusters(&self.layout, keys.iter().map(|(key, _)| key.as_str())))
    }

    pub(super) async fn load_view(&self) -> Result<View, CallError> {
        let keys = self.read(&format!("{}/", self.layout.base()), self.operations.until()).await?;
        let own = self.session.now().map(|session| session.id);
        let found = |(key, entry): (String, Entry)| {
            let ours = own.is_some() && entry.lease == own;
            (key, Found { epoch: Epoch(entry.created.0), version: version(entry.modified), value: entry.value.0, ours })
        };
        let view = snapshot::view(&self.layout, &keys.into_iter().map(found).collect());
        let leads = view.leader.as_ref().is_some_and(|leader| leader.owner == LeaderOwner::Me);
        self.leading.store(leads, std::sync::atomic::Ordering::SeqCst);
        Ok(view)
    }
}

fn conditions(path: &str, expect: Expect) -> Vec<Condition> {
    let key = path.to_owned();
    match expect {
        Expect::Any => Vec::new(),
        Expect::Absent => vec![Condition::Absent { key }],
        // No key has the revision 0.
        Expect::Version(version) => {
            vec![Condition::Modified { key, at: Revision(u64::try_from(version).unwrap_or(0)) }]
        }
    }
}

/// A revision that far is never reached.
fn version(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// The leader's clock and ours: the kernel's is corrected by half a thousandth at most while it runs.
fn allowance(granted: Duration) -> Duration {
    granted / 50
}
