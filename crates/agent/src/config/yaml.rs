//! YAML text to an ordered JSON value that remembers where each key stood.
//!
//! One document, scalars as PyYAML reads them (`scalar`), anchors, aliases and merge keys. Stricter than PyYAML in one
//! point: a key that is written twice in one mapping is an error, not the last one wins. Not here: what the keys mean.
//! Bounded in size, depth and (aliases can multiply) in the number of values; no input makes it panic.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag, options};

use super::place::{Path, Place, Places};
use super::scalar::resolve;

/// A configuration has kilobytes; a file beyond this is a mistake (a log, a data file).
pub const MAX_BYTES: usize = 4 << 20;
/// The deepest key that any program of the field reads is at level 6.
const MAX_DEPTH: usize = 48;
/// Aliases of aliases grow exponentially; a hand-written file has hundreds of values.
const MAX_VALUES: usize = 100_000;

/// A document that was read.
#[derive(Clone, Debug, Default)]
pub struct Document {
    pub value: Value,
    pub places: Places,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {text}")]
pub struct YamlError {
    pub place: Place,
    pub text: String,
}

/// Reads one document; an empty one is null. `source` names the file in errors.
pub fn read(source: &str, bytes: &[u8]) -> Result<Document, YamlError> {
    let source: Arc<str> = source.into();
    let whole = |text: String| YamlError { place: Place { source: source.clone(), line: 0, column: 0 }, text };
    if bytes.len() > MAX_BYTES {
        return Err(whole(format!("{} bytes are too many for a configuration (at most {MAX_BYTES})", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        whole(format!("line {line} is not UTF-8 text: save the file as UTF-8"))
    })?;
    Composer {
        source: source.clone(),
        parser: Parser::new_from_str_with_options(text, options! { emit_comments: false }),
        anchors: HashMap::new(),
        places: Places::default(),
        path: Path::new(),
        values: 0,
    }
    .document()
}

/// A value with what an alias of it would cost.
#[derive(Clone)]
struct Node {
    value: Value,
    /// Levels below and with this one.
    depth: usize,
    /// Values within and with this one.
    values: usize,
    /// A plain `<<`, which merges when it stands as a key.
    is_merge: bool,
}

struct Composer<'a> {
    source: Arc<str>,
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    places: Places,
    path: Path,
    values: usize,
}

impl<'a> Composer<'a> {
    fn document(mut self) -> Result<Document, YamlError> {
        let mut value = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                _ if value.is_some() => {
                    return Err(self.error(span, "a second document begins here; a configuration is one"));
                }
                event => value = Some(self.node(event, span, 1)?.value),
            }
        }
        Ok(Document { value: value.unwrap_or_default(), places: self.places })
    }

    /// The next event; syntax errors get file, line and column.
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, YamlError> {
        self.parser.next_event().transpose().map_err(|error| {
            let marker = error.marker();
            let place = Place { source: self.source.clone(), line: marker.line(), column: marker.col() + 1 };
            YamlError { place, text: format!("this is not YAML: {}", error.info()) }
        })
    }

    fn next_within(&mut self, start: Span) -> Result<(Event<'a>, Span), YamlError> {
        self.next()?.ok_or_else(|| self.error(start, "the file ends within this value"))
    }

    fn error(&self, span: Span, text: impl Into<String>) -> YamlError {
        YamlError { place: self.place(span), text: text.into() }
    }

