//! Everything that the daemon does to one PostgreSQL server: files, child processes, SQL and signals.
//!
//! No decisions are here: each function does one thing, says how long it may take, and reports what came of it. What
//! reads or writes files of the data directory blocks; the daemon calls it from a blocking thread where a stuck disk
//! must not stop its loop. Every `async` function may be dropped at any time; a child process that it runs dies with
//! it.
//!
//! Tested on a real server in `tests/it/postgres/`, parsers and writers beside their code.

mod atomic_file;
pub mod base_backup;
pub mod config_files;
mod connection;
mod conninfo;
pub mod control_data;
pub mod data_directory;
mod error;
pub mod initdb;
pub mod installation;
pub mod lineage;
pub mod observation;
pub mod parameters;
pub mod postmaster;
pub mod probe;
mod program;
pub mod promote;
mod replication_login;
pub mod rewind;
pub mod roles;
mod settings;
pub mod slots;
mod sql;
pub mod start;
pub mod stop;

pub use config_files::Recovery;
pub use connection::{Connection, LocalAddress, Purpose, execute_alone, local_address};
pub use control_data::{ClusterState, ControlData};
pub use data_directory::{DataDirectory, Marker};
pub use error::Error;
pub use installation::ServerVersion;
pub use observation::Observation;
pub use postmaster::Postmaster;
pub use settings::{Credentials, Secret, Server, ToolOption, Upstream};
