//! Where a value of the configuration was written, and what is wrong with it.
//!
//! A [`Problem`] names file, line, column, key and what was expected. Not here: finding problems
//! (`options::check` and the sections do). Tested with the readers that make them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Where a key stands: a file with line and column, or the name of an environment variable or of the store's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub source: Arc<str>,
    /// From 1; 0 where the source has no lines.
    pub line: usize,
    /// From 1; 0 where the source has no lines.
    pub column: usize,
}

impl Place {
    /// A source as a whole.
    pub fn whole(source: &str) -> Place {
        Place { source: source.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.source),
            line => write!(f, "{}:{line}:{}", self.source, self.column),
        }
    }
}

/// The path of a key: `["postgresql", "listen"]`. List items are their index from 0.
pub type Path = Vec<String>;

/// The place of every key of a document.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<Path, Place>);

impl Places {
    pub fn insert(&mut self, path: &[String], place: Place) {
        self.0.insert(path.to_vec(), place);
    }

    /// The place of the key, else that of the nearest key above it.
    pub fn find(&self, path: &[String]) -> Option<&Place> {
        (0..=path.len()).rev().find_map(|length| self.0.get(&path[..length]))
    }

    /// Takes over the places of a document that was merged over this one.
    pub fn extend(&mut self, over: Places) {
        self.0.extend(over.0);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, and the text says how it was read.
    Warning,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub place: Option<Place>,
    /// With dots: `postgresql.listen`. Empty: the document as a whole.
    pub key: String,
    pub text: String,
}

impl Problem {
    pub fn error(key: impl Into<String>, text: impl Into<String>) -> Problem {
        Problem { severity: Severity::Error, place: None, key: key.into(), text: text.into() }
    }

    pub fn warning(key: impl Into<String>, text: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, place: None, key: key.into(), text: text.into() }
    }

    pub fn at(self, place: Option<&Place>) -> Problem {
        Problem { place: place.cloned(), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

/// A list of problems, one a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Errors apart from warnings.
    pub fn split(self) -> (Problems, Problems) {
        let (errors, warnings) = self.0.into_iter().partition(|problem| problem.severity == Severity::Error);
        (Problems(errors), Problems(warnings))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