    fn place(&self, span: Span) -> Place {
        Place { source: self.source.clone(), line: span.start.line(), column: span.start.col() + 1 }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, YamlError> {
        let (node, anchor, new_values) = match event {
            Event::Scalar(text, style, anchor, tag) => (self.scalar(&text, style, tag.as_deref(), span)?, anchor, 1),
            Event::SequenceStart(_, anchor, _) => (self.sequence(span, depth)?, anchor, 1),
            Event::MappingStart(_, anchor, _) => (self.mapping(span, depth)?, anchor, 1),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| self.error(span, "this alias stands inside the value it names"))?;
                let values = node.values;
                (node, 0, values)
            }
            _ => return Err(self.error(span, "a value was expected here")),
        };
        if depth + node.depth > MAX_DEPTH {
            return Err(self.error(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.values += new_values;
        if self.values > MAX_VALUES {
            return Err(self.error(span, format!("more than {MAX_VALUES} values; aliases count each time")));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Node, YamlError> {
        let plain = style == ScalarStyle::Plain;
        let is_merge = plain && tag.is_none() && text == "<<";
        let value = match tag {
            None if plain => resolve(text),
            None => Value::String(text.to_owned()),
            Some(tag) if tag.is_yaml_core_schema_tag("str") || tag.to_string() == "!" => Value::String(text.to_owned()),
            Some(tag) if tag.is_yaml_core_schema_tag("float") => match resolve(text).as_f64() {
                Some(number) => number.into(),
                None => return Err(self.error(span, format!("`{text}` is no number"))),
            },
            Some(tag) if tag.is_yaml_core_schema() => resolve(text),
            Some(tag) => return Err(self.error(span, format!("the tag `{tag}` has no meaning in a configuration"))),
        };
        Ok(Node { value, depth: 1, values: 1, is_merge })
    }

    fn sequence(&mut self, start: Span, depth: usize) -> Result<Node, YamlError> {
        self.guard_depth(start, depth)?;
        let mut items = Vec::new();
        let (mut deepest, mut values) = (0, 1);
        loop {
            let (event, span) = self.next_within(start)?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Node { value: Value::Array(items), depth: deepest + 1, values, is_merge: false });
            }
            self.path.push(items.len().to_string());
            self.places.insert(&self.path, self.place(span));
            let node = self.node(event, span, depth + 1)?;
            self.path.pop();
            deepest = deepest.max(node.depth);
            values += node.values;
            items.push(node.value);
        }
    }

    fn mapping(&mut self, start: Span, depth: usize) -> Result<Node, YamlError> {
        self.guard_depth(start, depth)?;
        let mut merged = Map::new();
        let mut written = Map::new();
        let (mut deepest, mut values) = (0, 1);
        loop {
            let (event, span) = self.next_within(start)?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, value_span) = self.next_within(start)?;
            if key.is_merge {
                let node = self.node(event, value_span, depth + 1)?;
                deepest = deepest.max(node.depth);
                values += node.values;
                self.merge(&mut merged, node.value, value_span)?;
                continue;
            }
            let name = self.key(key.value, span)?;
            self.path.push(name.clone());
            if written.contains_key(&name) {
                let text = format!("{}: this key is written twice; remove one", self.path.join("."));
                return Err(self.error(span, text));
            }
            self.places.insert(&self.path, self.place(span));
            let node = self.node(event, value_span, depth + 1)?;
            self.path.pop();
            deepest = deepest.max(node.depth);
            values += node.values;
            written.insert(name, node.value);
        }
        merged.extend(written);
        Ok(Node { value: Value::Object(merged), depth: deepest + 1, values, is_merge: false })
    }

    /// Checked on the way down as well: the recursion itself must be bounded.
    fn guard_depth(&self, span: Span, depth: usize) -> Result<(), YamlError> {
        if depth >= MAX_DEPTH {
            return Err(self.error(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    /// `<<: *defaults` or `<<: [*a, *b]`; of several, the earlier wins.
    fn merge(&self, into: &mut Map<String, Value>, value: Value, span: Span) -> Result<(), YamlError> {
        let sources = match value {
            Value::Object(_) => vec![value],
            Value::Array(items) => items,
            _ => vec![Value::Null],
        };
        for source in sources {
            let Value::Object(source) = source else {
                return Err(self.error(span, "`<<` merges mappings only"));
            };
            for (key, value) in source {
                into.entry(key).or_insert(value);
            }
        }
        Ok(())
    }

    /// Keys of JSON are text; other scalars become what Python's JSON makes of them.
    fn key(&self, value: Value, span: Span) -> Result<String, YamlError> {
        match value {
            Value::String(text) => Ok(text),
            Value::Array(_) | Value::Object(_) => Err(self.error(span, "a key must be a single word or text")),
            scalar => Ok(scalar.to_string()),
        }
    }
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
