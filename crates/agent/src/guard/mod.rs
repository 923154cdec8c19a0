//! The guard: the postmaster's parent, which kills the server when the permit runs out.
//!
//! One guard per postmaster, alive as long as it, whatever becomes of the agent. The two share a [`Page`]: the agent
//! writes until when the server may run, the guard obeys. This is what makes a node's permit to have a writer *end* in
//! time when the agent hangs, is stopped or is killed.
//!
//! | who dies or hangs | what happens |
//! |---|---|
//! | agent | the permit ends unless a new agent [attaches](attach()) in time; the guard kills the server |
//! | guard | the kernel sends SIGQUIT to its postmaster: immediate shutdown |
//! | postmaster | the guard kills the orphaned backends at once |
//!
//! Not here: until when a permit lasts (`pgherd_ha::Permit`), and stopping PostgreSQL in good order. Real servers meet it
//! in `tests/it/guard.rs`.

mod attach;
mod handle;
mod map;
mod mode;
mod page;
mod process;
mod residence;
pub mod scan;
mod sys;
mod watch;

pub use attach::{Attached, attach};
pub use handle::{Guard, GuardError, Process, Spawn, start_unguarded};
pub use mode::GuardMode;
pub use page::{Abilities, Cause, Fate, Page, PageError, PermitEnded, State};
pub use process::main;
