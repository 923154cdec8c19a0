//! The configuration: Patroni's YAML and environment, and the dynamic configuration of the store.
//!
//! [`Config`] is what this node's file and environment say, [`Dynamic`] what the cluster's `config` key says with the
//! local file laid over it. All options stand in one table ([`options`]), from which come validation, the reference page
//! and the example file. Not here: acting on any of it. Tested here as data; `tests.rs` has whole files.

mod address;
mod cache;
mod dynamic;
mod environment;
pub(crate) mod fuzz;
mod log;
mod merge;
mod methods;
pub mod options;
mod place;
mod postgresql;
mod probe;
mod scalar;
mod sections;
mod server;
mod slots;
mod source;
mod timing;
mod tool;
mod tree;
mod values;
pub mod yaml;

use std::path::Path;

use serde_json::{Map, Value};

pub use crate::postgres::Secret;
pub use address::{Address, AddressError, Listen};
pub use cache::{read_cache, write_cache};
pub use dynamic::{Dynamic, SynchronousMode, understood};
pub use environment::Environment;
pub use log::Log;
pub use merge::{overlay, patch};
pub use place::{Place, Problem, Problems, Severity};
pub use postgresql::{Bootstrap, Node, Postgresql};
pub use probe::major_version;
pub use sections::{
    Ctl, Demand, Login, RestApi, ServerTokens, Store, Tags, Tls, VerifyClient, Watchdog, WatchdogDriver,
};
pub use slots::Slots;
pub use source::ConfigError;
pub use timing::{Company, Timing};

use options::schema;
use source::Gathered;
use tree::Tree;

/// A name that Patroni gives a meaning of its own in synchronous mode.
const RESERVED_NAME: &str = "__patroni_strict_sync_replica_placeholder__";

/// The configuration of this node.
#[derive(Clone, Debug)]
pub struct Config {
    pub scope: String,
    pub name: String,
    /// Without slashes at its ends.
    pub namespace: String,
    pub restapi: RestApi,
    pub ctl: Ctl,
    pub store: Store,
    pub node: Node,
    /// `postgresql` as the local file alone has it; [`Dynamic::postgresql`] is what counts while the cluster runs.
    pub postgresql: Postgresql,
    pub bootstrap: Bootstrap,
    pub tags: Tags,
    pub watchdog: Watchdog,
    pub guard: Demand,
    pub log: Log,
    /// Of reading it; each is to be logged once.
    pub warnings: Problems,
    /// What of the local `postgresql` section is laid over the dynamic one, in normal form.
    section: Map<String, Value>,
}

/// The file or directory at `path` with the environment over it, not validated: for the operator's commands, which run
/// where no complete configuration is. Empty if there is neither a file nor a variable.
pub fn document(path: Option<&Path>, environment: &Environment) -> Result<Map<String, Value>, ConfigError> {
    let gathered = match source::gather(path, environment) {
        Err(ConfigError::Empty { .. }) => return Ok(Map::new()),
        other => other?.modern(),
    };
    let (errors, _) = gathered.problems.split();
    if errors.0.is_empty() { Ok(gathered.value) } else { Err(ConfigError::Invalid(errors)) }
}

/// What `--validate-config` has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    /// What is wrong, a line each; empty: nothing.
    pub lines: Vec<String>,
    /// File and environment together.
    pub document: Map<String, Value>,
}

