//! What `--validate-config` finds: Patroni's own schema, from the table of options.
//!
//! It is stricter than the agent itself (a port that is in use, an address that others cannot reach, `"8"` where a number must be) and
//! says nothing of keys that Patroni's schema does not know. A finding is a line `path value message` in Patroni's words, which scripts
//! look for. Not here: the questions to the machine (`probe`). Compared with a real Patroni in `tests/it/validate.rs`.

use serde_json::{Map, Value};

use super::{Kind, OPTIONS, Scope, Setting};
use crate::config::probe::Probe;
use crate::config::values::{Unit, boolean, integer};
use crate::python_text::shown;

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verify {
    /// Of the option's own kind, and of YAML's type for it.
    Kind,
    /// Patroni's schema does not know the option.
    Nothing,
    Text,
    Boolean,
    Mapping,
    Texts,
    /// YAML's type is enough.
    Integer,
    Whole(Whole),
    /// One of these words, in any case or in this.
    Words(&'static [&'static str], Case),
    LogFormat,
    WatchdogMode,
    SynchronousMode,
    /// Where others reach this node.
    ConnectAddress,
    /// A place where nobody listens yet.
    Listen,
    /// The same, with several hosts.
    ListenHosts,
    /// Somebody answers there.
    Server,
    /// Servers, in a list or with commas.
    Servers,
    DataDirectory,
    /// A program of PostgreSQL's.
    Program,
    /// The directory of all of them.
    Programs,
    TextsOrMappings,
    /// A mapping whose other keys are the user's; of two that exclude each other only one may be there.
    Open(&'static [(&'static str, Verify)], &'static [[&'static str; 2]]),
    /// The first of them in a member's file, the second in what holds for the cluster.
    ByPlace(&'static [(&'static str, Verify)], &'static [(&'static str, Verify)]),
    /// What holds for the cluster.
    Dynamic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    Any,
    Exact,
}

/// A whole number and its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// A text that reads as a number will not do.
    pub typed: bool,
    pub min: Option<i64>,
    pub max: Option<i64>,
    pub unit: Unit,
    /// It must be a multiple of this.
    pub aligned: i64,
}

impl Whole {
    pub const ANY: Whole = Whole { typed: false, min: None, max: None, unit: Unit::None, aligned: 1 };
    pub const TYPED: Whole = Whole { typed: true, ..Whole::ANY };

    pub const fn from(self, min: i64) -> Whole {
        Whole { min: Some(min), ..self }
    }

    pub const fn to(self, max: i64) -> Whole {
        Whole { max: Some(max), ..self }
    }
}

/// Whether an option, or its section, must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Optional,
    Required,
    /// One of those of its section that say so.
    OneOf,
}

/// Sections that may be left out, where something in them is required.
const OPTIONAL: [&str; 9] = [
    "bootstrap",
    "citus",
    "ctl",
    "log",
    "postgresql.authentication.rewind",
    "postgresql.bin_name",
    "restapi.authentication",
    "watchdog",
    "zookeeper.sasl",
];

/// The sections of stores, of which one must be there.
const STORES: [&str; 7] = ["consul", "etcd", "etcd3", "exhibitor", "kubernetes", "raft", "zookeeper"];

/// Of pgherd alone; Patroni's schema does not know it.
const BUILT_IN_STORE: &str = "store";

/// PostgreSQL's programs that must be there; a rewind is optional.
const PROGRAMS: [&str; 6] = ["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready"];

/// Everything that is wrong with a member's file, a line each. Patroni's schema has a default, which stands in the document afterwards.
pub fn verify(document: &mut Map<String, Value>, ignores_ports: bool) -> Vec<Finding> {
    let postgresql = document.get("postgresql").and_then(Value::as_object).cloned().unwrap_or_default();
    let verifier = Verifier { probe: Probe { ignores_ports, postgresql }, scope: Scope::Local, prefix: String::new() };
    let findings = verifier.section(&rows(Scope::Local), &[], document);
    if let Some(Value::Object(postgresql)) = document.get_mut("postgresql") {
        postgresql.entry("bin_dir").or_insert_with(|| Value::from(""));
    }
    findings
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: String,
    /// As Python prints it.
    pub value: String,
    pub message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.path, self.value, self.message)
    }
}

/// A path of the table and what is known of it.
struct Row {
    path: Vec<String>,
    setting: &'static Setting,
    presence: Presence,
    verify: Verify,
}

