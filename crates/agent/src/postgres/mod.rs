//! Everything that the daemon does to one PostgreSQL server: files, child processes, SQL and signals.
//!
//! No decisions are here: each function does one thing, says how long it may take, and reports what came of it. What
//! reads or writes files of the data directory blocks; the daemon calls it from a blocking thread where a stuck disk must not
//! stop its loop. Every `async` function may be dropped at any time; a child process that it runs dies with it.
//!
//! Tested on a real server in `tests/it/postgres.rs`, parsers and writers beside their code.

mod settings;

pub use settings::{Credentials, Secret, Server, ToolOption, Upstream};
