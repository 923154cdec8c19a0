//! The values of a query's answer as Patroni's console prints them, which are Python's: `True`, `None`, `1e+16`, `[1, 'a']`.
//!
//! Pure. What Python has no word for (points, say), and lists of what is not here, are written as PostgreSQL writes them. In `json` and `yaml`, where the
//! real console breaks off at most of these, they are that format's own where it has them, else texts.

use pgherd_agent::python_text::representation;
use serde_json::Value;
use tokio_postgres::types::{Kind, Type};

use super::yaml_scalar;

/// Decimal digits that a double keeps, whatever they are.
const EXACT_DIGITS: usize = 15;

/// A list of lists of lists: PostgreSQL's own limit.
const DEEPEST: usize = 6;

/// For `pretty` and `tsv`. `kind` is unknown where there were several statements.
pub fn as_text(text: Option<&str>, kind: Option<&Type>) -> String {
    let Some(text) = text else { return "None".to_owned() };
    let Some(kind) = kind else { return text.to_owned() };
    let written = match *kind {
        Type::BOOL => Some(if text == "t" { "True" } else { "False" }.to_owned()),
        Type::FLOAT4 | Type::FLOAT8 => Some(float(text)),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => Some(moment(text)),
        Type::TIME | Type::TIMETZ => Some(clock(text)),
        Type::INTERVAL => interval(text),
        Type::BYTEA => bytes(text),
        Type::JSON | Type::JSONB => json(text),
        Type::INT4_RANGE | Type::INT8_RANGE | Type::NUM_RANGE | Type::DATE_RANGE => range(text),
        _ => match kind.kind() {
            Kind::Array(inner) => list(text).and_then(|list| list.shown(inner)),
            _ => None,
        },
    };
    written.unwrap_or_else(|| text.to_owned())
}

/// For `json` and `yaml`.
pub fn as_value(text: Option<&str>, kind: Option<&Type>) -> Value {
    let Some(text) = text else { return Value::Null };
    let read = match kind {
        Some(&Type::BOOL) => Some((text == "t").into()),
        Some(&Type::INT2 | &Type::INT4 | &Type::INT8 | &Type::OID) => text.parse::<i64>().ok().map(Value::from),
        Some(&Type::FLOAT4 | &Type::FLOAT8) => number(text),
        // With more digits than a JSON number keeps, it stays text.
        Some(&Type::NUMERIC) if text.bytes().filter(u8::is_ascii_digit).count() <= EXACT_DIGITS => number(text),
        Some(&Type::JSON | &Type::JSONB) => serde_json::from_str(text).ok(),
        Some(kind) => match kind.kind() {
            Kind::Array(inner) => list(text).map(|list| list.value(inner)),
            _ => None,
        },
        None => None,
    };
    read.unwrap_or_else(|| as_text(Some(text), kind).into())
}

fn number(text: &str) -> Option<Value> {
    text.parse().ok().and_then(serde_json::Number::from_f64).map(Value::Number)
}

fn float(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() => yaml_scalar::python_float(float),
        Ok(float) if float.is_nan() => "nan".to_owned(),
        Ok(float) => if float > 0.0 { "inf" } else { "-inf" }.to_owned(),
        Err(_) => text.to_owned(),
    }
}

/// PostgreSQL leaves zeros out of fractions and minutes out of offsets; Python does not.
fn moment(text: &str) -> String {
    let is_iso =
        text.get(..11).is_some_and(|date| date.ends_with(' ') && date.starts_with(|c: char| c.is_ascii_digit()));
    match text.split_once(' ').filter(|_| is_iso) {
        Some((date, time)) => format!("{date} {}", clock(time)),
        None => text.to_owned(),
    }
}

/// `01:02:03.5+02`
fn clock(text: &str) -> String {
    let (clock, offset) = text.split_at(text.find(['+', '-']).unwrap_or(text.len()));
    let fraction = clock.split_once('.').map_or(String::new(), |(_, fraction)| format!(".{fraction:0<6}"));
    let clock = clock.split('.').next().unwrap_or_default();
    let minutes = if offset.len() == 3 { ":00" } else { "" };
    format!("{clock}{fraction}{offset}{minutes}")
}

/// A `timedelta`: days and the part of a day that is over them. A month has 30 of them and a year 365, as the driver has it.
fn interval(text: &str) -> Option<String> {
    const DAY: i128 = 86_400_000_000;
    let mut microseconds: i128 = 0;
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        if word.contains(':') {
            microseconds += clock_microseconds(word)?;
            continue;
        }
        let number: i128 = word.parse().ok()?;
        let days = match words.next()? {
            "year" | "years" => 365,
            "mon" | "mons" => 30,
            "day" | "days" => 1,
            _ => return None,
        };
        microseconds += number.checked_mul(days)?.checked_mul(DAY)?;
    }
    let (days, rest) = (microseconds.div_euclid(DAY), microseconds.rem_euclid(DAY));
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let mut shown = match days {
        0 => String::new(),
        -1 | 1 => format!("{days} day, "),
        _ => format!("{days} days, "),
    };
    shown += &format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction > 0 {
        shown += &format!(".{fraction:06}");
    }
    Some(shown)
}

