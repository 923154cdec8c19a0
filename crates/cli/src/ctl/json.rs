//! Writes JSON on one line as Python does: `, ` and `: ` between the parts, everything beyond ASCII escaped.
//!
//! Not here: the compact JSON of the store's keys (`pgherd_dcs`).

use std::fmt::Write;

use serde_json::Value;

/// One line; ends with a line feed.
pub fn line(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value);
    text.push('\n');
    text
}

fn write(text: &mut String, value: &Value) {
    match value {
        Value::Object(map) => {
            text.push('{');
            for (position, (key, value)) in map.iter().enumerate() {
                text.push_str(if position > 0 { ", " } else { "" });
                write_string(text, key);
                text.push_str(": ");
                write(text, value);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (position, item) in items.iter().enumerate() {
                text.push_str(if position > 0 { ", " } else { "" });
                write(text, item);
            }
            text.push(']');
        }
        Value::String(string) => write_string(text, string),
        scalar => text.push_str(&scalar.to_string()),
    }
}

fn write_string(text: &mut String, string: &str) {
    // serde_json escapes what JSON demands; what it leaves beyond ASCII is escaped here.
    for c in Value::from(string).to_string().chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(text, "\\u{unit:04x}").expect("writing to a String cannot fail");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn separators_and_escapes_are_those_of_python() {
        let value = json!({"b": [1, "é😀\n\"", null], "a": {}, "c": {"x": true, "y": 1.5}});
        let expected =
            "{\"b\": [1, \"\\u00e9\\ud83d\\ude00\\n\\\"\", null], \"a\": {}, \"c\": {\"x\": true, \"y\": 1.5}}\n";
        assert_eq!(line(&value), expected);
    }
}
