//! The permit page: some memory that the agent and the guard share, and the only thing they say to each other.
//!
//! The agent writes until when the server may run; the guard writes what it sees and what it did. Every field is an atomic,
//! and nothing here takes a lock, so the thread that keeps the lease can prolong the permit whatever else hangs.
//!
//! The page outlives agents: a guard started by one version is found again by a later one. So its header names a
//! version; fields are only ever appended, and the version rises when the meaning of an old one changes.
//!
//! Not here: when to set which deadline (`pgherd_ha::Permit` says), and the killing (`watch`). Tested below, and on real
//! servers in `tests/it/guard.rs`.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use pgherd_ha::Boot;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, WaitStatus};

use super::map::{LENGTH, Mapping};

/// The name of the memory file, as it shows in `/proc/PID/fd`.
pub(super) const NAME: &str = "pgherd-permit";
const MAGIC: u64 = u64::from_le_bytes(*b"pgherd\0P");
const VERSION: u32 = 1;

/// "No end", as the page writes it.
pub(super) const NO_END: u64 = u64::MAX;
/// "Now", as the page writes it; once written it stays.
const ENDED: u64 = 0;

/// What lies in the shared memory. Only ever append.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Layout {
    magic: AtomicU64,
    version: AtomicU32,
    /// Bytes that the writer of the header knew of.
    size: AtomicU32,
    /// By the agent: nanoseconds of `CLOCK_BOOTTIME`; [`NO_END`], or [`ENDED`] for good.
    deadline: AtomicU64,
    /// All that follows by the guard. [`State`].
    state: AtomicU32,
    /// [`Cause`].
    cause: AtomicU32,
    guard: AtomicI32,
    postmaster: AtomicI32,
    /// The number, within the guard, of the write end of the pipe that wakes it.
    wake: AtomicI32,
    flags: AtomicU32,
    /// The postmaster's wait status; meaningful with `FLAG_STATUS`.
    status: AtomicI32,
    /// The most processes that one pass found and killed.
    killed: AtomicU32,
    /// When the end began, on the same clock as the deadline.
    ended_at: AtomicU64,
    /// From then until no process was left.
    kill_nanos: AtomicU64,
}

const FLAG_ADOPTED: u32 = 1;
const FLAG_REALTIME: u32 = 2;
const FLAG_LOCKED: u32 = 4;
const FLAG_STATUS: u32 = 8;

/// What the guard is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Watching,
    /// The end has begun: processes are being killed.
    Killing,
    /// No process of the server is left.
    Done,
}

/// Why the server came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The postmaster ended by itself, or somebody else stopped or killed it.
    PostmasterExit,
    /// The permit ended: its deadline passed, or the agent ended it.
    PermitEnded,
}

/// How the server ended, as its guard saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    pub cause: Cause,
    /// The postmaster's exit status; `None` for an adopted one, whose parent is another process.
    pub status: Option<ExitStatus>,
    /// How many processes the guard had to kill: the most that one pass over `/proc` found.
    pub killed: u32,
    /// When the end began.
    pub ended_at: Boot,
    /// From then until no process was left.
    pub took: Duration,
}

/// What an observer reads of the guard's abilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// It watches a postmaster that it did not start: it cannot tell the exit status, and its own death stops nothing.
    pub adopted: bool,
    /// It runs at real-time priority.
    pub realtime: bool,
    /// Its pages cannot be taken from memory.
    pub locked: bool,
}

/// The permit has ended for good: the server is gone, or its guard kills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the guard's permit has ended for good and cannot be prolonged: PostgreSQL is gone or being killed; start it again"
)]
pub struct PermitEnded;

/// The file is no permit page, or one that this version cannot read.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    #[error("the memory file `{NAME}` cannot be mapped: {0}")]
    Map(#[source] Errno),
    #[error("the memory file `{NAME}` does not begin like a permit page")]
    Magic,
    #[error(
        "the guard's permit page has version {found}, and this pgherd reads up to version {VERSION}: \
         restart PostgreSQL to get a guard of this version, or run the newer pgherd"
    )]
    Version { found: u32 },
}

/// The page, mapped.
#[derive(Debug)]
pub struct Page {
    shared: Mapping,
    /// Wakes the guard; the guard's own handle of the page has none.
    wake: Option<OwnedFd>,
}

/// For the agent. Any thread may call; nothing blocks.
impl Page {
    /// Prolongs or shortens the permit. Refused when it has ended: that is final.
    pub fn set_deadline(&self, deadline: Boot) -> Result<(), PermitEnded> {
        self.replace_deadline(nanos(deadline))
    }

    /// The permit of a standby, and of a paused cluster.
    pub fn set_no_end(&self) -> Result<(), PermitEnded> {
        self.replace_deadline(NO_END)
    }

    /// Ends the permit at once and for good.
    pub fn kill_now(&self) {
        self.shared.deadline.store(ENDED, SeqCst);
        self.wake();
    }

