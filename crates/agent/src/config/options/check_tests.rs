use serde_json::json;

use super::*;
use crate::config::yaml;

const MINIMAL: &str = "\
scope: c
name: n
restapi: {listen: '*:8008'}
zookeeper: {hosts: zoo}
postgresql:
  listen: '*'
  data_dir: /d
  authentication: {replication: {username: r}}
";

/// The problems of a valid file with `extra` below it.
fn problems(extra: &str) -> String {
    let text = format!("{MINIMAL}{extra}");
    let document = yaml::read("f.yml", text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    check_local(&document.value, &document.places).problems.to_string()
}

#[test]
fn a_minimal_file_has_no_problems() {
    assert_eq!(problems(""), "");
}

#[test]
fn wrong_values_name_file_line_key_and_what_was_expected() {
    let cases = [
        ("tags: x\n", "f.yml:9:1: tags: expected a mapping, found a text"),
        ("log: 5\n", "f.yml:9:1: log: expected a section with keys of its own, found a number"),
        (
            "log:\n  level: loud\n",
            "f.yml:10:3: log.level: expected one of CRITICAL, ERROR, WARNING, INFO, DEBUG, NOTSET (or a filter such as \
             info,patroni.api=debug), found `loud`",
        ),
        (
            "watchdog: {safety_margin: -2}\n",
            "f.yml:9:12: watchdog.safety_margin: expected a whole number of at least -1, found -2",
        ),
        ("ctl: {insecure: maybe}\n", "f.yml:9:7: ctl.insecure: expected a boolean (on or off), found `maybe`"),
        (
            "ctl: {authentication: {password: [hunter2]}}\n",
            "f.yml:9:24: ctl.authentication.password: expected a text (quote it), found a list",
        ),
        (
            "bootstrap: {pg_hba: 'host all'}\n",
            "f.yml:9:13: bootstrap.pg_hba: expected a list of texts, found `host all`",
        ),
        (
            "bootstrap: {dcs: {ttl: soon}}\n",
            "f.yml:9:19: bootstrap.dcs.ttl: expected a number of seconds (or a text with a unit, like 30min) of at least 4, \
             found `soon`",
        ),
    ];
    for (extra, expected) in cases {
        assert_eq!(problems(extra), expected, "{extra:?}");
    }
}

#[test]
fn keys_that_nobody_reads() {
    let cases = [
        ("nmae: x\n", "f.yml:9:1: nmae: unknown key; did you mean `name`?"),
        ("log: {levle: INFO}\n", "f.yml:9:7: log.levle: unknown key; did you mean `level`?"),
        ("zebra: x\n", "f.yml:9:1: zebra: unknown key; nothing reads it"),
        (
            "ttl: 30\n",
            "f.yml:9:1: ttl: ignored here: it holds for the whole cluster; set it with PATCH /config on the REST API, \
             or under `bootstrap.dcs` before the cluster exists",
        ),
        (
            "bootstrap: {dcs: {postgresql: {listen: 'a:1'}}}\n",
            "f.yml:9:32: bootstrap.dcs.postgresql.listen: ignored here: each member sets it in its own file",
        ),
        (
            "bootstrap: {dcs: {postgresql: {paramters: {}}}}\n",
            "f.yml:9:32: bootstrap.dcs.postgresql.paramters: unknown key; did you mean `parameters`?",
        ),
        ("watchdog: {nowayout: 1}\n", ""),
        ("bootstrap: {dcs: {mine: 1}}\n", ""),
        ("bootstrap: {method: mine, mine: {command: x}}\n", ""),
        ("tags: {any: [thing]}\n", ""),
        ("scope2: on\n", "f.yml:9:1: scope2: unknown key; did you mean `scope`?"),
        (
            "citus: {database: on}\n",
            "f.yml:9:9: citus.database: YAML reads this as a boolean; put it in quotes if it is a text",
        ),
    ];
    for (extra, expected) in cases {
        assert_eq!(problems(extra), expected, "{extra:?}");
    }
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let document = yaml::read("f.yml", b"name: n\nrestapi: 1\npostgresql:\n  listen: '*'\n").expect("valid");
    let problems = check_local(&document.value, &document.places).problems.to_string();
    assert_eq!(
        problems,
        "\
f.yml:2:1: restapi: expected a section with keys of its own, found a number
scope: required, but missing; expected a text, for example `my_cluster`
f.yml:3:1: postgresql.data_dir: required, but missing; expected a path, for example `/var/lib/postgresql/data`
f.yml:3:1: postgresql.authentication.replication.username: required, but missing; expected a text, for example `replicator`"
    );
}

#[test]
fn a_dynamic_configuration_is_never_refused() {
    let cases = [
        (json!({"ttl": "30"}), json!({"ttl": 30}), ""),
        (
            json!({"ttl": 2}),
            json!({"ttl": 4}),
            "ttl: expected a number of seconds (or a text with a unit, like 30min) of at least 4, found 2; 4 is used",
        ),
        (json!({"pause": "x"}), json!({}), "pause: expected a boolean (on or off), found `x`"),
        (json!({"mine": [1]}), json!({"mine": [1]}), ""),
        (json!({"synchronous_mode": "Quorum"}), json!({"synchronous_mode": "quorum"}), ""),
        (json!({"synchronous_mode": "on"}), json!({"synchronous_mode": true}), ""),
        (json!({"slots": 5}), json!({}), "slots: expected a mapping, found a number"),
        (json!({"scope": "x"}), json!({}), "scope: ignored here: each member sets it in its own file"),
        (
            json!({"postgresql": {"data_dir": "/x", "use_slots": "off"}}),
            json!({"postgresql": {"use_slots": false}}),
            "postgresql.data_dir: ignored here: each member sets it in its own file",
        ),
    ];
    for (config, expected, problems) in cases {
        let checked = check_dynamic(config.as_object().expect("a mapping"));
        assert_eq!((checked.value, checked.problems.to_string()), (expected, problems.to_owned()), "{config}");
        assert!(!checked.problems.has_errors());
    }
}

#[test]
fn distances_of_words() {
    for (left, right, expected) in [("", "", 0), ("a", "", 1), ("name", "nmae", 2), ("kitten", "sitting", 3)] {
        assert_eq!(distance(left, right), expected, "{left} {right}");
    }
}
