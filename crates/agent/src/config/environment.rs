//! The environment: Patroni's variables as a document that is laid over the file, and `PGHERD_GUARD`.
//!
//! It works on a snapshot of the process's variables, taken once: a reload reads the same ones again. Which names exist is
//! Patroni's interface (contract: environment variables); the types are the table's (`options`). Empty values count as absent.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::place::{Path, Place, Problem};
use super::values::{Unit, boolean, integer};
use super::yaml::{self, Document};

/// The whole configuration as YAML, in place of a file and of every other variable.
pub const CONFIGURATION: &str = "PATRONI_CONFIGURATION";
/// pgherd's own: `guard.mode`.
const GUARD: &str = "PGHERD_GUARD";
const PREFIX: &str = "PATRONI_";

/// Variables of one section that are not covered by the general rule: `PATRONI_<SECTION>_<NAME>`.
const EXPLICIT: [(&str, &[&str]); 6] = [
    ("", &["name", "namespace", "scope", "thread_pool_size", "thread_stack_size"]),
    (
        "log",
        &[
            "type",
            "level",
            "traceback_level",
            "format",
            "dateformat",
            "static_fields",
            "max_queue_size",
            "dir",
            "mode",
            "file_size",
            "file_num",
            "loggers",
            "deduplicate_heartbeat_logs",
        ],
    ),
    (
        "restapi",
        &[
            "listen",
            "connect_address",
            "certfile",
            "keyfile",
            "keyfile_password",
            "cafile",
            "ciphers",
            "verify_client",
            "http_extra_headers",
            "https_extra_headers",
            "allowlist",
            "allowlist_include_members",
            "request_queue_size",
            "server_tokens",
        ],
    ),
    ("ctl", &["insecure", "cacert", "certfile", "keyfile", "keyfile_password"]),
    ("postgresql", &["listen", "connect_address", "proxy_address", "config_dir", "data_dir", "pgpass", "bin_dir"]),
    (
        "raft",
        &[
            "data_dir",
            "self_addr",
            "partner_addrs",
            "password",
            "bind_addr",
            "min_timeout",
            "max_timeout",
            "connection_timeout",
            "append_entries_period",
            "connection_retry_time",
            "leader_fallback_timeout",
        ],
    ),
];

/// `PATRONI_<ROLE>_<KEY>`: the users of PostgreSQL.
const ROLES: [&str; 3] = ["replication", "superuser", "rewind"];
const ROLE_KEYS: [&str; 12] = [
    "username",
    "password",
    "sslmode",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "gssencmode",
    "channel_binding",
    "sslnegotiation",
];
const PROGRAMS: [&str; 7] =
    ["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready", "pg_rewind"];

/// `PATRONI_<ANY SECTION>_<SUFFIX>`, meant for the stores.
const GENERAL: [&str; 42] = [
    "host",
    "hosts",
    "port",
    "use_proxies",
    "protocol",
    "srv",
    "srv_suffix",
    "url",
    "proxy",
    "cacert",
    "cert",
    "key",
    "verify",
    "token",
    "checks",
    "dc",
    "consistency",
    "register_service",
    "service_check_interval",
    "service_check_tls_server_name",
    "service_tags",
    "namespace",
    "context",
    "use_endpoints",
    "scope_label",
    "role_label",
    "pod_ip",
    "ports",
    "labels",
    "bypass_api_service",
    "retriable_http_codes",
    "key_password",
    "use_ssl",
    "set_acls",
    "group",
    "database",
    "leader_label_value",
    "follower_label_value",
    "standby_leader_label_value",
    "tmp_role_label",
    "auth_data",
    "bootstrap_labels",
];

const LISTS: [&str; 7] =
    ["hosts", "ports", "checks", "service_tags", "retriable_http_codes", "partner_addrs", "allowlist"];
const MAPS: [&str; 8] = [
    "labels",
    "set_acls",
    "auth_data",
    "bootstrap_labels",
    "http_extra_headers",
    "https_extra_headers",
    "loggers",
    "static_fields",
];

/// Sections, empty where it is any, and their numbers.
const NUMBERS: [(&str, &[&str]); 4] = [
    ("log", &["max_queue_size", "file_size", "file_num", "mode"]),
    ("restapi", &["request_queue_size"]),
    ("citus", &["group"]),
    ("", &["port"]),
];
const BOOLEANS: [&str; 8] = [
    "allowlist_include_members",
    "insecure",
    "deduplicate_heartbeat_logs",
    "use_proxies",
    "register_service",
    "use_endpoints",
    "bypass_api_service",
    "verify",
];

