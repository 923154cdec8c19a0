//! PostgreSQL 17 and later can copy logical slots to standbys by itself (`sync_replication_slots`). What it needs of other settings is set
//! here, for all nodes have one configuration; the connection string with a database that it needs is in `conninfo`.
//!
//! Tested on a real 17 in `tests/it/docker.rs`.

use std::collections::BTreeMap;

const SYNC: &str = "sync_replication_slots";
const WAITED_FOR: &str = "synchronized_standby_slots";

/// Completes the parameters of the node whose own slot, on the others, has this name.
pub fn complete(parameters: &mut BTreeMap<String, String>, own_slot: &str) {
    // Without it a standby copies nothing.
    if parameters.get(SYNC).is_some_and(|value| is_on(value)) {
        parameters.insert("hot_standby_feedback".into(), "on".into());
    }
    // A primary has no slot of its own name, and a slot that is named and not there holds up every consumer.
    if let Some(names) = parameters.get_mut(WAITED_FOR) {
        let others: Vec<&str> = names.split(',').map(|name| name.trim().trim_matches('"')).collect();
        if others.contains(&own_slot) {
            *names = others.into_iter().filter(|name| *name != own_slot).collect::<Vec<_>>().join(",");
        }
    }
}

/// As PostgreSQL reads it, without its shorter forms.
fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_configuration_does_for_all_nodes() {
        let none: &[(&str, &str)] = &[];
        for (given, expected) in [
            (none, none),
            (&[(SYNC, "off")], &[(SYNC, "off")]),
            (&[(SYNC, "on"), ("hot_standby_feedback", "off")], &[(SYNC, "on"), ("hot_standby_feedback", "on")]),
            (&[(WAITED_FOR, "pg1, pg2,pg3")], &[(WAITED_FOR, "pg1,pg3")]),
            (&[(WAITED_FOR, "\"pg2\"")], &[(WAITED_FOR, "")]),
            (&[(WAITED_FOR, "pg1, pg3")], &[(WAITED_FOR, "pg1, pg3")]),
        ] {
            let map = |pairs: &[(&str, &str)]| {
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
            };
            let mut parameters = map(given);
            complete(&mut parameters, "pg2");
            assert_eq!(parameters, map(expected));
        }
    }
}
