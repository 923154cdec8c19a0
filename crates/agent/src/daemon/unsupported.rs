//! What a Patroni configuration may ask for and this version does not do: said at the start and on every change, never passed over in
//! silence. Where going on without would be unsafe, the agent does not start.

use crate::config::{Config, Demand, Dynamic, SynchronousMode};
use crate::postgres::Credentials;

/// Why the agent must not start with this file; the sentence says what to do.
pub fn refusal(config: &Config) -> Option<String> {
    if config.watchdog.mode == Demand::Required {
        return Some(
            "`watchdog.mode: required`, and this version does not drive a watchdog device: the guard ends a writer in time, unless the \
             kernel itself hangs; set `automatic` or `off` to accept that"
                .into(),
        );
    }
    if config.bootstrap.method != "initdb" {
        return Some(format!(
            "`bootstrap.method: {}`, and this version only bootstraps with initdb: make the cluster by hand and start the agent on it, or \
             remove the key",
            config.bootstrap.method
        ));
    }
    None
}

/// What is asked for and not done.
pub fn warnings(config: &Config, dynamic: &Dynamic) -> Vec<String> {
    let postgresql = &dynamic.postgresql;
    let methods = postgresql.create_replica_methods.iter().any(|method| method != "basebackup");
    let demands_tls = |credentials: &Credentials| {
        credentials
            .options
            .get("sslmode")
            .is_some_and(|mode| matches!(mode.as_str(), "require" | "verify-ca" | "verify-full"))
    };
    let tls = std::iter::once(&config.node.superuser).chain(&config.node.rewind).any(demands_tls);
    let remove =
        postgresql.remove_data_directory_on_rewind_failure || postgresql.remove_data_directory_on_diverged_timelines;
    let asked = [
        (
            remove,
            "postgresql.remove_data_directory_on_*",
            "data that is replaced stays until the copy is complete, with room for both",
        ),
        (!dynamic.primary_race_backoff.is_zero(), "primary_race_backoff", "a race begins as soon as the key is free"),
        (
            tls,
            "postgresql.authentication.*.sslmode",
            "the agent's own SQL connections are without TLS; replication obeys it",
        ),
        (dynamic.synchronous_mode != SynchronousMode::Off, "synchronous_mode", "commits are asynchronous"),
        (dynamic.failsafe_mode, "failsafe_mode", "without the store the primary stops when its lease ends"),
        (dynamic.standby_cluster.is_some(), "standby_cluster", "this cluster follows no other"),
        (!dynamic.slots.is_empty(), "slots", "permanent slots are not made and not carried over a failover"),
        (!postgresql.callbacks.is_empty(), "postgresql.callbacks", "no callback is run"),
        (postgresql.pre_promote.is_some(), "postgresql.pre_promote", "promotions do not wait for it"),
        (postgresql.before_stop.is_some(), "postgresql.before_stop", "it is not run"),
        (methods, "postgresql.create_replica_methods", "replicas are made with pg_basebackup"),
        (config.bootstrap.post_bootstrap.is_some(), "bootstrap.post_bootstrap", "it is not run"),
        (config.watchdog.mode == Demand::Automatic, "watchdog", "no watchdog device is driven"),
        (config.tags.replicatefrom().is_some(), "tags.replicatefrom", "this node streams from the leader"),
    ];
    let said = asked.into_iter().filter(|(is_asked, ..)| *is_asked);
    said.map(|(_, key, instead)| format!("`{key}` is set, and this version does not do it: {instead}")).collect()
}
