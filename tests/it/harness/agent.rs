//! An agent that is started by hand, beside those of a demo: it must end by itself, or runs until it is dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::binary;
use super::cluster::LONG;
use super::process::Process;

/// Runs an agent that must end by itself.
pub fn run_agent(config: &Path) -> Output {
    run_pgherd(&["agent".as_ref(), config])
}

/// Runs a role of `pgherd` that must end by itself.
pub fn run_pgherd(arguments: &[&Path]) -> Output {
    let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pgherd runs");
    let begun = std::time::Instant::now();
    while child.try_wait().expect("our own child").is_none() {
        if begun.elapsed() > LONG {
            child.kill().expect("our own child");
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("its output")
}

fn command(arguments: &[&Path]) -> Command {
    let mut command = Command::new(binary::pgherd());
    command.args(arguments).current_dir("/").stdin(Stdio::null());
    command
}

/// A running agent with a log of its own. Dropped, it is told to stop, and its server with it.
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    pub fn start(config: &Path, log: PathBuf) -> Agent {
        let file = std::fs::File::create(&log).expect("a log");
        let mut command = command(&["agent".as_ref(), config]);
        let child = command.stdout(file.try_clone().expect("a descriptor")).stderr(file).spawn().expect("pgherd runs");
        Agent { child, log }
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(process) = i32::try_from(self.child.id()).ok().and_then(Process::of) {
            process.signal(signal);
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.signal(Signal::TERM);
        self.child.wait().expect("our own child");
    }
}
