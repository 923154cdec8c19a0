//! The values of a query's answer as Patroni's console prints them, which are Python's: `True`, `None`, `1e+16`.
//!
//! Pure. What has no common form in Python (arrays, JSON, bytes) is written as PostgreSQL writes it.

use serde_json::Value;
use tokio_postgres::types::Type;

use super::yaml_scalar;

/// Decimal digits that a double keeps, whatever they are.
const EXACT_DIGITS: usize = 15;

/// For `pretty` and `tsv`. `kind` is unknown where there were several statements.
pub fn as_text(text: Option<&str>, kind: Option<&Type>) -> String {
    let Some(text) = text else { return "None".to_owned() };
    let written = match kind {
        Some(&Type::BOOL) => match text {
            "t" => "True",
            _ => "False",
        },
        Some(&Type::FLOAT4 | &Type::FLOAT8) => return float(text),
        Some(&Type::TIMESTAMP | &Type::TIMESTAMPTZ) => return moment(text),
        _ => text,
    };
    written.to_owned()
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
        _ => None,
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
    let Some((date, time)) = text.split_once(' ').filter(|_| is_iso) else { return text.to_owned() };
    let (clock, offset) = time.split_at(time.find(['+', '-']).unwrap_or(time.len()));
    let fraction = clock.split_once('.').map_or(String::new(), |(_, fraction)| format!(".{fraction:0<6}"));
    let clock = clock.split('.').next().unwrap_or_default();
    let minutes = if offset.len() == 3 { ":00" } else { "" };
    format!("{date} {clock}{fraction}{offset}{minutes}")
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
            ("{1,2}", Type::INT4_ARRAY, "{1,2}", json!("{1,2}")),
            ("{\"a\": 1}", Type::JSONB, "{\"a\": 1}", json!({"a": 1})),
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
}
