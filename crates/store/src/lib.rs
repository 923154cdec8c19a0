//! The built-in store: keys and leases, kept by a quorum of members (Raft, by the library `openraft`).
//!
//! [`kv`] is what is replicated, [`log`] and [`machine`] what a member keeps on its disk, [`leases`] how long its leader lets leases live, [`node`] all of
//! that under the library's engine; [`server`], [`network`] and [`wire`] are how members and clients reach each other, [`member`] is one as a program
//! runs it, and [`client`] who asks. Nothing of PostgreSQL or its clusters is known here. Tested here with members in one process
//! (`tests/members.rs`), and on real processes in `tests/it/store`.

pub mod client;
pub mod kv;
pub mod leases;
pub mod log;
pub mod machine;
pub mod member;
pub mod network;
pub mod node;
pub mod server;
pub mod types;
pub mod wire;