/// `-01:00:03.5`
fn clock_microseconds(text: &str) -> Option<i128> {
    let (sign, clock) = match text.strip_prefix('-') {
        Some(clock) => (-1, clock),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = clock.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let number = |text: &str| text.parse::<i128>().ok();
    let whole = number(hours)?.checked_mul(3600)? + number(minutes)? * 60 + number(seconds)?;
    let fraction = number(&format!("{fraction:0<6}"))?;
    Some(sign * (whole * 1_000_000 + fraction))
}

/// `\x0141` is `b'\x01A'`.
fn bytes(text: &str) -> Option<String> {
    let hex = text.strip_prefix("\\x").filter(|hex| hex.len().is_multiple_of(2))?.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = hex.chunks(2).map(byte).collect::<Option<_>>()?;
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut shown = format!("b{quote}");
    for byte in bytes {
        match byte {
            b'\\' => shown += "\\\\",
            b'\t' => shown += "\\t",
            b'\n' => shown += "\\n",
            b'\r' => shown += "\\r",
            byte if char::from(byte) == quote => shown += &format!("\\{quote}"),
            b' '..=b'~' => shown.push(char::from(byte)),
            byte => shown += &format!("\\x{byte:02x}"),
        }
    }
    shown.push(quote);
    Some(shown)
}

/// A text stands for itself, everything else is shown as Python shows it.
fn json(text: &str) -> Option<String> {
    match serde_json::from_str(text).ok()? {
        Value::String(text) => Some(text),
        value => Some(representation(&value)),
    }
}

/// `[1,)` is `[1, None)`.
fn range(text: &str) -> Option<String> {
    let inner = text.get(1..text.len().checked_sub(1)?)?;
    let (lower, upper) = inner.split_once(',')?;
    let bound = |text: &str| if text.is_empty() { "None".to_owned() } else { text.to_owned() };
    Some(format!("{}{}, {}{}", &text[..1], bound(lower), bound(upper), &text[text.len() - 1..]))
}

/// An array as PostgreSQL writes it.
enum List {
    Null,
    One(String),
    Many(Vec<List>),
}

impl List {
    /// `None`: Python has another word for these, which is not here.
    fn shown(&self, kind: &Type) -> Option<String> {
        match self {
            List::Null => Some("None".to_owned()),
            List::Many(items) => {
                let items: Vec<String> = items.iter().map(|item| item.shown(kind)).collect::<Option<_>>()?;
                Some(format!("[{}]", items.join(", ")))
            }
            List::One(text) => Some(match *kind {
                Type::BOOL | Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::FLOAT4 | Type::FLOAT8 => {
                    as_text(Some(text), Some(kind))
                }
                Type::NUMERIC => format!("Decimal('{text}')"),
                Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::CHAR => {
                    representation(&Value::String(text.clone()))
                }
                Type::JSON | Type::JSONB => representation(&serde_json::from_str(text).ok()?),
                _ => return None,
            }),
        }
    }

    fn value(&self, kind: &Type) -> Value {
        match self {
            List::Null => Value::Null,
            List::One(text) => as_value(Some(text), Some(kind)),
            List::Many(items) => items.iter().map(|item| item.value(kind)).collect(),
        }
    }
}

/// `None`: it is none that we can read; one whose indexes do not begin at 1 says so before it (`[2:3]={1,2}`).
fn list(text: &str) -> Option<List> {
    let text = if text.starts_with('[') { text.split_once('=')?.1 } else { text };
    let mut rest = text.chars().peekable();
    let list = items(&mut rest, DEEPEST)?;
    rest.next().is_none().then_some(list)
}

fn items(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, deep: usize) -> Option<List> {
    let deep = deep.checked_sub(1)?;
    rest.next().filter(|c| *c == '{')?;
    let mut found = Vec::new();
    if rest.next_if_eq(&'}').is_some() {
        return Some(List::Many(found));
    }
    loop {
        found.push(match rest.peek()? {
            '{' => items(rest, deep)?,
            '"' => List::One(quoted(rest)?),
            _ => bare(rest)?,
        });
        match rest.next()? {
            ',' => {}
            '}' => return Some(List::Many(found)),
            _ => return None,
        }
    }
}

fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    rest.next();
    let mut text = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            '\\' => text.push(rest.next()?),
            other => text.push(other),
        }
    }
}

