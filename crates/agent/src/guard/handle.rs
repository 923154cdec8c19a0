//! The agent's side: starting a guard, and holding one.
//!
//! Dropping a [`Guard`] lets it be: guard and server go on, and [`attach`](super::attach()) finds them again. All of this
//! needs the runtime's I/O driver.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pgherd_ha::Boot;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

use super::page::{Fate, NO_END, Page, PageError, State, nanos};
use super::scan::Scanner;
use super::{attach, process, sys, watch};

/// How long a guard may take to say that its postmaster runs: it is a fork and an exec, but a machine may be overloaded.
const START_LIMIT: Duration = Duration::from_secs(10);
/// The longest answer of a guard that is read: one sentence with two paths in it.
const ANSWER_LIMIT: u64 = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("cannot start the guard ({}): {source}", exe.display())]
    Start { exe: PathBuf, source: io::Error },
    #[error("PostgreSQL was not started: {0}")]
    Refused(String),
    #[error(
        "the guard did not answer within {} s; the machine may be overloaded or its disk hang, and PostgreSQL may be \
         starting: look again before trying again",
        START_LIMIT.as_secs()
    )]
    Silent,
    #[error(
        "the guard (process {pid}) ended before it could be reached; if its server ended at once, PostgreSQL's log says why"
    )]
    Vanished { pid: i32 },
    #[error(
        "cannot reach the guard's memory (process {pid}): {source}; agent and guard must run as the same \
         user, and that user be allowed to read the program"
    )]
    Unreachable { pid: i32, source: io::Error },
    #[error("the guard (process {pid}) is not usable: {source}")]
    Page { pid: i32, source: PageError },
    #[error("cannot watch process {pid}: {source}")]
    Watch { pid: i32, source: io::Error },
    #[error("cannot look for the server of {}: {source}", data_dir.display())]
    Look { data_dir: PathBuf, source: io::Error },
}

impl GuardError {
    /// This user may not look into the data directory.
    pub fn is_denied(&self) -> bool {
        matches!(self, GuardError::Look { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// How to start a postmaster under a guard.
#[derive(Debug)]
pub struct Spawn {
    /// The program to run as the guard: [`Spawn::new`] names the running one.
    pub exe: PathBuf,
    pub postgres: PathBuf,
    pub args: Vec<OsString>,
    pub data_dir: PathBuf,
    /// The first permit: [`Boot::NEVER`] for a server that starts as a standby.
    pub deadline: Boot,
    /// Variables of the agent's environment that the server must not see, secrets before all.
    pub env_remove: Vec<OsString>,
    pub env_set: Vec<(OsString, OsString)>,
    /// The server's standard output and error, `None`: the agent's own.
    pub stdout: Option<File>,
    pub stderr: Option<File>,
}

impl Spawn {
    pub fn new(postgres: PathBuf, args: Vec<OsString>, data_dir: PathBuf) -> Spawn {
        Spawn {
            exe: own_executable(),
            postgres,
            args,
            data_dir,
            deadline: Boot::NEVER,
            env_remove: Vec::new(),
            env_set: Vec::new(),
            stdout: None,
            stderr: None,
        }
    }

    /// `pgherd guard WORD...`, with the server's environment and output.
    fn command(&self, words: impl IntoIterator<Item = OsString>) -> Result<Command, GuardError> {
        let mut command = guard_command(&self.exe);
        command.args(words).arg("--").arg(&self.postgres).args(&self.args);
        for name in &self.env_remove {
            command.env_remove(name);
        }
        command.envs(self.env_set.iter().map(|(name, value)| (name, value)));
        let start = |source| GuardError::Start { exe: self.exe.clone(), source };
        if let Some(file) = &self.stdout {
            command.stdout(file.try_clone().map_err(start)?);
        }
        if let Some(file) = &self.stderr {
            command.stderr(file.try_clone().map_err(start)?);
        }
        Ok(command)
    }
}

/// The running program, even if its file has been replaced by an upgrade.
pub(super) fn own_executable() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// A process that cannot be confused with a later one of the same number.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// `None`: it had ended before it could be held.
    handle: Option<AsyncFd<OwnedFd>>,
}

impl Process {
    /// Holds a process. One that exists no more is no error: it [has exited](Self::exit).
    pub fn hold(pid: Pid) -> Result<Process, GuardError> {
        let watch = |source| GuardError::Watch { pid: pid.as_raw_pid(), source };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Some(sys::await_readable(handle).map_err(watch)?),
            Err(Errno::SRCH) => None,
            Err(errno) => return Err(watch(errno.into())),
        };
        Ok(Process { pid, handle })
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns when the process has ended, at once if it already has.
    pub async fn exit(&self) {
        let Some(handle) = &self.handle else { return };
        while self.is_alive() {
            match handle.readable().await {
                // A spurious wake-up; a real one that comes now is not lost.
                Ok(mut ready) if self.is_alive() => ready.clear_ready(),
                // An error comes only while the runtime shuts down.
                Ok(_) | Err(_) => return,
            }
        }
    }

    pub fn is_alive(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| !watch::is_gone(handle.get_ref().as_fd()))
    }

    /// `false`: it has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        self.handle.as_ref().is_some_and(|handle| pidfd_send_signal(handle.get_ref(), signal).is_ok())
    }
}

/// A guard and its postmaster.
#[derive(Debug)]
pub struct Guard {
    page: Arc<Page>,
    guard: Process,
    postmaster: Process,
    scanner: Scanner,
    /// Set if this agent started the guard; its drop leaves the burial to the runtime.
    _child: Option<Box<Child>>,
}

impl Guard {
    /// Starts a guard and, as its child, the postmaster; returns when that was forked, long before it takes connections.
    pub async fn start(spawn: &Spawn) -> Result<Guard, GuardError> {
        let words = ["start".into(), deadline_word(spawn.deadline), spawn.data_dir.clone().into()];
        launch(spawn.command(words)?, &spawn.exe, &spawn.data_dir).await
    }

