use serde_json::json;

use super::*;
use crate::config::{Environment, Slots};

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
fn settings_of_stops_races_and_slots() {
    let settings = |stored: Value| {
        let dynamic = read(&stored);
        (dynamic.warnings.to_string(), dynamic.settings(&config("")))
    };
    let (warnings, found) =
        settings(json!({"primary_stop_timeout": 7, "primary_race_backoff": 9, "member_slots_ttl": "30min"}));
    assert_eq!((warnings.as_str(), found.primary_stop_timeout), ("", None), "commits wait for nobody");
    assert_eq!(found.primary_race_backoff, Duration::from_secs(9));
    assert_eq!(found.member_slots_ttl, Duration::from_secs(1800));
    for (name, seconds) in [("primary_stop_timeout", json!(7)), ("master_stop_timeout", json!("7s"))] {
        let (_, found) = settings(json!({"synchronous_mode": true, name: seconds}));
        assert_eq!(found.primary_stop_timeout, Some(Duration::from_secs(7)), "{name}");
    }
    let (_, found) = settings(json!({"synchronous_mode": true, "primary_stop_timeout": 0}));
    assert_eq!(found.primary_stop_timeout, None);
    let standby = json!({"primary_race_backoff": 9, "standby_cluster": {"host": "elsewhere"}});
    assert_eq!(settings(standby).1.primary_race_backoff, Duration::ZERO);
    for (name, wrong, said) in [
        ("member_slots_ttl", json!("soon"), "member_slots_ttl: expected a number of seconds"),
        ("primary_stop_timeout", json!([]), "primary_stop_timeout: expected a number of seconds"),
        ("primary_race_backoff", json!(-1), "primary_race_backoff: expected a number of seconds"),
        ("pg_ctl_timeout", json!("1 fortnight"), "postgresql.pg_ctl_timeout: expected a number of seconds"),
    ] {
        let stored = match name {
            "pg_ctl_timeout" => json!({"postgresql": {name: wrong}}),
            _ => json!({name: wrong}),
        };
        let (warnings, found) = settings(stored);
        assert!(warnings.contains(said), "{name}: {warnings}");
        assert_eq!((found.member_slots_ttl.as_secs(), found.primary_race_backoff.as_secs()), (1800, 0));
    }
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
    assert!(dynamic.standby_cluster.is_none() && dynamic.slots == Slots::default());
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

#[test]
fn what_cannot_be_read_stays_as_it_was() {
    let object = |value: Value| value.as_object().cloned().expect("a mapping");
    // (stored, before, what counts, said of it)
    for (stored, before, counts, said) in [
        (
            json!({"synchronous_mode": "qourum"}),
            json!({"synchronous_mode": "quorum"}),
            json!({"synchronous_mode": "quorum"}),
            "\"quorum\" stays in force until it is corrected",
        ),
        // Nobody knows what was meant: rather wait than lose.
        (json!({"synchronous_mode": "qourum"}), json!({}), json!({"synchronous_mode": true}), "true stays in force"),
        (json!({"failsafe_mode": []}), json!({"failsafe_mode": true}), json!({"failsafe_mode": true}), "true stays"),
        (
            json!({"postgresql": {"use_slots": "perhaps"}}),
            json!({"postgresql": {"use_slots": false}}),
            json!({"postgresql": {"use_slots": false}}),
            "false stays",
        ),
        (json!({"ttl": "soon"}), json!({}), json!({"ttl": "soon"}), "the default counts until"),
        (json!({"ttl": 30}), json!({"ttl": 20}), json!({"ttl": 30}), ""),
    ] {
        let (found, problems) = understood(&object(stored.clone()), &object(before));
        assert_eq!(Value::Object(found), counts, "{stored}");
        assert!(problems.to_string().contains(said), "{stored}: {problems}");
    }
}

#[test]
fn what_a_standby_cluster_follows() {
    let followed = |section: Value| {
        let dynamic = read(&json!({ "standby_cluster": section }));
        let upstream = dynamic.settings(&config("")).standby_cluster.expect("it follows something").upstream;
        let slot = |remote: Option<Remote>| remote.expect("another cluster").slot;
        let addresses = |it: &Upstream| it.addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(" ");
        (dynamic.warnings.to_string(), upstream.map(|it| (addresses(&it), slot(it.remote))))
    };
    let server = |addresses: &str, slot: Option<&str>| Some((addresses.to_owned(), slot.map(str::to_owned)));
    for (section, expected) in [
        (json!({"host": "a,b", "port": "5433"}), server("a:5433 b:5433", None)),
        (json!({"host": "a", "primary_slot_name": "West-1"}), server("a:5432", Some("west_1"))),
        (json!({"host": "a, b", "port": "5433,5434"}), server("a:5433 b:5434", None)),
        (json!({"host": "a,b", "port": "5433,"}), server("a:5433 b:5432", None)),
        (json!({"host": "a,b", "port": ""}), server("a:5432 b:5432", None)),
        (json!({"host": "fe80::1,b"}), server("fe80::1:5432 b:5432", None)),
        (json!({"port": 5433}), server("localhost:5433", None)),
        (json!({"restore_command": "cp", "primary_slot_name": "s"}), None),
    ] {
        assert_eq!(followed(section.clone()), (String::new(), expected), "{section}");
    }
    for (port, said) in [
        (json!(70_000), "expected a port (1 to 65535), or several with commas, found 70000"),
        (json!("5433,0"), "expected a port (1 to 65535), or several with commas, found `5433,0`"),
        (json!("5433,5434,5435"), "3 ports for 2 hosts: 5432 is tried until it is corrected"),
    ] {
        let (warning, found) = followed(json!({"host": "a,b", "port": port}));
        assert!(warning.starts_with("standby_cluster.port: ") && warning.contains(said), "{warning}");
        assert_eq!(found, server("a:5432 b:5432", None));
    }
    let without_slots = read(&json!({"standby_cluster": {"host": "a", "primary_slot_name": "s"},
        "postgresql": {"use_slots": false}}));
    let upstream = without_slots.settings(&config("")).standby_cluster.and_then(|it| it.upstream).expect("a host");
    assert_eq!(upstream.remote, Some(Remote::default()));
}

#[test]
fn the_archive_is_every_nodes_and_the_delay_the_standby_leaders() {
    let dynamic =
        read(&json!({"standby_cluster": {"host": "h", "restore_command": "cp", "archive_cleanup_command": "rm",
        "recovery_min_apply_delay": "1min"}, "postgresql": {"recovery_conf": {"restore_command": "other"}}}));
    let of = |role| config("").server(&dynamic, role).recovery_conf;
    let replica = of(Role::Replica);
    assert_eq!(replica["restore_command"], "cp");
    assert_eq!(replica["archive_cleanup_command"], "rm");
    assert!(!replica.contains_key("recovery_min_apply_delay"));
    assert_eq!(of(Role::StandbyLeader)["recovery_min_apply_delay"], "1min");
}
