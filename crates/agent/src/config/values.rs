//! The notations of single values: booleans, whole numbers with units, texts.
//!
//! They hold for the file, the environment and the dynamic configuration alike (contract: values of Patroni).

use serde_json::Value;

/// What a number counts when its text has a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// No unit is allowed.
    None,
    Seconds,
    Bytes,
}

impl Unit {
    /// How many of this unit one `suffix` is, as PostgreSQL spells units.
    fn factor(self, suffix: &str) -> Option<f64> {
        let table: &[(&str, f64)] = match self {
            Unit::None => &[],
            Unit::Seconds => &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3_600.0), ("d", 86_400.0)],
            Unit::Bytes => {
                &[("B", 1.0), ("kB", 1024.0), ("MB", 1_048_576.0), ("GB", 1_073_741_824.0), ("TB", 1_099_511_627_776.0)]
            }
        };
        table.iter().find(|(name, _)| *name == suffix).map(|(_, factor)| *factor)
    }
}

/// `on`, `true`, `yes`, `1` and their opposites, in any case.
pub fn boolean(value: &Value) -> Option<bool> {
    let text = text(value)?;
    let is = |words: [&str; 4]| words.iter().any(|word| word.eq_ignore_ascii_case(text.trim()));
    if is(["on", "true", "yes", "1"]) {
        Some(true)
    } else if is(["off", "false", "no", "0"]) {
        Some(false)
    } else {
        None
    }
}

/// A whole number: JSON's, or a text in decimal, `0x` hexadecimal or leading-zero octal, with a unit where `unit` allows
/// one. Fractions are cut when they are JSON's (as Python's `int()` does) and rounded when a unit scales them.
pub fn integer(value: &Value, unit: Unit) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => integer_text(text.trim(), unit),
        _ => None,
    }
}

fn integer_text(text: &str, unit: Unit) -> Option<i64> {
    let (negative, body) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let sign = |value: i64| if negative { -value } else { value };
    if let Some(hexadecimal) = body.strip_prefix("0x").or_else(|| body.strip_prefix("0X")) {
        let valid = !hexadecimal.starts_with(['+', '-']);
        return valid.then(|| i64::from_str_radix(hexadecimal, 16).ok()).flatten().map(sign);
    }
    let is_octal = body.len() > 1 && body.starts_with('0') && body.bytes().all(|b| (b'0'..=b'7').contains(&b));
    if is_octal {
        return i64::from_str_radix(body, 8).ok().map(sign);
    }
    let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
    let (number, suffix) = (&body[..end], body[end..].trim());
    if suffix.is_empty() && !number.contains('.') {
        return number.parse().ok().map(sign);
    }
    let factor = if suffix.is_empty() { Some(1.0).filter(|_| unit != Unit::None) } else { unit.factor(suffix) }?;
    let number: f64 = number.parse().ok()?;
    whole((number * factor).round_ties_even()).map(sign)
}

/// Cuts the fraction; `None` outside 64 bits.
fn whole(number: f64) -> Option<i64> {
    // The bound is 2^63, which a double holds exactly.
    (number.abs() < 9_223_372_036_854_775_808.0).then_some(number.trunc() as i64)
}

/// A scalar as text. Booleans have Python's spelling, which is what Patroni makes of an unquoted `on`.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("True".into()),
        Value::Bool(false) => Some("False".into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A value of a PostgreSQL setting as PostgreSQL writes it; null and structures are none.
pub fn setting(value: &Value) -> Option<String> {
    match value {
        Value::Bool(flag) => Some(if *flag { "on" } else { "off" }.into()),
        other => text(other),
    }
}

/// A value in a message: short, and never a whole structure.
pub fn describe(value: &Value) -> String {
    const SHOWN: usize = 60;
    match value {
        Value::Null => "nothing".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
        Value::Bool(flag) => format!("the boolean {flag}"),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.chars().count() > SHOWN => {
            format!("`{}...`", text.chars().take(SHOWN).collect::<String>())
        }
        Value::String(text) => format!("`{text}`"),
    }
}

/// The type of a value, where its text may be a password in the wrong place.
pub fn describe_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn booleans() {
        for value in [json!(true), json!("on"), json!("TRUE"), json!("Yes"), json!("1"), json!(1)] {
            assert_eq!(boolean(&value), Some(true), "{value}");
        }
        for value in [json!(false), json!("off"), json!("False"), json!("NO"), json!("0"), json!(0)] {
            assert_eq!(boolean(&value), Some(false), "{value}");
        }
        for value in [json!(null), json!("maybe"), json!(2), json!(""), json!([])] {
            assert_eq!(boolean(&value), None, "{value}");
        }
    }

    #[test]
    fn whole_numbers() {
        let cases = [
            (json!(10), Unit::None, Some(10)),
            (json!("10"), Unit::None, Some(10)),
            (json!(" -10 "), Unit::None, Some(-10)),
            (json!(10.9), Unit::None, Some(10)),
            (json!("0x1F"), Unit::None, Some(31)),
            (json!("010"), Unit::None, Some(8)),
            (json!("08"), Unit::None, Some(8)),
            (json!("10s"), Unit::None, None),
            (json!("1.5"), Unit::None, None),
            (json!("30min"), Unit::Seconds, Some(1800)),
            (json!("1500ms"), Unit::Seconds, Some(2)),
            (json!("1 h"), Unit::Seconds, Some(3600)),
            (json!("1d"), Unit::Seconds, Some(86_400)),
            (json!("1MB"), Unit::Bytes, Some(1_048_576)),
            (json!("1.5kB"), Unit::Bytes, Some(1536)),
            (json!("1mb"), Unit::Bytes, None),
            (json!("1MB"), Unit::Seconds, None),
            (json!(""), Unit::Seconds, None),
            (json!("1.2.3"), Unit::Seconds, None),
            (json!(1e300), Unit::Bytes, None),
            (json!("999999999999TB"), Unit::Bytes, None),
            (json!(true), Unit::None, None),
            (json!(null), Unit::None, None),
        ];
        for (value, unit, expected) in cases {
            assert_eq!(integer(&value, unit), expected, "{value} in {unit:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_never_panic(text in "[-+0-9a-fxX. msGB]{0,24}|.{0,24}") {
            for unit in [Unit::None, Unit::Seconds, Unit::Bytes] {
                integer(&Value::String(text.clone()), unit);
            }
        }
    }
}
