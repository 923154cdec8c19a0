//! Python's `%(name)s` notation for a line of the log: reading it, and filling it from a [`Record`].
//!
//! What Python refuses, or finds out line by line (a field that no record has, a text as a number), is refused when it is read. Not here:
//! JSON, which takes only the names of the fields (`layout`). Compared with Python's own logging in `tests/it/logging.rs`.

use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};
use serde_json::Value;

use super::levels;
use super::record::Record;
use crate::python_text::{number, quoted};

/// Patroni's own.
pub const DEFAULT: &str = "%(asctime)s %(levelname)s: %(message)s";

/// A line is for people; a width beyond this is a mistake.
const WIDEST: usize = 1000;

/// A format that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Format {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Field(Field, Spec),
}

/// The attributes of a LogRecord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    AscTime,
    Created,
    FileName,
    FunctionName,
    LevelName,
    LevelNumber,
    LineNumber,
    Message,
    Module,
    Milliseconds,
    Name,
    PathName,
    Process,
    ProcessName,
    RelativeCreated,
    Thread,
    ThreadName,
    /// What Python has of exceptions, of calls and of tasks, and we never.
    None,
}

impl Field {
    pub fn named(name: &str) -> Option<Field> {
        Some(match name {
            "asctime" => Field::AscTime,
            "created" => Field::Created,
            "filename" => Field::FileName,
            "funcName" => Field::FunctionName,
            "levelname" => Field::LevelName,
            "levelno" => Field::LevelNumber,
            "lineno" => Field::LineNumber,
            "message" | "msg" => Field::Message,
            "module" => Field::Module,
            "msecs" => Field::Milliseconds,
            "name" => Field::Name,
            "pathname" => Field::PathName,
            "process" => Field::Process,
            "processName" => Field::ProcessName,
            "relativeCreated" => Field::RelativeCreated,
            "thread" => Field::Thread,
            "threadName" => Field::ThreadName,
            "args" | "exc_info" | "exc_text" | "stack_info" | "taskName" => Field::None,
            _ => return None,
        })
    }

    /// Its value, as Python has it: numbers as numbers.
    pub fn value(self, record: &Record, date_format: Option<&str>) -> Value {
        match self {
            Field::AscTime => asctime(record, date_format).into(),
            Field::Created => record.created().into(),
            Field::FileName => file_name(record).into(),
            // No event of ours knows its function; the module is what leads to it.
            Field::FunctionName | Field::Module => module(record).into(),
            Field::LevelName => level_name(record.level).into(),
            Field::LevelNumber => level_number(record.level).into(),
            Field::LineNumber => record.line.into(),
            Field::Message => record.message.clone().into(),
            Field::Milliseconds => (record.milliseconds() as f64).into(),
            Field::Name => levels::logger(record.target).into(),
            Field::PathName => record.file.into(),
            Field::Process => record.process.into(),
            Field::ProcessName => "MainProcess".into(),
            Field::RelativeCreated => record.age.into(),
            Field::Thread => record.thread.into(),
            Field::ThreadName => record.thread_name.clone().into(),
            Field::None => Value::Null,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Field::Created | Field::Milliseconds | Field::RelativeCreated => Kind::Float,
            Field::LevelNumber | Field::LineNumber | Field::Process | Field::Thread => Kind::Whole,
            _ => Kind::Text,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Float,
}

/// What stands between the name and the end of a place: flags, width, precision, type.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Spec {
    left: bool,
    zero: bool,
    sign: Option<char>,
    alternative: bool,
    width: usize,
    precision: Option<usize>,
    conversion: char,
}

impl Format {
    /// Reads a format.
    ///
    /// # Errors
    /// What Python would not fill: a place that is not closed, a field that no record has, a text where a number must be.
    pub fn parse(text: &str) -> Result<Format, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        // Python takes no format for the barest one.
        let mut rest = if text.is_empty() { "%(message)s" } else { text };
        while let Some(at) = rest.find('%') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                plain.push('%');
                rest = after;
                continue;
            }
            let (field, spec, after) = place(rest)?;
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
            pieces.push(Piece::Field(field, spec));
            rest = after;
        }
        plain.push_str(rest);
        if pieces.is_empty() {
            return Err("no field stands in it; expected at least one such as %(message)s".to_owned());
        }
        pieces.push(Piece::Text(plain));
        Ok(Format { pieces })
    }

    /// The line, without its end.
    pub fn fill(&self, record: &Record, date_format: Option<&str>) -> String {
        let mut line = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => line.push_str(text),
                // What a JSON line has as fields of its own.
                Piece::Field(Field::Message, spec) => line.push_str(&spec.write(&record.text().into())),
                Piece::Field(field, spec) => line.push_str(&spec.write(&field.value(record, date_format))),
            }
        }
        line
    }
}