/// Those that Patroni's schema knows.
fn rows(scope: Scope) -> Vec<Row> {
    let here = OPTIONS.iter().filter(|setting| setting.scope == Scope::Both || setting.scope == scope);
    let rows = here.flat_map(|setting| {
        setting.paths().into_iter().map(move |path| {
            let (presence, verify) = of_store(&path).unwrap_or((setting.presence, setting.verify));
            Row { path: path.split('.').map(str::to_owned).collect(), setting, presence, verify }
        })
    });
    // Programs are each node's own.
    let known = |verify| match verify {
        Verify::Nothing => false,
        Verify::Program | Verify::Programs => scope == Scope::Local,
        _ => true,
    };
    rows.filter(|row| known(row.verify)).collect()
}

/// Where Patroni's schema of a store differs from the kinds of the table.
fn of_store(path: &str) -> Option<(Presence, Verify)> {
    Some(match path {
        "zookeeper.hosts" => (Presence::Required, Verify::Servers),
        "etcd3.host" => (Presence::OneOf, Verify::Server),
        "etcd3.hosts" => (Presence::OneOf, Verify::Servers),
        "etcd3.srv" | "etcd3.srv_suffix" | "etcd3.url" | "etcd3.proxy" => (Presence::OneOf, Verify::Text),
        "etcd3.port" | "etcd3.use_proxies" => (Presence::Optional, Verify::Nothing),
        "etcd3.protocol" => (Presence::Optional, Verify::Text),
        // pgherd does not speak to these, and says so by itself.
        "consul" | "etcd" | "exhibitor" | "kubernetes" | "raft" => (Presence::Optional, Verify::Nothing),
        _ => return None,
    })
}

struct Verifier {
    probe: Probe,
    scope: Scope,
    prefix: String,
}

impl Verifier {
    /// All that stands, or should stand, directly in a section and below.
    fn section(&self, rows: &[Row], path: &[String], section: &Map<String, Value>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut done: Vec<&str> = Vec::new();
        let missing = |name: &str| self.finding(path, name, String::new(), "is not defined.");
        let below: Vec<&Row> =
            rows.iter().filter(|row| row.path.len() > path.len() && row.path.starts_with(path)).collect();
        let is_store = |name: &str| STORES.contains(&name) || name == BUILT_IN_STORE;
        if path.is_empty() && self.scope == Scope::Local && !section.keys().any(|name| is_store(name)) {
            findings.extend(STORES.iter().map(|name| missing(name)));
        }
        let alternatives: Vec<&str> = below
            .iter()
            .filter(|row| row.presence == Presence::OneOf && row.path.len() == path.len() + 1)
            .map(|row| row.path[path.len()].as_str())
            .collect();
        if !alternatives.is_empty() && !alternatives.iter().any(|name| section.contains_key(*name)) {
            findings.extend(alternatives.iter().map(|name| missing(name)));
        }
        for row in below {
            let name = row.path[path.len()].as_str();
            if done.contains(&name) {
                continue;
            }
            done.push(name);
            let here: Vec<String> = path.iter().cloned().chain([name.to_owned()]).collect();
            let is_section = row.path.len() > here.len();
            let Some(value) = section.get(name) else {
                let is_store = path.is_empty() && is_store(name);
                let required = match is_section {
                    true => self.scope == Scope::Local && !is_store && !OPTIONAL.contains(&here.join(".").as_str()),
                    false => row.presence == Presence::Required,
                };
                if required {
                    findings.push(missing(name));
                } else if row.verify == Verify::Programs {
                    findings.extend(self.programs(path, name, ""));
                }
                continue;
            };
            match (is_section, value) {
                (true, Value::Object(inner)) => findings.extend(self.section(rows, &here, inner)),
                (true, other) => findings.push(self.finding(path, name, shown(other), "is not a dictionary")),
                (false, value) => findings.extend(self.value(path, name, row, value)),
            }
        }
        findings
    }

    fn value(&self, path: &[String], name: &str, row: &Row, value: &Value) -> Vec<Finding> {
        if row.verify == Verify::Dynamic {
            let Some(dynamic) = value.as_object() else {
                return vec![self.finding(path, name, shown(value), "is not a dictionary")];
            };
            let here: Vec<String> = path.iter().cloned().chain([name.to_owned()]).collect();
            let verifier = Verifier { probe: self.probe.clone(), scope: Scope::Dynamic, prefix: here.join(".") };
            return verifier.section(&rows(Scope::Dynamic), &[], dynamic);
        }
        let verify = match row.verify {
            Verify::Kind => of_kind(row.setting.kind),
            other => other,
        };
        if verify == Verify::Programs {
            return value.as_str().map(|directory| self.programs(path, name, directory)).unwrap_or_default();
        }
        let is_secret = row.setting.kind == Kind::Secret || name == "auth_data";
        let findings = self.leaf(verify, value).into_iter().map(|found| {
            let name = if found.below.is_empty() { name.to_owned() } else { format!("{name}.{}", found.below) };
            // No message shows a password, though Patroni's does.
            let value = if is_secret { "***".to_owned() } else { found.value };
            self.finding(path, &name, value, &found.message)
        });
        findings.collect()
    }

