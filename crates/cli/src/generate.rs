//! `--generate-sample-config` and `--generate-config`: a configuration to begin with, the keys of Patroni's.
//!
//! An example comes from PostgreSQL's version and the environment; the other kind also from a PostgreSQL that runs here, so that an agent can take
//! it over. What nobody can know but the operator is `#FIXME`. Not here: `docs/example.yml`, which explains every option. Tested beside a
//! real Patroni in `tests/it/generate.rs`.

mod running;

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use anyhow::Context as _;
use pgherd_agent::config::{Environment, document, major_version, overlay};
use serde_json::{Map, Value, json};

use crate::ctl::yaml;

/// What the operator has to fill in.
const FIX: &str = "#FIXME";

/// The sections of a file in the order of Patroni's, before and after `bootstrap`.
const BEFORE: [&str; 15] = [
    "scope",
    "namespace",
    "name",
    "log",
    "restapi",
    "ctl",
    "citus",
    "consul",
    "etcd",
    "etcd3",
    "exhibitor",
    "kubernetes",
    "raft",
    "store",
    "zookeeper",
];
const AFTER: [&str; 4] = ["postgresql", "watchdog", "guard", "tags"];

/// An example for this machine. `file`: where to; `None`: standard output.
pub fn sample(file: Option<&Path>) -> anyhow::Result<()> {
    let mut config = template()?;
    let postgresql = section(&mut config, "postgresql");
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let program = text(postgresql.get("bin_name").and_then(|names| names.get("postgres")));
    let directory = text(postgresql.get("bin_dir")).unwrap_or_default();
    let program = Path::new(&directory).join(program.as_deref().unwrap_or("postgres"));
    let version = major_version(&program).map_err(anyhow::Error::msg)?;
    let version: f64 = version.parse().with_context(|| format!("{} is no version of PostgreSQL", version))?;
    let method = if version >= 10.0 { "scram-sha-256" } else { "md5" };
    let replication = section(section(postgresql, "authentication"), "replication");
    let user = text(replication.get("username")).unwrap_or_default();
    postgresql.insert("parameters".into(), json!({"password_encryption": method}));
    let lines = [format!("host all all all {method}"), format!("host replication {user} all {method}")];
    postgresql.insert("pg_hba".into(), json!(lines));
    if version >= 11.0 {
        let rewind = section(section(postgresql, "authentication"), "rewind");
        rewind.entry("username").or_insert_with(|| "rewind_user".into());
        rewind.entry("password").or_insert_with(|| FIX.into());
    }
    let dynamic = section(section(section(&mut config, "bootstrap"), "dcs"), "postgresql");
    dynamic.insert("use_pg_rewind".into(), true.into());
    let settings = section(dynamic, "parameters");
    match version >= 13.0 {
        true => settings.insert("wal_keep_size".into(), "128MB".into()),
        false => settings.insert("wal_keep_segments".into(), 8.into()),
    };
    settings.insert("wal_level".into(), (if version >= 9.6 { "replica" } else { "hot_standby" }).into());
    write(&config, file)
}

/// One for the PostgreSQL that runs here. `dsn`: how to connect to it as a superuser; what it leaves out is as with libpq.
pub fn of_running(dsn: Option<&str>, file: Option<&Path>) -> anyhow::Result<()> {
    let mut config = template()?;
    running::describe(&mut config, dsn)?;
    write(&config, file)
}

