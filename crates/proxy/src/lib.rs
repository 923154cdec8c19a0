//! The entrypoint: listeners, routes, the data path, hold and drain, stats.
//!
//! ```text
//!  haproxy_cfg ─► config ─► start ─┬─ control thread: check, subscribe ─► route (pure) ─► gates of entry
//!                                  ├─ worker threads: accept, session (hold, open, relay, farewell)
//!                                  └─ stats: page and CSV
//! ```
//! One process, no file but its configuration. Workers never decide: they ask the gate of a session's server before each write.
//! Tested in the modules and, on real servers, in `tests/it/proxy/`.

mod agent_link;
mod check;
pub mod config;
mod control;
mod entry;
#[doc(hidden)]
pub mod fuzz;
pub mod haproxy_cfg;
mod http;
mod net;
mod route;
mod session;
mod start;
mod stats;
mod subscribe;
mod worker;

pub use start::{Handle, StartError, start};

use std::path::Path;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Serves `path` (a `haproxy.cfg`) until SIGTERM or SIGINT. An error also when a thread ends unasked: gates that nobody moves any more
/// are worse than a start anew, which is for whoever looks after the process.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path)
        .with_context(|| format!("the configuration {file} cannot be read; give the path of a haproxy.cfg"))?;
    // Comments may be in any encoding; what matters is ASCII.
    let text = String::from_utf8_lossy(&bytes);
    let parsed = haproxy_cfg::parse(&file, &text, &|name| std::env::var(name).ok())
        .map_err(|problems| anyhow::anyhow!("the configuration cannot be used:\n{problems}"))?;
    for problem in &parsed.warnings.problems {
        tracing::warn!(file, line = problem.line, word = problem.word, "{}", problem.message);
    }
    let handle = start(parsed.config)?;
    let runtime = worker::runtime().context("the main thread has no event loop")?;
    let name = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => Ok("SIGTERM"),
            _ = interrupt.recv() => Ok("SIGINT"),
            thread = handle.ended() => anyhow::bail!("the thread `{thread}` ended unasked, and the entrypoint with it; start it again"),
        }
    })?;
    tracing::info!(signal = name, "the entrypoint ends");
    handle.stop();
    Ok(())
}
