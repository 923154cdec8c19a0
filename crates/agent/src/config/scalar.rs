//! What a plain YAML scalar means: the readings of YAML 1.1 as PyYAML has them, which Patroni's users rely on
//! (`mode: off` is a boolean, `0755` is octal, `1:30` is ninety).
//!
//! Not here: quoted scalars (always text) and the structure around scalars (`yaml`). Two readings have no place in
//! JSON and stay text: dates, and numbers that are infinite, not a number, or wider than 64 bits.

use serde_json::{Number, Value};

/// Reads a plain (unquoted) scalar.
pub fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Value::Bool(false),
        _ => {}
    }
    integer(text)
        .and_then(|value| {
            i64::try_from(value).map(Number::from).or_else(|_| u64::try_from(value).map(Number::from)).ok()
        })
        .or_else(|| float(text).and_then(Number::from_f64))
        .map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

/// Decimal, `0b` binary, leading-zero octal, `0x` hexadecimal, or base 60 with colons; underscores between digits.
fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = signed(text);
    let magnitude = if let Some(binary) = digits.strip_prefix("0b") {
        radix(binary, 2)?
    } else if let Some(hexadecimal) = digits.strip_prefix("0x") {
        radix(hexadecimal, 16)?
    } else if let Some(octal) = digits.strip_prefix('0').filter(|rest| !rest.is_empty()) {
        // A zero alone after the prefix, as in `0_`, is zero; `radix` wants at least one digit.
        radix(&format!("0{octal}"), 8)?
    } else if digits.contains(':') {
        base_60(digits).filter(|_| !digits.starts_with(['0', '_']))?
    } else {
        radix(digits, 10).filter(|_| !digits.starts_with('_'))?
    };
    Some(sign * magnitude)
}

fn signed(text: &str) -> (i128, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// Digits and underscores, at least one digit.
fn radix(text: &str, radix: u32) -> Option<i128> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    // `from_str_radix` would take a second sign.
    digits.chars().all(|c| c.is_digit(radix)).then(|| i128::from_str_radix(&digits, radix).ok()).flatten()
}

/// `190:20:30`: each part after the first is one or two digits below 60.
fn base_60(text: &str) -> Option<i128> {
    let mut parts = text.split(':');
    let first = radix(parts.next()?, 10)?;
    parts.try_fold(first, |total, part| total.checked_mul(60)?.checked_add(sixtieth(part)?))
}

fn sixtieth(part: &str) -> Option<i128> {
    let valid = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| part.parse().ok()).flatten().filter(|value| *value < 60)
}

/// A number with a dot: `1.5`, `.5`, `1.0e+3` (the exponent must have a sign), or base 60 before the dot.
fn float(text: &str) -> Option<f64> {
    let (sign, body) = signed(text);
    let (whole, fraction) = body.split_once('.')?;
    let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if whole.contains(':') {
        let valid = whole.starts_with(|c: char| c.is_ascii_digit()) && is_digits(fraction);
        let whole = valid.then(|| base_60(whole)).flatten()?;
        return format!("{}{whole}.{}", if sign < 0 { "-" } else { "" }, plain(fraction)).parse().ok();
    }
    let (digits, exponent) = match fraction.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, Some(exponent)),
        None => (fraction, None),
    };
    let well_formed = if whole.is_empty() {
        // Without digits before the dot PyYAML takes no sign.
        body.len() == text.len() && digits.starts_with(|c: char| c.is_ascii_digit())
    } else {
        whole.starts_with(|c: char| c.is_ascii_digit())
    };
    let exponent_valid = exponent.is_none_or(|exponent| {
        exponent
            .strip_prefix(['+', '-'])
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    });
    if !well_formed || !exponent_valid || !is_digits(whole) || !is_digits(digits) {
        return None;
    }
    plain(text).parse().ok()
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| *c != '_').collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Each reading was taken from PyYAML 6.0.3 (`yaml.safe_load("k: " + text)["k"]`).
    #[test]
    fn plain_scalars_read_as_pyyaml_reads_them() {
        let text_of = |text: &str| json!(text);
        let cases = [
            ("on", json!(true)),
            ("off", json!(false)),
            ("yes", json!(true)),
            ("no", json!(false)),
            ("y", text_of("y")),
            ("n", text_of("n")),
            ("On", json!(true)),
            ("OFF", json!(false)),
            ("True", json!(true)),
            ("FALSE", json!(false)),
            ("tRue", text_of("tRue")),
            ("null", json!(null)),
            ("~", json!(null)),
            ("", json!(null)),
            ("none", text_of("none")),
            ("0755", json!(493)),
            ("-017", json!(-15)),
            ("08", text_of("08")),
            ("0o17", text_of("0o17")),
            ("0b101", json!(5)),
            ("-0b11", json!(-3)),
            ("0x1F", json!(31)),
            ("-0x1f", json!(-31)),
            ("0x_1", json!(1)),
            ("0x", text_of("0x")),
            ("1_000", json!(1000)),
            ("1__2", json!(12)),
            ("_1", text_of("_1")),
            ("0_", json!(0)),
            ("00", json!(0)),
            ("0", json!(0)),
            ("-0", json!(0)),
            ("+12", json!(12)),
            ("1:30", json!(90)),
            ("-1:30", json!(-90)),
            ("10:59:59", json!(39599)),
            ("1:60", text_of("1:60")),
            ("0:30", text_of("0:30")),
            ("1:30.5", json!(90.5)),
            ("190:20:30.15", json!(685230.15)),
            ("1e3", text_of("1e3")),
            ("12e+3", text_of("12e+3")),
            ("1.0e3", text_of("1.0e3")),
            ("1.0e+3", json!(1000.0)),
            ("1.e+3", json!(1000.0)),
            ("1.", json!(1.0)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("-.5", text_of("-.5")),
            ("+.5", text_of("+.5")),
            (".", text_of(".")),
            ("._", text_of("._")),
            ("1_0.2_5", json!(10.25)),
            ("10.0.0.1", text_of("10.0.0.1")),
            ("127.0.0.1:5432", text_of("127.0.0.1:5432")),
            ("zoo:2181", text_of("zoo:2181")),
            ("1.5GB", text_of("1.5GB")),
            ("30min", text_of("30min")),
            ("18446744073709551615", json!(u64::MAX)),
            ("--", text_of("--")),
            ("1-2", text_of("1-2")),
            ("+x", text_of("+x")),
        ];
        for (text, expected) in cases {
            assert_eq!(resolve(text), expected, "{text:?}");
        }
    }

    /// PyYAML has a date, an infinity and unbounded integers; JSON has none of them.
    #[test]
    fn what_json_cannot_hold_stays_text() {
        for text in ["2026-11-23", ".inf", "-.Inf", ".nan", "18446744073709551616", "-9223372036854775809", "0b_"] {
            assert_eq!(resolve(text), Value::from(text));
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-+0-9a-fxob_.:eE]{0,24}|.{0,24}") {
            resolve(&text);
        }
    }
}
