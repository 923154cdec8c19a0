//! The dynamic configuration: what the store's `config` key says, with the local file laid over its `postgresql` section.
//!
//! Whatever is in the store, a `Dynamic` comes of it: what is wrong there is a warning and the default counts, since no
//! member may stop because of it. Not here: changing it (`merge::patch`), and keeping a copy (`cache`).

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_ha::{Address, Remote, Role, Settings, StandbyCluster, Synchronous, Upstream, slot_name};
use serde_json::{Map, Value};

use super::methods;
use super::options::{check_dynamic, ports};
use super::place::{Problem, Problems};
use super::slots::Slots;
use super::timing::{Company, Timing};
use super::tree::Tree;
use super::{Config, Postgresql};
use crate::api::DynamicSettings;
pub use crate::api::SynchronousMode;
use crate::postgres::ReplicaMethod;
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
    pub slots: Slots,
    /// `None`: this cluster follows no other.
    pub standby_cluster: Option<Map<String, Value>>,
    /// How the first node of a standby cluster is made; pg_basebackup if nothing is said.
    pub standby_cluster_methods: Vec<ReplicaMethod>,
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
        check_ports(&tree, &mut problems);
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
            slots: Slots::read(&tree, standby_cluster.is_some(), &mut problems),
            standby_cluster_methods: methods_of_standby_cluster(&tree, standby_cluster.is_some(), &mut problems),
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
            remove_on_rewind_failure: self.postgresql.remove_data_directory_on_rewind_failure,
            remove_on_diverged: self.postgresql.remove_data_directory_on_diverged_timelines,
            use_slots: self.postgresql.use_slots,
            synchronous: self.synchronous(),
            failsafe_mode: self.failsafe_mode,
            pre_promote: self.postgresql.pre_promote.is_some(),
            custom_bootstrap: config.bootstrap.custom.is_some(),
            post_bootstrap: config.bootstrap.post_bootstrap.is_some(),
            copies_without_leader: self
                .postgresql
                .replica_methods
                .iter()
                .chain(&self.standby_cluster_methods)
                .any(ReplicaMethod::needs_no_leader),
            member_slots_ttl: self.member_slots_ttl,
            permanent_slots: self.slots.permanent.clone(),
            ignore_slots: self.slots.ignored.clone(),
            // A standby has every acknowledged commit only where commits wait for one.
            primary_stop_timeout: self.primary_stop_timeout.filter(|_| self.synchronous_mode != SynchronousMode::Off),
            primary_race_backoff: match self.standby_cluster {
                Some(_) => Duration::ZERO,
                None => self.primary_race_backoff,
            },
            standby_cluster: self.standby_cluster.as_ref().map(|it| followed(it, self.postgresql.use_slots)),
            replicatefrom: config.tags.replicatefrom(),
            nostream: config.tags.flag("nostream"),
        }
    }

    /// The recovery settings of a standby cluster: the archive's on every node, the delay on the one that follows the other cluster.
    pub fn recovery_of_standby_cluster(&self, role: Role) -> BTreeMap<String, String> {
        let names = ["restore_command", "archive_cleanup_command", "recovery_min_apply_delay"];
        let count = if role == Role::StandbyLeader { 3 } else { 2 };
        let text = |name: &&str| {
            let text = self.standby_cluster.as_ref()?.get(*name)?.as_str().filter(|text| !text.is_empty())?;
            Some(((*name).to_owned(), text.to_owned()))
        };
        names.iter().take(count).filter_map(text).collect()
    }

    fn synchronous(&self) -> Option<Synchronous> {
        let mode = Synchronous {
            quorum: self.synchronous_mode == SynchronousMode::Quorum,
            strict: self.synchronous_mode_strict,
            node_count: usize::try_from(self.synchronous_node_count).unwrap_or(usize::MAX),
            maximum_lag: self.maximum_lag_on_syncnode,
        };
        (self.synchronous_mode != SynchronousMode::Off).then_some(mode)
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

/// What is stored, with the last value that was understood in place of one that cannot be read: a slip of the keyboard must not turn off what
/// the cluster relies on. With what is wrong, and what counts instead.
pub fn understood(stored: &Map<String, Value>, before: &Map<String, Value>) -> (Map<String, Value>, Problems) {
    let checked = check_dynamic(stored);
    let (mut document, before) = (Value::Object(stored.clone()), Value::Object(before.clone()));
    let mut problems = checked.problems;
    for path in checked.unreadable {
        let pointer = format!("/{}", path.join("/"));
        let safest = (path == ["synchronous_mode"]).then_some(Value::Bool(true));
        let kept = before.pointer(&pointer).cloned().or(safest);
        let said = problems.0.iter_mut().find(|problem| problem.key == path.join("."));
        let (Some(kept), Some(place)) = (kept, document.pointer_mut(&pointer)) else {
            said.into_iter().for_each(|problem| problem.text.push_str("; the default counts until it is corrected"));
            continue;
        };
        said.into_iter()
            .for_each(|problem| problem.text.push_str(&format!("; {kept} stays in force until it is corrected")));
        *place = kept;
    }
    let Value::Object(document) = document else { return (stored.clone(), problems) };
    (document, problems)
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

/// Their sections are those of `postgresql`.
fn methods_of_standby_cluster(tree: &Tree<'_>, follows: bool, problems: &mut Problems) -> Vec<ReplicaMethod> {
    match follows {
        true => methods::replica_methods(&tree.texts("standby_cluster.create_replica_methods"), tree, problems),
        false => Vec::new(),
    }
}

/// In force only if it says where to stream or to restore from.
fn standby_cluster(tree: &Tree<'_>) -> Option<Map<String, Value>> {
    let says = |key: &str| tree.text(&format!("standby_cluster.{key}")).is_some_and(|text| !text.is_empty());
    let counts = says("host") || says("restore_command") || says("port");
    counts.then(|| tree.map_of("standby_cluster"))
}

const DEFAULT_PORT: u16 = 5432;

/// What the section says: to stream from a host, or, without one, to live by the archive.
fn followed(section: &Map<String, Value>, use_slots: bool) -> StandbyCluster {
    let text = |key: &str| section.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let streams = text("host").is_some() || text("port").is_some();
    let upstream = streams.then(|| Upstream {
        name: "the other cluster".to_owned(),
        addresses: addresses(text("host").unwrap_or("localhost"), text("port")),
        remote: Some(Remote { slot: text("primary_slot_name").filter(|_| use_slots).map(slot_name) }),
    });
    StandbyCluster { upstream }
}

/// As libpq reads them: hosts with commas, and one port for all or one for each.
fn addresses(hosts: &str, port: Option<&str>) -> Vec<Address> {
    let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
    let ports = port.and_then(ports).filter(|ports| ports.len() == 1 || ports.len() == hosts.len());
    let ports = ports.unwrap_or_else(|| vec![DEFAULT_PORT]);
    hosts.iter().zip(ports.iter().cycle()).map(|(host, port)| Address::new(host, *port)).collect()
}

/// Neither one port for all hosts nor one for each; the rest of the section counts all the same.
fn check_ports(tree: &Tree<'_>, problems: &mut Problems) {
    let count = |key: &str| tree.text(key).map_or(1, |text| text.split(',').count());
    let (hosts, ports) = (count("standby_cluster.host"), count("standby_cluster.port"));
    if ports != 1 && ports != hosts {
        let text = format!("{ports} ports for {hosts} hosts: {DEFAULT_PORT} is tried until it is corrected");
        problems.push(Problem::warning("standby_cluster.port", text));
    }
}

#[cfg(test)]
#[path = "dynamic_tests.rs"]
mod tests;
