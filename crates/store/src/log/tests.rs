//! The library's suite, and what is left after a crash.

use openraft::storage::RaftLogStorageExt;
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, Entry, EntryPayload};

use super::*;
use crate::kv::{Change, Command};
use crate::machine::Machine;

struct Builder;

impl StoreBuilder<Types, Log, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, Machine), StorageError> {
        let directory = tempfile::tempdir().expect("a directory");
        let log = Log::open(directory.path()).expect("a log");
        let machine = Machine::open(directory.path(), log.clone()).expect("a state machine");
        Ok((directory, log, machine))
    }
}

#[test]
fn the_library_s_suite_passes() {
    Suite::test_all(Builder).expect("it passes");
}

fn entry(term: u64, index: u64) -> LogEntry {
    let log_id = LogId::new(CommittedLeaderId::new(term, 1), index);
    let then = vec![Change::Delete { key: format!("key {index} of term {term}") }];
    Entry { log_id, payload: EntryPayload::Normal(Command::Write { expect: Vec::new(), then }) }
}

/// A log that was written, given up in part, written anew, and begun by a snapshot; all in its file.
fn written(directory: &Path) -> Vec<LogEntry> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut log = Log::open(directory).expect("a log");
        log.save_vote(&Vote::new_committed(2, 1)).await.expect("saved");
        log.blocking_append((1..=5).map(|index| entry(1, index))).await.expect("appended");
        log.truncate(entry(1, 4).log_id).await.expect("truncated");
        log.blocking_append((4..=6).map(|index| entry(2, index))).await.expect("appended");
        log.purge(entry(1, 2).log_id).await.expect("purged");
        log.try_get_log_entries(..).await.expect("entries")
    })
}

/// The thread of the log before ends a moment after that.
fn opened(directory: &Path) -> Result<Log, OpenError> {
    loop {
        match Log::open(directory) {
            Err(OpenError::Locked(_)) => std::thread::yield_now(),
            other => return other,
        }
    }
}

/// The indexes of the entries, the last one before them, and the vote.
type Found = (Vec<u64>, Option<u64>, Option<Vote>);

fn reopened(directory: &Path) -> Result<Found, OpenError> {
    let log = opened(directory)?;
    let entries = log.entries();
    Ok((entries.entries.keys().copied().collect(), entries.purged.map(|purged| purged.index), entries.vote))
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let entries = written(directory.path());
    let log = opened(directory.path()).expect("whole");
    assert_eq!(log.entries().entries.values().cloned().collect::<Vec<_>>(), entries);
    assert!(matches!(Log::open(directory.path()), Err(OpenError::Locked(_))), "two would destroy each other's work");
    drop(log);
    let expected = (vec![3, 4, 5, 6], Some(2), Some(Vote::new_committed(2, 1)));
    assert_eq!(reopened(directory.path()).expect("whole"), expected);
}

#[test]
fn a_crash_at_any_byte_leaves_a_log_that_was_once_true() {
    let directory = tempfile::tempdir().expect("a directory");
    written(directory.path());
    let whole = std::fs::read(directory.path().join("log")).expect("the file");
    let mut longest = Vec::new();
    for cut in 0..=whole.len() {
        std::fs::write(directory.path().join("log"), &whole[..cut]).expect("written");
        let (indexes, ..) = reopened(directory.path()).expect("torn at the end");
        assert!(indexes.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap after a crash at {cut}: {indexes:?}");
        let length = std::fs::metadata(directory.path().join("log")).expect("the file").len();
        assert!(length <= cut as u64, "{length} of {cut}");
        longest = indexes;
    }
    assert_eq!(longest, [3, 4, 5, 6]);
}

#[test]
fn a_changed_byte_in_the_middle_is_refused_and_nothing_is_touched() {
    let directory = tempfile::tempdir().expect("a directory");
    written(directory.path());
    let path = directory.path().join("log");
    let mut bytes = std::fs::read(&path).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&path, &bytes).expect("written");
    let error = reopened(directory.path()).expect_err("it was changed").to_string();
    assert!(error.contains("offset") && error.contains("Nothing was changed"), "{error}");
    assert_eq!(std::fs::read(&path).expect("the file"), bytes);

    std::fs::remove_file(&path).expect("removed");
    let error = reopened(directory.path()).expect_err("a log is missing").to_string();
    assert!(error.contains("it is gone"), "{error}");
    bytes[middle] ^= 4;
    std::fs::write(&path, &bytes).expect("written");
    std::fs::write(directory.path().join("vote"), "{}").expect("written");
    let error = reopened(directory.path()).expect_err("no vote").to_string();
    assert!(error.contains("vote"), "{error}");
    std::fs::remove_file(directory.path().join("vote")).expect("removed");
    let error = reopened(directory.path()).expect_err("no vote").to_string();
    assert!(error.contains("vote"), "{error}");
}

#[test]
fn the_file_does_not_grow_for_ever() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut log = Log::open(directory.path()).expect("a log");
        log.save_vote(&Vote::new_committed(1, 1)).await.expect("saved");
        let mut next = 1;
        for _ in 0..20 {
            log.blocking_append((next..next + 1000).map(|index| entry(1, index))).await.expect("appended");
            next += 1000;
            log.purge(entry(1, next - 100).log_id).await.expect("purged");
        }
    });
    let length = std::fs::metadata(directory.path().join("log")).expect("the file").len();
    assert!(length < 2 * SHORTEST_TO_REPLACE as u64, "{length}");
    let (indexes, purged, _) = reopened(directory.path()).expect("whole");
    assert_eq!((indexes.len(), purged), (99, Some(19_901)));
}
