//! The dynamic configuration: what the store's `config` key says, with the local file laid over its `postgresql` section.
//!
//! Whatever is in the store, a `Dynamic` comes of it: what is wrong there is a warning and the default counts, since no
//! member may stop because of it. Not here: changing it (`merge::patch`), and keeping a copy (`cache`).

use std::time::Duration;

use pgherd_ha::Settings;
use serde_json::{Map, Value};

use super::options::check_dynamic;
use super::place::{Problem, Problems};
use super::timing::{Company, Timing};
use super::tree::Tree;
use super::{Config, Postgresql};
use crate::api::DynamicSettings;
pub use crate::api::SynchronousMode;
use crate::postgres::parameters::is_controlled;

#[derive(Clone, Debug)]
pub struct Dynamic {
    pub timing: Timing,
    /// Bytes.
    pub maximum_lag_on_failover: u64,
    /// Bytes; `None`: no limit.
    pub maximum_lag_on_syncnode: Option<u64>,
    pub primary_race_backoff: Duration,
    /// `None`: all lines are kept.
    pub max_timelines_history: Option<u64>,
    pub check_timeline: bool,
    /// Zero: fail over at once.
    pub primary_start_timeout: Duration,
    /// `None`: no limit. Counts in synchronous mode only.
    pub primary_stop_timeout: Option<Duration>,
    pub synchronous_mode: SynchronousMode,
    pub synchronous_mode_strict: bool,
    pub synchronous_node_count: u64,
    pub failsafe_mode: bool,
    pub pause: bool,
    pub member_slots_ttl: Duration,
    /// Slots that outlive a failover: name to its description (null, 0 or a mapping).
    pub slots: Map<String, Value>,
    pub ignore_slots: Vec<Value>,
    /// `None`: this cluster follows no other.
    pub standby_cluster: Option<Map<String, Value>>,
    /// The merged section.
    pub postgresql: Postgresql,
    /// Of reading it; to be logged when they change.
    pub warnings: Problems,
}

impl Dynamic {
    /// Reads the stored configuration (empty if there is none).
    pub fn read(stored: &Map<String, Value>, config: &Config, company: Company) -> Dynamic {
        let checked = check_dynamic(stored);
        let mut problems = checked.problems;
        let mut value = checked.value;
        let section = merged_section(value.get("postgresql"), &config.section);
        if let Value::Object(value) = &mut value {
            value.insert("postgresql".to_owned(), Value::Object(section));
        }
        let tree = Tree(&value);
        let standby_cluster = standby_cluster(&tree);
        let strict = tree.flag("synchronous_mode_strict");
        Dynamic {
            timing: Timing::read(&tree, company, &mut problems),
            maximum_lag_on_failover: tree.count("maximum_lag_on_failover"),
            maximum_lag_on_syncnode: Some(tree.count("maximum_lag_on_syncnode")).filter(|bytes| *bytes > 0),
            primary_race_backoff: tree.seconds("primary_race_backoff"),
            max_timelines_history: Some(tree.count("max_timelines_history")).filter(|lines| *lines > 0),
            check_timeline: tree.flag("check_timeline"),
            primary_start_timeout: aliased_seconds(&tree, "primary_start_timeout", "master_start_timeout"),
            primary_stop_timeout: Some(aliased_seconds(&tree, "primary_stop_timeout", "master_stop_timeout"))
                .filter(|time| !time.is_zero()),
            synchronous_mode: match standby_cluster {
                Some(_) => SynchronousMode::Off,
                None => synchronous_mode(&tree),
            },
            synchronous_mode_strict: strict,
            synchronous_node_count: tree.count("synchronous_node_count").max(u64::from(strict)),
            failsafe_mode: tree.flag("failsafe_mode"),
            pause: tree.flag("pause"),
            member_slots_ttl: tree.seconds("member_slots_ttl"),
            slots: slots(&tree, &mut problems),
            ignore_slots: tree.written("ignore_slots").and_then(Value::as_array).cloned().unwrap_or_default(),
            standby_cluster,
            postgresql: Postgresql::read(&tree, &mut problems),
            warnings: problems,
        }
    }

