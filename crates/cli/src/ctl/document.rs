//! Which configuration file an operator's command reads.
//!
//! Not here: reading it (`pgherd_agent::config`), and what the keys mean (`settings`).

use std::path::{Path, PathBuf};

use anyhow::ensure;
use pgherd_agent::config::{self, Environment};
use serde_json::{Map, Value};

/// Where Patroni's console looks when it is told nothing.
const DEFAULT_FILE: &str = ".config/patroni/patronictl.yaml";

/// The merged document. A file that was named must exist; the default one may be missing.
pub fn load(explicit: Option<&Path>) -> anyhow::Result<Map<String, Value>> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = explicit.map(Path::to_owned).or_else(|| variable("PATRONICTL_CONFIG_FILE"));
    if let Some(path) = &named {
        ensure!(
            path.exists(),
            "the configuration file {} does not exist or may not be read; check -c/--config-file (or \
             PATRONICTL_CONFIG_FILE)",
            path.display()
        );
    }
    let usual = || variable("HOME").map(|home| home.join(DEFAULT_FILE)).filter(|path| path.exists());
    Ok(config::document(named.or_else(usual).as_deref(), &Environment::of_process())?)
}
