//! The configuration document of the operator's commands: the YAML file, with the environment over it.
//!
//! Not here: what the keys mean (`settings`).

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Map, Value};

/// Where Patroni's console looks when it is told nothing.
const DEFAULT_FILE: &str = ".config/patroni/patronictl.yaml";

/// An explicit file must exist; the default one may be missing.
pub fn load(explicit: Option<&Path>) -> anyhow::Result<Map<String, Value>> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let explicit = explicit.map(Path::to_owned).or_else(|| environment("PATRONICTL_CONFIG_FILE").map(PathBuf::from));
    let file = match explicit {
        Some(path) => Some(read(&path)?),
        None => match environment("HOME").map(|home| Path::new(&home).join(DEFAULT_FILE)) {
            Some(path) if path.exists() => Some(read(&path)?),
            _ => None,
        },
    };
    let mut document = file.unwrap_or_default();
    overlay(&mut document, environment)?;
    Ok(document)
}

fn read(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the configuration file {} cannot be read (see -c/--config-file)", path.display()))?;
    parse(&text).with_context(|| format!("the configuration file {} is not usable", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Map<String, Value>> {
    match serde_saphyr::from_str::<Value>(text)? {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => anyhow::bail!("expected keys with values (`scope: ...`, `zookeeper: ...`) at the top"),
    }
}

/// The variables that matter to a command, over the file.
fn overlay(document: &mut Map<String, Value>, environment: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    const TEXTS: [(&str, &[&str]); 11] = [
        ("PATRONI_SCOPE", &["scope"]),
        ("PATRONI_NAMESPACE", &["namespace"]),
        ("PATRONI_RESTAPI_USERNAME", &["restapi", "authentication", "username"]),
        ("PATRONI_RESTAPI_PASSWORD", &["restapi", "authentication", "password"]),
        ("PATRONI_RESTAPI_CAFILE", &["restapi", "cafile"]),
        ("PATRONI_CTL_USERNAME", &["ctl", "authentication", "username"]),
        ("PATRONI_CTL_PASSWORD", &["ctl", "authentication", "password"]),
        ("PATRONI_CTL_INSECURE", &["ctl", "insecure"]),
        ("PATRONI_CTL_CACERT", &["ctl", "cacert"]),
        ("PATRONI_CTL_CERTFILE", &["ctl", "certfile"]),
        ("PATRONI_CTL_KEYFILE", &["ctl", "keyfile"]),
    ];
    for (variable, path) in TEXTS {
        if let Some(value) = environment(variable) {
            set(document, path, Value::String(value));
        }
    }
    if let Some(hosts) = environment("PATRONI_ZOOKEEPER_HOSTS") {
        let list = if hosts.starts_with('-') || hosts.contains('[') { hosts.clone() } else { format!("[{hosts}]") };
        let value = serde_saphyr::from_str(&list)
            .with_context(|| format!("PATRONI_ZOOKEEPER_HOSTS={hosts} is no list; expected 'HOST:PORT','HOST:PORT'"))?;
        set(document, &["zookeeper", "hosts"], value);
    }
    Ok(())
}

fn set(document: &mut Map<String, Value>, path: &[&str], value: Value) {
    let Some((key, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        document.insert((*key).to_owned(), value);
        return;
    }
    let inner = document.entry(*key).or_insert_with(|| Value::Object(Map::new()));
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    if let Value::Object(inner) = inner {
        set(inner, rest, value);
    }
}
