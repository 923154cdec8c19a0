//! The one table of configuration options, and what follows from it: validation (`check`), the reference page and the
//! example file (`page`), the defaults (`tree`).
//!
//! Not here: what a setting does, and rules between settings (the typed sections have those).

mod check;
mod kind;
mod page;
pub mod schema;
mod table;

pub use check::{Checked, check_dynamic, check_local};
pub use kind::{Kind, ports};
pub use page::{example, reference};
use schema::{Presence, Verify};
pub use table::OPTIONS;

/// Where an option may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The YAML file and the environment.
    Local,
    /// The cluster's configuration in the store (`config`).
    Dynamic,
    /// Both; the local value wins.
    Both,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// With dots. A part may list alternatives (`superuser|replication|rewind`).
    pub path: &'static str,
    pub kind: Kind,
    /// As YAML; empty where there is none.
    pub default: &'static str,
    /// The least value that a number may have.
    pub min: Option<i64>,
    pub scope: Scope,
    pub is_required: bool,
    /// What `--validate-config` demands.
    pub presence: Presence,
    pub verify: Verify,
    /// A value for the example file, as YAML.
    pub example: &'static str,
    /// One sentence.
    pub doc: &'static str,
}

impl Setting {
    pub(crate) const fn new(scope: Scope, path: &'static str, kind: Kind, default: &'static str) -> Setting {
        let (presence, verify) = (Presence::Optional, Verify::Kind);
        Setting { path, kind, default, min: None, scope, is_required: false, presence, verify, example: "", doc: "" }
    }

    pub(crate) const fn min(self, min: i64) -> Setting {
        Setting { min: Some(min), ..self }
    }

    pub(crate) const fn required(self, example: &'static str) -> Setting {
        Setting { is_required: true, presence: Presence::Required, example, ..self }
    }

    /// Patroni's schema demands it; the agent does without.
    pub(crate) const fn expected(self) -> Setting {
        Setting { presence: Presence::Required, ..self }
    }

    /// One of those that say so must be there.
    pub(crate) const fn one_of(self) -> Setting {
        Setting { presence: Presence::OneOf, ..self }
    }

    pub(crate) const fn verify(self, verify: Verify) -> Setting {
        Setting { verify, ..self }
    }

    /// Patroni's schema does not know it.
    pub(crate) const fn unverified(self) -> Setting {
        self.verify(Verify::Nothing)
    }

    pub(crate) const fn example(self, example: &'static str) -> Setting {
        Setting { example, ..self }
    }

    pub(crate) const fn doc(self, doc: &'static str) -> Setting {
        Setting { doc, ..self }
    }

    /// `true` if `path` is this option; with `true` for `prefix`, if the option lies below `path`.
    fn matches(&self, path: &[String], prefix: bool) -> bool {
        let mut parts = self.path.split('.');
        let all = path.iter().all(|name| parts.next().is_some_and(|part| part.split('|').any(|option| option == name)));
        all && (parts.next().is_some() == prefix)
    }

    /// Every path of this row, its alternatives written out.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = vec![String::new()];
        for part in self.path.split('.') {
            let alternatives = paths.iter().flat_map(|path| {
                let dot = if path.is_empty() { "" } else { "." };
                part.split('|').map(move |name| format!("{path}{dot}{name}"))
            });
            paths = alternatives.collect();
        }
        paths
    }
}

/// The option at a path.
pub fn find(path: &[String]) -> Option<&'static Setting> {
    OPTIONS.iter().find(|setting| setting.matches(path, false))
}

/// Whether options lie below this path.
fn is_section(path: &[String]) -> bool {
    OPTIONS.iter().any(|setting| setting.matches(path, true))
}

/// The names of what may stand directly below a path.
fn children(path: &[String]) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for setting in OPTIONS.iter().filter(|setting| setting.matches(path, true)) {
        let part = setting.path.split('.').nth(path.len()).unwrap_or_default();
        names.extend(part.split('|'));
    }
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_documented_and_their_defaults_valid() {
        let mut seen = std::collections::BTreeSet::new();
        for setting in OPTIONS {
            assert!(seen.insert(setting.path), "{} stands twice", setting.path);
            assert!(setting.doc.ends_with('.'), "{} has no sentence", setting.path);
            assert!(!setting.doc.contains('|'), "{}: a bar would break the page's table", setting.path);
            for text in [setting.default, setting.example].into_iter().filter(|text| !text.is_empty()) {
                let value = crate::config::yaml::read("table", text.as_bytes()).expect("YAML").value;
                assert!(setting.kind.read(&value, setting.min).is_ok(), "{}: {text}", setting.path);
            }
        }
    }
}
