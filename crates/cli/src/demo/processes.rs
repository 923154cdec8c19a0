//! Processes of the demo as `/proc` shows them: who they are, whether they live, and signals that never hit a stranger.
//!
//! Not here: starting them (`launch`). A process is named by its pid and the moment it was started, so that a pid which
//! the kernel gave to somebody else after a crash or a reboot is never taken for ours. Tested below and by
//! `tests/it/demo.rs`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// The environment variable that every process of a demo inherits: the demo's directory.
pub const DIRECTORY_VARIABLE: &str = "PGHERD_DEMO_DIRECTORY";
/// The same for the node that a process belongs to.
pub const NODE_VARIABLE: &str = "PGHERD_DEMO_NODE";

/// One process, and never another one that was given the same pid later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// When it was started, in clock ticks since the boot of the machine (field 22 of `/proc/PID/stat`).
    pub started_ticks: u64,
}

impl Identity {
    /// The process that has this pid now, if there is one that has not ended.
    pub fn of(pid: i32) -> Option<Identity> {
        let (state, started_ticks) = parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        (!matches!(state, 'Z' | 'X')).then_some(Identity { pid, started_ticks })
    }

    pub fn is_alive(&self) -> bool {
        Identity::of(self.pid) == Some(*self)
    }

    /// Waits until it has ended; `false` if it lives on after the limit.
    pub async fn ended_within(&self, limit: Duration) -> bool {
        let ended = async {
            while self.is_alive() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(limit, ended).await.is_ok()
    }

    /// Sends a signal; a process that has ended is no error. The pidfd is opened before the identity is checked, so
    /// the signal reaches the checked process or none.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if !self.is_alive() {
            return Ok(());
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// State letter and start time of a line of `/proc/PID/stat`. The name in parentheses may hold anything, also `)`.
fn parse_stat(line: &str) -> Option<(char, u64)> {
    let mut fields = line[line.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state is field 3, the start time field 22: 18 fields lie between them.
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The pids of all processes on the machine.
fn all_pids() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Every living process that carries the demo's directory, and the node if one is asked for, in its environment:
/// agents, guards, the store and the entrypoint. PostgreSQL overwrites its environment; see [`postgres_in`].
pub fn marked(directory: &Path, node: Option<&str>) -> Vec<Identity> {
    let own = std::process::id() as i32;
    let directory = format!("{DIRECTORY_VARIABLE}={}", directory.display());
    let node = node.map(|name| format!("{NODE_VARIABLE}={name}"));
    let is_ours = |pid: i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has = |wanted: &str| environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes());
        has(&directory) && node.as_deref().is_none_or(has)
    };
    all_pids().into_iter().filter(|pid| *pid != own && is_ours(*pid)).filter_map(Identity::of).collect()
}

/// Every living PostgreSQL process, postmaster or backend, whose working directory is this data directory.
pub fn postgres_in(data_directory: &Path) -> Vec<Identity> {
    let lives_here = |pid: i32| {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        is_postgres(&program) && std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path == data_directory)
    };
    all_pids().into_iter().filter(|pid| lives_here(*pid)).filter_map(Identity::of).collect()
}

/// The postmaster of a data directory, if its pid file names a living one.
pub fn postmaster_of(data_directory: &Path) -> Option<Identity> {
    let text = std::fs::read_to_string(data_directory.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let directory = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (is_postgres(&program) && directory == data_directory).then(|| Identity::of(pid)).flatten()
}

/// An upgrade of the package leaves a running program with the suffix ` (deleted)`.
fn is_postgres(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(" (deleted)") == "postgres"
}

/// The path of the running program, also if the file has been replaced since it was started.
pub fn own_program() -> io::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe")?;
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(replaced) => Ok(PathBuf::from(replaced)),
        None => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_last_parenthesis() {
        let rest = "1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1000 1";
        for (line, expected) in [
            (format!("17 (java) S {rest}"), Some(('S', 4711))),
            (format!("17 (a ) b) Z {rest}"), Some(('Z', 4711))),
            ("17 (java) S 1 2".to_owned(), None),
            ("17 (java)".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse_stat(&line), expected, "{line:?}");
        }
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let own = Identity::of(std::process::id() as i32).expect("this process lives");
        assert!(own.is_alive());
        let stranger = Identity { started_ticks: own.started_ticks + 1, ..own };
        assert!(!stranger.is_alive());
        stranger.signal(Signal::KILL).expect("a stranger is never signalled");
    }
}
