//! JSON as the interface wants it on the wire: compact, ASCII only, keys in the order in which they were put in.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// `value` without spaces and with every character outside ASCII as `\uXXXX`.
pub fn compact(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut serializer = Serializer::with_formatter(&mut out, Ascii);
    value.serialize(&mut serializer).expect("a JSON value always serialises, and a Vec takes every byte");
    out
}

struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut units = [0; 2];
        let mut plain = 0;
        for (at, character) in fragment.char_indices().filter(|(_, character)| !character.is_ascii()) {
            CompactFormatter.write_string_fragment(writer, &fragment[plain..at])?;
            for unit in character.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain = at + character.len_utf8();
        }
        CompactFormatter.write_string_fragment(writer, &fragment[plain..])
    }
}

/// Whether writing `new` over `old` would change nothing for a reader of the interface: the same keys, and leaves that
/// are equal as text (`1` and `"1"`, `true` and `"True"`). Such a write is left out, so that no watch is woken.
pub fn same_value(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            old.len() == new.len()
                && old.iter().all(|(key, value)| new.get(key).is_some_and(|other| same_value(value, other)))
        }
        // Patroni compares lists by their printed form, in which the elements keep their types.
        (Value::Array(old), Value::Array(new)) => old == new,
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => false,
        (old, new) => leaf_text(old) == leaf_text(new),
    }
}

/// A scalar as Python prints it.
fn leaf_text(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