    /// Starts a guard for a postmaster that runs already. `exe` as in [`Spawn`].
    ///
    /// It kills like any other, but does not learn the exit status, and its death does not stop the server: the agent has
    /// to watch [`exit`](Self::guard_exit) and give another one.
    pub async fn adopt(data_dir: &Path, postmaster: Pid, deadline: Boot, exe: &Path) -> Result<Guard, GuardError> {
        let mut command = guard_command(exe);
        command.arg("adopt").arg(deadline_word(deadline)).arg(data_dir).arg(postmaster.as_raw_pid().to_string());
        launch(command, exe, data_dir).await
    }

    /// Takes hold of a running guard.
    pub(super) fn reach(pid: Pid, page: Page, scanner: Scanner, child: Option<Child>) -> Result<Guard, GuardError> {
        let vanished = GuardError::Vanished { pid: pid.as_raw_pid() };
        let postmaster = page.postmaster().ok_or(vanished)?;
        let postmaster = match page.state() {
            // Buried already: its number may be another's.
            State::Done => Process { pid: postmaster, handle: None },
            _ => Process::hold(postmaster)?,
        };
        let child = child.map(Box::new);
        Ok(Guard { page: Arc::new(page), guard: Process::hold(pid)?, postmaster, scanner, _child: child })
    }

    /// The permit; may be handed to the thread that keeps the lease.
    pub fn page(&self) -> Arc<Page> {
        Arc::clone(&self.page)
    }

    pub fn pid(&self) -> Pid {
        self.guard.pid()
    }

    pub fn postmaster(&self) -> Pid {
        self.postmaster.pid()
    }

    /// Returns within a moment of the postmaster's end. Its backends may still be alive: await [`fate`](Self::fate).
    pub async fn postmaster_exit(&self) {
        self.postmaster.exit().await;
    }

    /// Returns when the guard has ended, which it does after its server, or when somebody killed it.
    pub async fn guard_exit(&self) {
        self.guard.exit().await;
    }

