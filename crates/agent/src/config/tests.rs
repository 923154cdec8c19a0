use std::path::PathBuf;

use pgherd_dcs::Servers;
use pgherd_ha::Role;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::log::levels::Levels;
use crate::postgres::ReplicaMethod;
use crate::user_command::UserCommand;

const LAB: &str = include_str!("testdata/postgres1.yml");
const FULL: &str = include_str!("testdata/full.yml");
const HERD: Company = Company { all_pgherd: true, built_in_store: false };

fn load(text: &str) -> Result<Config, ConfigError> {
    load_with(text, &[])
}

/// Loads `text` with these variables.
fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("node.yml");
    std::fs::write(&path, text).expect("the file can be written");
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(&path), &Environment::new(variables))
}

fn valid(text: &str) -> Config {
    load(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The errors of `text`, without the directory of the file.
fn refused(text: &str, variables: &[(&str, &str)]) -> String {
    let error = load_with(text, variables).expect_err("this configuration must be refused").to_string();
    let cut = |line: &str| line.find("node.yml").map_or(line, |at| &line[at..]).to_owned();
    error.lines().map(cut).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_lab_s_file_loads_unchanged_and_without_a_warning() {
    let config = valid(LAB);
    assert_eq!(config.warnings.to_string(), "");
    assert_eq!((config.scope.as_str(), config.name.as_str()), ("my_cluster", "postgresql1"));
    assert_eq!(config.namespace, "service");
    assert_eq!(config.restapi.listen.to_string(), "pg-slave:8008");
    assert_eq!(config.restapi.url(), "http://pg-slave:8008/patroni");
    let Store::ZooKeeper(zookeeper) = &config.store else { panic!("{:?}", config.store) };
    assert_eq!(zookeeper.hosts, ["zoo:2181"]);
    assert_eq!(config.node.listen.hosts, ["0.0.0.0"]);
    assert_eq!(config.node.connect_address.to_string(), "pg-slave:5432");
    assert_eq!(config.node.data_dir, PathBuf::from("/var/lib/postgresql/data/postgresql1"));
    assert_eq!(config.node.pgpass, PathBuf::from("/tmp/pgpass1"));
    assert_eq!(config.node.superuser.password, Some(Secret::new("postgres")));
    assert_eq!(config.node.replication.username, "replicator");
    assert_eq!(config.watchdog.mode, Demand::Off);
    assert_eq!(config.guard, Demand::Automatic);
    assert!(config.tags.published().is_empty() && !config.tags.nofailover());
    assert_eq!((config.bootstrap.custom.is_some(), config.bootstrap.dcs.len()), (false, 0));
    let dynamic = Dynamic::read(&Map::new(), &config, HERD);
    assert_eq!(dynamic.warnings.to_string(), "");
    let server = config.server(&dynamic, Role::Primary);
    assert_eq!(server.parameters, [("unix_socket_directories".to_owned(), ".".to_owned())].into());
    assert_eq!((server.listen_addresses.as_str(), server.port), ("0.0.0.0", 5432));
    assert_eq!(server.bin_dir, Some(PathBuf::from("/usr/lib/postgresql/15/bin")));
    assert_eq!((server.database.as_str(), server.config_base_name.as_str()), ("postgres", "postgresql"));
}

#[test]
fn a_full_file() {
    let config = valid(FULL);
    assert_eq!(
        config.warnings.0.iter().map(|warning| warning.key.as_str()).collect::<Vec<_>>(),
        ["postgresql.parameters.max_connections"],
        "{}",
        config.warnings
    );
    assert_eq!(config.namespace, "service");
    assert_eq!(config.restapi.url(), "https://[fd00::1]:8008/patroni");
    let tls = config.restapi.tls.as_ref().expect("a certificate is there");
    assert_eq!(tls.verify_client, VerifyClient::Optional);
    assert_eq!(config.restapi.allowlist, ["10.0.0.0/8", "::1"]);
    assert!(config.restapi.allowlist_include_members);
    let login = config.ctl.authentication.as_ref().expect("that of the REST API");
    assert_eq!((login.username.as_str(), login.password.expose()), ("admin", "secret one"));
    assert_eq!(config.ctl.cacert, Some(PathBuf::from("/etc/ssl/ca.pem")));
    let Store::ZooKeeper(zookeeper) = &config.store else { panic!("{:?}", config.store) };
    let hosts = zookeeper.hosts.clone();
    assert_eq!(hosts, ["zoo1:2181", "zoo2:2181", "[fd00::3]:2182"]);
    let timing = Timing::of_pgherd(HERD);
    let options = config.store.options(&config, &timing, None);
    let Servers::ZooKeeper(servers) = options.servers else { panic!("{:?}", options.servers) };
    assert_eq!((servers.hosts, options.namespace), (hosts, "service".to_owned()));
    assert_eq!((options.name.as_deref(), options.ttl), (Some("node-a"), timing.ttl));
    assert_eq!(config.log.levels, Levels::parse("WARNING"));
    let destination = &config.log.destination;
    assert_eq!((destination.mode, destination.file_size), (Some(0o640), 10 << 20));
    assert_eq!(config.bootstrap.dcs["my_tool"], json!({"anything": "goes"}));
    assert_eq!(config.bootstrap.post_bootstrap, UserCommand::parse("/usr/local/bin/create_users"));
    assert_eq!((config.watchdog.mode, config.watchdog.safety_margin), (Demand::Required, None));
    assert_eq!(config.guard, Demand::Required);
    let tags = json!({"nofailover": false, "clonefrom": true, "failover_priority": 2, "datacenter": "north",
        "weight": 1.5, "rack": "7"});
    assert_eq!(Value::Object(config.tags.published()), tags);
    assert_eq!(config.node.rewind.as_ref().map(|user| user.username.as_str()), Some("rewinder"));
    assert_eq!(config.node.rewind.as_ref().and_then(|user| user.password.clone()), Some(Secret::new("1234")));
    assert_eq!(config.node.superuser.options["sslmode"], "verify-full");
    assert_eq!(config.node.proxy_address.as_ref().map(ToString::to_string).as_deref(), Some("node-a.example:6432"));
}

#[test]
fn the_server_of_a_full_file_in_each_role() {
    let config = valid(FULL);
    let dynamic = Dynamic::read(&config.bootstrap.dcs, &config, HERD);
    assert_eq!(dynamic.warnings.to_string(), "");
    let primary = config.server(&dynamic, Role::Primary);
    let expected = [
        ("archive_mode", "on"),
        ("jit", "off"),
        ("max_connections", "200"),
        ("random_page_cost", "1.1"),
        ("work_mem", "64MB"),
    ];
    assert_eq!(primary.parameters, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(primary.pg_hba, ["local all all peer", "host all all all scram-sha-256"]);
    let recovery = [("recovery_min_apply_delay", "5min"), ("restore_command", "cp /archive/%f %p")];
    assert_eq!(primary.recovery_conf, recovery.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let replica = config.server(&dynamic, Role::Replica);
    assert_eq!(replica.parameters.get("hot_standby_feedback").map(String::as_str), Some("on"));
    assert_eq!(replica.parameters.get("wal_level"), None, "a controlled setting cannot depend on the role");
    assert_eq!(replica.pg_hba, ["host all all all reject"]);
    assert_eq!(replica.bin_names, [("postgres".to_owned(), "edb-postgres".to_owned())].into());
    assert_eq!(replica.listen_addresses, "10.0.0.1,127.0.0.1");
    assert!(replica.use_unix_socket);
    let postgresql = &dynamic.postgresql;
    let [ReplicaMethod::Own(wal_g), ReplicaMethod::BaseBackup] = postgresql.replica_methods.as_slice() else {
        panic!("{:?}", postgresql.replica_methods)
    };
    assert!(wal_g.name == "wal_g" && wal_g.no_leader && !wal_g.keep_data);
    assert!(postgresql.use_pg_rewind && postgresql.remove_data_directory_on_diverged_timelines);
    assert_eq!(postgresql.pg_ctl_timeout, std::time::Duration::from_secs(120));
    assert_eq!(postgresql.callbacks.get("on_role_change"), UserCommand::parse("/usr/local/bin/role").as_ref());
}

#[test]
fn no_password_shows() {
    let config = valid(FULL);
    let dynamic = Dynamic::read(&config.bootstrap.dcs, &config, HERD);
    let shown = format!("{config:?} {dynamic:?} {:?}", config.server(&dynamic, Role::Primary));
    for secret in ["secret one", "secret three", "1234"] {
        assert!(!shown.contains(secret), "{secret} shows in {shown}");
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let variables = [
        ("PATRONI_NAME", "other"),
        ("PATRONI_ZOOKEEPER_HOSTS", "'a:1'"),
        ("PATRONI_SUPERUSER_PASSWORD", "0123"),
        ("PATRONI_SUPERUSER_SSLMODE", "require"),
        ("PGHERD_GUARD", "off"),
        ("PATRONI_SCOPE", ""),
    ];
    let config = load_with(LAB, &variables).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.name.as_str(), config.scope.as_str()), ("other", "my_cluster"));
    let Store::ZooKeeper(zookeeper) = &config.store else { panic!("{:?}", config.store) };
    assert_eq!(zookeeper.hosts, ["a:1"]);
    assert_eq!(config.node.superuser.username, "postgres");
    assert_eq!(config.node.superuser.password, Some(Secret::new("0123")));
    assert_eq!(config.node.superuser.options["sslmode"], "require");
    assert_eq!(config.guard, Demand::Off);
    assert_eq!(
        refused(LAB, &[("PATRONI_POSTGRESQL_LISTEN", "a:b")]),
        "PATRONI_POSTGRESQL_LISTEN: postgresql.listen: expected HOST[,HOST...]:PORT, found `a:b`"
    );
}

#[test]
fn without_a_file() {
    let missing = Path::new("/nonexistent/node.yml");
    let load = |path, variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(path, &Environment::new(variables))
    };
    let empty = |path| load(path, &[]).expect_err("nothing is configured").to_string();
    assert_eq!(empty(None), "Config is empty.\nno file was named, and no PATRONI_ variable is set");
    assert_eq!(
        empty(Some(missing)),
        "Config is empty.\n/nonexistent/node.yml does not exist, and no PATRONI_ variable is set"
    );
    let whole = load(None, &[("PATRONI_CONFIGURATION", LAB), ("PATRONI_NAME", "ignored")]);
    assert_eq!(whole.unwrap_or_else(|error| panic!("{error}")).name, "postgresql1");
    let alone = load(
        Some(missing),
        &[
            ("PATRONI_SCOPE", "c"),
            ("PATRONI_NAME", "n"),
            ("PATRONI_RESTAPI_LISTEN", "127.0.0.1:8008"),
            ("PATRONI_ZOOKEEPER_HOSTS", "zoo"),
            ("PATRONI_POSTGRESQL_LISTEN", "127.0.0.1"),
            ("PATRONI_POSTGRESQL_DATA_DIR", "/d"),
            ("PATRONI_REPLICATION_USERNAME", "r"),
        ],
    );
    assert_eq!(alone.unwrap_or_else(|error| panic!("{error}")).node.connect_address.to_string(), "localhost:5432");
}

#[test]
fn a_directory_is_merged_in_the_order_of_names() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
    write("10-lab.yml", LAB);
    write("20-own.yaml", "name: own\nwatchdog:\nlog: {level: DEBUG}\ntags: {nofailover: ~, rack: 1}\n");
    write("30-ignored.txt", "name: [");
    let config =
        Config::load(Some(directory.path()), &Environment::default()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.name.as_str(), config.log.levels), ("own", Levels::parse("DEBUG")));
    assert_eq!(config.watchdog.mode, Demand::Automatic);
    assert_eq!(config.tags.0.keys().collect::<Vec<_>>(), ["noloadbalance", "clonefrom", "nosync", "rack"]);
}

#[test]
fn what_is_refused() {
    let without_store = LAB.replace("zookeeper:\n  hosts:\n    - zoo:2181\n", "");
    assert_ne!(without_store, LAB);
    let consul = format!("{without_store}\nconsul: {{host: x}}\n");
    let cases = [
        ("- a\n".to_owned(), "node.yml: expected keys with values, found a list"),
        (
            without_store.clone(),
            "no store is configured; add a section `store` for the built-in one, or `zookeeper` or `etcd3` with its `hosts`",
        ),
        (
            consul,
            "node.yml:34:1: consul: pgherd does not speak to this store; name a ZooKeeper under `zookeeper.hosts`, or an \
             etcd under `etcd3.hosts`",
        ),
        (
            format!("{without_store}\netcd: {{host: x}}\n"),
            "node.yml:34:1: etcd: this is the API of etcd's version 2, which etcd has given up; rename the section to \
             `etcd3`",
        ),
        (
            format!("{without_store}\netcd3: {{protocol: https}}\n"),
            "node.yml:34:1: etcd3: no server is named; expected `hosts`, a list of HOST:PORT (or `host`, `url`, `srv`, `proxy`)",
        ),
        (format!("{without_store}\netcd3: {{hosts: ['a:x']}}\n"), "node.yml:34:9: etcd3.hosts: `a:x` is not HOST:PORT"),
        (LAB.replace("- zoo:2181", "- zoo:x"), "node.yml:10:7: zookeeper.hosts.0: `zoo:x` is not HOST:PORT"),
        (
            LAB.replace("    - zoo:2181", ""),
            "node.yml:9:3: zookeeper.hosts: required, but missing; expected a list of HOST:PORT",
        ),
        (
            LAB.replace("    - zoo:2181", "    - zoo:2181\n  set_acls: {'CN=a': [OWN]}"),
            "node.yml:11:3: zookeeper.set_acls: `CN=a`: `OWN` is no permission; expected some of READ, WRITE, CREATE, DELETE, \
             ADMIN, ALL",
        ),
        (
            LAB.replace("scope: my_cluster", "scope: a/b"),
            "node.yml:1:1: scope: must not be empty or contain `/`: it becomes part of a path in the store",
        ),
        (
            format!("{LAB}\nbootstrap: {{initdb: [nosync]}}\n"),
            "node.yml:37:13: bootstrap.initdb: `nosync` is set by pgherd itself",
        ),
        (format!("{LAB}\nname: again\n"), "node.yml:37:1: name: this key is written twice; remove one"),
    ];
    for (text, expected) in cases {
        assert!(
            refused(&text, &[]).starts_with(expected),
            "{}\nwas expected to start with\n{expected}",
            refused(&text, &[])
        );
    }
}

#[test]
fn tags_that_contradict_each_other() {
    let cases = [
        (
            "{nofailover: true, failover_priority: 1}",
            "Conflicting configuration between nofailover: True and failover_priority: 1. Defaulting to nofailover: True",
        ),
        (
            "{nosync: off, sync_priority: 0}",
            "Conflicting configuration between nosync: False and sync_priority: 0. Defaulting to nosync: False",
        ),
        ("{nofailover: false, failover_priority: 2}", ""),
        ("{nofailover: true, failover_priority: 0}", ""),
    ];
    for (tags, expected) in cases {
        let text = LAB.split("tags:").next().map(|before| format!("{before}tags: {tags}\n")).expect("a first part");
        let warnings = valid(&text).warnings.to_string();
        assert!(warnings.ends_with(expected) && warnings.is_empty() == expected.is_empty(), "{tags}: {warnings}");
    }
}

#[test]
fn old_shapes() {
    let old = "
scope: c
restapi: {listen: 'a:1'}
zookeeper: {hosts: zoo}
postgresql:
  name: n
  listen: '*:5432'
  data_dir: /d
  superuser: {username: s}
  replication: {username: r}
  pg_rewind: {username: w}
";
    let config = valid(old);
    assert_eq!(config.name, "n");
    let users = [&config.node.superuser, &config.node.replication, config.node.rewind.as_ref().expect("a third user")];
    assert_eq!(users.map(|user| user.username.as_str()), ["s", "r", "w"]);
}

#[test]
fn the_example_loads_without_a_problem() {
    let config = valid(&options::example());
    assert_eq!(config.warnings.to_string(), "");
}

proptest! {
    /// Any value at any key: an answer, never a panic.
    #[test]
    fn arbitrary_values_never_panic(index in 0..options::OPTIONS.len(), value in "[-a-z0-9:,.\\[\\]{} '~&*<]{0,20}") {
        for path in options::OPTIONS[index].paths() {
            let depth = path.split('.').count();
            let nested = path.split('.').enumerate().fold(String::new(), |text, (level, key)| {
                let end = if level + 1 == depth { format!(" {value}\n") } else { "\n".to_owned() };
                format!("{text}{}{key}:{end}", "  ".repeat(level))
            });
            let _ = load(&nested);
            if let Ok(document) = yaml::read("f", nested.as_bytes()) {
                let config = valid(LAB);
                Dynamic::read(document.value.as_object().unwrap_or(&Map::new()), &config, HERD);
            }
        }
    }
}

#[test]
fn the_built_in_store_is_a_store_also_for_the_validator() {
    let text = LAB.replace("zookeeper:\n  hosts:\n", "store:\n  secret: 0123456789abcdef\n  members:\n");
    assert!(text.contains("store:"), "{text}");
    let mut document = yaml::read("f", text.as_bytes()).expect("YAML").value.as_object().expect("a map").clone();
    let found: Vec<String> = schema::verify(&mut document, true).iter().map(ToString::to_string).collect();
    assert!(found.iter().all(|line| !line.contains("zookeeper") && !line.contains("store")), "{found:?}");
    document.remove("store");
    let found: Vec<String> = schema::verify(&mut document, true).iter().map(ToString::to_string).collect();
    assert!(found.iter().any(|line| line.starts_with("zookeeper")), "{found:?}");
}