fn bare(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<List> {
    let mut text = String::new();
    while let Some(next) = rest.next_if(|c| !matches!(c, ',' | '}')) {
        text.push(next);
    }
    Some(if text == "NULL" { List::Null } else { List::One(text) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The texts are what patronictl printed for such columns.
    #[test]
    fn values_read_as_python_prints_them() {
        for (text, kind, expected, value) in [
            ("t", Type::BOOL, "True", json!(true)),
            ("f", Type::BOOL, "False", json!(false)),
            ("5", Type::INT4, "5", json!(5)),
            ("1", Type::FLOAT8, "1.0", json!(1.0)),
            ("1e+16", Type::FLOAT8, "1e+16", json!(1e16)),
            ("0.1", Type::FLOAT4, "0.1", json!(0.1)),
            ("Infinity", Type::FLOAT8, "inf", json!("inf")),
            ("NaN", Type::FLOAT8, "nan", json!("nan")),
            ("1.50", Type::NUMERIC, "1.50", json!(1.5)),
            ("1234567890.123456", Type::NUMERIC, "1234567890.123456", json!("1234567890.123456")),
            ("x", Type::TEXT, "x", json!("x")),
            ("{1,2,NULL}", Type::INT4_ARRAY, "[1, 2, None]", json!([1, 2, null])),
            ("{}", Type::INT4_ARRAY, "[]", json!([])),
            ("[2:3]={1,2}", Type::INT4_ARRAY, "[1, 2]", json!([1, 2])),
            ("{{1,2},{3,4}}", Type::INT8_ARRAY, "[[1, 2], [3, 4]]", json!([[1, 2], [3, 4]])),
            ("{t,f}", Type::BOOL_ARRAY, "[True, False]", json!([true, false])),
            ("{1.5,1e+20}", Type::FLOAT8_ARRAY, "[1.5, 1e+20]", json!([1.5, 1e20])),
            ("{1.50}", Type::NUMERIC_ARRAY, "[Decimal('1.50')]", json!([1.5])),
            (
                r#"{"x y","q\"q",it's,NULL,"NULL"}"#,
                Type::TEXT_ARRAY,
                r#"['x y', 'q"q', "it's", None, 'NULL']"#,
                json!(["x y", "q\"q", "it's", null, "NULL"]),
            ),
            ("{2026-01-02}", Type::DATE_ARRAY, "{2026-01-02}", json!(["2026-01-02"])),
            ("{1,2", Type::INT4_ARRAY, "{1,2", json!("{1,2")),
            (
                r#"{"a": 1, "b": [true, null, "x"], "c": 1.0}"#,
                Type::JSONB,
                "{'a': 1, 'b': [True, None, 'x'], 'c': 1.0}",
                json!({"a": 1, "b": [true, null, "x"], "c": 1.0}),
            ),
            ("\"s\"", Type::JSONB, "s", json!("s")),
            ("1 day 02:03:04.5", Type::INTERVAL, "1 day, 2:03:04.500000", json!("1 day, 2:03:04.500000")),
            ("-01:00:00", Type::INTERVAL, "-1 day, 23:00:00", json!("-1 day, 23:00:00")),
            ("1 year 2 mons 3 days", Type::INTERVAL, "428 days, 0:00:00", json!("428 days, 0:00:00")),
            ("-3 days +00:00:01", Type::INTERVAL, "-3 days, 0:00:01", json!("-3 days, 0:00:01")),
            ("00:00:00", Type::INTERVAL, "0:00:00", json!("0:00:00")),
            ("P1D", Type::INTERVAL, "P1D", json!("P1D")),
            ("\\x0102ff41", Type::BYTEA, "b'\\x01\\x02\\xffA'", json!("b'\\x01\\x02\\xffA'")),
            ("\\x275c0a", Type::BYTEA, "b\"'\\\\\\n\"", json!("b\"'\\\\\\n\"")),
            ("01:02:03.5", Type::TIME, "01:02:03.500000", json!("01:02:03.500000")),
            ("01:02:03+02", Type::TIMETZ, "01:02:03+02:00", json!("01:02:03+02:00")),
            ("[1,5)", Type::INT4_RANGE, "[1, 5)", json!("[1, 5)")),
            ("[1,)", Type::INT8_RANGE, "[1, None)", json!("[1, None)")),
            ("empty", Type::INT4_RANGE, "empty", json!("empty")),
            ("2026-11-25 23:23:05", Type::TIMESTAMP, "2026-11-25 23:23:05", json!("2026-11-25 23:23:05")),
            (
                "2026-11-25 23:23:05.5+00",
                Type::TIMESTAMPTZ,
                "2026-11-25 23:23:05.500000+00:00",
                json!("2026-11-25 23:23:05.500000+00:00"),
            ),
            (
                "2026-11-25 23:23:05+05:30",
                Type::TIMESTAMPTZ,
                "2026-11-25 23:23:05+05:30",
                json!("2026-11-25 23:23:05+05:30"),
            ),
            ("infinity", Type::TIMESTAMP, "infinity", json!("infinity")),
        ] {
            assert_eq!(as_text(Some(text), Some(&kind)), expected, "{text} {kind}");
            assert_eq!(as_value(Some(text), Some(&kind)), value, "{text} {kind}");
        }
        assert_eq!((as_text(None, None), as_value(None, None)), ("None".to_owned(), Value::Null));
        assert_eq!(as_text(Some("t"), None), "t");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC*|[{}\\[\\],\"\\\\NULa0-9:. -]{0,24}") {
            for kind in [Type::INT4_ARRAY, Type::TEXT_ARRAY, Type::INTERVAL, Type::BYTEA, Type::TIMETZ, Type::INT4_RANGE, Type::JSONB] {
                as_text(Some(&text), Some(&kind));
                as_value(Some(&text), Some(&kind));
            }
        }
    }
}