/// The names in a format, as python-json-logger finds them: whatever stands in `%(...)`.
pub fn names(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("%(") {
        let after = &rest[at + 2..];
        // A name has a letter at least.
        let Some(end) = after.char_indices().skip(1).find(|(_, letter)| *letter == ')').map(|(end, _)| end) else {
            break;
        };
        names.push(&after[..end]);
        rest = &after[end + 1..];
    }
    names
}

/// What follows a percent sign: `(name)`, flags, width, precision, type; and what is left after it.
fn place(text: &str) -> Result<(Field, Spec, &str), String> {
    let named = text.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let (name, rest) = named.ok_or_else(|| format!("`%{}` names no field", cut(text)))?;
    let field = Field::named(name).ok_or_else(|| format!("`%({name})` is no field of a log record"))?;
    let mut spec = Spec::default();
    let mut rest = rest;
    while let Some(flag) = rest.chars().next().filter(|flag| "#0- +".contains(*flag)) {
        match flag {
            '-' => spec.left = true,
            '0' => spec.zero = true,
            '#' => spec.alternative = true,
            // A plus wins over a space.
            ' ' if spec.sign == Some('+') => {}
            sign => spec.sign = Some(sign),
        }
        rest = &rest[1..];
    }
    let (width, after) = digits(rest)?;
    spec.width = width.unwrap_or(0);
    rest = after;
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = digits(after)?;
        spec.precision = Some(precision.unwrap_or(0));
        rest = after;
    }
    let rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
    let conversion = rest.chars().next().ok_or_else(|| format!("`%({name})` ends without a type, such as s"))?;
    let fits = match conversion {
        's' | 'r' | 'a' => true,
        'd' | 'i' | 'u' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => field.kind() != Kind::Text,
        'x' | 'X' | 'o' => field.kind() == Kind::Whole,
        _ => return Err(format!("`%({name})` has no type that is known; expected s, or d or f for a number")),
    };
    if !fits {
        return Err(format!("`%({name}){conversion}`: the field cannot be written so; use %({name})s"));
    }
    spec.conversion = conversion;
    Ok((field, spec, &rest[1..]))
}

fn digits(text: &str) -> Result<(Option<usize>, &str), String> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() {
        return Ok((None, rest));
    }
    let number = digits.parse().ok().filter(|number| *number <= WIDEST);
    number.map(|number| (Some(number), rest)).ok_or_else(|| format!("{} is too wide (at most {WIDEST})", cut(digits)))
}

fn cut(text: &str) -> String {
    text.chars().take(20).collect()
}

impl Spec {
    fn write(&self, value: &Value) -> String {
        let number = value.as_f64().unwrap_or_default();
        let magnitude = number.abs();
        // Python cuts the fraction.
        let whole = value.as_u64().unwrap_or(magnitude as u64);
        let body = match self.conversion {
            'd' | 'i' | 'u' => format!("{whole:0>width$}", width = self.precision.unwrap_or(0)),
            'x' => self.based("0x", format!("{whole:x}")),
            'X' => self.based("0X", format!("{whole:X}")),
            'o' => self.based("0o", format!("{whole:o}")),
            'f' | 'F' => self.pointed(format!("{magnitude:.*}", self.precision.unwrap_or(6))),
            'e' => exponential(magnitude, self.precision.unwrap_or(6)),
            'E' => exponential(magnitude, self.precision.unwrap_or(6)).to_uppercase(),
            'g' => general(magnitude, self.precision.unwrap_or(6)),
            'G' => general(magnitude, self.precision.unwrap_or(6)).to_uppercase(),
            _ => return self.text(value),
        };
        let sign = if number < 0.0 { "-".to_owned() } else { self.sign.map(String::from).unwrap_or_default() };
        self.padded(&sign, &body, self.zero)
    }

    fn text(&self, value: &Value) -> String {
        let text = match (value, self.conversion) {
            (Value::String(text), 's') => text.clone(),
            (Value::String(text), conversion) => quoted(text, conversion == 'a'),
            (Value::Null, _) => "None".to_owned(),
            (other, _) => number(other),
        };
        let text = match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text,
        };
        self.padded("", &text, false)
    }

    fn based(&self, prefix: &str, digits: String) -> String {
        let digits = format!("{digits:0>width$}", width = self.precision.unwrap_or(0));
        if self.alternative { format!("{prefix}{digits}") } else { digits }
    }

    fn pointed(&self, digits: String) -> String {
        if self.alternative && !digits.contains('.') { format!("{digits}.") } else { digits }
    }

    fn padded(&self, sign: &str, body: &str, zero: bool) -> String {
        let gap = self.width.saturating_sub(sign.len() + body.chars().count());
        if self.left {
            format!("{sign}{body}{}", " ".repeat(gap))
        } else if zero {
            // Zeroes stand after the base.
            let at = if self.alternative && "xXo".contains(self.conversion) { 2 } else { 0 };
            let (base, digits) = body.split_at(at.min(body.len()));
            format!("{sign}{base}{}{digits}", "0".repeat(gap))
        } else {
            format!("{}{sign}{body}", " ".repeat(gap))
        }
    }
}

