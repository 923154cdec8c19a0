//! The running postmaster: found by its pid file, held by a pidfd so that a signal never meets a stranger with its
//! number.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use super::{Error, atomic_file};

/// What `postmaster.pid` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PidFile {
    pub pid: i32,
    /// Seconds since 1970.
    pub start_time: i64,
    pub port: Option<u16>,
    pub socket_directory: Option<PathBuf>,
    /// The first of `listen_addresses`.
    pub listen_address: Option<String>,
    /// `starting`, `stopping`, `ready`, `standby`; absent while it begins.
    pub status: Option<String>,
}

impl PidFile {
    /// `None`: no such file, or not understood (it is written line by line while the server starts).
    pub fn read(data_dir: &Path) -> Option<PidFile> {
        let text = atomic_file::read_if_present(&data_dir.join("postmaster.pid")).ok().flatten()?;
        PidFile::parse(&text)
    }

    pub(super) fn parse(text: &str) -> Option<PidFile> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = |number: usize| lines.get(number - 1).copied().filter(|line| !line.is_empty());
        Some(PidFile {
            // A stand-alone backend (single-user mode) writes its number negated.
            pid: line(1)?.parse().ok().filter(|pid| *pid > 0)?,
            start_time: line(3)?.parse().ok()?,
            port: line(4).and_then(|port| port.parse().ok()),
            socket_directory: line(5).map(PathBuf::from),
            listen_address: line(6).map(str::to_owned),
            status: line(8).map(str::to_owned),
        })
    }
}

/// A living postmaster of a data directory.
#[derive(Debug)]
pub struct Postmaster {
    pub file: PidFile,
    pidfd: OwnedFd,
}

impl Postmaster {
    /// The postmaster of `data_dir`, `None` if none runs: the process of the pid file must be PostgreSQL's and work
    /// in that directory, for after a crash of the machine its number belongs to somebody else.
    pub fn find(data_dir: &Path) -> Option<Postmaster> {
        let file = PidFile::read(data_dir)?;
        let pidfd = pidfd_open(Pid::from_raw(file.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // Read after the pidfd is held: if this is it, then that is its.
        let link = |name: &str| fs::read_link(format!("/proc/{}/{name}", file.pid)).ok();
        let works_there = link("cwd")? == fs::canonicalize(data_dir).ok()?;
        let executable = link("exe")?;
        let is_postgres = executable.file_name()?.as_encoded_bytes().starts_with(b"postgres");
        (works_there && is_postgres).then_some(Postmaster { file, pidfd })
    }

    pub fn pid(&self) -> i32 {
        self.file.pid
    }

    /// No error if it is gone already.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(Error::File {
                operation: "signal the postmaster at",
                path: format!("/proc/{}", self.file.pid).into(),
                source: error.into(),
            }),
        }
    }

    /// Makes it read its configuration files again.
    pub fn reload(&self) -> Result<(), Error> {
        self.signal(Signal::HUP)
    }

    /// Returns when it has exited (reaped by its parent or not).
    pub async fn exited(&self) -> Result<(), Error> {
        let watch = |source| Error::File {
            operation: "watch the postmaster at",
            path: format!("/proc/{}", self.file.pid).into(),
            source,
        };
        let own = self.pidfd.try_clone().map_err(watch)?;
        // Deprecated because a type may name another descriptor later; an OwnedFd never does.
        #[allow(deprecated)]
        let pidfd = AsyncFd::with_interest(own, tokio::io::Interest::READABLE).map_err(watch)?;
        pidfd.readable().await.map(drop).map_err(watch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_files_complete_and_half_written() {
        let text = "123\n/data\n1700000000\n5432\n/run\nlocalhost\n  5432001         7\nready   \n";
        let expected = PidFile {
            pid: 123,
            start_time: 1_700_000_000,
            port: Some(5432),
            socket_directory: Some("/run".into()),
            listen_address: Some("localhost".into()),
            status: Some("ready".into()),
        };
        assert_eq!(PidFile::parse(text), Some(expected));
        let begun = PidFile::parse("123\n/data\n1700000000\n5432\n\n").expect("enough");
        assert_eq!((begun.socket_directory, begun.status), (None, None));
        for text in ["", "123", "-5\n/data\n1\n", "0\n/data\n1", "x\n/data\n1", "99999999999\n/d\n1"] {
            assert_eq!(PidFile::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_stranger_with_the_same_number_is_not_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let text = format!("{}\n{}\n1\n", std::process::id(), directory.path().display());
        fs::write(directory.path().join("postmaster.pid"), text).expect("written");
        assert!(PidFile::read(directory.path()).is_some());
        assert!(Postmaster::find(directory.path()).is_none());
    }
}
