//! A document against the table: wrong types, keys nobody reads, required keys that are missing.
//!
//! All problems are found at once. A wrong value is an error in the local file, where somebody waits for the message, and
//! a warning in the dynamic configuration, which no member may choke on: there the default counts.

use serde_json::{Map, Value};

use super::{OPTIONS, Scope, Setting, children, find, is_section};
use crate::config::place::{Path, Places, Problem, Problems, Severity};
use crate::config::values::describe_type;

/// A document with its values in normal form and without what could not be used.
#[derive(Debug)]
pub struct Checked {
    pub value: Value,
    pub problems: Problems,
    /// The keys whose values could not be read at all.
    pub unreadable: Vec<Path>,
}

/// Checks a local configuration.
pub fn check_local(document: &Value, places: &Places) -> Checked {
    let mut check = Check::new(Scope::Local, Path::new(), places, named_methods(document));
    let mut value = check.document(document);
    check.required(&value);
    let prefix = vec!["bootstrap".to_owned(), "dcs".to_owned()];
    if let Some(dcs) = value.pointer_mut("/bootstrap/dcs") {
        // Checked, but kept as it was written: this is what the first leader stores.
        let mut dynamic = Check::new(Scope::Dynamic, prefix, places, named_methods(dcs));
        dynamic.document(dcs);
        check.problems.0.extend(dynamic.problems.0);
    }
    Checked { value, problems: check.problems, unreadable: check.unreadable }
}

/// Checks a dynamic configuration. Its problems are warnings.
pub fn check_dynamic(document: &Map<String, Value>) -> Checked {
    let places = Places::default();
    let document = Value::Object(document.clone());
    let mut check = Check::new(Scope::Dynamic, Path::new(), &places, named_methods(&document));
    let value = check.document(&document);
    Checked { value, problems: check.problems, unreadable: check.unreadable }
}

/// Sections that the document itself gives a name: methods of bootstrap and of making replicas.
fn named_methods(document: &Value) -> Vec<Path> {
    let mut methods = Vec::new();
    let mut name = |section: &str, value: &Value| {
        let names = value.as_str().into_iter().flat_map(|list| list.split(','));
        let names = names.chain(value.as_array().into_iter().flatten().filter_map(Value::as_str));
        methods.extend(names.map(|name| vec![section.to_owned(), name.trim().to_owned()]));
    };
    for (pointer, section) in [
        ("/bootstrap/method", "bootstrap"),
        ("/postgresql/create_replica_methods", "postgresql"),
        ("/postgresql/create_replica_method", "postgresql"),
        ("/standby_cluster/create_replica_methods", "postgresql"),
        ("/bootstrap/dcs/postgresql/create_replica_methods", "postgresql"),
        ("/bootstrap/dcs/standby_cluster/create_replica_methods", "postgresql"),
    ] {
        if let Some(value) = document.pointer(pointer) {
            name(section, value);
        }
    }
    methods
}

struct Check<'a> {
    scope: Scope,
    /// Where the document stands in its file, for messages.
    prefix: Path,
    places: &'a Places,
    methods: Vec<Path>,
    path: Path,
    problems: Problems,
    unreadable: Vec<Path>,
}