/// Checks a local configuration as Patroni's `--validate-config` does, and that this program would start with it. `ignores_ports`: somebody may
/// listen where the node is to listen.
///
/// # Errors
/// What cannot be read at all.
pub fn validate(
    path: Option<&Path>,
    environment: &Environment,
    ignores_ports: bool,
) -> Result<Validation, ConfigError> {
    let gathered = match source::gather(path, environment) {
        // All that is required is missing.
        Err(ConfigError::Empty { .. }) => Gathered::default(),
        other => other?,
    };
    if gathered.problems.has_errors() {
        // A file that is none says nothing of what is in it.
        return Err(ConfigError::Invalid(gathered.problems.split().0));
    }
    let mut document = gathered.value.clone();
    let findings = schema::verify(&mut document, ignores_ports);
    let own = match Config::from_gathered(gathered.modern()) {
        Err(ConfigError::Invalid(problems)) => problems.0,
        _ => Vec::new(),
    };
    let is_told = |key: &str| {
        let related = |path: &str| {
            let below = |long: &str, short: &str| {
                long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            below(path, key) || below(key, path)
        };
        // What has no key says that something is missing.
        findings.iter().any(|finding| key.is_empty() || related(&finding.path))
    };
    let mut lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    for problem in own.iter().filter(|problem| !is_told(&problem.key)) {
        // With the value in the text, where it may be shown at all.
        lines.push(format!("{}  {}", problem.key, problem.text));
    }
    Ok(Validation { lines, document })
}

impl Config {
    /// Reads the file or directory at `path`, and the environment over it.
    ///
    /// # Errors
    /// All that is wrong with it at once, each problem with its file, line and key.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Config, ConfigError> {
        Config::from_gathered(source::gather(path, environment)?.modern())
    }

    fn from_gathered(gathered: Gathered) -> Result<Config, ConfigError> {
        let checked = options::check_local(&Value::Object(gathered.value), &gathered.places);
        let mut problems = gathered.problems;
        problems.0.extend(checked.problems.0);
        let mut found = Problems::default();
        let config = Config::read(&Tree(&checked.value), &mut found);
        problems.0.extend(found.0.into_iter().map(|problem| {
            let path: Vec<String> = problem.key.split('.').map(str::to_owned).collect();
            let place = gathered.places.find(&path).cloned();
            Problem { place: problem.place.clone().or(place), ..problem }
        }));
        let (errors, warnings) = problems.split();
        match config {
            Some(config) if errors.0.is_empty() => Ok(Config { warnings, ..config }),
            _ => Err(ConfigError::Invalid(errors)),
        }
    }

    /// Keys that differ and must not while the agent runs: it would go on under another identity, or on other data, beside the server
    /// that it has started.
    pub fn fixed_differences(&self, new: &Config) -> Vec<&'static str> {
        let differs = [
            ("name", self.name != new.name),
            ("scope", self.scope != new.scope),
            ("namespace", self.namespace != new.namespace),
            ("postgresql.data_dir", self.node.data_dir != new.node.data_dir),
            (self.store.section(), !self.store.is_as(&new.store)),
        ];
        differs.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// Keys that differ and are in force only once the agent is started again.
    pub fn later_differences(&self, new: &Config) -> Vec<&'static str> {
        let differs = [("guard.mode", self.guard != new.guard)];
        differs.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// `None` if something required is missing; then it is among the problems.
    fn read(tree: &Tree<'_>, problems: &mut Problems) -> Option<Config> {
        let store = Store::read(tree, problems);
        let postgresql = Postgresql::read(tree, problems);
        let bootstrap = Bootstrap::read(tree, problems);
        let tags = Tags(tree.map("tags"));
        tags.conflicts(problems);
        let name = tree.text("name");
        if name.as_deref() == Some(RESERVED_NAME) {
            problems.push(Problem::error("name", "this name has a meaning of its own in the store; choose another"));
        }
        for key in ["name", "scope"] {
            if tree.text(key).is_some_and(|text| text.is_empty() || text.contains('/')) {
                problems.push(Problem::error(
                    key,
                    "must not be empty or contain `/`: it becomes part of a path in the store",
                ));
            }
        }
        let parameters = tree.map_of("postgresql.parameters");
        for name in
            parameters.keys().filter(|name| crate::postgres::parameters::is_controlled(&name.to_ascii_lowercase()))
        {
            let text = "ignored here: all members must agree on it; set it with PATCH /config on the REST API";
            problems.push(Problem::warning(format!("postgresql.parameters.{name}"), text));
        }
        Some(Config {
            scope: tree.text("scope")?,
            name: name?,
            namespace: tree.text("namespace").unwrap_or_default().trim_matches('/').to_owned(),
            restapi: RestApi::read(tree)?,
            ctl: Ctl::read(tree),
            store: store?,
            node: Node::read(tree)?,
            postgresql,
            bootstrap,
            tags,
            watchdog: Watchdog::read(tree),
            guard: sections::guard(tree),
            log: Log::read(tree, problems),
            warnings: Problems::default(),
            section: tree.map_of("postgresql").into_iter().filter(|(key, _)| !is_local(key)).collect(),
        })
    }
}

/// Whether a key below `postgresql` stays out of what is laid over the dynamic section. Users and passwords do.
fn is_local(key: &str) -> bool {
    let setting = options::find(&["postgresql".to_owned(), key.to_owned()]);
    key == "authentication" || setting.is_some_and(|setting| setting.scope == options::Scope::Local)
}

#[cfg(test)]
mod tests;