    /// `None`: ended for good. [`Boot::NEVER`]: no end.
    pub fn deadline(&self) -> Option<Boot> {
        match self.shared.deadline.load(SeqCst) {
            ENDED => None,
            NO_END => Some(Boot::NEVER),
            nanos => Some(Boot(Duration::from_nanos(nanos))),
        }
    }

    pub fn state(&self) -> State {
        match self.shared.state.load(SeqCst) {
            0 => State::Starting,
            1 => State::Watching,
            2 => State::Killing,
            _ => State::Done,
        }
    }

    /// How the server ended, once the guard is [done](State::Done).
    pub fn fate(&self) -> Option<Fate> {
        if self.state() != State::Done {
            return None;
        }
        let cause = match self.shared.cause.load(SeqCst) {
            0 => Cause::PostmasterExit,
            _ => Cause::PermitEnded,
        };
        let status = self.flag(FLAG_STATUS).then(|| ExitStatus::from_raw(self.shared.status.load(SeqCst)));
        Some(Fate {
            cause,
            status,
            killed: self.shared.killed.load(SeqCst),
            ended_at: Boot(Duration::from_nanos(self.shared.ended_at.load(SeqCst))),
            took: Duration::from_nanos(self.shared.kill_nanos.load(SeqCst)),
        })
    }

    pub fn guard(&self) -> Option<Pid> {
        pid(self.shared.guard.load(SeqCst))
    }

    pub fn postmaster(&self) -> Option<Pid> {
        pid(self.shared.postmaster.load(SeqCst))
    }

    pub fn abilities(&self) -> Abilities {
        Abilities {
            adopted: self.flag(FLAG_ADOPTED),
            realtime: self.flag(FLAG_REALTIME),
            locked: self.flag(FLAG_LOCKED),
        }
    }

    /// Maps the page of a running guard.
    pub(super) fn open(file: OwnedFd) -> Result<Page, PageError> {
        let shared = Mapping::of(file.as_fd()).map_err(PageError::Map)?;
        if shared.magic.load(SeqCst) != MAGIC {
            return Err(PageError::Magic);
        }
        match shared.version.load(SeqCst) {
            VERSION => Ok(Page { shared, wake: None }),
            found => Err(PageError::Version { found }),
        }
    }

    /// The number of the wake pipe's write end in the guard's table of files.
    pub(super) fn wake_number(&self) -> i32 {
        self.shared.wake.load(SeqCst)
    }

    pub(super) fn with_wake(self, wake: OwnedFd) -> Page {
        Page { wake: Some(wake), ..self }
    }

    fn replace_deadline(&self, new: u64) -> Result<(), PermitEnded> {
        let old = self.shared.deadline.fetch_update(SeqCst, SeqCst, |old| (old != ENDED).then_some(new));
        match old {
            Ok(old) => {
                // A guard that sleeps until an earlier instant reads the new one when it wakes.
                if new < old {
                    self.wake();
                }
                Ok(())
            }
            Err(_) => Err(PermitEnded),
        }
    }

    /// A full pipe already holds a wake-up, and a closed one has nobody to wake: no error matters.
    fn wake(&self) {
        if let Some(wake) = &self.wake {
            let _ = rustix::io::write(wake, &[1]);
        }
    }

    fn flag(&self, flag: u32) -> bool {
        self.shared.flags.load(SeqCst) & flag != 0
    }
}

