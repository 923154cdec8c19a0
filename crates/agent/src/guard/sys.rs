//! The guard's system calls that no safe interface offers. Each is a few lines and leaves a safe function.

#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;
use rustix::mm::{MlockFlags, mlock, mlock_with};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What would end the guard while its server lives. The agent stops PostgreSQL, never the guard.
const IGNORED: [libc::c_int; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGPIPE,
];

pub(super) fn ignore_signals() {
    set_disposition(libc::SIG_IGN);
    // An agent started with SIGCHLD ignored would pass that on, and the postmaster's status would be lost.
    // SAFETY: installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

fn set_disposition(disposition: libc::sighandler_t) {
    for signal in IGNORED {
        // SAFETY: installs no handler, only "ignore" or "default".
        unsafe { libc::signal(signal, disposition) };
    }
}

/// Closes every descriptor above standard error: whoever started the agent may have left some open, and neither guard nor
/// server may hold them. Only to be called before the process has opened any.
pub(super) fn close_inherited_files() {
    // SAFETY: first act of a process whose own code has opened nothing yet, so no owned descriptor is closed under anyone.
    // A kernel before 5.9 refuses; then they stay open, which harms little.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

/// Asks for the real-time scheduler, which children do not inherit.
pub(super) fn set_realtime(priority: i32) -> io::Result<()> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = priority;
    // SAFETY: the pointer is to a live value; 0 means the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps the pages in `addresses` in memory from now on, as far as they are there already.
pub(super) fn lock_present(addresses: Range<usize>) -> rustix::io::Result<()> {
    // SAFETY: locking changes no content and no protection, and an address that is not mapped is an error.
    unsafe { mlock_with(addresses.start as *mut _, addresses.len(), MlockFlags::ONFAULT) }
}

/// Reads the pages in `addresses`, and keeps them in memory from now on.
pub(super) fn bring_in_and_lock(addresses: Range<usize>) -> rustix::io::Result<()> {
    // SAFETY: as above.
    unsafe { mlock(addresses.start as *mut _, addresses.len()) }
}

/// Makes the command's process the guard's own: ordinary signals, an ordinary victim of the out-of-memory killer if
/// `expendable`, and SIGQUIT from the kernel (an immediate shutdown, to a postmaster) when the guard dies.
pub(super) fn tie_to_parent(command: &mut Command, parent: Pid, expendable: bool) {
    let prepare = move || {
        set_disposition(libc::SIG_DFL);
        set_parent_process_death_signal(Some(Signal::QUIT))?;
        // The parent may have died before it could be watched.
        if getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        if expendable {
            let file = rustix::fs::open(
                c"/proc/self/oom_score_adj",
                rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )?;
            rustix::io::write(file, b"0")?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec `prepare` makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
}

/// Lets the runtime say when a descriptor becomes readable.
pub(super) fn await_readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always names one and the same open descriptor, until the `AsyncFd` that owns it closes it.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
