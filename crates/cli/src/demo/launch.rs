//! How a process of the demo is started: its command line, its user, its log file, and again after a drill killed it.
//!
//! Not here: finding and ending processes (`processes`, `stop`). Tested by `tests/it/demo.rs`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::detach::in_own_session;
use super::processes::{DIRECTORY_VARIABLE, Identity, NODE_VARIABLE, own_program};

/// The user that the cluster's programs run as when the demo is started by root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// A command line that can be started again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// For messages: `store`, `entrypoint`, `node1`.
    pub name: String,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// The log, which is appended to, and the demo's directory, which is also the working directory.
    pub log: PathBuf,
    pub directory: PathBuf,
    pub node: Option<String>,
    /// `None`: the caller's. The agent, too: started by root it changes its user itself.
    pub user: Option<User>,
}

/// A started command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    pub launch: Launch,
    pub identity: Identity,
}

impl Launch {
    /// Starts the program detached from the terminal, with an environment that depends on nothing but the path.
    pub fn start(&self) -> io::Result<Process> {
        let log = open_log(&self.log, self.user)?;
        let mut command = Command::new(self.executable());
        command.arg0(&self.program).args(&self.arguments).current_dir(&self.directory).env_clear();
        command.env(DIRECTORY_VARIABLE, &self.directory).env("HOME", &self.directory).env("LC_ALL", "C.UTF-8");
        for passed_on in ["PATH", "JAVA_HOME", "RUST_LOG"] {
            if let Some(value) = std::env::var_os(passed_on) {
                command.env(passed_on, value);
            }
        }
        if let Some(node) = &self.node {
            command.env(NODE_VARIABLE, node);
        }
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = in_own_session(&mut command).spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let ended = || io::Error::other(format!("{} ended at once", self.program.display()));
        Ok(Process { launch: self.clone(), identity: Identity::of(pid).ok_or_else(ended)? })
    }

    /// What the child executes: our own program by the link that the kernel keeps to it. The user that the child becomes
    /// may not be allowed to enter a directory on the way there, as in a checkout below /root.
    fn executable(&self) -> &Path {
        match own_program() {
            Ok(own) if own == self.program => Path::new("/proc/self/exe"),
            _ => &self.program,
        }
    }
}

fn open_log(path: &Path, user: Option<User>) -> io::Result<File> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    if let Some(User { uid, gid }) = user {
        std::os::unix::fs::fchown(&log, Some(uid), Some(gid))?;
    }
    Ok(log)
}

/// The last lines of a log, for the message that says why something ended. At most the last 16 kB are read.
pub fn last_lines(log: &Path, count: usize) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(16 * 1024)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| format!("    {line}\n")).collect()
}