/// A snapshot of the process's variables.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process; those that are not UTF-8 are none of ours.
    pub fn of_process() -> Environment {
        Environment::new(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Environment {
        let ours = |name: &str| name.starts_with(PREFIX) || name == GUARD;
        Environment(variables.into_iter().filter(|(name, value)| ours(name) && !value.is_empty()).collect())
    }

    /// `PATRONI_CONFIGURATION`: all of the configuration, if it is set.
    pub fn whole_configuration(&self) -> Option<&str> {
        self.0.get(CONFIGURATION).map(String::as_str)
    }

    /// The configuration that the single variables make, and what is wrong with them.
    pub fn document(&self) -> (Document, Vec<Problem>) {
        let mut document = Document { value: Value::Object(Map::new()), ..Document::default() };
        let mut problems = Vec::new();
        for (name, text) in &self.0 {
            let Some(path) = path_of(name) else { continue };
            let place = Place::whole(name);
            match value_of(&path, text) {
                Ok(value) => {
                    document.places.insert(&path, place);
                    put(&mut document.value, &path, value);
                }
                // As Patroni, which goes on without it, but not in silence.
                Err(error) => {
                    let text = format!("ignored: {error}");
                    problems.push(Problem::warning(path.join("."), text).at(Some(&place)));
                }
            }
        }
        (document, problems)
    }
}

/// The option that a variable sets; `None` if it sets none.
fn path_of(variable: &str) -> Option<Path> {
    let path = |parts: &[&str]| Some(parts.iter().map(|part| (*part).to_owned()).collect());
    if variable == GUARD {
        return path(&["guard", "mode"]);
    }
    let name = variable.strip_prefix(PREFIX)?.to_ascii_lowercase();
    match name.as_str() {
        "configuration" => return None,
        "loglevel" => return path(&["log", "level"]),
        "logformat" => return path(&["log", "format"]),
        "log_datefmt" => return path(&["log", "dateformat"]),
        _ if EXPLICIT[0].1.contains(&name.as_str()) => return path(&[&name]),
        _ => {}
    }
    let (section, key) = name.split_once('_')?;
    if EXPLICIT.iter().any(|(explicit, keys)| *explicit == section && keys.contains(&key)) {
        return path(&[section, key]);
    }
    if ROLES.contains(&section) && ROLE_KEYS.contains(&key) {
        return path(&["postgresql", "authentication", section, key]);
    }
    match (section, key) {
        ("postgresql", _) if key.strip_prefix("bin_").is_some_and(|program| PROGRAMS.contains(&program)) => {
            path(&["postgresql", "bin_name", key.trim_start_matches("bin_")])
        }
        ("restapi" | "ctl", "username" | "password") => path(&[section, "authentication", key]),
        ("etcd" | "etcd3", "username" | "password") => path(&[section, key]),
        ("citus", key) if !["group", "database"].contains(&key) => None,
        _ if !section.is_empty() && GENERAL.contains(&key) => path(&[section, key]),
        _ => None,
    }
}

/// The variable that sets an option, if there is one.
pub fn variable(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('.').collect();
    let name = match parts[..] {
        ["guard", "mode"] => return Some(GUARD.to_owned()),
        [key] => key.to_owned(),
        ["postgresql", "authentication", role, key] => format!("{role}_{key}"),
        ["postgresql", "bin_name", program] => format!("postgresql_bin_{program}"),
        [section, "authentication", key] | [section, key] => format!("{section}_{key}"),
        _ => return None,
    };
    let variable = format!("{PREFIX}{}", name.to_ascii_uppercase());
    path_of(&variable).filter(|found| found.join(".") == path).map(|_| variable)
}

/// Lists and mappings are YAML, with or without their brackets; numbers and booleans are what Patroni makes of them; everything else is text,
/// which the table gives its type.
fn value_of(path: &[String], text: &str) -> Result<Value, String> {
    let key = path.last().map_or("", String::as_str);
    let text_value = Value::String(text.to_owned());
    let section = path.first().map_or("", String::as_str);
    if NUMBERS.iter().any(|(of, keys)| (of.is_empty() || *of == section) && keys.contains(&key)) {
        let number = integer(&text_value, Unit::None).map(Value::from);
        return number.ok_or_else(|| format!("expected a whole number, found `{text}`"));
    }
    if BOOLEANS.contains(&key) {
        let flag = boolean(&text_value).map(Value::from);
        return flag.ok_or_else(|| format!("expected a boolean (on or off), found `{text}`"));
    }
    let is_log_fields = section == "log" && key == "format" && !names_field(text);
    let source = if LISTS.contains(&key) || is_log_fields {
        if text.trim_start().starts_with('-') || text.contains('[') { text.to_owned() } else { format!("[{text}]") }
    } else if MAPS.contains(&key) {
        if text.trim_start().starts_with('{') { text.to_owned() } else { format!("{{{text}}}") }
    } else {
        return Ok(text_value);
    };
    let kind = if MAPS.contains(&key) { "mapping" } else { "list" };
    let value = yaml::read("", source.as_bytes()).map(|document| document.value).map_err(|error| error.text);
    match value {
        Ok(value) if value.is_array() || value.is_object() => Ok(value),
        Ok(_) => Err(format!("expected a {kind} in YAML")),
        Err(error) => Err(format!("expected a {kind} in YAML; {error}")),
    }
}

/// `%(name)`: Python's notation, and no list.
fn names_field(text: &str) -> bool {
    text.split("%(").skip(1).any(|rest| {
        let name = rest.split_once(')').map_or("", |(name, _)| name);
        !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
    })
}

fn put(document: &mut Value, path: &[String], value: Value) {
    let mut section = document;
    let (last, sections) = path.split_last().expect("a variable's path has a name");
    for name in sections {
        let map = section.as_object_mut().expect("only this function builds the document, of mappings");
        section = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
    }
    section.as_object_mut().expect("as above").insert(last.clone(), value);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(variables: &[(&str, &str)]) -> Value {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (document, problems) = Environment::new(variables).document();
        assert_eq!(problems, [], "of valid variables");
        document.value
    }

    #[test]
    fn variables_become_options() {
        let cases = [
            ("PATRONI_SCOPE", "c", json!({"scope": "c"})),
            ("PATRONI_LOGLEVEL", "DEBUG", json!({"log": {"level": "DEBUG"}})),
            ("PATRONI_LOG_FORMAT", "asctime, message", json!({"log": {"format": ["asctime", "message"]}})),
            ("PATRONI_LOG_FORMAT", "%(message)s", json!({"log": {"format": "%(message)s"}})),
            ("PATRONI_LOG_LOGGERS", "a: DEBUG", json!({"log": {"loggers": {"a": "DEBUG"}}})),
            ("PATRONI_RESTAPI_PASSWORD", "1234", json!({"restapi": {"authentication": {"password": "1234"}}})),
            ("PATRONI_CTL_INSECURE", "on", json!({"ctl": {"insecure": true}})),
            (
                "PATRONI_SUPERUSER_PASSWORD",
                "0123",
                json!({"postgresql": {"authentication": {"superuser": {"password": "0123"}}}}),
            ),
            ("PATRONI_POSTGRESQL_BIN_PG_CTL", "x", json!({"postgresql": {"bin_name": {"pg_ctl": "x"}}})),
            ("PATRONI_POSTGRESQL_BIN_DIR", "/b", json!({"postgresql": {"bin_dir": "/b"}})),
            ("PATRONI_ZOOKEEPER_HOSTS", "'a:1','b:2'", json!({"zookeeper": {"hosts": ["a:1", "b:2"]}})),
            ("PATRONI_ZOOKEEPER_HOSTS", "- a:1\n- b:2", json!({"zookeeper": {"hosts": ["a:1", "b:2"]}})),
            ("PATRONI_ZOOKEEPER_SET_ACLS", "u: [ALL]", json!({"zookeeper": {"set_acls": {"u": ["ALL"]}}})),
            ("PATRONI_ETCD3_HOST", "h:1", json!({"etcd3": {"host": "h:1"}})),
            ("PATRONI_ETCD3_PASSWORD", "p", json!({"etcd3": {"password": "p"}})),
            ("PATRONI_CITUS_GROUP", "1", json!({"citus": {"group": 1}})),
            ("PGHERD_GUARD", "off", json!({"guard": {"mode": "off"}})),
            ("PATRONI_RESTAPI_THREAD_POOL_SIZE", "1", json!({})),
            ("PATRONI_NAME", "", json!({})),
            ("PATRONI_NOTHING", "x", json!({})),
            ("PATH", "x", json!({})),
        ];
        for (name, text, expected) in cases {
            assert_eq!(document(&[(name, text)]), expected, "{name}={text}");
        }
    }

    #[test]
    fn an_option_names_its_variable() {
        for (path, expected) in [
            ("scope", Some("PATRONI_SCOPE")),
            ("postgresql.data_dir", Some("PATRONI_POSTGRESQL_DATA_DIR")),
            ("postgresql.authentication.rewind.sslmode", Some("PATRONI_REWIND_SSLMODE")),
            ("postgresql.bin_name.pg_rewind", Some("PATRONI_POSTGRESQL_BIN_PG_REWIND")),
            ("restapi.authentication.username", Some("PATRONI_RESTAPI_USERNAME")),
            ("zookeeper.hosts", Some("PATRONI_ZOOKEEPER_HOSTS")),
            ("guard.mode", Some("PGHERD_GUARD")),
            ("postgresql.pg_hba", None),
            ("restapi.thread_pool_size", None),
            ("bootstrap.dcs", None),
        ] {
            assert_eq!(variable(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_yaml_names_its_variable() {
        let variables = [("PATRONI_ZOOKEEPER_SET_ACLS".to_owned(), "a: [".to_owned())];
        let (_, problems) = Environment::new(variables).document();
        let text = problems[0].to_string();
        assert!(
            text.starts_with("PATRONI_ZOOKEEPER_SET_ACLS: zookeeper.set_acls: ignored: expected a mapping in YAML"),
            "{text}"
        );
    }
}
