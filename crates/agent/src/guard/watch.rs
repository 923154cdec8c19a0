//! The guard's loop: wait for the permit's end or the postmaster's, then leave no process of the server behind.
//!
//! It allocates nothing and opens nothing that it cannot do without: it must work when memory is short, the disk hangs,
//! and the agent is frozen. What it sees and does it publishes in the [`Page`].
//!
//! Not here: becoming the guard (`process`). The tests below count allocations; `tests/it/guard.rs` has real servers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use pgherd_dcs::boot_now;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io;
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, wait};
use rustix::thread::clock_nanosleep_relative;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::page::{Cause, NO_END, Page, nanos};
use super::scan::{FIRST_PAUSE, LONGEST_PAUSE, Scanner};

/// How often the guard looks round without a reason: to bury orphans that PostgreSQL's commands left to it.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// After a postmaster that exited by itself its log collector may write its last lines. Anything else is gone by then;
/// after one that was killed nothing is waited for.
const LAST_LINES: Duration = Duration::from_millis(200);

/// A tenth of a second, in steps of [`FIRST_PAUSE`]; who is not dead by then is buried by init.
const BURIAL_ROUNDS: u32 = 100;

/// The guard, ready to watch.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) page: Page,
    pub(super) scanner: Scanner,
    pub(super) postmaster: Postmaster,
    timer: OwnedFd,
    /// The read end, non-blocking: a byte means that the deadline came nearer.
    wake: OwnedFd,
}

#[derive(Debug)]
pub(super) struct Postmaster {
    pub(super) pid: Pid,
    pub(super) process: OwnedFd,
    /// Our child, to be reaped; an adopted one is another's.
    pub(super) child: bool,
}

impl Watch {
    pub(super) fn new(page: Page, scanner: Scanner, postmaster: Postmaster, wake: OwnedFd) -> io::Result<Watch> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Watch { page, scanner, postmaster, timer, wake })
    }

    /// Returns when no process of the server is left.
    pub(super) fn run(&mut self) {
        loop {
            let deadline = self.page.deadline_nanos();
            let now = nanos(boot_now());
            if deadline <= now {
                // Refused: the agent has just prolonged it, so look again.
                if self.page.end(deadline) {
                    return self.finish(Cause::PermitEnded, now, 0);
                }
                continue;
            }
            self.sleep_until(deadline, now);
            // In this order: dead, then buried, then its status is known.
            let gone = self.postmaster.is_gone();
            self.reap();
            if gone {
                let now = nanos(boot_now());
                return self.finish(Cause::PostmasterExit, now, self.grace(now, deadline));
            }
        }
    }

    /// Until the deadline, the postmaster's end, or a wake-up.
    fn sleep_until(&self, deadline: u64, now: u64) {
        // The timer counts suspended time, which a poll's own limit does not; the limit holds should the timer fail.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &timer_at(deadline));
        let limit = Duration::from_nanos(deadline - now).saturating_add(Duration::from_millis(1)).min(HOUSEKEEPING);
        let mut sources = [
            PollFd::new(&self.postmaster.process, PollFlags::IN),
            PollFd::new(&self.timer, PollFlags::IN),
            PollFd::new(&self.wake, PollFlags::IN),
        ];
        if poll(&mut sources, Some(&timespec(limit))).is_err() {
            // Never expected, and then no reason to spin.
            pause(LONGEST_PAUSE);
        }
        let mut sink = [0u8; 64];
        let _ = io::read(&self.wake, &mut sink);
        let _ = io::read(&self.timer, &mut sink);
    }

    /// Until when processes may still end by themselves: a moment after a postmaster that exited by itself, but
    /// never past the permit; at once after one that was killed, whose backends are orphans and may go on writing.
    fn grace(&self, now: u64, deadline: u64) -> u64 {
        if self.page.exited_by_itself() { (now + LAST_LINES.as_nanos() as u64).min(deadline) } else { 0 }
    }

    /// Kills what is left of the server, but not before `grace`.
    fn finish(&mut self, cause: Cause, begun: u64, grace: u64) {
        self.page.end_for_good();
        self.page.publish_killing(cause, begun);
        // Only the postmaster forks: with it stopped, no new process appears behind the scan.
        if cause == Cause::PermitEnded {
            let _ = pidfd_send_signal(&self.postmaster.process, Signal::STOP);
        }
        let mut killed = 0;
        let mut wait = FIRST_PAUSE;
        loop {
            let spare = nanos(boot_now()) < grace;
            let left = if spare { self.scanner.visit(|_| {}) } else { self.scanner.kill_round() };
            if !spare {
                // Also if the scan failed, or has not recognised it.
                let _ = pidfd_send_signal(&self.postmaster.process, Signal::KILL);
                killed = killed.max(left.unwrap_or(0));
            }
            self.reap();
            if left == Ok(0) && self.postmaster.is_gone() {
                break;
            }
            pause(wait);
            wait = (wait * 2).min(LONGEST_PAUSE);
        }
        self.page.publish_done(killed, nanos(boot_now()).saturating_sub(begun));
        self.bury_the_last();
    }

    /// The processes just killed become ours to bury within moments; whatever PostgreSQL's commands left may live on.
    fn bury_the_last(&self) {
        for _ in 0..BURIAL_ROUNDS {
            if self.reap() == Left::None {
                return;
            }
            pause(FIRST_PAUSE);
        }
    }

    /// Buries the dead: the postmaster, whose status is published, and the orphans that the kernel handed to us.
    fn reap(&self) -> Left {
        if !self.postmaster.child {
            return Left::None;
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.postmaster.pid => {
                    self.page.publish_status(status);
                }
                Ok(Some(_)) => {}
                Ok(None) => return Left::Living,
                // There is no child at all.
                Err(_) => return Left::None,
            }
        }
    }
}

/// What children the guard has after burying the dead ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Living,
    None,
}

impl Postmaster {
    /// Dead, whether reaped or not.
    fn is_gone(&self) -> bool {
        is_gone(self.process.as_fd())
    }
}

/// Whether the process behind the descriptor has ended.
pub(super) fn is_gone(process: BorrowedFd<'_>) -> bool {
    let mut source = [PollFd::new(&process, PollFlags::IN)];
    poll(&mut source, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

fn timer_at(deadline: u64) -> Itimerspec {
    // All zero disarms.
    let at = if deadline == NO_END { Duration::ZERO } else { Duration::from_nanos(deadline) };
    Itimerspec { it_interval: Timespec::default(), it_value: timespec(at) }
}

fn timespec(duration: Duration) -> Timespec {
    // At most 2^64 nanoseconds, so the seconds fit.
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

fn pause(duration: Duration) {
    let _ = clock_nanosleep_relative(ClockId::Monotonic, &timespec(duration));
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
