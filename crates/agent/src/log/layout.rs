//! The forms that a line may have: ours, Python's notation, JSON.
//!
//! Ours is what every role writes that nothing was configured for; the other two are what `log` in a Patroni file asks for. Not here:
//! where lines go (`sink`). Compared with tracing-subscriber below, and with Python's libraries in `tests/it/logging.rs`.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use tracing::Level;

use super::python::{self, Field, Format};
use super::record::{Extra, Record};
use crate::api::spaced;

/// How a line looks.
#[derive(Clone, Debug, PartialEq)]
pub enum Layout {
    Own {
        /// For a terminal.
        coloured: bool,
    },
    Plain {
        format: Format,
        /// As strftime has it.
        date_format: Option<String>,
    },
    Json {
        /// In their order.
        fields: Vec<JsonField>,
        date_format: Option<String>,
        /// On every line, after the fields.
        constant: Map<String, Value>,
        renamed: Vec<(String, String)>,
    },
}

/// A field that every line has.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonField {
    /// As the format has it.
    name: String,
    /// `None`: what an event carries besides, or null.
    field: Option<Field>,
    shown: String,
}

impl Layout {
    /// From `log.format`, and what is wrong with it: then Patroni's default is used.
    pub fn plain(format: &Value, date_format: Option<String>) -> (Layout, Option<String>) {
        let read = match format {
            Value::String(text) => Format::parse(text),
            _ => Err("a list is for `type: json`; expected a text".to_owned()),
        };
        let (format, problem) = match read {
            Ok(format) => (format, None),
            Err(error) => (Format::parse(python::DEFAULT).expect("Patroni's own format is one"), Some(error)),
        };
        (Layout::Plain { format, date_format }, problem)
    }

    /// From `log.format`: a text, whose names count, or a list of names and of mappings from a name to another.
    pub fn json(format: &Value, date_format: Option<String>, constant: Map<String, Value>) -> (Layout, Option<String>) {
        let default = || python::names(python::DEFAULT).into_iter().map(str::to_owned).collect::<Vec<_>>();
        let mut renamed: Vec<(String, String)> = Vec::new();
        let mut problem = None;
        let names = match format {
            Value::String(text) if text.is_empty() => vec!["message".to_owned()],
            Value::String(text) => python::names(text).into_iter().map(str::to_owned).collect(),
            Value::Array(items) => {
                let mut names = Vec::new();
                for item in items {
                    match item {
                        Value::String(name) => names.push(name.clone()),
                        Value::Object(map) if map.values().all(Value::is_string) => {
                            names.extend(map.keys().cloned());
                            let pairs =
                                map.iter().filter_map(|(name, to)| Some((name.clone(), to.as_str()?.to_owned())));
                            renamed.extend(pairs);
                        }
                        _ => problem = Some("an item is neither a name nor a mapping of a name to another".to_owned()),
                    }
                }
                names
            }
            _ => Vec::new(),
        };
        let names = if names.is_empty() {
            problem = problem.or_else(|| Some("it names no field; expected a text or a list".to_owned()));
            default()
        } else {
            names
        };
        let field = |name: String| JsonField { field: Field::named(&name), shown: target(&renamed, &name), name };
        let fields = names.into_iter().map(field).collect();
        (Layout::Json { fields, date_format, constant, renamed }, problem)
    }

    /// The line, without its end.
    pub fn line(&self, record: &Record) -> String {
        match self {
            Layout::Own { coloured } => own(record, *coloured),
            Layout::Plain { format, date_format } => format.fill(record, date_format.as_deref()),
            Layout::Json { fields, date_format, constant, renamed } => {
                let mut line = Map::new();
                for JsonField { name, field, shown } in fields {
                    let value = match field {
                        Some(field) => field.value(record, date_format.as_deref()),
                        None => record.extra(name).map(Extra::value).unwrap_or_default(),
                    };
                    line.insert(shown.clone(), value);
                }
                for (name, value) in constant {
                    line.insert(target(renamed, name), value.clone());
                }
                let is_there = |name: &str| fields.iter().any(|field| field.name == name);
                for (name, extra) in record.fields.iter().filter(|(name, _)| !is_there(name)) {
                    line.insert(target(renamed, name), extra.value());
                }
                spaced(&line)
            }
        }
    }
}

/// The name that a field gets; of several the last that was asked for.
fn target(renamed: &[(String, String)], name: &str) -> String {
    renamed.iter().rfind(|(from, _)| from == name).map_or_else(|| name.to_owned(), |(_, to)| to.clone())
}

