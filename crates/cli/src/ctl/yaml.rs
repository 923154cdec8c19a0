//! Writes YAML as Patroni's console does (PyYAML's safe dump: keys sorted, lines of about 200 columns, YAML 1.1 quoting),
//! so that scripts and people who compare the two see no difference.
//!
//! Not here: reading YAML, and how a single scalar is quoted (`yaml_scalar`). Tested below against literal output.

use serde_json::{Map, Value};

use super::yaml_scalar::{self, Place};

/// A line is broken at the next possible place after this column.
const WIDTH: usize = 200;

/// What PyYAML takes where nobody says another width.
pub const DEFAULT_WIDTH: usize = 80;

/// A key longer than this (in characters) is written in the explicit form, `? key`.
const SIMPLE_KEY: usize = 122;

/// The value over several lines, one key or item a line; ends with a line feed.
pub fn block(value: &Value) -> String {
    block_of_width(value, WIDTH)
}

/// The same with lines of about `width` columns.
pub fn block_of_width(value: &Value, width: usize) -> String {
    let mut emitter = Emitter { width, ..Emitter::default() };
    match value {
        Value::Object(map) if !map.is_empty() => emitter.block_mapping(map, 0),
        Value::Array(items) if !items.is_empty() => emitter.block_sequence(items, 0),
        other => emitter.inline(other, 0, false),
    }
    emitter.finish()
}

/// The value in braces and brackets, on one line as far as the width allows; ends with a line feed.
pub fn flow(value: &Value) -> String {
    let mut emitter = Emitter::default();
    emitter.inline(value, 0, true);
    emitter.finish()
}

/// The text so far and where its last line ends. Indents are in columns; the outermost collection has none.
struct Emitter {
    text: String,
    column: usize,
    width: usize,
}

impl Default for Emitter {
    fn default() -> Emitter {
        Emitter { text: String::new(), column: 0, width: WIDTH }
    }
}

impl Emitter {
    fn finish(mut self) -> String {
        self.text.push('\n');
        self.text
    }

    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        self.column = match text.rsplit_once('\n') {
            Some((_, last)) => last.chars().count(),
            None => self.column + text.chars().count(),
        };
    }

    fn line(&mut self, indent: usize) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
    }

    fn scalar(&mut self, value: &Value, place: Place, indent: usize) {
        let text = match value {
            Value::String(text) => yaml_scalar::string(text, place, self.width, self.column, indent),
            Value::Number(number) => yaml_scalar::number(number),
            Value::Bool(flag) => flag.to_string(),
            _ => "null".to_owned(),
        };
        self.put(&text);
    }

    /// `indent` is the column of the keys; the cursor is already there.
    fn block_mapping(&mut self, map: &Map<String, Value>, indent: usize) {
        for (position, (key, value)) in sorted(map).into_iter().enumerate() {
            if position > 0 {
                self.line(indent);
            }
            let key_value = Value::String(key.clone());
            if is_simple(key) {
                self.scalar(&key_value, Place { flow: false, simple_key: true }, indent + 2);
                self.put(":");
            } else {
                self.put("? ");
                self.scalar(&key_value, Place { flow: false, simple_key: false }, indent + 2);
                self.line(indent);
                self.put(":");
            }
            match value {
                Value::Object(inner) if !inner.is_empty() && is_simple(key) => {
                    self.line(indent + 2);
                    self.block_mapping(inner, indent + 2);
                }
                Value::Object(inner) if !inner.is_empty() => {
                    self.put(" ");
                    self.block_mapping(inner, indent + 2);
                }
                // The items of a sequence stand in the column of the key they belong to.
                Value::Array(items) if !items.is_empty() && is_simple(key) => {
                    self.line(indent);
                    self.block_sequence(items, indent);
                }
                Value::Array(items) if !items.is_empty() => {
                    self.put(" ");
                    self.block_sequence(items, indent + 2);
                }
                other => {
                    self.put(" ");
                    self.inline(other, indent + 2, false);
                }
            }
        }
    }

    fn block_sequence(&mut self, items: &[Value], indent: usize) {
        for (position, item) in items.iter().enumerate() {
            if position > 0 {
                self.line(indent);
            }
            self.put("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.block_mapping(map, indent + 2),
                Value::Array(inner) if !inner.is_empty() => self.block_sequence(inner, indent + 2),
                other => self.inline(other, indent + 2, false),
            }
        }
    }

    /// A scalar, or a collection in braces or brackets. `indent` is where a broken line goes on.
    fn inline(&mut self, value: &Value, indent: usize, inside_flow: bool) {
        match value {
            Value::Object(map) if map.is_empty() => self.put("{}"),
            Value::Array(items) if items.is_empty() => self.put("[]"),
            Value::Object(map) => self.flow_mapping(map, indent + 2),
            Value::Array(items) => self.flow_sequence(items, indent + 2),
            scalar => self.scalar(
                scalar,
                Place { flow: inside_flow, simple_key: false },
                indent + 2 * usize::from(inside_flow),
            ),
        }
    }

    fn flow_mapping(&mut self, map: &Map<String, Value>, indent: usize) {
        self.put("{");
        for (position, (key, value)) in sorted(map).into_iter().enumerate() {
            self.separate(position, indent);
            let key_value = Value::String(key.clone());
            if is_simple(key) {
                self.scalar(&key_value, Place { flow: true, simple_key: true }, indent);
                self.put(":");
            } else {
                self.put("? ");
                self.scalar(&key_value, Place { flow: true, simple_key: false }, indent + 2);
                if self.column > self.width {
                    self.line(indent);
                    self.put(":");
                } else {
                    self.put(" :");
                }
            }
            self.put(" ");
            self.inline(value, indent, true);
        }
        self.put("}");
    }

    fn flow_sequence(&mut self, items: &[Value], indent: usize) {
        self.put("[");
        for (position, item) in items.iter().enumerate() {
            self.separate(position, indent);
            self.inline(item, indent, true);
        }
        self.put("]");
    }

    /// What stands before an item of a flow collection.
    fn separate(&mut self, position: usize, indent: usize) {
        if position > 0 {
            self.put(",");
        }
        if self.column > self.width {
            self.line(indent);
        } else if position > 0 {
            self.put(" ");
        }
    }
}

fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

fn is_simple(key: &str) -> bool {
    !key.is_empty() && key.chars().count() <= SIMPLE_KEY && !key.contains(yaml_scalar::is_break)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The expected text is what PyYAML 6.0.3 wrote.
    #[test]
    fn collections_read_as_pyyaml_writes_them() {
        let value = json!({"b": [[1, 2], [{"a": 1, "b": [1]}]], "a": {}, "c": [], "d": [{"x": {"y": [1]}}], "": "k",
            "e": {"z": null, "y": true}, "many\nlines": 1.5});
        let expected = "? ''\n: k\na: {}\nb:\n- - 1\n  - 2\n- - a: 1\n    b:\n    - 1\nc: []\nd:\n- x:\n    y:\n    - 1\n\
            e:\n  y: true\n  z: null\n? 'many\n\n  lines'\n: 1.5\n";
        assert_eq!(block(&value), expected);
        assert_eq!(block(&json!([])), "[]\n");
        assert_eq!(
            flow(
                &json!({"b": "yes", "foo": "1", "list": [1, "x"], "n": 1.4, "u": "é", "m": "a, b", "k": {"a": "b:c"}})
            ),
            "{b: 'yes', foo: '1', k: {a: 'b:c'}, list: [1, x], m: 'a, b', n: 1.4, u: é}\n"
        );
    }

    #[test]
    fn long_lines_break_where_pyyaml_breaks_them() {
        let word = "x".repeat(60);
        let expected = format!("{{a: [{{k: [{word}, {word}, {word}, {word},\n        {word}, {word}]}}]}}\n");
        assert_eq!(flow(&json!({"a": [{"k": vec![word; 6]}]})), expected);
        let long = "a".repeat(190);
        assert_eq!(flow(&json!({long.clone(): "b c", "c": "d"})), format!("{{? {long} : b c, c: d}}\n"));
        let sentence = "w ".repeat(120);
        let expected = format!("bk: '{}w\n  {}'\n", "w ".repeat(98), "w ".repeat(21));
        assert_eq!(block(&json!({"bk": sentence})), expected);
    }
}
