//! The write probe: whether the disk under the data directory still takes a small write (`postgres-facts` 20).
//!
//! On a frozen disk every query of a health check stays green while each INSERT hangs. So a thread of its own writes
//! and syncs a few bytes again and again; that it is stuck is the verdict, read from outside as the age of the last
//! answer. That the disk is full is an answer, too.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::Boot;

use super::data_directory::free_bytes;

/// Does not count as content of the data directory. Written only while a server of ours runs there ([`WriteProbe::watch`]): a
/// directory that is somebody else's is not touched.
const FILE_NAME: &str = ".pgherd-probe";

/// With less than a segment of its log left, PostgreSQL cannot go on: a standby's receiver fails again and again, a primary stops. Small
/// writes still succeed then.
pub const LEAST_ROOM: u64 = 16 << 20;

/// A running probe. Dropped, it ends after the write that it is at, which may be never.
#[derive(Debug)]
pub struct WriteProbe {
    shared: Arc<Shared>,
    thread: Thread,
}

/// Written by the probe's thread, read by anyone.
#[derive(Debug, Default)]
struct Shared {
    /// Nanoseconds of `CLOCK_BOOTTIME` before the last write that the disk has answered; 0: none has.
    last_success: AtomicU64,
    /// When the write that is under way was begun, on the same clock; 0: none is.
    begun: AtomicU64,
    /// Set by the owner: there is a server whose disk matters.
    watching: AtomicBool,
    /// Set by the owner, once.
    stopped: AtomicBool,
}

impl WriteProbe {
    /// A probe of `data_dir` that writes every `interval` (a third of the patience of who reads it, or less), once it is told to
    /// [`watch`](Self::watch).
    pub fn start(data_dir: &Path, interval: Duration) -> io::Result<WriteProbe> {
        let shared = Arc::new(Shared::default());
        let path = data_dir.join(FILE_NAME);
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("write-probe".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || probe(&path, interval, &theirs))?;
        Ok(WriteProbe { shared, thread: thread.thread().clone() })
    }

    /// Whether to write: at once, if it did not before.
    pub fn watch(&self, watching: bool) {
        if !self.shared.watching.swap(watching, Ordering::AcqRel) && watching {
            self.thread.unpark();
        }
    }

    /// The instant before the newest write that the disk has answered; [`Boot::ZERO`] if none has.
    pub fn last_success(&self) -> Boot {
        Boot(Duration::from_nanos(self.shared.last_success.load(Ordering::Acquire)))
    }

    /// For how long the disk has owed the answer to a write that is under way. What becomes of the server changes nothing about it.
    pub fn owed_for(&self, now: Boot) -> Duration {
        match self.shared.begun.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            begun => now.since(Boot(Duration::from_nanos(begun))),
        }
    }
}

impl Drop for WriteProbe {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

fn probe(path: &Path, interval: Duration, shared: &Shared) {
    let mut failing = false;
    while !shared.stopped.load(Ordering::Acquire) {
        if !shared.watching.load(Ordering::Acquire) {
            thread::park();
            continue;
        }
        let begun = boot_now();
        shared.begun.store(nanos(begun), Ordering::Release);
        let written = write(path).and_then(|()| room(path, failing));
        shared.begun.store(0, Ordering::Release);
        match written {
            Ok(()) => {
                shared.answered(begun);
                if std::mem::take(&mut failing) {
                    tracing::info!("the disk under {} takes writes again", directory(path));
                }
            }
            Err(error) => {
                // A full disk answers, and PostgreSQL on it can still be read: no reason to take the server down.
                let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                if full {
                    shared.answered(begun);
                }
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!("{}", complaint(path, full, &error));
                }
            }
        }
        thread::park_timeout(interval);
    }
}

impl Shared {
    fn answered(&self, begun: Boot) {
        self.last_success.store(nanos(begun), Ordering::Release);
    }
}

fn nanos(instant: Boot) -> u64 {
    u64::try_from(instant.0.as_nanos()).unwrap_or(u64::MAX)
}

fn complaint(path: &Path, full: bool, error: &io::Error) -> String {
    let directory = directory(path);
    if full {
        format!(
            "the disk under {directory} is full ({error}): PostgreSQL refuses writes, and stops if it cannot write its log; free some space \
             (old logs, pg_wal held by a replication slot: see pg_replication_slots)"
        )
    } else {
        format!(
            "the disk under {directory} does not take a small write ({error}): if that lasts for a whole ttl, this node gives the leader \
             key up; look at the kernel's log and the mount"
        )
    }
}

fn directory(path: &Path) -> std::path::Display<'_> {
    path.parent().unwrap_or(path).display()
}

/// Fails where there is too little left. Of a disk that was full more is asked, so that one at the edge is not told of again and again.
fn room(path: &Path, was_full: bool) -> io::Result<()> {
    let wanted = if was_full { 2 * LEAST_ROOM } else { LEAST_ROOM };
    match free_bytes(path) {
        Ok(left) if left < wanted => {
            Err(io::Error::new(io::ErrorKind::StorageFull, format!("{} MB are left", left >> 20)))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Opened anew each time: the directory may have been replaced.
fn write(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.write_all(b"pgherd")?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn wait(what: &str, condition: impl Fn() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn nothing_is_written_until_there_is_a_server_to_watch() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join(FILE_NAME);
        let probe = WriteProbe::start(directory.path(), Duration::from_millis(1)).expect("a thread");
        assert!(!file.exists());
        probe.watch(true);
        wait("a write", || file.exists());
    }

    #[test]
    fn successes_go_on_in_a_directory_that_was_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let data_dir = directory.path().join("data");
        std::fs::create_dir(&data_dir).expect("a directory");
        let before = boot_now();
        let probe = WriteProbe::start(&data_dir, Duration::from_millis(1)).expect("a thread");
        probe.watch(true);
        wait("a first success", || probe.last_success() >= before);
        let first = probe.last_success();
        wait("another success", || probe.last_success() > first);
        std::fs::rename(&data_dir, directory.path().join("gone")).expect("renamed");
        std::fs::create_dir(&data_dir).expect("a directory");
        let back = boot_now();
        wait("a success in the new directory", || probe.last_success() > back && data_dir.join(FILE_NAME).exists());
    }

    #[test]
    fn a_write_that_does_not_come_back_is_owed_whatever_becomes_of_the_server() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join(FILE_NAME);
        // Nobody reads it, so opening it for writing hangs as a disk may.
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
        let probe = WriteProbe::start(directory.path(), Duration::from_millis(1)).expect("a thread");
        assert_eq!(probe.owed_for(boot_now()), Duration::ZERO);
        probe.watch(true);
        wait("a write that is owed", || probe.owed_for(boot_now()) > Duration::from_millis(20));
        probe.watch(false);
        assert!(probe.owed_for(boot_now()) > Duration::from_millis(20));
        let _reader = std::fs::File::open(&file).expect("the other end");
        wait("its end", || probe.owed_for(boot_now()).is_zero());
    }
}
