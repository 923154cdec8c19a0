//! The durable log of one member, and its vote: `log` and `vote` in the member's directory.
//!
//! All entries that are not in a snapshot are in memory, too. The file only grows, by entries, by marks that later ones were given up, and by marks that
//! earlier ones are in a snapshot; it is written anew when most of it is of no use any more. Tested with the library's own suite, and below with
//! crashes at every byte.

mod file;
mod record;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::RangeBounds;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogId, RaftLogReader};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use self::file::Writer;
pub use self::file::write_whole;
pub use self::record::Damaged;
use crate::types::{LogEntry, LogId, MemberId, StorageError, StorageIoError, Types, Vote};

/// A file that is longer is written anew when a snapshot has made its beginning useless.
const SHORTEST_TO_REPLACE: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is in use: another process runs a member of a store there, or this one has not ended yet", .0.display())]
    Locked(PathBuf),
    #[error(
        "{} cannot be trusted: {why}. Nothing was changed. If the other members of the store are well, remove this one (`pgherd store remove`), \
         delete its directory, and add it anew",
        path.display()
    )]
    Damaged { path: PathBuf, why: String },
}

/// One record.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Entry(LogEntry),
    /// This index and all after it were given up.
    Truncated(u64),
    /// Up to here all is in a snapshot.
    Purged(LogId),
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum RecordOf<'a> {
    Entry(&'a LogEntry),
    Truncated(u64),
    Purged(&'a LogId),
}

impl RecordOf<'_> {
    fn bytes(&self) -> io::Result<Vec<u8>> {
        record::encode(&serde_json::to_vec(self)?)
    }
}

#[derive(Debug, Default)]
struct Entries {
    entries: BTreeMap<u64, LogEntry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    /// Of the file.
    length: usize,
}

impl Entries {
    fn take(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Entry(entry) => {
                let index = entry.log_id.index;
                let last = self.entries.keys().next_back().copied().or(self.purged.map(|purged| purged.index));
                if last.is_some_and(|last| index != last + 1) {
                    return Err(format!("entry {index} follows entry {}", last.unwrap_or_default()));
                }
                self.entries.insert(index, entry);
            }
            Record::Truncated(index) => drop(self.entries.split_off(&index)),
            Record::Purged(log_id) => {
                self.entries = self.entries.split_off(&(log_id.index + 1));
                self.purged = self.purged.max(Some(log_id));
            }
        }
        Ok(())
    }

    fn whole_file(&self) -> io::Result<Vec<u8>> {
        let mut bytes = self.purged.as_ref().map_or(Ok(Vec::new()), |purged| RecordOf::Purged(purged).bytes())?;
        for entry in self.entries.values() {
            bytes.extend(RecordOf::Entry(entry).bytes()?);
        }
        Ok(bytes)
    }
}

/// The log of a member; clones are the same log.
#[derive(Clone, Debug)]
pub struct Log {
    entries: Arc<Mutex<Entries>>,
    writer: Writer,
    vote: PathBuf,
    /// The snapshot on the disk.
    kept: Option<watch::Receiver<Option<LogId>>>,
}

impl Log {
    /// Makes the directory if there is none.
    pub fn open(directory: &Path) -> Result<Log, OpenError> {
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(error(directory))?;
        let (log, vote) = (directory.join("log"), directory.join("vote"));
        let held = lock(directory)?;
        let snapshot = directory.join("snapshot");
        let damaged = |why: String| OpenError::Damaged { path: log.clone(), why };
        if !log.exists() && (vote.exists() || snapshot.exists()) {
            return Err(damaged("it is gone, and other files of this member are there".into()));
        }
        let mut entries = Entries { vote: read_vote(&vote)?, ..Entries::default() };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&log);
        let file = file.as_mut().map_err(|source| OpenError::Io { path: log.clone(), source: clone(source) })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(error(&log))?;
        let (payloads, end) = record::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        for place in payloads {
            let at = place.start;
            let record =
                serde_json::from_slice(&bytes[place]).map_err(|error| damaged(format!("offset {at}: {error}")))?;
            entries.take(record).map_err(|why| damaged(format!("offset {at}: {why}")))?;
        }
        let has_promised = entries.purged.is_some() || entries.entries.keys().any(|index| *index > 0);
        if entries.vote.is_none() && (has_promised || snapshot.exists()) {
            return Err(OpenError::Damaged {
                path: vote,
                why: "it is gone, and the log of this member is there".into(),
            });
        }
        if end < bytes.len() {
            tracing::warn!(
                "{}: its last write was cut off by a crash; {} bytes that nobody was told of are removed",
                log.display(),
                bytes.len() - end
            );
            cut(file, end).map_err(error(&log))?;
        }
        entries.length = end;
        let writer = Writer::start(&log, held).map_err(error(&log))?;
        Ok(Log { entries: Arc::new(Mutex::new(entries)), writer, vote, kept: None })
    }

    /// Up to where a snapshot has what was in the log.
    pub fn purged(&self) -> Option<LogId> {
        self.entries().purged
    }

    /// To be called before the engine starts: a leader that was restarted has to be elected anew. The engine would go on in its term, and read before
    /// it knows again what it had committed. Only our own vote is touched, and what it was before it was confirmed is on the disk as well.
    pub fn lead_no_more(&self, id: MemberId) {
        if let Some(vote) = &mut self.entries().vote
            && vote.leader_id.node_id == id
        {
            vote.committed = false;
        }
    }

    /// From now on the log gives up only what is in a snapshot on the disk, which `kept` tells.
    pub fn wait_for_snapshots(&mut self, kept: watch::Receiver<Option<LogId>>) {
        self.kept = Some(kept);
    }

    /// Another file of this member, in its turn and in one step.
    pub async fn write_beside(&self, path: PathBuf, bytes: Vec<u8>) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        self.writer.write(path, bytes, |result| drop(done.send(result)));
        wait(result).await
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Nothing that holds it panics half way through a change.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn append_record(&self, record: RecordOf<'_>) -> io::Result<()> {
        let bytes = record.bytes()?;
        let (done, result) = oneshot::channel();
        self.entries().length += bytes.len();
        self.writer.append(bytes, |result| drop(done.send(result)));
        wait(result).await
    }
}