/// `2026-11-27 05:04:03.210  INFO message field="value"`.
fn own(record: &Record, coloured: bool) -> String {
    let time = record.local_time().strftime("%Y-%m-%d %H:%M:%S.%3f").to_string();
    let (name, colour) = match record.level {
        Level::ERROR => ("ERROR", 31),
        Level::WARN => ("WARN", 33),
        Level::INFO => ("INFO", 32),
        Level::DEBUG => ("DEBUG", 34),
        Level::TRACE => ("TRACE", 35),
    };
    if !coloured {
        return format!("{time} {name:>5} {}", record.text());
    }
    let mut line = format!("\x1b[2m{time}\x1b[0m \x1b[{colour}m{name:>5}\x1b[0m {}", record.message);
    for (name, extra) in &record.fields {
        // Writing to a text does not fail.
        let _ = write!(line, " \x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{extra}");
    }
    line
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::json;
    use tracing_subscriber::Layer;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::fmt::format::Writer;
    use tracing_subscriber::fmt::time::FormatTime;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    pub fn record() -> Record {
        Record {
            time: "2026-11-27T05:04:03.210987Z".parse().expect("a time"),
            age: 12.5,
            level: Level::WARN,
            target: "pgherd_agent::daemon::round",
            file: "crates/agent/src/daemon/round.rs",
            line: 77,
            message: "the leader is g\u{f6}ne".to_owned(),
            fields: vec![("rule", Extra::Text("race".to_owned())), ("votes", Extra::Other(json!(2)))],
            process: 4711,
            thread: 815,
            thread_name: "MainThread".to_owned(),
        }
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics with it").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Written;

        fn make_writer(&self) -> Written {
            self.clone()
        }
    }

    /// Ours is the layer beside it; the time of both is the same text.
    struct Fixed;

    impl FormatTime for Fixed {
        fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
            writer.write_str("TIME")
        }
    }

    struct Beside(Arc<Mutex<String>>, bool);

    impl<S: tracing::Subscriber> Layer<S> for Beside {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            let record = Record::of(event, jiff::Timestamp::now());
            let time = record.local_time().strftime("%Y-%m-%d %H:%M:%S.%3f").to_string();
            let line = Layout::Own { coloured: self.1 }.line(&record).replace(&time, "TIME");
            let mut lines = self.0.lock().expect("no test panics with it");
            lines.push_str(&line);
            lines.push('\n');
        }
    }

    #[test]
    fn without_a_format_lines_are_those_of_tracing_subscriber() {
        for coloured in [false, true] {
            let (written, ours) = (Written::default(), Arc::new(Mutex::new(String::new())));
            let theirs = tracing_subscriber::fmt::layer().with_timer(Fixed).with_target(false).with_ansi(coloured);
            let subscriber = tracing_subscriber::registry()
                .with(theirs.with_writer(written.clone()))
                .with(Beside(ours.clone(), coloured));
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!("plain");
                tracing::warn!(rule = "race", "with {}", "a field");
                tracing::info!(number = 5, flag = true, ratio = 0.5, "of\nall\tkinds");
                tracing::debug!(shown = ?Some("x"), text = %"y", "\x1b[31mred\x07");
                tracing::trace!("\u{9b}31m \u{e4}");
            });
            let theirs = String::from_utf8(written.0.lock().expect("as above").clone()).expect("text");
            assert_eq!(*ours.lock().expect("as above"), theirs);
        }
    }

    #[test]
    fn a_wrong_format_is_told_and_patronis_default_used() {
        for format in [json!(["message"]), json!("%(x)s"), json!(null)] {
            let (layout, problem) = Layout::plain(&format, Some("%H".to_owned()));
            assert!(problem.is_some(), "{format}");
            assert!(
                layout.line(&record()).ends_with("WARNING: the leader is g\u{f6}ne rule=\"race\" votes=2"),
                "{format}"
            );
        }
        for format in [json!([]), json!([5]), json!(null), json!([{"message": 5}])] {
            let (layout, problem) = Layout::json(&format, Some(String::from("T")), Map::new());
            assert!(problem.is_some(), "{format}");
            let expected = r#"{"asctime": "T", "levelname": "WARNING", "message": "the leader is g\u00f6ne", "rule": "race", "votes": 2}"#;
            assert_eq!(layout.line(&record()), expected, "{format}");
        }
    }

    #[test]
    fn json_has_the_fields_in_their_order_and_under_their_names() {
        let format = json!(["asctime", {"levelname": "severity"}, "message", {"rule": "why"}, "nobody"]);
        let constant = json!({"app": "db", "levelname": "x"}).as_object().cloned().expect("a mapping");
        let (layout, problem) = Layout::json(&format, Some(String::from("T")), constant);
        assert_eq!(problem, None);
        let expected = concat!(
            r#"{"asctime": "T", "severity": "x", "message": "the leader is g\u00f6ne", "why": "race", "nobody": null, "#,
            r#""app": "db", "votes": 2}"#
        );
        assert_eq!(layout.line(&record()), expected);
    }
}
