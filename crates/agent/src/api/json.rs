//! JSON as Python's `json.dumps` writes it by default, which is what the tools around Patroni compare and grep: `, `
//! and `: ` between items, and every character outside ASCII escaped.
//!
//! Not here: the JSON of the store, which has no spaces (`pgherd_dcs::layout`).

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

pub fn spaced(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut text, Python))
        .expect("values of this API have string keys, and a vector takes every byte");
    String::from_utf8(text).expect("the formatter writes ASCII only")
}

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !c.is_ascii()) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let character = rest[at..].chars().next().expect("`find` found one here");
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + character.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn values_look_as_python_writes_them() {
        let value = json!({"z": [1, true, null], "a": {"é": "😀\n\"\u{1}\u{7f}"}, "e": {}, "f": [], "n": 1.4});
        let escaped = r#"{"\u00e9": "\ud83d\ude00\n\"\u0001"#.to_owned() + "\u{7f}\"}";
        assert_eq!(
            spaced(&value),
            format!(r#"{{"z": [1, true, null], "a": {escaped}, "e": {{}}, "f": [], "n": 1.4}}"#)
        );
    }

    proptest! {
        #[test]
        fn every_string_reads_back(text in ".*") {
            let written = spaced(&text);
            prop_assert!(written.is_ascii());
            prop_assert_eq!(serde_json::from_str::<Value>(&written).expect("JSON"), Value::String(text));
        }
    }
}
