//! One event of the log, before it has a form: what Python calls a LogRecord.
//!
//! Not here: how it is written (`layout`), and whether it is (`levels`).

use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

/// The machine's time zone, as it was when the log began: whoever logs must wait for no disk, and looking it up reads files now and then.
pub static ZONE: LazyLock<TimeZone> = LazyLock::new(TimeZone::system);

/// What has happened, when and where.
#[derive(Clone, Debug)]
pub struct Record {
    pub time: Timestamp,
    /// Milliseconds since the program began to log.
    pub age: f64,
    pub level: Level,
    /// The module, as Rust writes it: `pgherd_agent::daemon`.
    pub target: &'static str,
    pub file: &'static str,
    pub line: u32,
    /// Nothing in it that a terminal would obey.
    pub message: String,
    /// What the event carries besides, in its order.
    pub fields: Vec<(&'static str, Extra)>,
    pub process: u32,
    pub thread: u64,
    pub thread_name: String,
}

impl Record {
    /// Of the calling thread, now.
    pub fn of(event: &Event<'_>, begun: Timestamp) -> Record {
        let mut content = Content::default();
        event.record(&mut content);
        let metadata: &'static Metadata<'static> = event.metadata();
        let time = Timestamp::now();
        let thread = std::thread::current();
        Record {
            time,
            age: (time.as_microsecond() - begun.as_microsecond()) as f64 / 1000.0,
            level: *metadata.level(),
            target: metadata.target(),
            file: metadata.file().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
            message: content.message,
            fields: content.fields,
            process: std::process::id(),
            thread: rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs().into(),
            // Python's name of the first thread, which formats and dashboards know.
            thread_name: match thread.name() {
                Some("main") => "MainThread".to_owned(),
                name => name.unwrap_or("pgherd").to_owned(),
            },
        }
    }

    /// In the time zone of the machine.
    pub fn local_time(&self) -> Zoned {
        self.time.to_zoned(ZONE.clone())
    }

    pub fn extra(&self, name: &str) -> Option<&Extra> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, extra)| extra)
    }

    /// Seconds since 1970.
    pub fn created(&self) -> f64 {
        self.time.as_microsecond() as f64 / 1e6
    }

    /// Whole milliseconds of the second.
    pub fn milliseconds(&self) -> i64 {
        self.time.as_millisecond().rem_euclid(1000)
    }

    /// The message with the fields after it, `name=value`, as the lines without a format have them.
    pub fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, extra) in &self.fields {
            let gap = if text.is_empty() { "" } else { " " };
            // Writing to a text does not fail.
            let _ = write!(text, "{gap}{name}={extra}");
        }
        text
    }
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Extra {
    /// In quotes, in a line.
    Text(String),
    /// What shows itself in a way of its own.
    Shown(String),
    /// A number or a boolean.
    Other(Value),
}

impl Extra {
    pub fn value(&self) -> Value {
        match self {
            Extra::Text(text) | Extra::Shown(text) => text.clone().into(),
            Extra::Other(value) => value.clone(),
        }
    }
}

impl fmt::Display for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extra::Text(text) => write!(f, "{text:?}"),
            Extra::Shown(text) => f.write_str(text),
            Extra::Other(value) => value.fmt(f),
        }
    }
}

#[derive(Default)]
struct Content {
    message: String,
    fields: Vec<(&'static str, Extra)>,
}

impl Content {
    fn put(&mut self, field: &Field, extra: Extra) {
        self.fields.push((field.name().trim_start_matches("r#"), extra));
    }
}

impl Visit for Content {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Extra::Other(value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Extra::Other(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Extra::Other(value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Extra::Other(value.into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = harmless(value),
            _ => self.put(field, Extra::Text(value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = harmless(&format!("{value:?}"));
        match field.name() {
            "message" => self.message = text,
            _ => self.put(field, Extra::Shown(text)),
        }
    }
}

/// Foreign texts end up in messages; what a terminal would obey is written out, as tracing-subscriber does.
fn harmless(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for letter in text.chars() {
        let code = u32::from(letter);
        let _ = match letter {
            '\x1b' | '\x07' | '\x08' | '\x0c' | '\x7f' => write!(kept, "\\x{code:02x}"),
            '\u{80}'..='\u{9f}' => write!(kept, "\\u{{{code:x}}}"),
            other => kept.write_char(other),
        };
    }
    kept
}
