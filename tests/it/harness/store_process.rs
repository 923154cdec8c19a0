//! The process of a store's server: started, stopped, frozen and killed by its process id.
//!
//! Calls block until the server is in the wanted state, so a client under test lives on a thread of its own. Not here: what a server
//! is started with, and how one sees that it serves (`zookeeper`, `etcd`).

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

/// A start takes a quarter or half of a second on an idle machine; on a busy one with several at once, many times that.
pub const START: Duration = Duration::from_secs(60);

/// Killed when it is dropped, and its directory removed.
#[derive(Debug)]
pub struct StoreProcess {
    /// `ZooKeeper` or `etcd`
    name: &'static str,
    directory: TempDir,
    child: Option<Child>,
}

impl StoreProcess {
    /// With a directory and not started yet.
    pub fn new(name: &'static str) -> StoreProcess {
        let prefix = format!("pgherd-{}-", name.to_lowercase());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory");
        StoreProcess { name, directory, child: None }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Its output goes to a file in its directory.
    pub fn launch(&mut self, command: &mut Command) {
        let log = File::create(self.directory().join("out.log")).expect("a writable temporary directory");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle of the log")).stderr(log);
        self.child = Some(command.spawn().expect("its program is there: scripts/packages.sh test brings it"));
    }

    pub fn wait_until(&mut self, serves: impl Fn() -> bool) {
        let deadline = Instant::now() + START;
        while !serves() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("our own child"));
            let log = || std::fs::read_to_string(self.directory.path().join("out.log")).unwrap_or_default();
            assert!(ended.is_none(), "{} ended at its start ({ended:?}): {}", self.name, log());
            assert!(Instant::now() < deadline, "{} does not serve after {START:?}: {}", self.name, log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it by this signal.
    pub fn end(&mut self, signal: Signal) {
        self.signal(signal);
        if let Some(mut child) = self.child.take() {
            child.wait().expect("our own child");
        }
    }

    /// Freezes it: connections stay open and nothing answers. Returns when the last of its threads stands still.
    pub fn sigstop(&self) {
        self.signal(Signal::STOP);
        let pid = self.child.as_ref().map(Pid::from_child);
        let (_, status) =
            waitpid(pid, WaitOptions::UNTRACED).expect("our own child").expect("a stop is a change of its state");
        assert!(status.stopped(), "the server ended instead of standing still: {status:?}");
    }

    pub fn sigcont(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running server");
        kill_process(Pid::from_child(child), signal).expect("our own child, not yet reaped");
    }
}

impl Drop for StoreProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
