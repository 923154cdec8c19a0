//! What is wrong at the start, or goes wrong beside us: who failed, what was tried and what to do is said; the data are left alone; and
//! the agent ends with 1, or waits and goes on by itself when it is mended.
//!
//! Each situation is made for real. What is to be said stands in [`messages`], which `docs/troubleshooting.md` must have too.

mod configuration;
mod disk;
mod messages;
mod node;
mod passwords;
mod standby;
mod store;
mod strangers;
