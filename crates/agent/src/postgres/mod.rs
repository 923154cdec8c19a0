//! Everything that the daemon does to one PostgreSQL server: files, child processes, SQL and signals.
//!
//! No decisions are here: each function does one thing, says how long it may take, and reports what came of it. What
//! reads or writes files of the data directory blocks; the daemon calls it from a blocking thread where a stuck disk
//! must not stop its loop. Every `async` function may be dropped at any time; a child process that it runs dies with
//! it.
//!
//! Tested on a real server in `tests/it/postgres/`, parsers and writers beside their code.

pub mod acceptance;
pub mod access;
pub mod archive;
mod atomic_file;
pub mod base_backup;
mod bootstrap_access;
pub mod config_files;
mod connection;
mod conninfo;
pub mod control_data;
pub mod data_directory;
mod error;
pub(crate) mod fuzz;
pub mod history_files;
pub mod hooks;
pub mod initdb;
pub mod installation;
pub mod lineage;
pub mod observation;
mod outlying;
pub mod own_method;
pub mod parameters;
pub mod pending;
pub mod postmaster;
pub mod probe;
mod program;
pub mod promote;
mod replication_login;
pub mod rewind;
pub mod roles;
mod settings;
pub mod slot_copy;
pub mod slot_sync;
pub mod slots;
mod sql;
pub mod start;
pub mod stop;
pub mod tls;
pub mod unfinished;

pub use atomic_file::{keep as keep_file, kept as kept_file};
pub use config_files::Recovery;
pub use connection::{Connection, LocalAddress, Purpose, execute_alone, execute_in_database, local_address};
pub use control_data::{ClusterState, ControlData};
pub use data_directory::{DataDirectory, Marker};
pub use error::Error;
pub use installation::ServerVersion;
pub use observation::Observation;
pub use own_method::{CustomBootstrap, OwnMethod, ReplicaMethod, RestoreRecovery};
pub use postmaster::Postmaster;
pub use settings::{Credentials, Hooks, Secret, Server, ToolOption, Upstream};
