//! The processes of one PostgreSQL server: those whose executable is postgres and whose working directory is the data
//! directory.
//!
//! Parentage cannot tell: backends are sessions and groups of their own and, orphaned, nobody's descendants. Nor can
//! `postmaster.pid`, which a crash leaves behind. A dead process that nobody has reaped has neither executable nor
//! directory any more, so it does not count.
//!
//! [`Scanner`] allocates nothing: the guard uses it when memory or disk may be what has failed. Its only call that meets
//! the data directory's file system asks for cached attributes. Not here: when to kill. Tested below with processes
//! that only look like postgres, and in `tests/it/guard.rs` with real ones.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgherd_dcs::boot_now;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, SeekFrom, StatxFlags, openat, readlinkat_raw, seek, statx};
use rustix::io::{self, Errno};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// The directory, or `/proc`, could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot look for the processes of the server in {}: {source}", data_dir.display())]
pub struct ScanError {
    pub data_dir: PathBuf,
    #[source]
    pub source: Errno,
}

/// Processes were still there when the time was over; in the kernel's disk wait even SIGKILL has to wait.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error(
        "{left} processes of the server in {} survived SIGKILL for {} ms: their disk may hang; \
         do not start PostgreSQL there before they are gone",
        data_dir.display(),
        after.as_millis()
    )]
    Survivors { data_dir: PathBuf, left: u32, after: Duration },
}

/// The server's processes, as one pass over `/proc` saw them. Where there is no directory, nothing works in it; any other error says
/// nothing, and must never be read as "none".
pub fn processes_of(data_dir: &Path) -> Result<Vec<Pid>, ScanError> {
    let error = |source| ScanError { data_dir: data_dir.to_owned(), source };
    let scanner = match Scanner::new(data_dir) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        scanner => scanner.map_err(error)?,
    };
    let mut found = Vec::new();
    scanner.visit(|pid| found.push(pid)).map_err(error)?;
    Ok(found)
}

/// Those of the server's processes that could still answer a client. One to which SIGKILL has been sent never runs its own code again, even while
/// it waits in the kernel for a disk that does not answer.
pub fn able_processes_of(data_dir: &Path) -> Result<Vec<Pid>, ScanError> {
    let mut found = processes_of(data_dir)?;
    found.retain(|pid| {
        // One that has ended meanwhile has no status.
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid()));
        status.is_ok_and(|status| !is_killed(&status))
    });
    Ok(found)
}

/// SIGKILL is pending: for the process, or for the thread that it consists of.
fn is_killed(status: &str) -> bool {
    let mut pending =
        status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")));
    let has_kill = |mask: &str| {
        let bit = 1 << (Signal::KILL.as_raw() - 1);
        u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & bit != 0)
    };
    pending.any(has_kill)
}