    /// Returns when the guard has ended, with what became of the server: no process of it is left.
    /// `None`: the guard was killed and can tell nothing; look with [`scan`](super::scan).
    pub async fn fate(&self) -> Option<Fate> {
        self.guard_exit().await;
        self.page.fate()
    }

    /// Whether the guard is alive; the node must not lead without.
    pub fn is_alive(&self) -> bool {
        self.guard.is_alive()
    }

    pub fn postmaster_is_alive(&self) -> bool {
        self.postmaster.is_alive()
    }

    /// Whether the guard would find this server's processes: by executable and working directory. To be asked once the server
    /// takes connections, and the node must not lead on `false` (PostgreSQL under a wrapper of another name, say, or a
    /// `/proc` that hides processes).
    pub fn sees_server(&self) -> bool {
        self.scanner.is_ours(self.postmaster.pid())
    }

    /// `false`: it has ended.
    pub fn signal_postmaster(&self, signal: Signal) -> bool {
        self.postmaster.signal(signal)
    }
}

/// Starts a postmaster without a guard ([`GuardMode::Off`](super::GuardMode)), in a session of its own: it outlives the
/// agent, and nothing but PostgreSQL itself stops it.
pub async fn start_unguarded(spawn: &Spawn) -> Result<Process, GuardError> {
    let (mut child, answer) = ask(spawn.command(["exec".into()])?, &spawn.exe).await?;
    // The socket closes when the guard's program has become the postmaster's, or when it has failed.
    match (answer.is_empty(), child.id().and_then(|id| Pid::from_raw(id as i32))) {
        (true, Some(pid)) => Process::hold(pid),
        _ => {
            let _ = child.try_wait();
            Err(GuardError::Refused(answer))
        }
    }
}

async fn launch(command: Command, exe: &Path, data_dir: &Path) -> Result<Guard, GuardError> {
    let (child, answer) = ask(command, exe).await?;
    let vanished = |pid| GuardError::Vanished { pid };
    let pid = child.id().and_then(|id| Pid::from_raw(id as i32)).ok_or(vanished(0))?;
    match answer.as_str() {
        process::READY => Guard::reach(pid, attach::page_of(pid)?, look_in(data_dir)?, Some(child)),
        "" => Err(vanished(pid.as_raw_pid())),
        _ => Err(GuardError::Refused(answer)),
    }
}

/// Starts the process and waits for its one line.
async fn ask(mut command: Command, exe: &Path) -> Result<(Child, String), GuardError> {
    let start = |source| GuardError::Start { exe: exe.to_owned(), source };
    let (ours, theirs) = UnixStream::pair().map_err(start)?;
    ours.set_nonblocking(true).map_err(start)?;
    let ours = tokio::net::UnixStream::from_std(ours).map_err(start)?;
    let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().map_err(start)?;
    // Its copy of the socket's other end would keep the answer open.
    drop(command);
    let mut answer = String::new();
    match tokio::time::timeout(START_LIMIT, ours.take(ANSWER_LIMIT).read_to_string(&mut answer)).await {
        Ok(Ok(_)) => Ok((child, answer)),
        Ok(Err(source)) => Err(start(source)),
        Err(_) => Err(GuardError::Silent),
    }
}

/// What finds the processes of a server.
pub(super) fn look_in(data_dir: &Path) -> Result<Scanner, GuardError> {
    Scanner::new(data_dir).map_err(|errno| GuardError::Look { data_dir: data_dir.to_owned(), source: errno.into() })
}

fn guard_command(exe: &Path) -> Command {
    let mut command = Command::new(exe);
    for name in crate::children::not_inherited() {
        command.env_remove(name);
    }
    command.arg0("pgherd").arg("guard");
    command
}

fn deadline_word(deadline: Boot) -> OsString {
    match nanos(deadline) {
        NO_END => "none".into(),
        nanos => nanos.to_string().into(),
    }
}
