//! What of two answers must be the same: the status, the headers that tools read, and the body, but for what stands in [`MASKS`] with the reason.

use serde_json::Value;

use super::http::Answer;
use super::masks::MASKS;

/// What may differ at one place of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// The value; its type must be the same.
    Value,
    /// The value, which may also be `null`.
    Nullable,
    /// How the moment is written; it must be the same.
    Moment,
    /// The order of the keys.
    Order,
    /// Only pgherd says it.
    Ours,
    /// One of them may say it while the other does not.
    Either,
}

/// Headers that are compared. Dates, lengths and how a connection is kept are matters of the HTTP library.
const HEADERS: [&str; 4] = ["content-type", "www-authenticate", "server", "x-parity"];

/// Everything in which the second differs from the first, a line each.
/// `place`: where the JSON of this question is, the empty text if it is a status.
pub fn differences(place: &str, theirs: &Answer, ours: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    if (theirs.status, &theirs.reason) != (ours.status, &ours.reason) {
        found.push(format!("status: {} {} / {} {}", theirs.status, theirs.reason, ours.status, ours.reason));
    }
    for name in HEADERS {
        // Python's own pages, which tell of errors, are without the configured headers; ours have them.
        let page = theirs.header("content-type") == Some("text/html;charset=utf-8") && name == "x-parity";
        if theirs.header(name) != ours.header(name) && !page {
            found.push(format!("{name}: {:?} / {:?}", theirs.header(name), ours.header(name)));
        }
    }
    if theirs.header("lsn").is_some() != ours.header("lsn").is_some() {
        found.push(format!("lsn: {:?} / {:?}", theirs.header("lsn"), ours.header("lsn")));
    }
    match theirs.header("content-type") {
        Some("application/json") => match (serde_json::from_str(&theirs.body), serde_json::from_str(&ours.body)) {
            (Ok(theirs), Ok(ours)) => compare(place, &theirs, &ours, &mut found),
            _ => found.push(format!("JSON: {} / {}", theirs.body, ours.body)),
        },
        Some("text/plain") => compare_metrics(&theirs.body, &ours.body, &mut found),
        _ if unfolded(&theirs.body) != unfolded(&ours.body) => {
            found.push(format!("body: {:?} / {:?}", theirs.body, ours.body))
        }
        _ => {}
    }
    found
}

/// Python indents its pages.
fn unfolded(page: &str) -> String {
    page.lines().map(str::trim_start).collect()
}

fn mask(place: &str) -> Option<Mask> {
    MASKS.iter().find(|(masked, ..)| *masked == place).map(|(_, mask, _)| *mask)
}

fn compare(place: &str, theirs: &Value, ours: &Value, found: &mut Vec<String>) {
    let same = match mask(place) {
        Some(Mask::Value | Mask::Either) => kind(theirs) == kind(ours),
        Some(Mask::Nullable) => kind(theirs) == kind(ours) || theirs.is_null() || ours.is_null(),
        Some(Mask::Moment) => moment(theirs).is_some() && moment(theirs) == moment(ours),
        _ => false,
    };
    if same {
        return;
    }
    match (theirs, ours) {
        (Value::Object(one), Value::Object(other)) => {
            let inside = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
            let may_lack = |key: &&String| {
                !one.contains_key(*key) && matches!(mask(&inside(key)), Some(Mask::Ours | Mask::Either))
            };
            let may_be_lacked = |key: &&String| !other.contains_key(*key) && mask(&inside(key)) == Some(Mask::Either);
            let mut expected: Vec<_> = one.keys().filter(|key| !may_be_lacked(key)).collect();
            let mut keys: Vec<_> = other.keys().filter(|key| !may_lack(key)).collect();
            if mask(place) == Some(Mask::Order) {
                expected.sort_unstable();
                keys.sort_unstable();
            }
            if expected != keys {
                found.push(format!("the keys of {place:?}: {expected:?} / {keys:?}"));
            }
            for (key, value) in one {
                if let Some(other) = other.get(key) {
                    compare(&inside(key), value, other, found);
                }
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter().zip(other).for_each(|(one, other)| compare(&format!("{place}[]"), one, other, found));
        }
        _ if theirs == ours => {}
        // Patroni's word for a primary between its promotion and the first round that sees it; one that goes down in pause keeps it.
        (Value::String(one), Value::String(other)) if place == "role" && one == "promoted" && other == "primary" => {}
        _ => found.push(format!("{place}: {theirs} / {ours}")),
    }
}

/// `null` and a number are different kinds; who reads one cannot read the other.
fn kind(value: &Value) -> std::mem::Discriminant<Value> {
    std::mem::discriminant(value)
}

fn moment(value: &Value) -> Option<jiff::Timestamp> {
    value.as_str()?.parse().ok()
}

/// Names, types, order, labels, and values. The sentences after HELP are everybody's own.
fn compare_metrics(theirs: &str, ours: &str, found: &mut Vec<String>) {
    let expected = metrics(theirs);
    let known = |name: &str| expected.iter().any(|(theirs, ..)| theirs == name);
    let got: Vec<_> =
        metrics(ours).into_iter().filter(|(name, ..)| known(name) || mask(name) != Some(Mask::Ours)).collect();
    let names =
        |metrics: &[(String, String, String)]| metrics.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>();
    if names(&expected) != names(&got) {
        found.push(format!("metrics: {:?} / {:?}", names(&expected), names(&got)));
        return;
    }
    for ((name, kind, value), (_, our_kind, our_value)) in expected.iter().zip(&got) {
        if kind != our_kind || (value != our_value && mask(name) != Some(Mask::Value)) {
            found.push(format!("{name}: {kind} {value} / {our_kind} {our_value}"));
        }
    }
}

/// Name, type and the rest of the line: labels and value.
fn metrics(page: &str) -> Vec<(String, String, String)> {
    let mut kind = "";
    let mut metrics = Vec::new();
    for line in page.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            kind = typed;
        } else if !line.starts_with('#') {
            let (name, rest) = line.split_once('{').unwrap_or((line, ""));
            metrics.push((name.to_owned(), kind.to_owned(), rest.to_owned()));
        }
    }
    metrics
}
