//! Gathering the local configuration: a file or a directory of files, with the environment laid over it.
//!
//! Not here: what the keys mean. Old shapes of Patroni's can be brought into today's.

use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};

use serde_json::{Map, Value};

use super::environment::{self, Environment};
use super::merge::overlay;
use super::place::{Places, Problem, Problems};
use super::values::describe_type;
use super::yaml::{self, Document, YamlError};

/// Why there is no configuration to look at.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("Config is empty.\n{hint}")]
    Empty { hint: String },
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// Everything that is wrong, one problem a line.
    #[error("{0}")]
    Invalid(Problems),
}

/// What the files and the environment say together.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    pub value: Map<String, Value>,
    pub places: Places,
    pub problems: Problems,
}

/// Reads `path` and lays the environment over it. Without the file, `PATRONI_CONFIGURATION` is all there is, or
/// else the single variables.
pub fn gather(path: Option<&FilePath>, environment: &Environment) -> Result<Gathered, ConfigError> {
    let mut gathered = Gathered::default();
    let whole = environment.whole_configuration();
    match (path.filter(|path| path.exists()), whole) {
        (Some(path), _) => {
            for (name, bytes) in read_files(path)? {
                gathered.lay(&name, yaml::read(&name, &bytes)?);
            }
            gathered.environment(environment);
        }
        (None, Some(text)) => {
            let name = environment::CONFIGURATION;
            match yaml::read(name, text.as_bytes())? {
                // As if it were not set.
                Document { value: Value::Null, .. } => gathered.environment(environment),
                document => gathered.lay(name, document),
            }
        }
        (None, None) => gathered.environment(environment),
    }
    if gathered.value.is_empty() && !gathered.problems.has_errors() {
        let hint = match path {
            Some(path) if path.exists() => format!("{} has no keys, and no PATRONI_ variable is set", path.display()),
            Some(path) => format!("{} does not exist, and no PATRONI_ variable is set", path.display()),
            None => "no file was named, and no PATRONI_ variable is set".to_owned(),
        };
        return Err(ConfigError::Empty { hint });
    }
    Ok(gathered)
}

impl Gathered {
    /// Brings Patroni's old shapes into today's.
    pub fn modern(mut self) -> Gathered {
        modernise(&mut self.value);
        self
    }

    fn lay(&mut self, name: &str, document: Document) {
        match document.value {
            Value::Object(map) => {
                overlay(&mut self.value, map);
                self.places.extend(document.places);
            }
            other => {
                let text = format!("{name}: expected keys with values, found {}", describe_type(&other));
                self.problems.push(Problem::error("", text));
            }
        }
    }

    fn environment(&mut self, environment: &Environment) {
        let (document, problems) = environment.document();
        self.problems.0.extend(problems);
        self.lay("environment", document);
    }
}

/// The file, or the `*.yml` and `*.yaml` of the directory in the order of their names.
fn read_files(path: &FilePath) -> Result<Vec<(String, Vec<u8>)>, ConfigError> {
    let error = |path: &FilePath| {
        let path = path.to_owned();
        move |source| ConfigError::Read { path, source }
    };
    let mut paths = vec![path.to_owned()];
    if path.is_dir() {
        let is_yaml = |path: &PathBuf| path.is_file() && path.extension().is_some_and(|e| e == "yml" || e == "yaml");
        let entries = fs::read_dir(path).map_err(error(path))?;
        let entries: io::Result<Vec<PathBuf>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        paths = entries.map_err(error(path))?.into_iter().filter(is_yaml).collect();
        paths.sort();
    }
    paths.iter().map(|path| Ok((path.display().to_string(), read_bounded(path).map_err(error(path))?))).collect()
}

/// At most one byte more than `yaml::read` accepts, so that it can refuse what is too large.
fn read_bounded(path: &FilePath) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Old shapes: the users directly under `postgresql`, and the node's name there.
fn modernise(document: &mut Map<String, Value>) {
    let Some(Value::Object(postgresql)) = document.get_mut("postgresql") else { return };
    if !postgresql.contains_key("authentication") {
        let mut users = Map::new();
        for (old, new) in [("superuser", "superuser"), ("replication", "replication"), ("pg_rewind", "rewind")] {
            if let Some(user) = postgresql.shift_remove(old) {
                users.insert(new.to_owned(), user);
            }
        }
        if !users.is_empty() {
            postgresql.insert("authentication".to_owned(), Value::Object(users));
        }
    }
    let name = postgresql.shift_remove("name");
    if let Some(name) = name {
        document.entry("name").or_insert(name);
    }
}