/// `1.500000e+09`: the exponent has a sign and two digits.
fn exponential(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The shorter of both notations, without the zeroes at its end.
fn general(number: f64, precision: usize) -> String {
    let precision = precision.max(1);
    let scientific = exponential(number, precision - 1);
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i64 = exponent.parse().unwrap_or_default();
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    // Widths are bounded, so this fits.
    let digits_before = i64::try_from(precision).unwrap_or(i64::MAX);
    if (-4..digits_before).contains(&exponent) {
        let decimals = usize::try_from(digits_before - 1 - exponent).unwrap_or_default();
        return trimmed(&format!("{number:.decimals$}"));
    }
    let (_, exponent) = scientific.split_once('e').unwrap_or(("", "+00"));
    format!("{}e{exponent}", trimmed(digits))
}

/// `2026-11-27 05:04:03,210`, or as the date format has it.
fn asctime(record: &Record, date_format: Option<&str>) -> String {
    match date_format {
        Some(date_format) => strftime(record, date_format),
        None => format!("{},{:03}", strftime(record, "%Y-%m-%d %H:%M:%S"), record.milliseconds()),
    }
}

/// What the C library writes in the C locale, which is Python's for times.
fn strftime(record: &Record, format: &str) -> String {
    let time = record.local_time();
    let config = Config::new().custom(PosixCustom::new()).lenient(true);
    let mut text = String::new();
    match BrokenDownTime::from(&time).format_with_config(&config, as_glibc_reads(format), &mut text) {
        Ok(()) => text,
        // Lenient formatting does not fail; a line must come out all the same.
        Err(_) => time.to_string(),
    }
}

/// Directives that only jiff knows stay what they are, as with the C library; those that only the C library knows get their equal.
fn as_glibc_reads(format: &str) -> String {
    let mut read = String::new();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            read.push(letter);
            continue;
        }
        match letters.next() {
            Some(own @ ('f' | 'N' | 'Q' | 'q' | '.' | ':')) => {
                read.push_str("%%");
                read.push(own);
            }
            // Of another calendar or other digits, which the C locale does not have.
            Some('E' | 'O') if letters.peek().is_some_and(char::is_ascii_alphabetic) => {
                read.push('%');
                read.extend(letters.next());
            }
            Some(modifier @ ('E' | 'O')) => {
                read.push_str("%%");
                read.push(modifier);
            }
            Some(other) => {
                read.push('%');
                read.push(other);
            }
            None => read.push_str("%%"),
        }
    }
    read
}

fn file_name(record: &Record) -> &str {
    record.file.rsplit('/').next().unwrap_or_default()
}

fn module(record: &Record) -> &str {
    file_name(record).strip_suffix(".rs").unwrap_or(file_name(record))
}

/// Python has no level below DEBUG.
fn level_number(level: tracing::Level) -> u32 {
    match level {
        tracing::Level::ERROR => 40,
        tracing::Level::WARN => 30,
        tracing::Level::INFO => 20,
        _ => 10,
    }
}

fn level_name(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "ERROR",
        tracing::Level::WARN => "WARNING",
        tracing::Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::layout::tests::record;

    #[test]
    fn what_python_cannot_fill_is_refused_with_the_place() {
        for (text, expected) in [
            ("plain", "no field stands in it; expected at least one such as %(message)s"),
            ("%s", "`%s` names no field"),
            ("%(message", "`%(message` names no field"),
            ("%(message)", "`%(message)` ends without a type, such as s"),
            ("%(colour)s", "`%(colour)` is no field of a log record"),
            ("%(message)d", "`%(message)d`: the field cannot be written so; use %(message)s"),
            ("%(created)x", "`%(created)x`: the field cannot be written so; use %(created)s"),
            ("%(lineno)y", "`%(lineno)` has no type that is known; expected s, or d or f for a number"),
            ("%(message)*s", "`%(message)` has no type that is known; expected s, or d or f for a number"),
            ("%(message)99999s", "99999 is too wide (at most 1000)"),
        ] {
            assert_eq!(Format::parse(text), Err(expected.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_format_is_read_or_refused(text in "(%\\((message|msecs|lineno|x)\\)[-#0 +.0-9]{0,5}[a-z]|[%(){}a-z]{0,4}|\\PC{0,3}){0,4}", date in "(%?\\PC){0,8}") {
            let _ = names(&text);
            if let Ok(format) = Format::parse(&text) {
                format.fill(&record(), Some(&date));
            }
        }
    }
}
