//! `pgherd demo`: a whole cluster on this machine, to try and to measure: a store, N nodes and an entrypoint.
//!
//! It starts the same roles that production runs (`pgherd agent`, `pgherd proxy`, Debian's ZooKeeper or etcd) as
//! detached processes with real configuration files. Not here: faults and measuring (`drill`). Tested by
//! `tests/it/demo.rs`.

pub mod cluster;
mod detach;
pub mod files;
pub mod launch;
mod ports;
pub mod processes;
mod programs;
pub mod progress;
pub mod start;
pub mod state;
mod stop;
pub mod store;
mod summary;

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use files::Layout;
use progress::Progress;
use state::{State, StateError};
use store::StoreKind;

use crate::interrupts::Interrupts;

/// Start a whole cluster on this machine, to try it out.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "The demo keeps running after the command has ended; `pgherd demo --stop` ends it and removes \
    its directory. `pgherd drill` measures faults on it.")]
pub struct Arguments {
    /// How many nodes (each a PostgreSQL with its agent).
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=ports::MOST_NODES as i64))]
    nodes: u8,
    /// The store to start.
    #[arg(long, value_enum, default_value = "zookeeper", conflicts_with = "stop")]
    store: StoreKind,
    /// End the running demo and remove its directory.
    #[arg(long, conflicts_with = "foreground")]
    stop: bool,
    /// Where everything of the demo is kept [default: /var/lib/pgherd/demo for root, else
    /// $XDG_STATE_HOME/pgherd/demo or ~/.local/state/pgherd/demo].
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Stay until Ctrl-C (or SIGTERM, SIGHUP), then end the demo.
    #[arg(long)]
    foreground: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let directory = directory(arguments.directory.as_deref())?;
    if arguments.stop {
        return stop_demo(&directory);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(start_demo(&directory, &arguments))
}

/// The demo's directory as an absolute path; it appears in configuration files.
pub fn directory(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let directory = match given {
        Some(path) => std::path::absolute(path).context("the current directory cannot be read")?,
        None => state::default_directory().map_err(anyhow::Error::msg)?,
    };
    match directory.to_str() {
        Some(text) if !text.contains(['\n', '\r', '\0']) => Ok(directory),
        _ => bail!("{} cannot be written into configuration files; choose another --directory", directory.display()),
    }
}

async fn start_demo(directory: &Path, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(state) = running(directory)? {
        return show_running(&state, arguments).await;
    }
    let mut interrupts = Interrupts::new()?;
    let (layout, _starting) = prepare(directory)?;
    let progress = Progress::new();
    let started = interrupts.or(start::start(&layout, usize::from(arguments.nodes), arguments.store, &progress)).await;
    let (state, members) = match started {
        Ok(started) => started,
        Err(error) => {
            progress.doing("it failed; ending what was started");
            clean_up(directory).context("cleaning up after a failed start failed, too")?;
            progress.done("everything that was started has been ended and removed");
            return Err(error.context("the demo did not start"));
        }
    };
    print!("{}", summary::text(&state, &members, arguments.directory.is_some()));
    if arguments.foreground {
        interrupts.next().await;
        progress.doing("ending the demo");
        clean_up(directory)?;
        progress.done("ended");
    }
    Ok(ExitCode::SUCCESS)
}