/// Kills every process of the server and returns when a pass finds none; the number of SIGKILLs sent.
pub async fn kill_all(data_dir: &Path, within: Duration) -> Result<u32, KillError> {
    let error = |source| ScanError { data_dir: data_dir.to_owned(), source };
    let scanner = Scanner::new(data_dir).map_err(error)?;
    let begun = boot_now();
    let mut sent = 0;
    let mut pause = FIRST_PAUSE;
    loop {
        let left = scanner.kill_round().map_err(error)?;
        if left == 0 {
            return Ok(sent);
        }
        sent += left;
        let after = boot_now().since(begun);
        if after >= within {
            return Err(KillError::Survivors { data_dir: data_dir.to_owned(), left, after });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Between two passes: a killed process needs a moment to end, and the passes must not take its processor.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(1);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// Finds and kills the processes of one data directory, without allocating.
#[derive(Debug)]
pub struct Scanner {
    /// Kept open: a machine out of file handles must not stop a kill.
    proc: OwnedFd,
    directory: DirectoryId,
}

impl Scanner {
    pub fn new(data_dir: &Path) -> io::Result<Scanner> {
        let directory = directory_id(CWD, data_dir)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Scanner { proc: openat(CWD, c"/proc", flags, Mode::empty())?, directory })
    }

    /// One pass; the number of processes found.
    pub fn visit(&self, mut each: impl FnMut(Pid)) -> io::Result<u32> {
        seek(&self.proc, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 8192];
        let mut entries = RawDir::new(&self.proc, &mut buffer);
        let mut found = 0;
        while let Some(entry) = entries.next() {
            if let Some(pid) = parse_pid(entry?.file_name())
                && self.is_ours(pid)
            {
                found += 1;
                each(pid);
            }
        }
        Ok(found)
    }

    /// Whether the process is one of this server's.
    pub fn is_ours(&self, pid: Pid) -> bool {
        let mut target = [MaybeUninit::<u8>::uninit(); 4096];
        let exe = match readlinkat_raw(&self.proc, ProcPath::new(pid, b"/exe").as_c_str(), &mut target) {
            Ok((exe, _)) => exe,
            Err(_) => return false,
        };
        is_postgres(exe) && directory_id(&self.proc, ProcPath::new(pid, b"/cwd").as_c_str()) == Ok(self.directory)
    }

    /// Sends SIGKILL to all that one pass finds; how many there were. Call again until it says 0.
    ///
    /// First all are found, then all are killed: a dying process wants the processor that a pass over `/proc` needs, and
    /// the ones not yet found would go on writing meanwhile.
    pub fn kill_round(&self) -> io::Result<u32> {
        let mut batch = [const { None }; BATCH];
        let mut held = 0;
        let found = self.visit(|pid| {
            match pidfd_open(pid, PidfdFlags::empty()) {
                // Asked again with the process held, as its number may have changed hands since.
                Ok(process) if self.is_ours(pid) => {
                    batch[held] = Some(process);
                    held += 1;
                }
                Ok(_) | Err(Errno::SRCH) => {}
                // No file handle to be had: the number has to do.
                Err(_) => {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            if held == BATCH {
                kill_batch(&mut batch);
                held = 0;
            }
        });
        kill_batch(&mut batch);
        found
    }
}

/// How many processes are held before they are killed: more than most servers have, and few enough for the usual limit of
/// 1024 open files and for the stack.
const BATCH: usize = 512;

fn kill_batch(batch: &mut [Option<OwnedFd>; BATCH]) {
    for process in batch.iter().flatten() {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    batch.fill_with(|| None);
}

/// A directory, whatever it is called and through whichever mount it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DirectoryId {
    device: (u32, u32),
    inode: u64,
}

fn directory_id(at: impl rustix::fd::AsFd, path: impl rustix::path::Arg) -> io::Result<DirectoryId> {
    // Without asking a file server: a dead one must not hold up a kill.
    let found = statx(at, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO | StatxFlags::TYPE)?;
    Ok(DirectoryId { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino })
}

/// A replaced or removed executable shows as `.../postgres (deleted)`.
fn is_postgres(exe: &[u8]) -> bool {
    let exe = exe.strip_suffix(b" (deleted)").unwrap_or(exe);
    exe.rsplit(|byte| *byte == b'/').next() == Some(b"postgres")
}

fn parse_pid(name: &CStr) -> Option<Pid> {
    let digits = name.to_bytes();
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Pid::from_raw(digits.iter().fold(0, |number, digit| number * 10 + i32::from(digit - b'0')))
}

/// `PID/exe` or `PID/cwd`, built on the stack.
struct ProcPath {
    /// Ten digits, four characters, and the terminator.
    bytes: [u8; 16],
}

impl ProcPath {
    fn new(pid: Pid, suffix: &[u8; 4]) -> ProcPath {
        let mut digits = [0; 10];
        let mut first = digits.len();
        let mut rest = pid.as_raw_pid().unsigned_abs();
        while rest > 0 {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let mut bytes = [0; 16];
        let length = digits.len() - first;
        bytes[..length].copy_from_slice(&digits[first..]);
        bytes[length..length + suffix.len()].copy_from_slice(suffix);
        ProcPath { bytes }
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).expect("at most 14 of the 16 bytes are written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_postgres_counts_as_postgres() {
        for (exe, expected) in [
            ("/usr/lib/postgresql/15/bin/postgres", true),
            ("/usr/lib/postgresql/15/bin/postgres (deleted)", true),
            ("postgres", true),
            ("/usr/bin/postgresql", false),
            ("/home/postgres/bash", false),
            ("/opt/notpostgres", false),
            ("", false),
        ] {
            assert_eq!(is_postgres(exe.as_bytes()), expected, "{exe}");
        }
    }

    #[test]
    fn who_waits_for_its_death_is_told_by_its_pending_signals() {
        let status = |thread: &str, process: &str| {
            format!(
                "Name:\tpostgres\nState:\tD (disk sleep)\nSigPnd:\t{thread}\nShdPnd:\t{process}\nSigBlk:\tffffffffffffffff\n"
            )
        };
        let (none, kill, others) = ("0000000000000000", "0000000000000100", "000000000000fe3f");
        for (thread, process, expected) in
            [(none, none, false), (kill, none, true), (none, kill, true), (others, none, false), ("?", kill, true)]
        {
            assert_eq!(is_killed(&status(thread, process)), expected, "{thread} {process}");
        }
    }

    #[test]
    fn numbers_of_processes_read_and_write() {
        for (name, expected) in
            [(c"1", Some(1)), (c"4194304", Some(4_194_304)), (c"self", None), (c"", None), (c"99999999999", None)]
        {
            assert_eq!(parse_pid(name).map(Pid::as_raw_pid), expected);
        }
        for (pid, path) in [(1, c"1/exe"), (4_194_304, c"4194304/exe"), (i32::MAX, c"2147483647/exe")] {
            assert_eq!(ProcPath::new(Pid::from_raw(pid).expect("positive"), b"/exe").as_c_str(), path);
        }
    }
}
