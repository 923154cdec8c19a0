//! The state machine of one member: the contents, what of the log is in them, and the snapshot on the disk.
//!
//! The contents themselves are in memory; after a restart they are those of the snapshot, and the library applies what the log has beyond it.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::kv::{Answer, Contents, Revision};
use crate::log::{Log, OpenError};
use crate::types::{LogEntry, LogId, Member, MemberId, Membership, SnapshotMeta, StorageError, StorageIoError, Types};

/// So many changes are kept for those who were away for a moment.
const CHANGES: usize = 1024;

#[derive(Debug, Default)]
struct Inner {
    contents: Contents,
    applied: Option<LogId>,
    membership: Membership,
    changes: VecDeque<(Revision, BTreeSet<String>)>,
    snapshot: Option<Stored>,
}

/// A snapshot, as it lies in its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    meta: SnapshotMeta,
    contents: Contents,
}

/// The state machine; clones are the same.
#[derive(Clone, Debug)]
pub struct Machine {
    inner: Arc<Mutex<Inner>>,
    /// The newest revision.
    revisions: watch::Sender<Revision>,
    log: Log,
    file: PathBuf,
    /// Up to where the snapshot on the disk goes.
    kept: watch::Sender<Option<LogId>>,
    /// Held by whoever writes it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What has changed since a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    Keys(BTreeSet<String>),
    /// That is too long ago: anything may have.
    Unknown,
}

impl Machine {
    pub fn open(directory: &Path, log: Log) -> Result<Machine, OpenError> {
        let file = directory.join("snapshot");
        let snapshot = read(&file)?;
        let mut inner = Inner::default();
        if let Some(snapshot) = snapshot {
            inner.take(snapshot);
        }
        let revisions = watch::Sender::new(inner.contents.revision());
        let kept = watch::Sender::new(inner.applied);
        if log.purged() > inner.applied {
            let why = "the log goes on from a later snapshot than this".to_owned();
            return Err(OpenError::Damaged { path: file, why });
        }
        Ok(Machine { inner: Arc::new(Mutex::new(inner)), revisions, log, file, kept, turn: Arc::default() })
    }

    /// The contents as this member has them: what it answers is linearizable only after the library has confirmed it.
    pub fn read<R>(&self, read: impl FnOnce(&Contents) -> R) -> R {
        read(&self.inner().contents)
    }

    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.revisions.subscribe()
    }

    /// Of the keys that begin with `prefix`.
    pub fn changes_since(&self, revision: Revision, prefix: &str) -> Changes {
        let inner = self.inner();
        if revision > inner.contents.revision() {
            return Changes::Unknown;
        }
        let oldest = inner.changes.front().map_or(inner.contents.revision(), |(oldest, _)| Revision(oldest.0 - 1));
        if revision < oldest {
            return Changes::Unknown;
        }
        let later = inner.changes.iter().filter(|(at, _)| *at > revision).flat_map(|(_, keys)| keys);
        Changes::Keys(later.filter(|key| key.starts_with(prefix)).cloned().collect())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing that holds it panics half way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to where the snapshot on the disk goes.
    pub fn kept(&self) -> watch::Receiver<Option<LogId>> {
        self.kept.subscribe()
    }

    async fn keep(&self, snapshot: Stored) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        let newer = |stored: &Stored| stored.meta.last_log_id > snapshot.meta.last_log_id;
        if self.inner().snapshot.as_ref().is_some_and(newer) {
            // One that was built while a newer one came: the log may have given up what lies between.
            return Ok(());
        }
        self.log.write_beside(self.file.clone(), crate::log::record(&serde_json::to_vec(&snapshot)?)?).await?;
        let last = snapshot.meta.last_log_id;
        self.inner().snapshot = Some(snapshot);
        self.kept.send_replace(last);
        Ok(())
    }
}

impl Inner {
    fn take(&mut self, snapshot: Stored) {
        self.contents = snapshot.contents.clone();
        self.applied = snapshot.meta.last_log_id;
        self.membership = snapshot.meta.last_membership.clone();
        self.changes.clear();
        self.snapshot = Some(snapshot);
    }

    fn apply(&mut self, entry: LogEntry) -> Option<Answer> {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(membership) => {
                self.membership = Membership::new(Some(entry.log_id), membership);
                None
            }
            EntryPayload::Normal(command) => {
                let (answer, changed) = self.contents.apply(&command);
                if !changed.is_empty() {
                    if self.changes.len() == CHANGES {
                        self.changes.pop_front();
                    }
                    self.changes.push_back((self.contents.revision(), changed));
                }
                Some(answer)
            }
        }
    }
}

fn read(file: &Path) -> Result<Option<Stored>, OpenError> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { path: file.to_owned(), source }),
    };
    let damaged = |why: String| OpenError::Damaged { path: file.to_owned(), why };
    let payload = crate::log::only_record(&bytes).map_err(damaged)?;
    serde_json::from_slice(payload).map(Some).map_err(|error| damaged(error.to_string()))
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let stored = {
            let inner = self.inner();
            let last =
                inner.applied.map_or("0".to_owned(), |applied| format!("{}-{}", applied.leader_id, applied.index));
            let meta = SnapshotMeta {
                last_log_id: inner.applied,
                last_membership: inner.membership.clone(),
                snapshot_id: last,
            };
            Stored { meta, contents: inner.contents.clone() }
        };
        let kept = async {
            let bytes = serde_json::to_vec(&stored.contents)?;
            self.keep(stored.clone()).await?;
            Ok::<Vec<u8>, io::Error>(bytes)
        };
        let bytes =
            kept.await.map_err(|error| StorageIoError::write_snapshot(Some(stored.meta.signature()), &error))?;
        Ok(Snapshot { meta: stored.meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, openraft::StoredMembership<MemberId, Member>), StorageError> {
        let inner = self.inner();
        Ok((inner.applied, inner.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Option<Answer>>, StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut inner = self.inner();
        let answers = entries.into_iter().map(|entry| inner.apply(entry)).collect();
        self.revisions.send_if_modified(|known| std::mem::replace(known, inner.contents.revision()) != *known);
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let contents = serde_json::from_slice(snapshot.get_ref())
            .map_err(|error| StorageIoError::read_snapshot(Some(meta.signature()), &error))?;
        let stored = Stored { meta: meta.clone(), contents };
        let kept = self.keep(stored.clone()).await;
        kept.map_err(|error| StorageIoError::write_snapshot(Some(meta.signature()), &error))?;
        let mut inner = self.inner();
        inner.take(stored);
        self.revisions.send_replace(inner.contents.revision());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let Some(stored) = self.inner().snapshot.clone() else { return Ok(None) };
        let bytes = serde_json::to_vec(&stored.contents)
            .map_err(|error| StorageIoError::read_snapshot(Some(stored.meta.signature()), &error))?;
        Ok(Some(Snapshot { meta: stored.meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}
