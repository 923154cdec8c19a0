//! The guard: the postmaster's parent, which kills the server when the permit runs out.

use std::ffi::OsString;
use std::process::ExitCode;

/// The guard's process: `pgherd guard ...`, started by the agent only.
pub fn main(_args: impl Iterator<Item = OsString>) -> ExitCode {
    ExitCode::from(2)
}
