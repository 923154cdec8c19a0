//! The query string of a request, and the numbers with units in it.
//!
//! Read as Patroni's users are used to: the first of several equal keys counts, a key without a value does not.

/// How many parameters are read; the interface has five and some tags, the rest of a longer list is ignored.
const MAX_PARAMETERS: usize = 64;

/// The decoded parameters in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        let decoded = pairs.map(|(key, value)| (decode(key), decode(value)));
        Query(decoded.filter(|(_, value)| !value.is_empty()).take(MAX_PARAMETERS).collect())
    }

    pub fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// `tag_NAME=VALUE` as `(NAME, VALUE)`, the first of each name.
    pub fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        let first =
            |(at, (key, _)): &(usize, &(String, String))| self.0.iter().position(|(name, _)| name == key) == Some(*at);
        self.0
            .iter()
            .enumerate()
            .filter(first)
            .filter_map(|(_, (key, value))| Some((key.strip_prefix("tag_")?, &**value)))
    }
}

/// Percent signs and pluses; what is not UTF-8 becomes the replacement character, a broken escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 2;
            }
            (b'+', ..) => decoded.push(b' '),
            (byte, ..) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A number of bytes: an integer (decimal, `0x` or leading `0` as in C) or a decimal fraction, and a unit of
/// PostgreSQL's. `None` for what is not one, which means no limit to the health checks.
pub fn parse_bytes(text: &str) -> Option<i64> {
    let units = [("", 0), ("B", 0), ("kB", 10), ("MB", 20), ("GB", 30), ("TB", 40)];
    parse_quantity(text, |unit| units.iter().find(|(name, _)| *name == unit).map(|(_, shift)| (1_u64 << shift) as f64))
}

/// A number of seconds, with a unit of PostgreSQL's.
pub fn parse_seconds(text: &str) -> Option<i64> {
    let units = [("", 1.0), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3_600.0), ("d", 86_400.0)];
    parse_quantity(text, |unit| units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor))
}

fn parse_quantity(text: &str, factor: impl Fn(&str) -> Option<f64>) -> Option<i64> {
    let text = text.trim();
    let unsigned = text.trim_start_matches(['-', '+']);
    let sign_length = text.len() - unsigned.len();
    if sign_length > 1 {
        return None;
    }
    let (number, unit) = split_number(unsigned)?;
    let signed = if text.starts_with('-') { -number } else { number };
    let value = signed * factor(unit.trim_start())?;
    // Beyond 2^62 the float would not say which integer is meant; no log is that long.
    (value.abs() < 4.6e18).then(|| value.round() as i64)
}

/// The number at the start of `text`, and what follows it.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let run = |text: &str, radix: u32| text.find(|c: char| !c.is_digit(radix)).unwrap_or(text.len());
    if let Some(rest) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let end = run(rest, 16);
        return u64::from_str_radix(&rest[..end], 16).ok().map(|value| (value as f64, &rest[end..]));
    }
    let end = run(text, 10);
    let fraction = text[end..].strip_prefix('.').map_or(0, |rest| 1 + run(rest, 10));
    let end_of_number = end + fraction;
    if text.starts_with('0') && end > 1 && fraction == 0 && run(text, 8) == end {
        return u64::from_str_radix(&text[..end], 8).ok().map(|value| (value as f64, &text[end..]));
    }
    text[..end_of_number].parse::<f64>().ok().map(|value| (value, &text[end_of_number..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_read_as_postgresql_writes_them() {
        let cases = [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("16kB", Some(16 << 10)),
            (" 1 MB ", Some(1 << 20)),
            ("1.5GB", Some(3 << 29)),
            ("2TB", Some(2 << 40)),
            ("0x10", Some(16)),
            ("010", Some(8)),
            ("-1", Some(-1)),
            ("10kb", None),
            ("ten", None),
            ("MB", None),
            ("", None),
            ("--1", None),
            ("99999999999999999999TB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn seconds_have_units_too() {
        for (text, expected) in
            [("5", Some(5)), ("5 s", Some(5)), ("2min", Some(120)), ("1500ms", Some(2)), ("x", None)]
        {
            assert_eq!(parse_seconds(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_first_of_equal_keys_counts_and_an_empty_value_does_not() {
        let query = Query::parse("lag=&lag=1%4dB&lag=2&tag_key=a+b&tag_key=c&tag_other=%zz&broken");
        assert_eq!(query.first("lag"), Some("1MB"));
        assert_eq!(query.first("broken"), None);
        assert_eq!(query.tags().collect::<Vec<_>>(), [("key", "a b"), ("other", "%zz")]);
    }

    proptest! {
        #[test]
        fn no_query_panics(text in "[ -~]*|.*") {
            let query = Query::parse(&text);
            let _ = (query.first("lag"), query.tags().count());
        }

        #[test]
        fn no_quantity_panics(text in "[-+]*[0-9a-fxX.]*[ kMGTBsmind]*|.*") {
            let _ = (parse_bytes(&text), parse_seconds(&text));
        }
    }
}
