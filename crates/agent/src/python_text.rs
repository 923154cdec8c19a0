//! Values as Python prints them, which is what Patroni's messages show.

use std::fmt::Write as _;

use serde_json::Value;

/// As `str()` does: a text as it is, within a list or a mapping in quotes.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => representation(other),
    }
}

/// As `repr()` does.
pub fn representation(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(_) => number(value),
        Value::String(text) => quoted(text, false),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(representation).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{}: {}", quoted(key, false), representation(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A float always with its point.
pub fn number(value: &Value) -> String {
    match value.as_f64() {
        Some(float) if value.is_f64() => format!("{float:?}"),
        _ => value.to_string(),
    }
}

/// A text in quotes; `ascii`: with nothing else in it.
pub fn quoted(text: &str, ascii: bool) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut shown = String::from(quote);
    for letter in text.chars() {
        let code = u32::from(letter);
        // Writing to a text does not fail.
        let _ = match letter {
            '\\' => shown.write_str("\\\\"),
            '\n' => shown.write_str("\\n"),
            '\r' => shown.write_str("\\r"),
            '\t' => shown.write_str("\\t"),
            letter if letter == quote => write!(shown, "\\{letter}"),
            _ if code < 0x20 || (0x7f..0xa0).contains(&code) || (ascii && (0xa0..0x100).contains(&code)) => {
                write!(shown, "\\x{code:02x}")
            }
            _ if ascii && code > 0xffff => write!(shown, "\\U{code:08x}"),
            _ if ascii && code > 0x7f => write!(shown, "\\u{code:04x}"),
            letter => shown.write_char(letter),
        };
    }
    shown.push(quote);
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_look_as_python_prints_them() {
        for (value, expected) in [
            (json!("it's"), "it's"),
            (json!(null), "None"),
            (json!([true, 1, 1.0, "it's", "\"'", null]), r#"[True, 1, 1.0, "it's", '"\'', None]"#),
            (json!({"a": {"b": ["\n\u{e4}"]}, "c": {}}), "{'a': {'b': ['\\n\u{e4}']}, 'c': {}}"),
        ] {
            assert_eq!(shown(&value), expected);
        }
    }
}
