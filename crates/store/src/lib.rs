//! The built-in store: keys and leases, kept by a quorum of members (Raft, by the library `openraft`).
//!
//! Not finished: members do not reach each other yet, and nothing uses it. Here are what is replicated ([`kv`]), how long leases last
//! ([`leases`]), and what a member keeps on its disk ([`log`], [`machine`]).

pub mod client;
pub mod kv;
pub mod leases;
pub mod log;
pub mod machine;
pub mod network;
pub mod node;
pub mod server;
pub mod types;
pub mod wire;
