//! The user's lab on honest hosts: four machines made of namespaces, with the lab's names, ports, paths and files unchanged.
//!
//! Skipped, and that is noted (`harness/notes.rs`), where root or network namespaces are not to be had.

mod cluster;
mod ctl;
mod faults;
mod host;
mod walk;
