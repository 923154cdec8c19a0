//! Commands of the user's that have outlived their agent: killed, it could not end them.
//!
//! A command carries in its environment for which data directory it works ([`Mark`]), and all that it starts inherits that. So nothing has to be
//! written down in time, and no process that has the number of one by now is taken for it. A program that clears its environment is found by the
//! process group that it is in. Not here: what becomes of the directory (`postgres::unfinished`). Tested below and in `tests/it/cluster`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgherd_dcs::boot_now;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process_group, pidfd_open};

use crate::guard::scan::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::proc_stat::Stat;

/// The variable.
pub const VARIABLE: &str = "PGHERD_COMMAND";

/// A killed process is gone within milliseconds, unless a disk or a network file system holds it.
const GONE: Duration = Duration::from_secs(10);

/// What a command is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The agent waits for its end: a hook, a method that makes a data directory.
    Awaited,
    /// A callback; it may outlive the agent.
    Event,
    /// The callback of a reload.
    Reload,
}

/// Whose a command is.
#[derive(Clone, Debug)]
pub struct Mark(OsString);

/// They are still there: nothing may be made in the directory that they work on.
#[derive(Debug, thiserror::Error)]
#[error(
    "commands of a former agent still work for {} (process {pid} and {others} more) and have survived SIGKILL for {} s: a disk or a network file \
     system that they use may hang. Start the agent again when they are gone",
    data_dir.display(),
    GONE.as_secs()
)]
pub struct Survive {
    data_dir: PathBuf,
    pid: i32,
    others: usize,
}

impl Mark {
    pub fn new(data_dir: &Path, purpose: Purpose) -> Mark {
        let purpose = match purpose {
            Purpose::Awaited => "awaited",
            Purpose::Event => "event",
            Purpose::Reload => "reload",
        };
        let mut value = OsString::from(format!("{purpose} "));
        value.push(std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned()));
        Mark(value)
    }

    pub fn value(&self) -> &OsString {
        &self.0
    }

    fn is_on(&self, pid: Pid) -> bool {
        // Of other users' processes it cannot be read; a dead one has none.
        let environment = std::fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| {
            variable.strip_prefix(VARIABLE.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
                == Some(self.0.as_bytes())
        })
    }

    fn carriers(&self) -> Vec<Pid> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
        pids.filter(|pid| *pid != getpid() && self.is_on(*pid)).collect()
    }

    fn kill(&self, pid: Pid) {
        // Held first, so that it cannot be another by the time of the signal.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if !self.is_on(pid) {
            return;
        }
        let group_of = |pid| Stat::of(pid).and_then(|stat| stat.group);
        if let Some(group) = group_of(pid)
            && group_of(getpid()) != Some(group)
        {
            // Gone already: that is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
    }
}

/// Ends the commands that a former agent has waited for; how many processes were found. `half`: the data directory is half made, so nothing that
/// such a command has left behind may go on; else what it has left as a service stays. Only for whoever is alone with the data directory: another
/// agent's commands carry the same mark.
pub async fn end_awaited(data_dir: &Path, half: bool) -> Result<usize, Survive> {
    let begun = boot_now();
    let (mut ended, mut pause) = (0, FIRST_PAUSE);
    loop {
        let mark = Mark::new(data_dir, Purpose::Awaited);
        let pass = move || {
            let mut found = mark.carriers();
            found.retain(|pid| half || is_command(*pid));
            found.iter().for_each(|pid| mark.kill(*pid));
            found
        };
        let found = tokio::task::spawn_blocking(pass).await.unwrap_or_default();
        let Some(first) = found.first() else { return Ok(ended) };
        ended = ended.max(found.len());
        if boot_now().since(begun) >= GONE {
            let (data_dir, pid) = (data_dir.to_owned(), first.as_raw_pid());
            return Err(Survive { data_dir, pid, others: found.len() - 1 });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A callback that still runs.
pub fn callback(data_dir: &Path, purpose: Purpose) -> Option<Pid> {
    Mark::new(data_dir, purpose).carriers().into_iter().find(|pid| is_command(*pid))
}

/// The leader of a group that we made. What it has left behind as a service is a session of its own, or a group without its leader.
fn is_command(pid: Pid) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.group == Some(pid) && stat.session != Some(pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user_command::UserCommand;

    fn is_alive(pid: Pid) -> bool {
        Stat::of(pid).is_some_and(|stat| !stat.has_ended())
    }

    fn ends(pid: Pid) {
        let begun = std::time::Instant::now();
        while is_alive(pid) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{pid:?} lives on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn started(data_dir: &Path, purpose: Purpose, text: &str) -> (crate::user_command::Running, Pid) {
        let file = data_dir.join("pid");
        let script = format!("sh -c '{text} echo $! > {0}.new; mv {0}.new {0}; wait'", file.display());
        let running = UserCommand::parse(&script).expect("words").start(data_dir, purpose, &[]).expect("sh can be run");
        let begun = std::time::Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(&file) {
                let pid = text.trim().parse().ok().and_then(Pid::from_raw).expect("a number");
                return (running, pid);
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "the command has not begun");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[tokio::test]
    async fn what_was_waited_for_is_ended_with_all_that_it_has_started_and_nothing_else_is() {
        let (ours, theirs) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        // One of them hides its environment, and one has a session of its own.
        let (_hidden, hidden) = started(ours.path(), Purpose::Awaited, "env -i sleep 600 &");
        std::fs::remove_file(ours.path().join("pid")).expect("written");
        let (_session, session) = started(ours.path(), Purpose::Awaited, "setsid sleep 600 &");
        let (mut other, others) = started(theirs.path(), Purpose::Awaited, "sleep 600 &");
        std::fs::remove_file(theirs.path().join("pid")).expect("written");
        let (event, events) = started(theirs.path(), Purpose::Event, "sleep 600 &");
        assert!(end_awaited(ours.path(), false).await.expect("they end") >= 2);
        ends(hidden);
        assert!(is_alive(session), "a service, perhaps");
        assert_eq!(end_awaited(ours.path(), true).await.expect("it ends"), 1);
        ends(session);
        assert!(is_alive(others) && is_alive(events));
        assert!(callback(theirs.path(), Purpose::Event).is_some());
        assert_eq!(callback(theirs.path(), Purpose::Reload), None);
        event.group().kill();
        end_awaited(theirs.path(), false).await.expect("they end");
        other.ended().await.expect("its own");
        assert_eq!(end_awaited(theirs.path(), true).await.expect("there are none"), 0);
    }
}