    fn leaf(&self, verify: Verify, value: &Value) -> Vec<Found> {
        let is =
            |holds: bool, what: &str| if holds { Vec::new() } else { vec![Found::of(value, format!("is not {what}"))] };
        let passes = |result: Result<(), String>| match result {
            Ok(()) => Vec::new(),
            Err(error) => vec![Found::of(value, format!("didn't pass validation: {error}"))],
        };
        let wrong = |holds: bool| passes(if holds { Ok(()) } else { Err("Wrong value".to_owned()) });
        // A boolean is a whole number to Python.
        let is_integer = value.is_i64() || value.is_u64() || value.is_boolean();
        let of_text = |check: &dyn Fn(&str) -> Result<(), String>| match value.as_str() {
            Some(text) => passes(check(text)),
            None => is(false, "a string"),
        };
        match verify {
            Verify::Text => is(value.is_string(), "a string"),
            Verify::Integer => is(is_integer, "an integer"),
            Verify::Whole(whole) if whole.typed && !is_integer => is(false, "an integer"),
            Verify::Whole(whole) => wrong(whole.holds(value)),
            Verify::Words(words, case) => wrong(value.as_str().is_some_and(|text| {
                words.iter().any(|word| if case == Case::Any { word.eq_ignore_ascii_case(text) } else { *word == text })
            })),
            Verify::LogFormat => passes(log_format(value)),
            Verify::WatchdogMode if !value.is_string() && !value.is_boolean() => {
                passes(Err("expected type is not a string".to_owned()))
            }
            Verify::WatchdogMode => wrong(
                *value == Value::Bool(false)
                    || value.as_str().is_some_and(|mode| ["off", "automatic", "required"].contains(&mode)),
            ),
            Verify::SynchronousMode => {
                let is_quorum = value.as_str().is_some_and(|mode| mode.eq_ignore_ascii_case("quorum"));
                let holds = is_quorum || boolean(value).is_some();
                passes(if holds { Ok(()) } else { Err("invalid value for synchronous_mode".to_owned()) })
            }
            Verify::ConnectAddress => of_text(&|text| self.probe.connect_address(text)),
            Verify::Listen => of_text(&|text| self.probe.listen(text, false)),
            Verify::ListenHosts => of_text(&|text| self.probe.listen(text, true)),
            Verify::DataDirectory => of_text(&|text| self.probe.data_directory(text)),
            Verify::Program => of_text(&|text| self.probe.program(text)),
            Verify::Server => passes(self.server(value)),
            Verify::Servers => self.servers(value),
            Verify::TextsOrMappings => list(value, |item| match item {
                Value::String(_) | Value::Object(_) => Vec::new(),
                _ => ["a string", "a dictionary"].map(|what| Found::of(item, format!("is not {what}"))).to_vec(),
            }),
            Verify::Open(keys, exclusive) => self.open(value, keys, exclusive),
            Verify::ByPlace(local, dynamic) => {
                self.open(value, if self.scope == Scope::Local { local } else { dynamic }, &[])
            }
            Verify::Boolean => is(value.is_boolean(), "a boolean"),
            Verify::Mapping => is(value.is_object(), "a dictionary"),
            Verify::Texts => list(value, |item| self.leaf(Verify::Text, item)),
            Verify::Kind | Verify::Nothing | Verify::Programs | Verify::Dynamic => Vec::new(),
        }
    }

    /// A mapping of which some keys are known.
    fn open(&self, value: &Value, keys: &[(&str, Verify)], exclusive: &[[&str; 2]]) -> Vec<Found> {
        let Some(map) = value.as_object() else {
            return vec![Found::of(value, "is not a dictionary".to_owned())];
        };
        let mut found = Vec::new();
        let mut passed_over: Vec<&str> = Vec::new();
        for pair in exclusive.iter().filter(|pair| pair.iter().all(|name| map.contains_key(*name))) {
            let message = format!("Multiple of ('{}', '{}') provided", pair[0], pair[1]);
            found.push(Found { below: String::new(), value: String::new(), message });
            passed_over.extend(pair);
        }
        for (name, verify) in keys.iter().filter(|(name, _)| !passed_over.contains(name)) {
            let Some(value) = map.get(*name) else { continue };
            let inner = self.leaf(*verify, value).into_iter();
            found.extend(inner.map(|inner| inner.under(name)));
        }
        found
    }

