//! Becoming the guard: `pgherd guard ...`, started by the agent only.
//!
//! ```text
//! guard start DEADLINE DATA_DIR -- POSTGRES ARGUMENT...    start the postmaster as a child and watch it
//! guard adopt DEADLINE DATA_DIR PID                        watch one that somebody else started
//! guard exec -- POSTGRES ARGUMENT...                       no guard: become the postmaster, out of the agent's session
//! ```
//! `DEADLINE` is in nanoseconds of `CLOCK_BOOTTIME`, or `none`. Standard input is a socket to the agent: one line, `ready`
//! or what went wrong. What has to be allocated is allocated here, before the loop in `watch` begins.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open, set_child_subreaper, setsid};

use super::page::{Cause, NO_END, Page};
use super::scan::Scanner;
use super::watch::{Postmaster, Watch};
use super::{residence, sys};

/// The name that `ps` and `top` show, and by which the agent looks for guards; at most 15 characters.
pub(super) const NAME: &str = "pgherd-guard";
/// The answer to the agent when all is well.
pub(super) const READY: &str = "ready";
/// The real-time priorities that the guard asks for: the first that its limit allows. Any is above every ordinary process
/// and far below the kernel's own threads.
const PRIORITIES: [i32; 2] = [10, 1];

/// Why the guard could not begin.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the guard does not understand its arguments; it is started by `pgherd agent`, not by hand")]
    Usage,
    #[error("the guard cannot {what}: {source}")]
    Call { what: &'static str, source: Errno },
    #[error("the guard cannot run {}: {source}", program.display())]
    Spawn { program: PathBuf, source: std::io::Error },
    #[error("the guard finds no postmaster of {} at process {pid}", data_dir.display())]
    NotOurs { data_dir: PathBuf, pid: i32 },
}

