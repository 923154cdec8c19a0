//! Whole clusters as users run them, and what happens to them. Each test has a cluster of its own.

mod bootstrap;
mod commands;
mod drill;
mod faults;
mod garbage;
mod guard;
mod patronictl;
mod pause;
mod rejoin;
mod restart;