    fn server(&self, value: &Value) -> Result<(), String> {
        match value {
            Value::String(text) => self.probe.server(text),
            // Python takes what it is given for a text.
            other => Err(format!("'{}' object has no attribute 'rsplit'", python_type(other))),
        }
    }

    /// In Patroni either form may fail in its own way; what fits worst is not told.
    fn servers(&self, value: &Value) -> Vec<Found> {
        match value {
            Value::String(text) => {
                let failed = text.split(',').find_map(|server| self.probe.server(server.trim()).err());
                failed.map(|error| Found::of(value, format!("didn't pass validation: {error}"))).into_iter().collect()
            }
            Value::Array(_) => list(value, |item| match self.server(item) {
                Ok(()) => Vec::new(),
                Err(error) => vec![Found::of(item, format!("didn't pass validation: {error}"))],
            }),
            _ => ["a string", "a list"].map(|what| Found::of(value, format!("is not {what}"))).to_vec(),
        }
    }

    fn programs(&self, path: &[String], name: &str, directory: &str) -> Vec<Finding> {
        let errors = self.probe.programs(directory, &PROGRAMS);
        errors.into_iter().map(|error| self.finding(path, name, String::new(), &error)).collect()
    }

    fn finding(&self, path: &[String], name: &str, value: String, message: &str) -> Finding {
        let parts = [self.prefix.as_str()].into_iter().filter(|prefix| !prefix.is_empty());
        let path: Vec<&str> = parts.chain(path.iter().map(String::as_str)).chain([name]).collect();
        Finding { path: path.join("."), value, message: message.to_owned() }
    }
}

/// What is wrong with a value, or with one below it.
#[derive(Clone, Debug)]
struct Found {
    below: String,
    value: String,
    message: String,
}

impl Found {
    fn of(value: &Value, message: String) -> Found {
        Found { below: String::new(), value: shown(value), message }
    }

    fn under(self, name: &str) -> Found {
        let below = if self.below.is_empty() { name.to_owned() } else { format!("{name}.{}", self.below) };
        Found { below, ..self }
    }
}

/// A list that is not empty. What is wrong with an item shows the whole item.
fn list(value: &Value, check: impl Fn(&Value) -> Vec<Found>) -> Vec<Found> {
    let Some(items) = value.as_array() else { return vec![Found::of(value, "is not a list".to_owned())] };
    if items.is_empty() {
        return vec![Found::of(value, "is an empty list".to_owned())];
    }
    let found = items
        .iter()
        .enumerate()
        .flat_map(|(index, item)| check(item).into_iter().map(move |found| found.under(&index.to_string())));
    found.collect()
}

impl Whole {
    fn holds(&self, value: &Value) -> bool {
        // Python rounds where a number has a fraction.
        let value = match value.as_f64().filter(|_| value.is_f64()) {
            Some(float) => Value::from(float.round_ties_even()),
            None => value.clone(),
        };
        integer(&value, self.unit).is_some_and(|number| {
            self.min.is_none_or(|min| number >= min)
                && self.max.is_none_or(|max| number <= max)
                && number % self.aligned == 0
        })
    }
}

fn of_kind(kind: Kind) -> Verify {
    match kind {
        Kind::Boolean => Verify::Boolean,
        Kind::Integer | Kind::Seconds | Kind::Bytes => Verify::Integer,
        Kind::Map => Verify::Mapping,
        Kind::Texts | Kind::Words => Verify::Texts,
        Kind::List | Kind::ListOrMap | Kind::Any | Kind::BooleanOr(_) => Verify::Nothing,
        _ => Verify::Text,
    }
}

fn log_format(value: &Value) -> Result<(), String> {
    let is_field = |field: &Value| match field {
        Value::String(_) => true,
        Value::Object(map) => map.len() == 1 && map.values().all(Value::is_string),
        _ => false,
    };
    match value {
        Value::String(_) => Ok(()),
        Value::Array(items) if items.is_empty() => Err("should contain at least one item".to_owned()),
        Value::Array(items) if items.iter().all(is_field) => Ok(()),
        Value::Array(_) => Err("each item should be a string or a dictionary with string values".to_owned()),
        _ => Err("Should be a string or a list".to_owned()),
    }
}

fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}