/// For the guard.
impl Page {
    /// A new page, sealed so that nobody can shrink it under a mapping.
    pub(super) fn create(deadline: u64) -> Result<(Page, OwnedFd), Errno> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know the flag that hardened later ones demand.
        let file = memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL).or_else(|_| memfd_create(NAME, flags))?;
        ftruncate(&file, LENGTH as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
        let shared = Mapping::of(file.as_fd())?;
        shared.deadline.store(deadline, SeqCst);
        shared.size.store(size_of::<Layout>() as u32, SeqCst);
        shared.version.store(VERSION, SeqCst);
        shared.magic.store(MAGIC, SeqCst);
        Ok((Page { shared, wake: None }, file))
    }

    pub(super) fn publish_watching(&self, guard: Pid, postmaster: Pid, wake: i32, adopted: bool) {
        self.shared.guard.store(guard.as_raw_pid(), SeqCst);
        self.shared.wake.store(wake, SeqCst);
        self.shared.postmaster.store(postmaster.as_raw_pid(), SeqCst);
        if adopted {
            self.shared.flags.fetch_or(FLAG_ADOPTED, SeqCst);
        }
        self.shared.state.store(1, SeqCst);
    }

    pub(super) fn publish_abilities(&self, realtime: bool, locked: bool) {
        let flags = if realtime { FLAG_REALTIME } else { 0 } | if locked { FLAG_LOCKED } else { 0 };
        self.shared.flags.fetch_or(flags, SeqCst);
    }

    pub(super) fn publish_status(&self, status: WaitStatus) {
        self.shared.status.store(status.as_raw(), SeqCst);
        self.shared.flags.fetch_or(FLAG_STATUS, SeqCst);
    }

    pub(super) fn publish_killing(&self, cause: Cause, now: u64) {
        self.shared.cause.store(matches!(cause, Cause::PermitEnded).into(), SeqCst);
        self.shared.ended_at.store(now, SeqCst);
        self.shared.state.store(2, SeqCst);
    }

    pub(super) fn publish_done(&self, killed: u32, took: u64) {
        self.shared.killed.store(killed, SeqCst);
        self.shared.kill_nanos.store(took, SeqCst);
        self.shared.state.store(3, SeqCst);
    }

    pub(super) fn deadline_nanos(&self) -> u64 {
        self.shared.deadline.load(SeqCst)
    }

    /// Makes the end final, unless the agent has moved the deadline since `seen` was read.
    pub(super) fn end(&self, seen: u64) -> bool {
        self.shared.deadline.compare_exchange(seen, ENDED, SeqCst, SeqCst).is_ok()
    }

    /// Whether the postmaster called exit, as against being killed. `false` too while its status is unknown.
    pub(super) fn exited_by_itself(&self) -> bool {
        self.flag(FLAG_STATUS) && ExitStatus::from_raw(self.shared.status.load(SeqCst)).code().is_some()
    }

    /// Makes the end final whatever the deadline says: the server is gone.
    pub(super) fn end_for_good(&self) {
        self.shared.deadline.store(ENDED, SeqCst);
    }
}

/// An instant as the page writes it.
pub(super) fn nanos(instant: Boot) -> u64 {
    u64::try_from(instant.0.as_nanos()).unwrap_or(NO_END)
}

fn pid(raw: i32) -> Option<Pid> {
    // A negative number would name a process group.
    (raw > 0).then(|| Pid::from_raw(raw)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> (Page, OwnedFd) {
        Page::create(NO_END).expect("a memory file")
    }

    #[test]
    fn the_end_is_final() {
        let (page, _file) = page();
        assert_eq!(page.deadline(), Some(Boot::NEVER));
        assert_eq!(page.set_deadline(Boot::from_millis(5)), Ok(()));
        assert_eq!(page.deadline(), Some(Boot::from_millis(5)));
        assert_eq!(page.set_no_end(), Ok(()));
        page.kill_now();
        assert_eq!(page.set_no_end(), Err(PermitEnded));
        assert_eq!(page.set_deadline(Boot::NEVER), Err(PermitEnded));
        assert_eq!(page.deadline(), None);
    }

    #[test]
    fn the_guard_ends_a_permit_only_if_nobody_prolonged_it_meanwhile() {
        let (page, _file) = page();
        page.set_deadline(Boot::from_millis(5)).expect("not ended");
        let seen = page.deadline_nanos();
        page.set_deadline(Boot::from_millis(9)).expect("not ended");
        assert!(!page.end(seen));
        assert!(page.end(nanos(Boot::from_millis(9))));
        assert_eq!(page.set_no_end(), Err(PermitEnded));
    }

    #[test]
    fn both_ends_see_one_page_and_shortening_it_wakes_the_guard() {
        let (guard, file) = page();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).expect("a pipe");
        let agent = Page::open(file).expect("the page").with_wake(write);
        let woken = || rustix::io::read(&read, &mut [0u8; 8]).is_ok();
        agent.set_deadline(Boot::from_millis(50)).expect("not ended");
        assert!(woken(), "from no end to a deadline");
        agent.set_deadline(Boot::from_millis(90)).expect("not ended");
        assert!(!woken(), "prolonging costs the guard nothing");
        agent.kill_now();
        assert!(woken());
        guard.publish_killing(Cause::PermitEnded, 7);
        assert_eq!((agent.state(), agent.fate()), (State::Killing, None));
        guard.publish_done(3, 1_000);
        let fate = agent.fate().expect("done");
        assert_eq!((fate.cause, fate.killed, fate.took), (Cause::PermitEnded, 3, Duration::from_micros(1)));
        assert_eq!(fate.status, None);
    }

    #[test]
    fn a_page_of_another_version_or_of_nobody_is_refused_by_name() {
        let (page, file) = page();
        page.shared.version.store(VERSION + 1, SeqCst);
        let error = Page::open(file.try_clone().expect("a descriptor")).expect_err("a later version");
        assert!(error.to_string().contains("version 2"), "{error}");
        page.shared.magic.store(1, SeqCst);
        assert!(matches!(Page::open(file), Err(PageError::Magic)));
        let empty = memfd_create("other", MemfdFlags::ALLOW_SEALING).expect("a memory file");
        assert!(matches!(Page::open(empty), Err(PageError::Map(_))));
    }
}
