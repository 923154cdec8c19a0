//! What a member's file and the cluster's configuration make together, beside Patroni's own `Config`: which of the two wins, what is read from one of
//! them only, and the three times brought into proportion.

use std::io::Write as _;
use std::process::{Command, Stdio};

use pgherd_agent::config::{Company, Config, Dynamic, Environment};
use pgherd_agent::postgres::parameters::start_settings;
use pgherd_ha::Role;
use serde_json::{Map, Value, json};

use crate::ctl::patronictl;
use crate::harness::notes::note;

/// Each case: a file and what the store has. The answer: times, settings of the server, lines of its files.
const ORACLE: &str = r"
import json, sys
from patroni.config import Config
from patroni.utils import parse_bool

def setting(value):
    return {True: 'on', False: 'off'}[value] if isinstance(value, bool) else str(value)

for line in sys.stdin:
    case = json.loads(line)
    config = Config(case['file'], validator=None)
    config.set_dynamic_configuration(case['dynamic'])
    postgresql = config['postgresql']
    settings = {name.lower(): setting(value) for name, value in postgresql['parameters'].items() if value is not None}
    answer = {name: config[name] for name in ('ttl', 'loop_wait', 'retry_timeout')}
    answer['settings'] = {k: v for k, v in settings.items() if not k.startswith('wal_keep')}
    # Two spellings of one value.
    answer['settings']['wal_level'] = settings['wal_level'].lower().replace('hot_standby', 'replica')
    answer['settings']['hot_standby'] = setting(parse_bool(settings['hot_standby']))
    for name in ('pg_hba', 'pg_ident'):
        answer[name] = postgresql.get(name) or []
    for name in ('use_pg_rewind', 'remove_data_directory_on_rewind_failure', 'use_unix_socket', 'bin_dir', 'database', 'pg_ctl_timeout'):
        answer[name] = postgresql.get(name)
    answer['listen'] = postgresql['listen']
    sys.__stdout__.write(json.dumps(answer) + '\n')
    sys.__stdout__.flush()
";

/// What the file has in `postgresql`, and beside it.
fn locals() -> Vec<Value> {
    vec![
        json!({}),
        json!({"postgresql": {"parameters": {"work_mem": "8MB", "JIT": true, "shared_buffers": 1024}}}),
        json!({"postgresql": {"parameters": {"max_connections": 500, "wal_level": "logical", "Max_Wal_Senders": 50}}}),
        json!({"postgresql": {"pg_hba": ["local all all peer"], "pg_ident": ["a b c"], "use_pg_rewind": false, "use_slots": false}}),
        json!({"postgresql": {"bin_dir": "/local", "database": "mine", "pg_ctl_timeout": 77, "use_unix_socket": true}}),
        json!({"ttl": 99, "loop_wait": 5, "retry_timeout": 7, "standby_cluster": {"host": "x"}}),
    ]
}

