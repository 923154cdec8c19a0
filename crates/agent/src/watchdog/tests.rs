use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pgherd_ha::{Epoch, Watchdog as State};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use super::*;
use crate::config::{Watchdog as Section, WatchdogDriver};

/// A FIFO, and who listens to it.
struct Harness {
    directory: tempfile::TempDir,
    reader: Option<File>,
}

impl Harness {
    fn new() -> Harness {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("watchdog");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let reader = File::options().read(true).custom_flags(flags).open(&path).expect("a reader");
        Harness { directory, reader: Some(reader) }
    }

    fn wish(&self, mode: Demand, ttl: u64) -> Wish {
        wish(&self.directory.path().join("watchdog"), mode, ttl)
    }

    /// All that was written since the last call, once the keeper has done what it was told.
    async fn heard(&mut self, watchdog: &Watchdog) -> String {
        watchdog.settle().await;
        let mut heard = vec![0; 64];
        let reader = self.reader.as_mut().expect("a reader");
        // Nothing to read, and nobody there to write.
        let length = reader.read(&mut heard).unwrap_or(0);
        heard.truncate(length);
        String::from_utf8(heard).expect("ASCII")
    }
}

fn wish(device: &Path, mode: Demand, ttl: u64) -> Wish {
    let section = Section { mode, device: device.into(), safety_margin: Some(5), driver: WatchdogDriver::Testing };
    Wish::new(&section, Duration::from_secs(ttl), Duration::from_secs(1))
}

/// Proven just now, for the session that belongs to this `ttl`.
fn lease(ttl: u64) -> Lease {
    Lease { epoch: Epoch(1), sent: boot_now(), granted: Duration::from_secs(ttl), tick: None }
}

fn state(watchdog: &Watchdog) -> State {
    watchdog.state(boot_now()).0
}

#[tokio::test]
async fn it_is_kept_alive_by_proofs_alone_from_its_start_to_its_end() {
    let mut harness = Harness::new();
    let watchdog = Watchdog::start(harness.wish(Demand::Automatic, 21)).expect("a thread");
    watchdog.keep_alive(&lease(21));
    assert_eq!((harness.heard(&watchdog).await.as_str(), state(&watchdog)), ("", State::Idle));
    watchdog.arm(&lease(21)).await.expect("armed");
    assert_eq!((harness.heard(&watchdog).await.as_str(), state(&watchdog)), ("Ctimeout=16\n", State::Armed));
    assert_eq!(watchdog.timeout(), Some(Duration::from_secs(16)));
    watchdog.keep_alive(&lease(21));
    watchdog.keep_alive(&lease(21));
    assert_eq!(harness.heard(&watchdog).await, "11");
    let old = Lease { sent: boot_now() - Duration::from_secs(6), ..lease(21) };
    watchdog.keep_alive(&old);
    assert_eq!(harness.heard(&watchdog).await, "", "the proof is older than the margin");
    watchdog.configure(harness.wish(Demand::Automatic, 20));
    assert_eq!(harness.heard(&watchdog).await, "", "new times wait for a keepalive");
    watchdog.keep_alive(&lease(20));
    assert_eq!(harness.heard(&watchdog).await, "1Ctimeout=15\n");
    watchdog.disarm().expect("room in the queue");
    assert_eq!((harness.heard(&watchdog).await.as_str(), state(&watchdog)), ("V", State::Idle));
    watchdog.arm(&lease(20)).await.expect("armed again");
    watchdog.configure(harness.wish(Demand::Off, 20));
    assert_eq!((harness.heard(&watchdog).await.as_str(), state(&watchdog)), ("Ctimeout=15\nV", State::Unused));
}

#[tokio::test]
async fn where_it_is_required_a_failure_is_one_of_the_node() {
    let mut harness = Harness::new();
    let watchdog = Watchdog::start(harness.wish(Demand::Required, 21)).expect("a thread");
    watchdog.arm(&lease(21)).await.expect("armed");
    assert_eq!(harness.heard(&watchdog).await, "Ctimeout=16\n");
    harness.reader = None;
    watchdog.keep_alive(&lease(21));
    watchdog.settle().await;
    let (state, why) = watchdog.state(boot_now());
    assert!(
        state == State::Failed && why.as_ref().is_some_and(|why| why.contains("does not take a keepalive")),
        "{why:?}"
    );
    assert_eq!(watchdog.timeout(), None, "what cannot be kept alive is not left running");
    let later = watchdog.state(boot_now() + TRY_AGAIN).0;
    assert_eq!(later, State::Idle, "somebody may have mended it");
    let error = watchdog.arm(&lease(21)).await.expect_err("nobody reads the FIFO");
    assert!(error.contains("required and could not be activated"), "{error}");
}

#[tokio::test]
async fn where_it_is_only_wanted_a_failure_changes_nothing() {
    let watchdog = Watchdog::start(wish(Path::new("/no/such/device"), Demand::Automatic, 21)).expect("a thread");
    assert_eq!(state(&watchdog), State::Idle);
    watchdog.arm(&lease(21)).await.expect("no error");
    assert_eq!((state(&watchdog), watchdog.timeout()), (State::Unused, None));
}

#[test]
fn what_cannot_work_is_known_before_it_is_needed() {
    let harness = Harness::new();
    for (wish, part) in [
        (wish(Path::new("/no/such/device"), Demand::Required, 21), "/no/such/device cannot be opened"),
        (harness.wish(Demand::Required, 5), "ttl (5 s) less watchdog.safety_margin leaves the watchdog 0 s"),
    ] {
        let watchdog = Watchdog::start(wish).expect("a thread");
        let (state, why) = watchdog.state(boot_now());
        assert!(state == State::Failed && why.as_ref().is_some_and(|why| why.contains(part)), "{why:?}");
    }
    let watchdog = Watchdog::start(harness.wish(Demand::Required, 21)).expect("a thread");
    assert_eq!(state(&watchdog), State::Idle);
}

#[tokio::test]
async fn a_stale_lease_starts_nothing_and_is_no_failure_of_the_device() {
    let mut harness = Harness::new();
    let watchdog = Watchdog::start(harness.wish(Demand::Required, 21)).expect("a thread");
    let old = Lease { sent: boot_now() - Duration::from_secs(6), ..lease(21) };
    let error = watchdog.arm(&old).await.expect_err("stale");
    assert!(error.contains("not proven lately enough"), "{error}");
    assert_eq!((harness.heard(&watchdog).await.as_str(), state(&watchdog)), ("", State::Idle));
}
