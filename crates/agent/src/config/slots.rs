//! The replication slots of the dynamic configuration: `slots` (and its older names) and `ignore_slots`.
//!
//! An entry that cannot be read is a warning, and a slot of its name is left alone: a slip of the keyboard must not drop a slot that
//! somebody reads from.

use std::collections::BTreeMap;

use pgherd_ha::{SlotFilter, SlotKind};
use serde_json::{Map, Value};

use super::place::{Problem, Problems};
use super::tree::Tree;

/// The names of the option; the first of them that is not empty counts.
const PERMANENT: [&str; 3] = ["permanent_replication_slots", "permanent_slots", "slots"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Those that this kind of cluster is to have.
    pub permanent: BTreeMap<String, SlotKind>,
    /// Those that are never touched.
    pub ignored: Vec<SlotFilter>,
}

impl Slots {
    /// `follows`: this cluster follows another one. Such a cluster has physical slots only.
    pub fn read(tree: &Tree<'_>, follows: bool, problems: &mut Problems) -> Slots {
        let mut slots = Slots { ignored: filters(tree, problems), ..Slots::default() };
        let maps = PERMANENT.iter().map(|key| (key, tree.map(key)));
        let Some((key, entries)) = maps.into_iter().find(|(_, entries)| !entries.is_empty()) else { return slots };
        for (name, entry) in entries {
            match read_entry(&name, &entry) {
                Ok((kind, of)) => {
                    let has = of.is_none_or(|of| of == follows) && !(follows && kind != SlotKind::Physical);
                    if has {
                        slots.permanent.insert(name, kind);
                    }
                }
                Err(why) => {
                    let text = format!("{why}; it is not made, and a slot of this name is left as it is");
                    problems.push(Problem::warning(format!("{key}.{name}"), text));
                    slots.ignored.push(SlotFilter { name: Some(name), ..SlotFilter::default() });
                }
            }
        }
        slots
    }
}

/// What it is, and whether only for clusters that follow another (`true`), or that do not.
fn read_entry(name: &str, entry: &Value) -> Result<(SlotKind, Option<bool>), String> {
    let valid_name = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !valid_name {
        return Err("no slot can have this name (1 to 63 of a-z, 0-9 and _)".into());
    }
    let entry = match entry {
        Value::Object(entry) => entry,
        Value::Null | Value::Bool(false) => return Ok((SlotKind::Physical, None)),
        Value::Number(number) if number.as_f64() == Some(0.0) => return Ok((SlotKind::Physical, None)),
        Value::String(text) if text.is_empty() => return Ok((SlotKind::Physical, None)),
        other => return Err(format!("expected a mapping with `type`, or 0 for a physical slot, found {other}")),
    };
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let of = match text("cluster_type").as_deref() {
        None => None,
        Some("primary") => Some(false),
        Some("standby") => Some(true),
        Some(other) => return Err(format!("cluster_type: expected primary or standby, found {other}")),
    };
    let (database, plugin) = (text("database"), text("plugin"));
    let kind = match (text("type").as_deref(), database, plugin) {
        (Some("physical"), ..) => SlotKind::Physical,
        (Some("logical") | None, Some(database), Some(plugin)) => SlotKind::Logical { database, plugin },
        (None, ..) => SlotKind::Physical,
        (Some("logical"), ..) => return Err("a logical slot needs `database` and `plugin`".into()),
        (Some(other), ..) => return Err(format!("type: expected physical or logical, found {other}")),
    };
    Ok((kind, of))
}

fn filters(tree: &Tree<'_>, problems: &mut Problems) -> Vec<SlotFilter> {
    let entries = tree.written("ignore_slots").and_then(Value::as_array).into_iter().flatten().enumerate();
    let mut filters = Vec::new();
    for (index, entry) in entries {
        match entry.as_object() {
            Some(entry) => filters.push(filter(entry)),
            None => {
                let text = format!("expected a mapping of name, type, database, plugin, found {entry}; it is left out");
                problems.push(Problem::warning(format!("ignore_slots.{index}"), text));
            }
        }
    }
    filters
}

/// What is not given, or empty, matches every slot.
fn filter(entry: &Map<String, Value>) -> SlotFilter {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    SlotFilter { name: text("name"), slot_type: text("type"), database: text("database"), plugin: text("plugin") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value, follows: bool) -> (Slots, String) {
        let mut problems = Problems::default();
        let slots = Slots::read(&Tree(value), follows, &mut problems);
        (slots, problems.to_string())
    }

    /// Names with `/` and plugin where it is logical.
    fn brief(slots: &Slots) -> String {
        let of = |(name, kind): (&String, &SlotKind)| match kind {
            SlotKind::Physical => name.clone(),
            SlotKind::Logical { database, plugin } => format!("{name}/{database}/{plugin}"),
        };
        slots.permanent.iter().map(of).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn permanent_slots() {
        let logical = json!({"type": "logical", "database": "d", "plugin": "p", "lsn": 5});
        for (value, expected, of_follower) in [
            (json!({"slots": {"a": null, "b": 0, "c": {"type": "physical"}, "d": {}}}), "a b c d", "a b c d"),
            (json!({"slots": {"a": logical}}), "a/d/p", ""),
            (json!({"slots": {"a": {"database": "d", "plugin": "p"}}}), "a/d/p", ""),
            (json!({"slots": {"a": 0}, "permanent_slots": {"b": 0}}), "b", "b"),
            (json!({"slots": {"a": 0}, "permanent_slots": {}}), "a", "a"),
            (json!({"slots": {"a": {"cluster_type": "standby"}, "b": {"cluster_type": "primary"}}}), "b", "a"),
        ] {
            assert_eq!(
                (brief(&read(&value, false).0).as_str(), read(&value, false).1.as_str()),
                (expected, ""),
                "{value}"
            );
            assert_eq!(brief(&read(&value, true).0), of_follower, "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_and_left_alone() {
        for (name, entry, said) in [
            ("A-b", json!(0), "no slot can have this name (1 to 63 of a-z, 0-9 and _)"),
            ("a", json!({"type": "logical", "database": "d"}), "a logical slot needs `database` and `plugin`"),
            ("a", json!({"type": "logisch"}), "type: expected physical or logical, found logisch"),
            ("a", json!({"cluster_type": 1, "type": "x"}), "type: expected physical or logical, found x"),
            ("a", json!({"cluster_type": "x"}), "cluster_type: expected primary or standby, found x"),
            ("a", json!(7), "expected a mapping with `type`, or 0 for a physical slot, found 7"),
        ] {
            let (slots, problems) = read(&json!({"slots": {name: entry, "ok": 0}}), false);
            assert_eq!(brief(&slots), "ok");
            assert_eq!(slots.ignored, [SlotFilter { name: Some(name.into()), ..SlotFilter::default() }]);
            let expected = format!("slots.{name}: {said}; it is not made, and a slot of this name is left as it is");
            assert_eq!(problems, expected);
        }
    }

    #[test]
    fn ignored_slots() {
        let (slots, problems) = read(&json!({"ignore_slots": [{"name": "a", "type": "logical"}, "b", {}]}), false);
        let named = SlotFilter { name: Some("a".into()), slot_type: Some("logical".into()), ..SlotFilter::default() };
        assert_eq!(slots.ignored, [named, SlotFilter::default()]);
        assert!(problems.starts_with("ignore_slots.1: expected a mapping of name, type"), "{problems}");
    }
}
