//! Reading the section of a store in a configuration: what all stores have in common.
//!
//! A section comes from a member's file, checked against the table of options, or from the command line's, as it was written; so every
//! value is read in each form that YAML may give it.

use serde_json::{Map, Value};

/// What a section cannot be used for, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct SectionError {
    /// The key below the section (`hosts.0`), empty for the section itself.
    pub key: String,
    pub cause: String,
}

impl SectionError {
    pub(crate) fn new(key: impl Into<String>, cause: impl Into<String>) -> SectionError {
        SectionError { key: key.into(), cause: cause.into() }
    }
}

/// A text that is not empty; numbers count as their text.
pub(crate) fn text(section: &Map<String, Value>, key: &str) -> Option<String> {
    match section.get(key)? {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A list of texts, or one text with commas; without what is empty.
pub(crate) fn words(value: &Value) -> Vec<String> {
    let word = |text: &str| text.trim().to_owned();
    let all: Vec<String> = match value {
        Value::String(text) => text.split(',').map(word).collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(word).collect(),
        _ => Vec::new(),
    };
    all.into_iter().filter(|word| !word.is_empty()).collect()
}

pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::String(text) => ["on", "true", "yes", "1"].iter().any(|yes| text.eq_ignore_ascii_case(yes)),
        Value::Number(number) => number.as_i64() == Some(1),
        _ => false,
    }
}

/// A password or another secret; it is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreSecret(pub String);

impl std::fmt::Debug for StoreSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreSecret(hidden)")
    }
}