impl<'a> Check<'a> {
    fn new(scope: Scope, prefix: Path, places: &'a Places, methods: Vec<Path>) -> Check<'a> {
        Check {
            scope,
            prefix,
            places,
            methods,
            path: Path::new(),
            problems: Problems::default(),
            unreadable: Vec::new(),
        }
    }

    fn document(&mut self, document: &Value) -> Value {
        match document {
            Value::Object(section) => Value::Object(self.section(section)),
            Value::Null => Value::Object(Map::new()),
            other => {
                self.wrong(format!("expected keys with values, found {}", describe_type(other)));
                Value::Object(Map::new())
            }
        }
    }

    fn section(&mut self, section: &Map<String, Value>) -> Map<String, Value> {
        let mut kept = Map::new();
        for (key, value) in section {
            self.path.push(key.clone());
            if let Some(value) = self.entry(value) {
                kept.insert(key.clone(), value);
            }
            self.path.pop();
        }
        kept
    }

    /// The value in normal form; `None` if it does not count.
    fn entry(&mut self, value: &Value) -> Option<Value> {
        if let Some(setting) = find(&self.path).filter(|_| !is_section(&self.path)) {
            return self.option(setting, value);
        }
        if is_section(&self.path) {
            return match value {
                Value::Object(section) => Some(Value::Object(self.section(section))),
                Value::Null => None,
                other => {
                    self.unreadable.push(self.path.clone());
                    self.wrong(format!("expected a section with keys of its own, found {}", describe_type(other)));
                    None
                }
            };
        }
        if !self.methods.contains(&self.path) && !self.is_foreign() {
            self.unknown();
        }
        Some(value.clone())
    }

    fn option(&mut self, setting: &Setting, value: &Value) -> Option<Value> {
        if !self.is_in_place(setting) {
            self.misplaced(setting);
            return None;
        }
        if value.is_null() {
            return None;
        }
        match setting.kind.read(value, setting.min) {
            Ok(normal) => {
                if value.is_boolean() && matches!(setting.kind, super::Kind::Text | super::Kind::Secret) {
                    self.warn("YAML reads this as a boolean; put it in quotes if it is a text");
                }
                Some(normal)
            }
            Err(expected) => {
                let least = setting.min.filter(|_| self.scope == Scope::Dynamic);
                let is_number = setting.kind.read(value, None).is_ok();
                match least.filter(|_| is_number) {
                    Some(least) => {
                        self.wrong(format!("{expected}; {least} is used"));
                        Some(Value::from(least))
                    }
                    None => {
                        self.unreadable.push(self.path.clone());
                        self.wrong(expected);
                        None
                    }
                }
            }
        }
    }

    /// `bootstrap.dcs` may hold everything that is dynamic; what is for both may stand in either.
    fn is_in_place(&self, setting: &Setting) -> bool {
        setting.scope == Scope::Both || setting.scope == self.scope
    }

    fn misplaced(&mut self, setting: &Setting) {
        self.warn(match setting.scope {
            Scope::Dynamic => {
                "ignored here: it holds for the whole cluster; set it with PATCH /config on the REST API, \
                 or under `bootstrap.dcs` before the cluster exists"
            }
            _ => "ignored here: each member sets it in its own file",
        });
    }

    /// Keys below `watchdog` go to the driver, and unknown cluster-wide keys are stored for whoever reads them.
    fn is_foreign(&self) -> bool {
        self.path.first().is_some_and(|section| section == "watchdog")
            || (self.scope == Scope::Dynamic && self.path.len() == 1)
    }

    fn unknown(&mut self) {
        let (name, parent) = self.path.split_last().expect("a key has a name");
        let near = children(parent).into_iter().map(|known| (distance(name, known), known)).min();
        // More than half of the letters wrong is another word, not a slip.
        let text = match near.filter(|(distance, known)| *distance * 2 <= known.len().max(name.len())) {
            Some((_, known)) => format!("unknown key; did you mean `{known}`?"),
            None => "unknown key; nothing reads it".to_owned(),
        };
        self.warn(&text);
    }

    fn wrong(&mut self, text: String) {
        let severity = if self.scope == Scope::Dynamic { Severity::Warning } else { Severity::Error };
        self.add(severity, text);
    }

    fn warn(&mut self, text: &str) {
        self.add(Severity::Warning, text.to_owned());
    }

    fn add(&mut self, severity: Severity, text: String) {
        let path: Path = self.prefix.iter().chain(&self.path).cloned().collect();
        let place = self.places.find(&path).cloned();
        self.problems.push(Problem { severity, place, key: path.join("."), text });
    }

    /// One error for each required key that is missing, placed at its section where there is one.
    fn required(&mut self, value: &Value) {
        for setting in OPTIONS.iter().filter(|setting| setting.is_required) {
            self.path = setting.path.split('.').map(str::to_owned).collect();
            let failed = self.problems.0.iter().any(|problem| {
                // A section of a wrong type says enough.
                problem.severity == Severity::Error && setting.path.starts_with(&problem.key)
            });
            let found = self.path.iter().try_fold(value, |value, key| value.get(key));
            if !failed && found.is_none() {
                self.wrong(format!(
                    "required, but missing; expected {}, for example `{}`",
                    setting.kind.expected(),
                    setting.example
                ));
            }
        }
        self.path.clear();
    }
}

/// How many letters must be changed, added or removed to make one word of the other. Long words are cut: they are no
/// slips of short ones, and the table of the comparison must stay small.
fn distance(left: &str, right: &str) -> usize {
    const LONGEST: usize = 64;
    let right: Vec<char> = right.chars().take(LONGEST).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().take(LONGEST).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