/// The guard's process.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    sys::close_inherited_files();
    let args: Vec<OsString> = args.collect();
    let answer = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let tell = |line: &str| {
        if let Ok(agent) = &answer {
            // An agent that has died meanwhile will find this guard again.
            let _ = { agent }.write_all(line.as_bytes());
        }
    };
    match begin(&args) {
        Ok(mut watch) => {
            drop(args);
            // Before it says that it watches: bringing its code into memory may have to wait for a disk.
            watch.page.publish_abilities(realtime(), residence::lock(&watch.scanner));
            tell(READY);
            drop(answer);
            let _ = detach_input();
            watch.run();
            say_farewell(&watch.page);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn begin(args: &[OsString]) -> Result<Watch, StartError> {
    let words: Vec<Option<&str>> = args.iter().map(|arg| arg.to_str()).collect();
    match words.as_slice() {
        [Some("start"), Some(deadline), _, Some("--"), _, ..] => {
            start(parse_deadline(deadline)?, args[2].clone().into(), &args[4], &args[5..])
        }
        [Some("adopt"), Some(deadline), _, Some(pid)] => {
            adopt(parse_deadline(deadline)?, args[2].clone().into(), pid.parse().map_err(|_| StartError::Usage)?)
        }
        [Some("exec"), Some("--"), _, ..] => Err(become_postmaster(&args[2], &args[3..])),
        _ => Err(StartError::Usage),
    }
}

fn start(deadline: u64, data_dir: PathBuf, postgres: &OsStr, args: &[OsString]) -> Result<Watch, StartError> {
    let parts = prepare(deadline, data_dir)?;
    set_child_subreaper(Some(getpid())).map_err(call("adopt orphans"))?;
    let mut command = Command::new(postgres);
    command.args(args).stdin(Stdio::null());
    let expendable = std::fs::read_to_string("/proc/self/oom_score_adj").is_ok_and(|score| score.starts_with('-'));
    sys::tie_to_parent(&mut command, getpid(), expendable);
    let child = command.spawn().map_err(|source| StartError::Spawn { program: postgres.into(), source })?;
    let pid = Pid::from_raw(child.id() as i32).expect("a child's number is positive");
    // Not reaped yet, so the number is still its own, even if it has already failed.
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(call("watch the postmaster"))?;
    parts.watch(Postmaster { pid, process, child: true })
}

fn adopt(deadline: u64, data_dir: PathBuf, pid: i32) -> Result<Watch, StartError> {
    let not_ours = StartError::NotOurs { data_dir: data_dir.clone(), pid };
    let Some(pid) = Pid::from_raw(pid).filter(|pid| pid.as_raw_pid() > 1) else { return Err(not_ours) };
    let parts = prepare(deadline, data_dir)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(call("watch the postmaster"))?;
    if !parts.scanner.is_ours(pid) {
        return Err(not_ours);
    }
    parts.watch(Postmaster { pid, process, child: false })
}

/// Without a guard, but out of the agent's session, so that a signal to its terminal does not stop the server.
fn become_postmaster(postgres: &OsStr, args: &[OsString]) -> StartError {
    if let Err(error) = setsid() {
        return call("leave the agent's session")(error);
    }
    // The answer's socket is closed by the exec, which tells the agent that all is well.
    let source = Command::new(postgres).args(args).stdin(Stdio::null()).exec();
    StartError::Spawn { program: postgres.into(), source }
}

/// What a guard needs beside its postmaster.
struct Parts {
    page: Page,
    /// Never read here: through our table of files the agent finds the page.
    file: OwnedFd,
    scanner: Scanner,
    wake_read: OwnedFd,
    wake_write: OwnedFd,
}

fn prepare(deadline: u64, data_dir: PathBuf) -> Result<Parts, StartError> {
    sys::ignore_signals();
    setsid().map_err(call("leave the agent's session"))?;
    let name = std::ffi::CString::new(NAME).expect("a constant without a zero byte");
    rustix::thread::set_name(&name).map_err(call("set its name"))?;
    let (page, file) = Page::create(deadline).map_err(call("create the permit page"))?;
    let scanner = Scanner::new(&data_dir).map_err(call("read the data directory"))?;
    let (wake_read, wake_write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(call("create a pipe"))?;
    Ok(Parts { page, file, scanner, wake_read, wake_write })
}

impl Parts {
    fn watch(self, postmaster: Postmaster) -> Result<Watch, StartError> {
        let (pid, child) = (postmaster.pid, postmaster.child);
        let watch = Watch::new(self.page, self.scanner, postmaster, self.wake_read).map_err(call("create a timer"))?;
        watch.page.publish_watching(getpid(), pid, self.wake_write.as_raw_fd(), !child);
        // Both stay open as long as the process lives: the agent opens them through /proc.
        let _ = (self.file.into_raw_fd(), self.wake_write.into_raw_fd());
        Ok(watch)
    }
}

fn parse_deadline(text: &str) -> Result<u64, StartError> {
    match text {
        "none" => Ok(NO_END),
        nanos => nanos.parse().map_err(|_| StartError::Usage),
    }
}

fn call(what: &'static str) -> impl FnOnce(Errno) -> StartError {
    move |source| StartError::Call { what, source }
}

/// Lets go of the socket, so that the agent sees its end.
fn detach_input() -> Result<(), Errno> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let null = rustix::fs::open(c"/dev/null", flags, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(null)
}

/// Whether the guard runs at real-time priority from now on.
fn realtime() -> bool {
    PRIORITIES.into_iter().any(|priority| sys::set_realtime(priority).is_ok())
}

/// One line in the server's log, for whoever wonders where the server went. The work is done: now it may fail or wait.
fn say_farewell(page: &Page) {
    let Some(fate) = page.fate() else { return };
    let reason = match fate.cause {
        Cause::PermitEnded => "the permit of this node ended",
        Cause::PostmasterExit if fate.killed > 0 => "the postmaster ended and left processes behind",
        Cause::PostmasterExit => return,
    };
    // As the agent's own log, beside which it stands.
    let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S.%3f").to_string();
    let (killed, took) = (fate.killed, fate.took.as_millis());
    let line = format!("{now}  WARN pgherd guard: {reason}; killed {killed} processes in {took} ms\n");
    let stderr = std::io::stderr();
    let writable = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&Timespec::default()));
    if writable.is_ok_and(|ready| ready > 0) {
        let _ = rustix::io::write(&stderr, line.as_bytes());
    }
}
