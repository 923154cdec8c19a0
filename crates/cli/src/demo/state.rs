//! What a running demo is made of, kept in `state.json` so that `--stop` and the drills find it again.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{self, Layout};
use super::launch::Process;
use super::store::StoreKind;

/// Everything of one demo. It holds no password; that is in the `pgpass` file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub directory: PathBuf,
    pub entry_port: u16,
    pub stats_port: u16,
    pub store_port: u16,
    #[serde(default)]
    pub store_kind: StoreKind,
    /// The start reached its end: everything was started, and all members were healthy.
    #[serde(default)]
    pub complete: bool,
    pub store: Option<Process>,
    pub entry: Option<Process>,
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub postgres_port: u16,
    pub rest_port: u16,
    pub data_directory: PathBuf,
    pub config: PathBuf,
    pub agent: Option<Process>,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("no demo is running in {0} (start one with: pgherd demo)")]
    NoDemo(PathBuf),
    #[error(
        "the demo in {directory} is incomplete: {why}. End it with `pgherd demo --stop` (and the same --directory), then \
         start a new one; its logs are {directory}/*.log"
    )]
    Incomplete { directory: PathBuf, why: String },
    #[error("reading or writing {path} failed: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is not the state of a demo: {source}")]
    Content { path: PathBuf, source: serde_json::Error },
}

impl State {
    pub fn layout(&self) -> Layout {
        Layout { directory: self.directory.clone() }
    }

    /// Reads the state of the demo in this directory. A directory without the demo's marker is none of ours.
    pub fn load(directory: &Path) -> Result<State, StateError> {
        let layout = Layout { directory: directory.to_owned() };
        let path = layout.state();
        if !layout.marker().is_file() || !path.is_file() {
            return Err(StateError::NoDemo(directory.to_owned()));
        }
        let text = std::fs::read_to_string(&path).map_err(|source| StateError::File { path: path.clone(), source })?;
        serde_json::from_str(&text).map_err(|source| StateError::Content { path, source })
    }

    /// Replaces the file as a whole, so that a reader never sees half of it.
    pub fn save(&self) -> Result<(), StateError> {
        let path = self.layout().state();
        let next = path.with_extension("json.next");
        let text =
            serde_json::to_string_pretty(self).map_err(|source| StateError::Content { path: path.clone(), source })?;
        files::write(&next, &(text + "\n"), None)
            .and_then(|()| std::fs::rename(&next, &path))
            .map_err(|source| StateError::File { path, source })
    }

    /// The started processes, in the order in which they were started.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let agents = self.nodes.iter().filter_map(|node| node.agent.as_ref());
        self.store.iter().chain(agents).chain(self.entry.iter())
    }

    /// Everything was started and has not ended since; else an error that says what to do.
    pub fn check_complete(&self) -> Result<(), StateError> {
        let ended = self.processes().find(|process| !process.identity.is_alive());
        let why = match ended {
            _ if !self.complete => "its start was cut short".to_owned(),
            Some(process) => format!("{} has ended", process.launch.name),
            None => return Ok(()),
        };
        Err(StateError::Incomplete { directory: self.directory.clone(), why })
    }

    /// At least one process of the demo lives.
    pub fn is_running(&self) -> bool {
        self.processes().any(|process| process.identity.is_alive())
    }
}

/// The default directory: `/var/lib/pgherd/demo` for root, else below the user's own state.
pub fn default_directory() -> Result<PathBuf, &'static str> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/pgherd/demo"));
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("pgherd/demo"))
        .ok_or("neither XDG_STATE_HOME nor HOME is set; name a directory with --directory")
}