    /// What the decision reads.
    pub fn settings(&self, config: &Config) -> Settings {
        Settings {
            name: config.name.clone(),
            loop_wait: self.timing.loop_wait,
            retry_timeout: self.timing.retry_timeout,
            ttl: self.timing.ttl,
            maximum_lag_on_failover: self.maximum_lag_on_failover,
            primary_start_timeout: self.primary_start_timeout,
            check_timeline: self.check_timeline,
            nofailover: config.tags.nofailover(),
            failover_priority: config.tags.failover_priority(),
            use_pg_rewind: self.postgresql.use_pg_rewind,
            use_slots: self.postgresql.use_slots,
        }
    }

    /// What answers of the REST API depend on.
    pub fn for_api(&self) -> DynamicSettings {
        DynamicSettings {
            ttl: self.timing.ttl,
            loop_wait: self.timing.loop_wait,
            maximum_lag_on_failover: self.maximum_lag_on_failover,
            standby_cluster: self.standby_cluster.is_some(),
            synchronous: self.synchronous_mode,
            failsafe_mode: self.failsafe_mode,
        }
    }
}

/// A local value replaces the dynamic one as a whole, but PostgreSQL's settings are merged name by name, and those that all
/// members must agree on come from the store alone.
fn merged_section(dynamic: Option<&Value>, local: &Map<String, Value>) -> Map<String, Value> {
    let mut section = dynamic.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut parameters = lower_case(section.get("parameters"));
    let own = lower_case(local.get("parameters")).into_iter().filter(|(name, _)| !is_controlled(name));
    parameters.extend(own);
    section.extend(local.iter().map(|(key, value)| (key.clone(), value.clone())));
    section.insert("parameters".to_owned(), Value::Object(parameters));
    section
}

/// Names of settings are the same in any case.
fn lower_case(parameters: Option<&Value>) -> Map<String, Value> {
    let parameters = parameters.and_then(Value::as_object).into_iter().flatten();
    parameters.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

fn aliased_seconds(tree: &Tree<'_>, name: &str, alias: &str) -> Duration {
    tree.seconds(if tree.written(name).is_none() && tree.written(alias).is_some() { alias } else { name })
}

fn synchronous_mode(tree: &Tree<'_>) -> SynchronousMode {
    match tree.text("synchronous_mode").as_deref() {
        Some("quorum") => SynchronousMode::Quorum,
        _ if tree.flag("synchronous_mode") => SynchronousMode::Priority,
        _ => SynchronousMode::Off,
    }
}

/// In force only if it says where to stream or to restore from.
fn standby_cluster(tree: &Tree<'_>) -> Option<Map<String, Value>> {
    let says = |key: &str| tree.text(&format!("standby_cluster.{key}")).is_some_and(|text| !text.is_empty());
    ["host", "port", "restore_command"].iter().any(|key| says(key)).then(|| tree.map_of("standby_cluster"))
}

/// The first of three names that is not empty. `lsn` is what members publish there, not a wish.
fn slots(tree: &Tree<'_>, problems: &mut Problems) -> Map<String, Value> {
    let names = ["permanent_replication_slots", "permanent_slots", "slots"];
    let Some((key, slots)) = names.iter().map(|key| (key, tree.map(key))).find(|(_, slots)| !slots.is_empty()) else {
        return Map::new();
    };
    let is_valid = |name: &str| {
        (1..=63).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let mut valid = Map::new();
    for (name, mut slot) in slots {
        if !is_valid(&name) {
            let text = "no slot can have this name (1 to 63 of a-z, 0-9 and _); it is left out";
            problems.push(Problem::warning(format!("{key}.{name}"), text));
            continue;
        }
        if let Value::Object(slot) = &mut slot {
            slot.shift_remove("lsn");
        }
        valid.insert(name, slot);
    }
    valid
}

#[cfg(test)]
#[path = "dynamic_tests.rs"]
mod tests;