/// What the store has.
fn dynamics() -> Vec<Value> {
    let times =
        |ttl, loop_wait, retry_timeout| json!({"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout});
    let settings = |settings: Value| json!({"postgresql": {"parameters": settings}});
    vec![
        json!({}),
        times(30, 10, 10),
        times(20, 10, 10),
        times(20, 5, 9),
        times(10, 1, 3),
        times(25, 0, 1),
        times(60, 60, 60),
        times(40, 30, 6),
        json!({"ttl": "45", "loop_wait": "3"}),
        json!({"ttl": 33.9}),
        json!({"retry_timeout": 20}),
        settings(json!({"work_mem": "4MB", "jit": "off", "archive_mode": true, "random_page_cost": 1.1})),
        settings(json!({"max_connections": 200, "max_wal_senders": "20", "max_worker_processes": 16})),
        settings(
            json!({"max_connections": 24, "max_wal_senders": 2, "max_replication_slots": 3, "max_worker_processes": 1}),
        ),
        settings(json!({"max_locks_per_transaction": 31, "max_prepared_transactions": -1})),
        settings(
            json!({"max_connections": "many", "wal_level": "minimal", "hot_standby": "off", "wal_log_hints": "maybe"}),
        ),
        settings(
            json!({"wal_level": "LOGICAL", "hot_standby": "true", "track_commit_timestamp": "on", "wal_log_hints": false}),
        ),
        settings(json!({"max_connections": "0x100", "max_wal_senders": " 12 "})),
        settings(json!({"port": 1, "listen_addresses": "*", "cluster_name": "x", "Work_Mem": "16MB"})),
        json!({"postgresql": {"pg_hba": ["host all all all md5"], "use_pg_rewind": true, "bin_dir": "/dynamic", "database": "theirs"}}),
        json!({"postgresql": {"listen": "1.1.1.1:1", "data_dir": "/other", "connect_address": "2.2.2.2:2", "pg_ctl_timeout": 5}}),
        json!({"postgresql": {"remove_data_directory_on_rewind_failure": true, "use_unix_socket": false}}),
        json!({"postgresql": null, "mine": 5}),
    ]
}

/// The same of ours. Beside a Patroni, whose least times count then.
fn ours(file: &std::path::Path, dynamic: &Map<String, Value>, expected: &Value) -> Value {
    let config = Config::load(Some(file), &Environment::default()).unwrap_or_else(|error| panic!("{error}"));
    let read = Dynamic::read(dynamic, &config, Company { all_pgherd: false, built_in_store: false });
    let server = config.server(&read, Role::Primary);
    let start = start_settings(&server, None);
    let controlled = start.command_line.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    let own = ["listen_addresses", "port", "cluster_name"];
    let names: Vec<&str> = start.command_line.iter().map(|(name, _)| *name).collect();
    let others =
        server.parameters.iter().filter(|(name, _)| !own.contains(&name.as_str()) && !names.contains(&name.as_str()));
    let settings: Map<String, Value> = controlled
        .filter(|(name, _)| !own.contains(&name.as_str()))
        .chain(others.map(|(name, value)| (name.clone(), value.clone())))
        .map(|(name, value)| (name, Value::from(value)))
        .collect();
    // Where neither says anything the defaults of both differ on purpose, or are no value of Patroni's.
    let told = |name: &str, value: Value| if expected[name].is_null() { Value::Null } else { value };
    let postgresql = &read.postgresql;
    let path = postgresql.bin_dir.as_ref().map(|path| path.display().to_string());
    json!({
        "ttl": read.timing.ttl.as_secs(), "loop_wait": read.timing.loop_wait.as_secs(),
        "retry_timeout": read.timing.retry_timeout.as_secs(), "settings": settings, "pg_hba": server.pg_hba,
        "pg_ident": server.pg_ident, "use_pg_rewind": told("use_pg_rewind", postgresql.use_pg_rewind.into()),
        "remove_data_directory_on_rewind_failure":
            told("remove_data_directory_on_rewind_failure", postgresql.remove_data_directory_on_rewind_failure.into()),
        "use_unix_socket": told("use_unix_socket", postgresql.use_unix_socket.into()), "bin_dir": path,
        "database": told("database", postgresql.database.clone().into()),
        "pg_ctl_timeout": told("pg_ctl_timeout", postgresql.pg_ctl_timeout.as_secs().into()),
        "listen": config.node.listen.to_string(),
    })
}

#[test]
fn file_and_store_together_are_what_patroni_makes_of_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut child = Command::new(patronictl().with_file_name("python3"))
        .args(["-c", ORACLE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the Python of the real Patroni runs");
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let (mut differences, mut compared) = (Vec::new(), 0);
    for (index, local) in locals().iter().enumerate() {
        let mut document = json!({
            "scope": "c", "name": "n", "restapi": {"listen": "127.0.0.1:8008"}, "zookeeper": {"hosts": ["127.0.0.1:2181"]},
            "postgresql": {
                "listen": "127.0.0.1:5432", "data_dir": "/nonexistent/data",
                "authentication": {"replication": {"username": "r"}, "superuser": {"username": "s"}},
            },
        });
        for (key, value) in local.as_object().expect("a mapping") {
            match (document[key].as_object_mut(), value.as_object()) {
                (Some(section), Some(more)) => section.extend(more.clone()),
                _ => document[key] = value.clone(),
            }
        }
        let file = directory.path().join(format!("{index}.yml"));
        std::fs::write(&file, document.to_string()).expect("a new file");
        for dynamic in dynamics() {
            writeln!(input, "{}", json!({"file": file, "dynamic": dynamic})).expect("Python reads");
            let mut line = String::new();
            std::io::BufRead::read_line(&mut output, &mut line).expect("an answer");
            let expected: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {dynamic}"));
            let dynamic = dynamic.as_object().expect("a mapping");
            let ours = ours(&file, dynamic, &expected);
            compared += 1;
            for (key, value) in
                expected.as_object().expect("a mapping").iter().filter(|(key, value)| ours[*key] != **value)
            {
                differences.push(format!("{local} with {dynamic:?}\n  {key}: ours {} theirs {value}", ours[key]));
            }
        }
    }
    drop(input);
    assert!(child.wait().expect("our own child").success());
    assert!(differences.is_empty(), "{}:\n{}", differences.len(), differences.join("\n"));
    note(&format!("file and store: {compared} pairs, the same configuration\n"));
}