/// What every file begins with: Patroni's defaults, the address of this machine, the environment over them.
fn template() -> anyhow::Result<Map<String, Value>> {
    let (name, address) = own_address();
    let template = json!({
        "scope": FIX,
        "name": name,
        "restapi": {"connect_address": format!("{address}:8008"), "listen": format!("{address}:8008")},
        "log": {
            "type": "plain",
            "level": "INFO",
            "traceback_level": "ERROR",
            "format": pgherd_agent::log::DEFAULT_FORMAT,
            "max_queue_size": 1000,
        },
        "postgresql": {
            "data_dir": FIX,
            "connect_address": format!("{address}:5432"),
            "listen": format!("{address}:5432"),
            "bin_dir": "",
            "authentication": {
                "superuser": {"username": "postgres", "password": FIX},
                "replication": {"username": "replicator", "password": FIX},
            },
        },
        // Patroni writes `nosync: false`, too, which its own validator refuses beside `sync_priority`.
        "tags": {"failover_priority": 1, "sync_priority": 1, "noloadbalance": false, "clonefrom": true, "nostream": false},
        "bootstrap": {"dcs": {
            "loop_wait": 10,
            "retry_timeout": 10,
            "ttl": 30,
            "postgresql": {
                "use_slots": true,
                "parameters": {
                    "wal_level": "hot_standby",
                    "hot_standby": "on",
                    "max_connections": 100,
                    "max_wal_senders": 10,
                    "max_prepared_transactions": 0,
                    "max_locks_per_transaction": 64,
                    "track_commit_timestamp": "off",
                    "max_replication_slots": 10,
                    "max_worker_processes": 8,
                    "wal_log_hints": "on",
                },
            },
        }},
    });
    let Value::Object(mut config) = template else { unreachable!("it is written above") };
    overlay(&mut config, document(None, &Environment::of_process())?);
    Ok(config)
}

/// The host's name, and the first of its addresses, of which those of IPv4 go first.
fn own_address() -> (String, String) {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let found = (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect::<Vec<_>>());
    let address = found.ok().and_then(|found| found.iter().find(|ip| ip.is_ipv4()).or(found.first()).copied());
    match address {
        Some(IpAddr::V6(address)) => (name, format!("[{address}]")),
        Some(address) => (name, address.to_string()),
        None => (FIX.to_owned(), FIX.to_owned()),
    }
}

/// The section of this name, made if there is none.
fn section<'a>(map: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        // The environment may have put anything there.
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it has just been made one")
}

fn write(config: &Map<String, Value>, file: Option<&Path>) -> anyhow::Result<()> {
    let text = text(config);
    let Some(path) = file else {
        // Whoever reads may have read enough.
        let _ = io::stdout().write_all(text.as_bytes());
        return Ok(());
    };
    let failed = || format!("cannot write {}", path.display());
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory).with_context(failed)?;
    // There are passwords in it: a file of our own, for its owner alone, in place of what is there.
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(failed)?;
    file.write_all(text.as_bytes()).with_context(failed)?;
    file.persist(path).with_context(failed)?;
    Ok(())
}

/// The file with what a reader must know where he is to know it.
fn text(config: &Map<String, Value>) -> String {
    let mut text = String::new();
    let put = |text: &mut String, names: &[&str]| {
        for name in names {
            let Some(value) = config.get(*name) else { continue };
            if value.is_object() {
                text.push('\n');
            }
            text.push_str(&block(name, value));
        }
    };
    put(&mut text, &BEFORE);
    if let Some(Value::Object(dynamic)) = config.get("bootstrap").and_then(|bootstrap| bootstrap.get("dcs")) {
        text.push_str(
            "\n# How a new cluster begins. Once it is there, nobody reads this section any more.\nbootstrap:\n  \
             # The settings that all members share. They go to the store with the new cluster and live there from then on: change them\n  \
             # with `pgherd edit-config`, not here.\n  dcs:\n",
        );
        let first = ["loop_wait", "retry_timeout", "ttl"];
        let others = dynamic.keys().map(String::as_str).filter(|name| !first.contains(name));
        for name in first.into_iter().chain(others) {
            if let Some(value) = dynamic.get(name) {
                text.extend(block(name, value).lines().map(|line| format!("    {line}\n")));
            }
        }
    }
    put(&mut text, &AFTER);
    text
}

fn block(name: &str, value: &Value) -> String {
    yaml::block_of_width(&json!({ name: value }), yaml::DEFAULT_WIDTH)
}