/// Two that write here would destroy each other's work.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let io = |source| OpenError::Io { path: directory.to_owned(), source };
    let held = File::open(directory).map_err(io)?;
    match flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(held),
        Err(Errno::WOULDBLOCK) => Err(OpenError::Locked(directory.to_owned())),
        Err(error) => Err(io(error.into())),
    }
}

async fn wait(result: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    result.await.unwrap_or_else(|_| Err(io::Error::other("the thread that writes the store's log has ended")))
}

fn clone(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

fn cut(file: &File, end: usize) -> io::Result<()> {
    file.set_len(end as u64)?;
    file.sync_all()
}

/// One record, as the file of a snapshot is.
pub fn record(payload: &[u8]) -> io::Result<Vec<u8>> {
    record::encode(payload)
}

/// The payload of a file that is one record; or why it is none.
pub fn only_record(bytes: &[u8]) -> Result<&[u8], String> {
    let (payloads, end) = record::decode(bytes).map_err(|error| error.to_string())?;
    match &payloads[..] {
        [place] if end == bytes.len() => Ok(&bytes[place.clone()]),
        _ => Err("it does not hold one record".to_owned()),
    }
}

/// A vote that cannot be read must not count as none: this member would vote twice.
fn read_vote(path: &Path) -> Result<Option<Vote>, OpenError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { path: path.to_owned(), source }),
    };
    let damaged = |why: String| OpenError::Damaged { path: path.to_owned(), why };
    let payload = only_record(&bytes).map_err(damaged)?;
    serde_json::from_slice(payload).map(Some).map_err(|error| damaged(error.to_string()))
}

/// What goes out in one message, as it lies in the log: few enough for any link.
const AT_ONCE: usize = 512 << 10;

impl RaftLogReader<Types> for Log {
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, StorageError> {
        let mut length = 0;
        let mut some = Vec::new();
        for (_, entry) in self.entries().entries.range(start..end) {
            length += serde_json::to_vec(entry).map_or(0, |text| text.len());
            if !some.is_empty() && length > AT_ONCE {
                break;
            }
            some.push(entry.clone());
        }
        Ok(some)
    }

    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<LogEntry>, StorageError> {
        Ok(self.entries().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let entries = self.entries();
        let last = entries.entries.values().next_back().map(|entry| *entry.get_log_id());
        Ok(LogState { last_purged_log_id: entries.purged, last_log_id: last.or(entries.purged) })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let written = async {
            let bytes = record::encode(&serde_json::to_vec(vote)?)?;
            self.write_beside(self.vote.clone(), bytes).await
        };
        written.await.map_err(|error| StorageIoError::write_vote(&error))?;
        self.entries().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.entries().vote)
    }

    async fn append<I>(&mut self, appended: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut bytes = Vec::new();
        let mut entries = self.entries();
        for entry in appended {
            bytes.extend(RecordOf::Entry(&entry).bytes().map_err(|error| StorageIoError::write_logs(&error))?);
            entries.entries.insert(entry.log_id.index, entry);
        }
        entries.length += bytes.len();
        // Under the lock: in the order of the entries.
        self.writer.append(bytes, |result| callback.log_io_completed(result));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        drop(self.entries().entries.split_off(&log_id.index));
        let written = self.append_record(RecordOf::Truncated(log_id.index)).await;
        Ok(written.map_err(|error| StorageIoError::write_logs(&error))?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        // The engine asks for it as soon as a snapshot is on its way to the disk.
        if let Some(kept) = &mut self.kept {
            // Its other end lives as long as the engine.
            let _ = kept.wait_for(|kept| *kept >= Some(log_id)).await;
        }
        let written = async {
            let length = {
                let mut entries = self.entries();
                entries.entries = entries.entries.split_off(&(log_id.index + 1));
                entries.purged = Some(log_id);
                entries.length
            };
            if length < SHORTEST_TO_REPLACE {
                return self.append_record(RecordOf::Purged(&log_id)).await;
            }
            let (done, result) = oneshot::channel();
            {
                let mut entries = self.entries();
                let bytes = entries.whole_file()?;
                entries.length = bytes.len();
                self.writer.replace(bytes, |result| drop(done.send(result)));
            }
            wait(result).await
        };
        Ok(written.await.map_err(|error| StorageIoError::write_logs(&error))?)
    }
}

#[cfg(test)]
mod tests;
