use serde_json::json;

use super::*;
use crate::config::Environment;

const HERD: Company = Company { all_pgherd: true, built_in_store: false };

/// The lab's file with `postgresql` keys added (in YAML's flow style, after a comma).
fn config(postgresql: &str) -> Config {
    let text = format!(
        "{{scope: c, name: n, restapi: {{listen: 'a:1'}}, zookeeper: {{hosts: z}}, postgresql: {{listen: '*', \
         data_dir: /d, authentication: {{replication: {{username: r}}}}{postgresql}}}}}"
    );
    let environment = Environment::new([("PATRONI_CONFIGURATION".to_owned(), text)]);
    Config::load(None, &environment).unwrap_or_else(|error| panic!("{error}"))
}

fn read(stored: &Value) -> Dynamic {
    Dynamic::read(stored.as_object().expect("a mapping"), &config(""), HERD)
}

#[test]
fn defaults() {
    let dynamic = read(&json!({}));
    assert_eq!(dynamic.warnings.to_string(), "");
    assert_eq!(dynamic.maximum_lag_on_failover, 1 << 20);
    assert_eq!(dynamic.maximum_lag_on_syncnode, None);
    assert_eq!(dynamic.max_timelines_history, None);
    assert_eq!(dynamic.primary_start_timeout, Duration::from_secs(300));
    assert_eq!(dynamic.primary_stop_timeout, None);
    assert_eq!(dynamic.synchronous_mode, SynchronousMode::Off);
    assert_eq!(dynamic.synchronous_node_count, 1);
    assert_eq!(dynamic.member_slots_ttl, Duration::from_secs(1800));
    assert!(!dynamic.pause && !dynamic.failsafe_mode && !dynamic.check_timeline && dynamic.postgresql.use_slots);
    assert!(dynamic.standby_cluster.is_none() && dynamic.slots.is_empty());
    let settings = dynamic.settings(&config(""));
    assert_eq!((settings.ttl, settings.failover_priority), (Duration::from_secs(8), 1));
}

#[test]
fn written_values() {
    let dynamic = read(&json!({
        "maximum_lag_on_failover": "16MB", "maximum_lag_on_syncnode": 5, "max_timelines_history": 3,
        "check_timeline": "yes", "master_start_timeout": 0, "primary_stop_timeout": "1min", "synchronous_mode": "QUORUM",
        "synchronous_mode_strict": true, "synchronous_node_count": 0, "failsafe_mode": 1, "pause": true,
        "member_slots_ttl": "30min", "postgresql": {"use_slots": "off", "use_pg_rewind": true},
    }));
    assert_eq!(dynamic.warnings.to_string(), "");
    assert_eq!(dynamic.maximum_lag_on_failover, 16 << 20);
    assert_eq!(dynamic.maximum_lag_on_syncnode, Some(5));
    assert_eq!(dynamic.max_timelines_history, Some(3));
    assert_eq!(dynamic.primary_start_timeout, Duration::ZERO);
    assert_eq!(dynamic.primary_stop_timeout, Some(Duration::from_secs(60)));
    assert_eq!(dynamic.synchronous_mode, SynchronousMode::Quorum);
    assert_eq!(dynamic.synchronous_node_count, 1);
    assert!(dynamic.failsafe_mode && dynamic.pause && dynamic.check_timeline);
    assert!(!dynamic.postgresql.use_slots && dynamic.postgresql.use_pg_rewind);
}

#[test]
fn a_standby_cluster_counts_only_with_a_source_and_has_no_synchronous_mode() {
    for (section, counts) in [
        (json!({}), false),
        (json!({"host": ""}), false),
        (json!({"primary_slot_name": "s"}), false),
        (json!({"host": "h"}), true),
        (json!({"port": 5432}), true),
        (json!({"restore_command": "cp"}), true),
    ] {
        let dynamic = read(&json!({"standby_cluster": section, "synchronous_mode": true}));
        assert_eq!(dynamic.standby_cluster.is_some(), counts, "{section}");
        assert_eq!(dynamic.synchronous_mode == SynchronousMode::Off, counts, "{section}");
    }
}

#[test]
fn permanent_slots() {
    let cases = [
        (json!({"slots": {"a": null}}), json!({"a": null}), ""),
        (json!({"slots": {"a": {"type": "logical", "lsn": 5}}}), json!({"a": {"type": "logical"}}), ""),
        (json!({"slots": {"a": 0}, "permanent_slots": {"b": 0}}), json!({"b": 0}), ""),
        (json!({"slots": {"a": 0}, "permanent_slots": {}}), json!({"a": 0}), ""),
        (
            json!({"slots": {"A-b": 0, "ok": 0}}),
            json!({"ok": 0}),
            "slots.A-b: no slot can have this name (1 to 63 of a-z, 0-9 and _); it is left out",
        ),
    ];
    for (stored, expected, warnings) in cases {
        let dynamic = read(&stored);
        assert_eq!(
            (Value::Object(dynamic.slots), dynamic.warnings.to_string()),
            (expected, warnings.into()),
            "{stored}"
        );
    }
}

#[test]
fn local_settings_win_except_where_all_members_must_agree() {
    // (local, stored, the merged parameters)
    let cases = [
        ("{work_mem: 1MB}", json!({"work_mem": "2MB", "jit": false}), json!({"work_mem": "1MB", "jit": "off"})),
        ("{WORK_MEM: 1MB}", json!({"work_mem": "2MB"}), json!({"work_mem": "1MB"})),
        ("{max_connections: 500}", json!({"Max_Connections": 200}), json!({"max_connections": "200"})),
        ("{max_connections: 500, wal_level: minimal, port: 1}", json!({}), json!({})),
        ("{work_mem: ~}", json!({"work_mem": "2MB"}), json!({})),
        ("{shared_buffers: 100}", json!(5), json!({"shared_buffers": "100"})),
    ];
    for (local, stored, expected) in cases {
        let config = config(&format!(", parameters: {local}"));
        let stored = json!({"postgresql": {"parameters": stored}});
        let dynamic = Dynamic::read(stored.as_object().expect("a mapping"), &config, HERD);
        let parameters = serde_json::to_value(&dynamic.postgresql.parameters).expect("texts");
        assert_eq!(parameters, expected, "{local} over {stored}");
    }
}

#[test]
fn other_local_keys_replace_the_stored_ones_as_a_whole() {
    let local = config(", pg_hba: [local all all peer], use_slots: off, recovery_conf: {restore_command: a}");
    assert!(local.warnings.to_string().contains("postgresql.use_slots: ignored here"), "{}", local.warnings);
    let stored = json!({"postgresql": {
        "pg_hba": ["host all all all trust"], "pg_ident": ["m a b"], "recovery_conf": {"recovery_end_command": "b"},
        "listen": "0.0.0.0:1", "authentication": {"superuser": {"username": "evil"}}, "data_dir": "/evil",
    }});
    let dynamic = Dynamic::read(stored.as_object().expect("a mapping"), &local, HERD);
    assert_eq!(dynamic.postgresql.pg_hba, ["local all all peer"]);
    assert_eq!(dynamic.postgresql.pg_ident, ["m a b"]);
    assert_eq!(dynamic.postgresql.recovery_conf.keys().collect::<Vec<_>>(), ["restore_command"]);
    assert!(dynamic.postgresql.use_slots);
    let server = local.server(&dynamic, pgherd_ha::Role::Replica);
    assert_eq!(
        (server.data_dir.to_str(), server.superuser.username.as_str(), server.port),
        (Some("/d"), "postgres", 5432)
    );
}
