//! One call between fork and exec: a session of its own, so that a closed terminal or Ctrl-C does not reach the demo.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Lets the command start as the leader of a new session.
pub fn in_own_session(command: &mut Command) -> &mut Command {
    // SAFETY: setsid is async-signal-safe, allocates nothing and touches no memory of the parent; it is all that runs
    // between fork and exec.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(std::io::Error::from)) }
}
