//! The types of options: what a value may look like, and its one normal form.
//!
//! Not here: which option has which type (`table`), and the notations of numbers and booleans (`values`).

use serde_json::Value;

use crate::config::address::{Address, Listen};
use crate::config::values::{Unit, boolean, describe, describe_type, integer, text};
use crate::log::levels::Levels;
use crate::user_command::UserCommand;

/// The type of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A text that no message shows.
    Secret,
    Path,
    /// A command: words as a shell splits them.
    Command,
    Boolean,
    Integer,
    /// A whole number of seconds; text may have a unit (`30min`).
    Seconds,
    /// A number of bytes; text may have a unit (`1MB`).
    Bytes,
    Choice(&'static [&'static str]),
    /// A level of the log: Python's words and numbers, or a filter.
    LogLevel,
    /// A boolean or one more word.
    BooleanOr(&'static str),
    /// `HOST[,HOST]:PORT`
    Listen,
    /// `HOST:PORT`
    Address,
    /// One port, or several with commas.
    Ports,
    /// A list of texts.
    Texts,
    /// A list of texts, or one text with commas.
    Words,
    /// A list, or a mapping.
    ListOrMap,
    List,
    /// A mapping whose keys are the user's.
    Map,
    Any,
}

impl Kind {
    /// The normal form of `value`, or what was expected instead.
    pub fn read(self, value: &Value, min: Option<i64>) -> Result<Value, String> {
        let normal = match self {
            Kind::Text | Kind::Path | Kind::Secret => text(value).map(Value::String),
            Kind::Command => text(value).filter(|text| UserCommand::parse(text).is_some()).map(Value::String),
            Kind::Boolean => boolean(value).map(Value::Bool),
            Kind::Integer => integer(value, Unit::None).map(Value::from),
            Kind::Seconds => integer(value, Unit::Seconds).map(Value::from),
            Kind::Bytes => integer(value, Unit::Bytes).map(Value::from),
            Kind::Choice(words) => choice(value, words),
            // `off` arrives as the boolean that YAML makes of it.
            Kind::LogLevel if *value == Value::Bool(false) => Some(Value::from("off")),
            Kind::LogLevel => text(value).filter(|text| Levels::parse(text).is_some()).map(Value::String),
            Kind::BooleanOr(word) => choice(value, &[word]).or_else(|| boolean(value).map(Value::Bool)),
            Kind::Listen => text(value).filter(|text| text.parse::<Listen>().is_ok()).map(Value::String),
            Kind::Address => text(value).filter(|text| text.parse::<Address>().is_ok()).map(Value::String),
            Kind::Ports => text(value).filter(|text| text.is_empty() || ports(text).is_some()).map(Value::String),
            Kind::Texts => texts(value),
            Kind::Words => match value {
                Value::String(list) => Some(list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()),
                _ => texts(value),
            },
            Kind::ListOrMap => (value.is_array() || value.is_object()).then(|| value.clone()),
            Kind::List => value.is_array().then(|| value.clone()),
            Kind::Map => value.is_object().then(|| value.clone()),
            Kind::Any => Some(value.clone()),
        };
        let below = |value: &Value| min.zip(value.as_i64()).is_some_and(|(min, value)| value < min);
        match normal {
            Some(normal) if !below(&normal) => Ok(normal),
            _ => Err(format!("expected {}{}, found {}", self.expected(), bound(min), self.found(value))),
        }
    }

    fn found(self, value: &Value) -> String {
        match self {
            Kind::Secret | Kind::Map | Kind::ListOrMap => describe_type(value).to_owned(),
            _ => describe(value),
        }
    }

    /// The type in words, for messages and the reference page.
    pub fn expected(self) -> String {
        match self {
            Kind::Text => "a text".into(),
            Kind::Secret => "a text (quote it)".into(),
            Kind::Path => "a path".into(),
            Kind::Command => "a command (words as a shell splits them, every quote closed)".into(),
            Kind::Boolean => "a boolean (on or off)".into(),
            Kind::Integer => "a whole number".into(),
            Kind::Seconds => "a number of seconds (or a text with a unit, like 30min)".into(),
            Kind::Bytes => "a number of bytes (or a text with a unit, like 1MB)".into(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::LogLevel => {
                "one of CRITICAL, ERROR, WARNING, INFO, DEBUG, NOTSET (or a filter such as info,patroni.api=debug)"
                    .into()
            }
            Kind::BooleanOr(word) => format!("a boolean (on or off) or {word}"),
            Kind::Listen => "HOST[,HOST...]:PORT".into(),
            Kind::Address => "HOST:PORT".into(),
            Kind::Ports => "a port (1 to 65535), or several with commas".into(),
            Kind::Texts => "a list of texts".into(),
            Kind::Words => "a list, or a text with commas".into(),
            Kind::ListOrMap => "a list or a mapping".into(),
            Kind::List => "a list".into(),
            Kind::Map => "a mapping".into(),
            Kind::Any => "any value".into(),
        }
    }

    /// Whether keys below an option of this type are the user's own.
    pub fn is_open(self) -> bool {
        matches!(self, Kind::Map | Kind::Any | Kind::ListOrMap | Kind::List)
    }
}

/// As libpq reads them: one that is left out is 5432. `None`: no server can listen on one of them.
pub fn ports(text: &str) -> Option<Vec<u16>> {
    let port = |word: &str| match word.trim() {
        "" => Some(5432),
        word => word.parse().ok().filter(|port| *port > 0),
    };
    text.split(',').map(port).collect()
}

fn bound(min: Option<i64>) -> String {
    min.map(|min| format!(" of at least {min}")).unwrap_or_default()
}

/// A word of the list in any case. `off` arrives as the boolean that YAML makes of it.
fn choice(value: &Value, words: &[&'static str]) -> Option<Value> {
    let text = match value {
        Value::Bool(false) => "off".to_owned(),
        Value::Bool(true) => "on".to_owned(),
        other => text(other)?,
    };
    words.iter().find(|word| word.eq_ignore_ascii_case(&text)).map(|word| Value::from(*word))
}

fn texts(value: &Value) -> Option<Value> {
    value.as_array()?.iter().map(|item| text(item).map(Value::String)).collect::<Option<Vec<_>>>().map(Value::Array)
}
