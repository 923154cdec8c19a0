//! Changes of the dynamic configuration as an operator gives them: single values, and files that are laid over it or take
//! its place.
//!
//! Pure. Not here: where they come from and where they go (`edit_config`).

use anyhow::{Context as _, bail};
use pgherd_agent::config;
use serde_json::{Map, Value};

/// Sets `path.to.key=value`, the value written as YAML; `null` removes the key, and with it what is empty then.
pub fn set(config: &mut Map<String, Value>, pair: &str) -> anyhow::Result<()> {
    let (path, value) = pair.split_once('=').with_context(|| format!("Invalid parameter setting {pair}"))?;
    let value = config::yaml::read("the value", value.as_bytes()).with_context(|| format!("`{pair}` cannot be set"))?;
    let path: Vec<&str> = path.trim().split('.').collect();
    set_at(config, &path, &[], value.value);
    Ok(())
}

/// A mapping, written as YAML. `source` names it in errors.
pub fn read(source: &str, text: &str) -> anyhow::Result<Map<String, Value>> {
    match config::yaml::read(source, text.as_bytes())?.value {
        Value::Object(map) => Ok(map),
        _ => bail!("{source} is no mapping of keys to values, and a configuration is one"),
    }
}

/// `above` are the keys that lead to `config`.
fn set_at(config: &mut Map<String, Value>, path: &[&str], above: &[&str], value: Value) {
    // Parameters are not nested, and there are dots in the names of some.
    let whole = path.join(".");
    let whole = [whole.as_str()];
    let path = if above == ["postgresql", "parameters"] { &whole } else { path };
    let [key, below @ ..] = path else { return };
    if below.is_empty() {
        match value {
            Value::Null => drop(config.shift_remove(*key)),
            value => drop(config.insert((*key).to_owned(), value)),
        }
        return;
    }
    let entry = config.entry(*key).or_insert_with(|| Map::new().into());
    if !entry.is_object() {
        *entry = Map::new().into();
    }
    let Value::Object(inner) = entry else { return };
    set_at(inner, below, &[above, &[key]].concat(), value);
    if inner.is_empty() {
        config.shift_remove(*key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_set_and_removed_at_their_paths() {
        for (before, pair, after) in [
            (json!({"ttl": 30}), "ttl=20", json!({"ttl": 20})),
            (json!({"ttl": 30}), " ttl =20", json!({"ttl": 20})),
            (json!({"ttl": 30}), "ttl=null", json!({})),
            (json!({}), "ttl=null", json!({})),
            (json!({}), "pause=", json!({})),
            (json!({}), "pause=on", json!({"pause": true})),
            (json!({}), "a.b.c='1'", json!({"a": {"b": {"c": "1"}}})),
            (json!({"a": 5}), "a.b=x=y", json!({"a": {"b": "x=y"}})),
            (json!({"a": {"b": 1}}), "a.b=null", json!({})),
            (json!({"a": {"b": 1, "c": {}}}), "a.b=null", json!({"a": {"c": {}}})),
            (json!({}), "a={b: [1, 2]}", json!({"a": {"b": [1, 2]}})),
            (
                json!({"postgresql": {"parameters": {}}}),
                "postgresql.parameters.pg_stat_statements.max=5",
                json!({"postgresql": {"parameters": {"pg_stat_statements.max": 5}}}),
            ),
            (
                json!({"postgresql": {"parameters": {"a.b": 1}, "use_slots": true}}),
                "postgresql.parameters.a.b=null",
                json!({"postgresql": {"use_slots": true}}),
            ),
            (json!({}), "x.parameters.a.b=1", json!({"x": {"parameters": {"a": {"b": 1}}}})),
            (json!({}), "=1", json!({"": 1})),
        ] {
            let mut config = before.as_object().cloned().expect("a mapping");
            set(&mut config, pair).expect(pair);
            assert_eq!(Value::Object(config), after, "{before} {pair}");
        }
        for (pair, expected) in [
            ("", "Invalid parameter setting "),
            ("ttl", "Invalid parameter setting ttl"),
            ("a=[1", "`a=[1` cannot be set"),
        ] {
            assert_eq!(set(&mut Map::new(), pair).expect_err(pair).to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_mapping_is_no_configuration() {
        assert_eq!(read("it", "a: 1").expect("a mapping").len(), 1);
        for text in ["", "[1]", "x", "a: [", "null"] {
            assert!(read("it", text).is_err(), "{text}");
        }
    }
}