/// The state of the demo that runs in this directory, if one does.
fn running(directory: &Path) -> anyhow::Result<Option<State>> {
    match State::load(directory) {
        Ok(state) if state.is_running() || !processes::marked(directory, None).is_empty() => Ok(Some(state)),
        Ok(_) | Err(StateError::NoDemo(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A second `pgherd demo` shows the first one, if that is whole.
async fn show_running(state: &State, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // A start that goes on looks incomplete, too.
    locked(&state.layout().marker())?;
    state.check_complete()?;
    let rest = cluster::Rest::new()?;
    let mut members = Vec::new();
    for node in &state.nodes {
        members = rest.members(node.rest_port).await.unwrap_or_default();
        if !members.is_empty() {
            break;
        }
    }
    let number = state.nodes.len();
    eprintln!("A demo of {number} nodes is already running in {} (`--stop` ends it):", state.directory.display());
    print!("{}", summary::text(state, &members, arguments.directory.is_some()));
    Ok(ExitCode::SUCCESS)
}

/// Makes the directory. What an ended demo left is removed; anything else in it is refused. The returned file is
/// locked until the start is over, so that a second start does not take the directory of the first for a left one.
fn prepare(directory: &Path) -> anyhow::Result<(Layout, File)> {
    let layout = Layout { directory: directory.to_owned() };
    // Held until the new marker is, so that nobody else takes the directory meanwhile.
    let left = layout.marker().is_file().then(|| locked(&layout.marker())).transpose()?;
    if left.is_some() {
        // What a reboot or a crash left.
        clean_up(directory)?;
    }
    let entries = std::fs::read_dir(directory);
    if entries.is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty and was not made by a demo; choose another --directory", directory.display());
    }
    let describe = || format!("creating {} failed; choose another place with --directory", directory.display());
    if let Some(parent) = directory.parent() {
        std::fs::create_dir_all(parent).with_context(describe)?;
    }
    // Root's servers run as user postgres, who has to pass through; secrets are in private files.
    let mode = if rustix::process::geteuid().is_root() { 0o755 } else { 0o700 };
    DirBuilder::new().mode(mode).recursive(true).create(directory).with_context(describe)?;
    let marker = OpenOptions::new().write(true).create_new(true).open(layout.marker()).with_context(describe)?;
    lock(&marker)?;
    Ok((layout, marker))
}

const STARTING: &str = "another `pgherd demo` is starting in the same directory; wait for its end";

fn lock(marker: &File) -> anyhow::Result<()> {
    rustix::fs::flock(marker, rustix::fs::FlockOperation::NonBlockingLockExclusive).context(STARTING)
}

/// The marker that is there, locked. Another start may have replaced it between opening and locking.
fn locked(path: &Path) -> anyhow::Result<File> {
    let marker = File::open(path).context(STARTING)?;
    lock(&marker)?;
    let (ours, there) = (marker.metadata()?, path.metadata().context(STARTING)?);
    match (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
        true => Ok(marker),
        false => bail!(STARTING),
    }
}

fn stop_demo(directory: &Path) -> anyhow::Result<ExitCode> {
    if !(Layout { directory: directory.to_owned() }).marker().is_file() {
        return Err(StateError::NoDemo(directory.to_owned()).into());
    }
    let progress = Progress::new();
    progress.doing("ending the demo");
    clean_up(directory)?;
    progress.done(&format!("the demo has ended and {} has been removed", directory.display()));
    Ok(ExitCode::SUCCESS)
}

/// Ends every process of the demo and removes its directory. A start that failed early has no state yet.
fn clean_up(directory: &Path) -> anyhow::Result<()> {
    match State::load(directory) {
        Ok(state) => stop::end_processes(&state)?,
        Err(StateError::NoDemo(_)) => {}
        Err(error) => return Err(error.into()),
    }
    stop::remove_directory(directory)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_starts_until_that_is_over() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let directory = parent.path().join("demo");
        let (_, first) = prepare(&directory).expect("nobody else");
        let left = directory.join("left");
        std::fs::write(&left, "").expect("a file");
        let refused = prepare(&directory).expect_err("the first one is starting");
        assert!(format!("{refused:#}").starts_with(STARTING), "{refused:#}");
        assert!(left.exists());
        // What it left is removed, and the directory is the second one's then.
        drop(first);
        let (layout, _second) = prepare(&directory).expect("the first one has ended");
        assert!(!left.exists());
        assert!(locked(&layout.marker()).is_err());
    }
}
