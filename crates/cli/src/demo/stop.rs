//! The end of a demo: every process that belongs to it, then its directory.
//!
//! The agents are asked first, so that each PostgreSQL shuts down and gives its shared memory back; what is left after
//! the deadline is killed. Tested by `tests/it/demo.rs`.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::files::Layout;
use super::processes::{Identity, marked, postgres_in, postmaster_of};
use super::state::State;

/// A clean stop of an idle PostgreSQL takes well under a second; a busy one writes a checkpoint.
const CLEAN_STOP: Duration = Duration::from_secs(10);
/// For PostgreSQL's own emergency stop, 20 to 170 ms when measured.
const EMERGENCY_STOP: Duration = Duration::from_secs(2);
/// After SIGKILL only a process that waits for a disk stays.
const KILL: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("{count} processes of the demo did not end, the first is pid {pid}; nothing was removed, try again")]
    StillRunning { count: usize, pid: i32 },
    #[error("{0} was not made by a demo (it has no file pgherd-demo), so it is left alone")]
    NotOurs(std::path::PathBuf),
    #[error("the demo's processes have ended, but removing {path} failed: {source}")]
    Remove { path: std::path::PathBuf, source: std::io::Error },
}

/// Ends every process of the demo.
pub fn end_processes(state: &State) -> Result<(), StopError> {
    let agents: Vec<Identity> = state.nodes.iter().filter_map(|node| Some(node.agent.as_ref()?.identity)).collect();
    // A stopped process (a drill that was interrupted) could not handle SIGTERM.
    signal_all(&everything(state), Signal::CONT);
    signal_all(&agents, Signal::TERM);
    let servers_are_gone = || {
        agents.iter().all(|agent| !agent.is_alive())
            && state.nodes.iter().all(|node| postgres_in(&node.data_directory).is_empty())
    };
    if !wait_until(CLEAN_STOP, servers_are_gone) {
        signal_all(&agents, Signal::KILL);
        // The postmaster tells its children; whoever is left without one is killed below.
        let postmasters: Vec<Identity> =
            state.nodes.iter().filter_map(|node| postmaster_of(&node.data_directory)).collect();
        signal_all(&postmasters, Signal::QUIT);
        wait_until(EMERGENCY_STOP, servers_are_gone);
    }
    let all_are_gone = || {
        signal_all(&everything(state), Signal::KILL);
        everything(state).is_empty()
    };
    if wait_until(KILL, all_are_gone) {
        return Ok(());
    }
    let left = everything(state);
    Err(StopError::StillRunning { count: left.len(), pid: left.first().map_or(0, |process| process.pid) })
}

/// Every living process: the recorded ones, those that carry the demo's mark, and PostgreSQL.
fn everything(state: &State) -> Vec<Identity> {
    let recorded = state.processes().map(|process| process.identity).filter(Identity::is_alive);
    let mut all: Vec<Identity> = recorded.chain(marked(&state.directory, None)).collect();
    all.extend(state.nodes.iter().flat_map(|node| postgres_in(&node.data_directory)));
    all.sort_unstable_by_key(|process| process.pid);
    all.dedup();
    all
}

/// A signal that cannot be sent is not given up on: the caller looks whether the process has ended.
fn signal_all(processes: &[Identity], signal: Signal) {
    for process in processes {
        let _ = process.signal(signal);
    }
}

fn wait_until(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Removes the directory, if a demo made it.
pub fn remove_directory(directory: &Path) -> Result<(), StopError> {
    let layout = Layout { directory: directory.to_owned() };
    if !layout.marker().is_file() {
        return Err(StopError::NotOurs(directory.to_owned()));
    }
    // The marker goes last: an interrupted removal can be taken up again.
    let remove = || {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path == layout.marker() {
                continue;
            }
            match path.symlink_metadata()?.is_dir() {
                true => std::fs::remove_dir_all(&path)?,
                false => std::fs::remove_file(&path)?,
            }
        }
        std::fs::remove_dir_all(directory)
    };
    remove().map_err(|source| StopError::Remove { path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_demos_own_directory_is_removed() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let directory = parent.path().join("demo");
        std::fs::create_dir_all(directory.join("node1/data")).expect("a directory");
        assert!(matches!(remove_directory(&directory), Err(StopError::NotOurs(_))));
        assert!(directory.join("node1/data").is_dir());
        std::fs::write(directory.join("pgherd-demo"), "").expect("a file");
        remove_directory(&directory).expect("it is removed");
        assert!(!directory.exists() && parent.path().exists());
    }
}
