//! Processes as `/proc` shows them, signalled without ever hitting a stranger that was given the same pid later.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::eventually;

/// One process: its pid, and when it was started in clock ticks since the boot of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub started: u64,
}

impl Process {
    /// The process that has this pid now, unless it has ended.
    pub fn of(pid: i32) -> Option<Process> {
        let (state, _, started) = stat(pid)?;
        // The first thread may have ended while others still hold its files and locks.
        let others = || std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1);
        (!matches!(state, 'Z' | 'X') || others()).then_some(Process { pid, started })
    }

    pub fn is_alive(self) -> bool {
        Process::of(self.pid) == Some(self)
    }

    pub fn parent(self) -> Option<Process> {
        let (_, parent, _) = stat(self.pid)?;
        Process::of(parent)
    }

    /// What the kernel calls it, at most 15 characters.
    pub fn name(self) -> String {
        std::fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default().trim_end().to_owned()
    }

    /// Sends a signal; a process that has ended is no error. The pidfd comes first: the signal reaches the checked process or
    /// none.
    pub fn signal(self, signal: Signal) {
        let Ok(handle) = pidfd_open(Pid::from_raw(self.pid).expect("a pid"), PidfdFlags::empty()) else { return };
        if self.is_alive() {
            // Only a process that ends at this very moment refuses it.
            let _ = pidfd_send_signal(&handle, signal);
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(self) {
        self.signal(Signal::KILL);
        self.ended_within(Duration::from_secs(10));
    }

    /// SIGSTOP, and waits until the kernel shows it as stopped.
    pub fn freeze(self) {
        self.signal(Signal::STOP);
        eventually("the process stands still", Duration::from_secs(10), || {
            if self.is_frozen() { Ok(()) } else { Err(format!("{:?}", stat(self.pid))) }
        });
    }

    /// Whether the kernel shows it as stopped.
    pub fn is_frozen(self) -> bool {
        matches!(stat(self.pid), Some(('T', _, started)) if started == self.started)
    }

    pub fn thaw(self) {
        self.signal(Signal::CONT);
    }

    pub fn ended_within(self, limit: Duration) {
        eventually("the process has ended", limit, || {
            if self.is_alive() { Err(format!("{self:?} ({}) lives", self.name())) } else { Ok(()) }
        });
    }

    /// The proportional share of memory in kB; `None` where the kernel does not let us look.
    pub fn share_of_memory(self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

/// State, parent and start time. The name in parentheses may hold anything, also `)`.
fn stat(pid: i32) -> Option<(char, i32, u64)> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = line[line.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // The parent is field 4, the start time field 22.
    Some((state, parent, fields.nth(17)?.parse().ok()?))
}

/// The postmaster of a data directory, if its pid file names a living one.
pub fn postmaster_of(data_dir: &Path) -> Option<Process> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse().ok()?;
    (std::fs::read_link(format!("/proc/{pid}/cwd")).ok()? == data_dir).then(|| Process::of(pid)).flatten()
}

/// Every process whose working directory is this one: a server's, whoever is their parent.
pub fn residents_of(directory: &Path) -> Vec<Process> {
    let lives_here = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place == directory);
    all().into_iter().filter(lives_here).filter_map(Process::of).collect()
}

/// Every process that has the directory on its command line, in its environment or as its place.
pub fn traces_of(directory: &Path) -> Vec<Process> {
    let name = directory.to_str().expect("a path in UTF-8").as_bytes();
    let holds =
        |file: PathBuf| std::fs::read(file).is_ok_and(|bytes| bytes.windows(name.len()).any(|window| window == name));
    let has_trace = |pid: &i32| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let place = std::fs::read_link(process.join("cwd")).is_ok_and(|place| place.starts_with(directory));
        place || holds(process.join("cmdline")) || holds(process.join("environ"))
    };
    all().into_iter().filter(has_trace).filter_map(Process::of).collect()
}

fn all() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
