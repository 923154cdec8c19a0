//! Finding a running server again, and the guard that watches it, after a restart or an upgrade of the agent.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::process::Pid;

use super::handle::{Guard, GuardError, Process, look_in};
use super::page::{NAME as PAGE_NAME, Page};
use super::process::NAME as GUARD_NAME;
use crate::proc_stat::Stat;

/// What runs in a data directory.
#[derive(Debug)]
pub enum Attached {
    /// No postmaster. Orphans of one may be left: [`scan`](super::scan) tells.
    None,
    Guarded(Guard),
    /// Somebody else started it, or its guard died: [`Guard::adopt`] it.
    Unguarded(Process),
}

/// Looks for the postmaster of a data directory and its guard.
///
/// `postmaster.pid` is only a hint: a crash leaves it behind, and its number may be another program's by now.
pub fn attach(data_dir: &Path) -> Result<Attached, GuardError> {
    let look = |source| GuardError::Look { data_dir: data_dir.to_owned(), source };
    let pid = match fs::read_to_string(data_dir.join("postmaster.pid")) {
        Ok(text) => match recorded_pid(&text) {
            Some(pid) => pid,
            None => return Ok(Attached::None),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attached::None),
        Err(error) => return Err(look(error)),
    };
    let scanner = look_in(data_dir)?;
    // Held before it is looked at, so that the number cannot change hands in between.
    let postmaster = Process::hold(pid)?;
    if !scanner.is_ours(pid) || !postmaster.is_alive() {
        return Ok(Attached::None);
    }
    match guard_of(pid)? {
        Some((guard, page)) => Ok(Attached::Guarded(Guard::reach(guard, page, scanner, None)?)),
        None => Ok(Attached::Unguarded(postmaster)),
    }
}

/// The page of a guard, through its table of open files.
pub(super) fn page_of(guard: Pid) -> Result<Page, GuardError> {
    let number = guard.as_raw_pid();
    // Of a process that has ended and is not yet buried nothing can be read, which looks like a lack of rights.
    let unreachable = |source| match has_ended(guard) {
        true => GuardError::Vanished { pid: number },
        false => GuardError::Unreachable { pid: number, source },
    };
    let files = format!("/proc/{number}/fd");
    let page_link = format!("/memfd:{PAGE_NAME} (deleted)");
    for entry in fs::read_dir(&files).map_err(unreachable)? {
        let path = entry.map_err(unreachable)?.path();
        if fs::read_link(&path).is_ok_and(|target| target == Path::new(&page_link)) {
            let file = fs::OpenOptions::new().read(true).write(true).open(&path).map_err(unreachable)?;
            let page = Page::open(file.into()).map_err(|source| GuardError::Page { pid: number, source })?;
            let wake = Path::new(&files).join(page.wake_number().to_string());
            return Ok(page.with_wake(open_pipe(&wake).map_err(unreachable)?));
        }
    }
    Err(GuardError::Vanished { pid: number })
}

/// The write end of the guard's wake pipe: never blocks, and never opens anything that is not a pipe.
fn open_pipe(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::FileTypeExt;
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let pipe = fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(path)?;
    match pipe.metadata()?.file_type().is_fifo() {
        true => Ok(pipe.into()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "its wake-up pipe is no pipe")),
    }
}

/// The guard that watches a postmaster: its parent, or else one that adopted it.
fn guard_of(postmaster: Pid) -> Result<Option<(Pid, Page)>, GuardError> {
    let parent = parent_of(postmaster).filter(|parent| is_guard(*parent));
    if let Some(parent) = parent {
        // A parent that cannot be read is an error: a second guard beside it would obey another page.
        match page_of(parent) {
            Err(GuardError::Vanished { .. }) => {}
            page => return page.map(|page| Some((parent, page))),
        }
    }
    let Ok(processes) = fs::read_dir("/proc") else { return Ok(None) };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let guards = numbers.filter_map(Pid::from_raw).filter(|pid| is_guard(*pid));
    // Other clusters' guards, other users' and other versions' are none of our business.
    let pages = guards.filter_map(|pid| page_of(pid).ok().map(|page| (pid, page)));
    Ok(pages.into_iter().find(|(_, page)| page.postmaster() == Some(postmaster)))
}

fn is_guard(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_pid())).is_ok_and(|name| name.trim_end() == GUARD_NAME)
}

fn parent_of(pid: Pid) -> Option<Pid> {
    Stat::of(pid)?.parent
}

fn has_ended(pid: Pid) -> bool {
    Stat::of(pid).is_none_or(|stat| stat.has_ended())
}

/// The first line of `postmaster.pid`. A negative number is a single-user server, which nobody attaches to.
fn recorded_pid(text: &str) -> Option<Pid> {
    let number: i32 = text.lines().next()?.trim().parse().ok()?;
    (number > 1).then(|| Pid::from_raw(number)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_above_one_is_a_postmaster() {
        for (text, expected) in [
            ("4711\n/data\n", Some(4711)),
            ("4711", Some(4711)),
            ("-4711\n/data\n", None),
            ("0\n", None),
            ("1\n", None),
            ("", None),
            ("99999999999\n", None),
            ("x\n", None),
        ] {
            assert_eq!(recorded_pid(text).map(Pid::as_raw_pid), expected, "{text:?}");
        }
    }
}
