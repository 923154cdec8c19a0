//! Laying one configuration over another: files and environment over each other, and a PATCH over the stored one.
//!
//! Pure. Both leave a value alone that reads the same as text (`"20"` over `20`); in a PATCH it does not count as a change.

use serde_json::{Map, Value};

/// Lays `over` over `base`: mappings merge, `null` removes, a scalar that reads the same as text leaves the former, everything else
/// replaces.
pub fn overlay(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (_, Value::Null) => {
                base.shift_remove(&key);
            }
            (Some(Value::Object(old)), Value::Object(new)) => overlay(old, new),
            (Some(old), new) if same_text(old, &new) => {}
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Applies a PATCH of the dynamic configuration; says whether anything changed. New keys come last.
pub fn patch(config: &mut Map<String, Value>, change: &Map<String, Value>) -> bool {
    let mut changed = false;
    for (key, value) in change {
        changed |= match (config.get_mut(key), value) {
            (found, Value::Null) => found.is_some() && config.shift_remove(key).is_some(),
            (Some(Value::Object(old)), Value::Object(new)) => patch(old, new),
            (Some(old), new) if same_text(old, new) => false,
            (_, new) => {
                config.insert(key.clone(), new.clone());
                true
            }
        };
    }
    changed
}

/// Equal as values, or scalars that Python would print alike.
fn same_text(left: &Value, right: &Value) -> bool {
    let text = super::values::text;
    left == right || text(left).is_some_and(|left| text(right) == Some(left))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("a mapping")
    }

    #[test]
    fn patches() {
        // (stored, change, result, changed)
        let cases = [
            (json!({}), json!({"ttl": 20}), json!({"ttl": 20}), true),
            (json!({"ttl": 20}), json!({"ttl": "20"}), json!({"ttl": 20}), false),
            (json!({"a": true}), json!({"a": "True"}), json!({"a": true}), false),
            (json!({"a": true}), json!({"a": "true"}), json!({"a": "true"}), true),
            (json!({"ttl": 20}), json!({"ttl": null}), json!({}), true),
            (json!({}), json!({"ttl": null}), json!({}), false),
            (json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null, "d": 3}}), json!({"a": {"c": 2, "d": 3}}), true),
            (json!({"a": {"b": 1}}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}}), false),
            (json!({"a": {"b": 1}}), json!({"a": 5}), json!({"a": 5}), true),
            (json!({"a": 5}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}}), true),
            (json!({"a": [1]}), json!({"a": [1]}), json!({"a": [1]}), false),
            (json!({"a": [1]}), json!({"a": [2]}), json!({"a": [2]}), true),
        ];
        for (stored, change, expected, expected_change) in cases {
            let mut config = map(stored.clone());
            let changed = patch(&mut config, &map(change.clone()));
            assert_eq!((Value::Object(config), changed), (expected, expected_change), "{stored} with {change}");
        }
    }

    #[test]
    fn a_patch_keeps_the_order_of_keys() {
        let mut config = map(json!({"z": 1, "a": 2, "m": 3}));
        patch(&mut config, &map(json!({"b": 1, "z": null, "a": 3})));
        assert_eq!(config.keys().collect::<Vec<_>>(), ["a", "m", "b"]);
    }

    #[test]
    fn overlays() {
        let mut base = map(json!({"a": {"b": 1, "c": 2}, "d": [1], "e": 1}));
        overlay(&mut base, map(json!({"a": {"c": null, "x": 1}, "d": [2], "e": null, "f": "20"})));
        assert_eq!(Value::Object(base), json!({"a": {"b": 1, "x": 1}, "d": [2], "f": "20"}));
    }
}
