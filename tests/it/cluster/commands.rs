//! Our own commands of the operator on a running cluster: that what they order happens.
//!
//! What they print where nobody runs is compared with the real patronictl in `tests/it/ctl/`.

use serde_json::Value;

use crate::ctl::patronictl;
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;

/// It must succeed and say this.
fn says(cluster: &Cluster, arguments: &[&str], expected: &str) {
    let output = cluster.ctl(arguments);
    assert!(output.status.success() && text(&output).contains(expected), "{arguments:?}: {}", text(&output));
}

/// Waits until the table shows this.
fn list_shows(cluster: &Cluster, expected: &str) {
    eventually(&format!("the table shows {expected:?}"), LONG, || match text(&cluster.ctl(&["list"])) {
        list if list.contains(expected) => Ok(()),
        list => Err(list),
    });
}

/// A query of the superuser.
fn ask<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["query", "demo", "-U", "postgres", "-d", "postgres"], arguments].concat()
}

/// The password file of the operator is that of the demo.
fn with_password_file(nodes: u8) -> Cluster {
    let cluster = Cluster::start(nodes);
    let directory = cluster.directory();
    std::fs::copy(directory.join("pgpass"), directory.join(".pgpass")).expect("the demo's password file");
    cluster
}

#[test]
fn an_operator_reloads_restarts_and_copies_anew() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));

    let config = cluster.node(&replica).config;
    let text = std::fs::read_to_string(&config).expect("the node's file");
    std::fs::write(&config, text + "\ntags:\n  reloaded: yes\n").expect("the node's file");
    says(
        &cluster,
        &["reload", "demo", &replica, "--force"],
        &format!("Reload request received for member {replica} and"),
    );
    list_shows(&cluster, "reloaded: true");

    says(&cluster, &["edit-config", "-p", "max_connections=120", "--force"], "+    max_connections: 120\n");
    eventually("a restart of both is pending", LONG, || {
        let pending = |node: &&String| cluster.status(node).is_ok_and(|status| status["pending_restart"] == true);
        if [&leader, &replica].iter().all(pending) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    // A standby must not have fewer than its primary.
    for (role, node) in [("replica", &replica), ("leader", &leader)] {
        let before = cluster.postmaster(node);
        let order = ["restart", "demo", "-r", role, "--pending", "--force"];
        says(&cluster, &order, &format!("Success: restart on member {node}\n"));
        cluster.wait_healthy();
        assert_ne!(cluster.postmaster(node), before, "{node}");
        cluster.shows(node, "SHOW max_connections", &["120"]);
    }
    assert_eq!(cluster.leader(), leader);

    let stray = cluster.node(&replica).data_dir.join("of_the_old_copy");
    std::fs::write(&stray, "").expect("a new file");
    let output = cluster.ctl_with(&["reinit", "demo", "--wait"], &format!("{replica}\ny\n"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.ends_with(&format!(
            "Success: reinitialize for member {replica}\nWaiting for reinitialize to complete on: {replica}\n\
         Reinitialize is completed on: {replica}\n"
        )),
        "{said}"
    );
    assert!(!stray.exists(), "the data are the old ones");
    cluster.wait_healthy();
}

#[test]
fn an_operator_schedules_and_takes_back() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let restart = ["restart", "demo", &replica, "--scheduled", "2030-01-01T00:00Z", "--pg-version", "99.0", "--force"];
    says(&cluster, &restart, &format!("Success: restart scheduled on member {replica}\n"));
    list_shows(&cluster, "2030-01-01T00:00:00+00:00 if version < 99.0");
    // By force it makes way for another.
    says(&cluster, &restart, &format!("Success: restart scheduled on member {replica}\n"));
    let other = cluster.ctl_with(&["restart", "demo", &replica, "--scheduled", "2031-01-01T00:00Z"], "y\n\n");
    let refused = format!("Failed: another restart is already scheduled on member {replica}\n");
    assert!(text(&other).ends_with(&refused), "{}", text(&other));
    let flush = ["flush", "demo", "restart", "--force"];
    says(&cluster, &flush, &format!("Success: flush scheduled restart for member {replica}\n"));
    eventually("the restart is forgotten", LONG, || match text(&cluster.ctl(&["list"])) {
        list if list.contains("2030-01-01") => Err(list),
        _ => Ok(()),
    });
    says(&cluster, &flush, &format!("No scheduled restart for member {replica}\n"));

    says(
        &cluster,
        &["switchover", "--leader", &leader, "--scheduled", "2030-01-01T00:00Z", "--force"],
        "Switchover scheduled",
    );
    says(&cluster, &["flush", "demo", "switchover"], "Success: scheduled switchover deleted\n");
    says(&cluster, &["flush", "demo", "switchover"], "No pending scheduled switchover\n");
}

#[test]
fn an_operator_finds_and_asks_the_servers() {
    let cluster = with_password_file(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    for (arguments, node) in
        [(&["dsn"][..], &leader), (&["dsn", "-r", "replica"], &replica), (&["dsn", "-m", &replica], &replica)]
    {
        says(&cluster, arguments, &format!("host=127.0.0.1 port={}\n", cluster.node(node).postgres_port));
    }
    let sql = cluster.directory().join("query.sql");
    std::fs::write(&sql, "CREATE TEMP TABLE t (a int);\nINSERT INTO t VALUES (7);\nSELECT a FROM t;\n")
        .expect("a new file");
    let sql = sql.to_str().expect("a path in UTF-8");
    let rows = "SELECT 1 AS a, true AS b, NULL AS c, 1::float8 AS d, 'x, y' AS e, 1.50 AS f, timestamp '2020-01-01 01:02:03.5' AS g \
        UNION ALL SELECT 2, false, '', 1e20, 'é', NULL, NULL";
    // What is an object in Python: lists, mappings, moments and spans of time, bytes.
    let objects = r#"SELECT ARRAY[1,2,NULL] a, ARRAY['x y','q"q','it''s',NULL] b, ARRAY[[1,2],[3,4]] c, ARRAY[true,false] d, ARRAY[1.5::float8,1e20] e,
        ARRAY[1.50::numeric] f, '{"a":1,"b":[true,null,"x"],"c":1.0}'::jsonb g, '[1,"a"]'::json h, '"s"'::jsonb i, interval '1 day 02:03:04.5' j,
        interval '-1 hour' k, interval '1 year 2 mons 3 days' l, interval '0' m, '\x0102ff41275c'::bytea n, time '01:02:03.5' o, '01:02:03+02'::timetz p,
        int4range(1,5) q, int8range(1,NULL) r, int4range(1,1) s, '{}'::int[] t, date '2026-01-02' u, point(1,2) v, '10.0.0.1'::inet w"#;
    let values = r#"SELECT ARRAY[1,2,NULL] a, ARRAY['x y',NULL] b, '{"a":[1,null]}'::jsonb c"#;
    let recovery = "SELECT pg_is_in_recovery()";
    for arguments in [
        ask(&["-c", rows]),
        ask(&["-c", rows, "--format", "pretty"]),
        ask(&["-c", rows, "--delimiter", "|"]),
        ask(&["-c", objects]),
        ask(&["-c", objects, "--format", "pretty"]),
        ask(&["-c", values, "--format", "json"]),
        ask(&["-c", values, "--format", "yaml"]),
        ask(&["-c", "SELECT 1 AS a, true AS b, NULL AS c, 1.5::float8 AS d, 'x' AS e", "--format", "json"]),
        ask(&["-c", "SELECT 1 AS a, true AS b, NULL AS c, 1.5::float8 AS d, 'x' AS e", "--format", "yaml"]),
        ask(&["-c", recovery]),
        ask(&["-c", recovery, "-r", "primary"]),
        ask(&["-c", recovery, "-r", "replica"]),
        ask(&["-c", recovery, "-m", &replica]),
        ask(&["-c", "SELECT 1; SELECT 2"]),
    ] {
        let (theirs, ours) = (cluster.ctl_by(&patronictl(), &arguments), cluster.ctl(&arguments));
        assert_eq!(text(&ours), text(&theirs), "{arguments:?}");
        assert_eq!(ours.status, theirs.status, "{arguments:?}");
    }
    says(&cluster, &ask(&["-f", sql]), "a\n7\n");
    // In a terminal a difference has colours and goes to the pager.
    let edit = format!(
        "{} -c {}/node1.yml edit-config --set ttl=21 --force",
        crate::harness::binary::pgherd().display(),
        cluster.directory().display()
    );
    let mut terminal = std::process::Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &edit, "/dev/null"]).env("PAGER", "cat");
    let shown = text(&terminal.output().expect("script runs"));
    assert!(shown.contains("\x1b[32m+ttl: 21\x1b[0m"), "{shown:?}");
    // What goes wrong is a row, too.
    for (arguments, expected) in [
        (ask(&["-c", "SELECT 1/0"]), "\tERROR, SQLSTATE: 22012\n"),
        (ask(&["-c", "CREATE TABLE t (a int)", "-r", "replica"]), "\tERROR, SQLSTATE: 25006\n"),
        (ask(&["-c", "CREATE TABLE t (a int)"]), "\tERROR, SQLSTATE: the last operation didn't produce records\n"),
        (ask(&["-c", "SELECT 1", "-r", "standby-leader"]), "\tNo connection to role 'standby-leader' is available\n"),
        (ask(&["-c", "SELECT 1", "-m", "node9"]), "\tNo connection to member node9 is available\n"),
        (ask(&["-c", "SELECT 1", "-d", "none"]), "failed: FATAL:  database \"none\" does not exist\n"),
    ] {
        says(&cluster, &arguments, expected);
    }
    let wrong = cluster.ctl_with(&ask(&["-c", recovery, "--password"]), "wrong\n");
    assert!(text(&wrong).contains("password authentication failed for user \"postgres\""), "{}", text(&wrong));
    let pgpass = std::fs::read_to_string(cluster.directory().join("pgpass")).expect("the password file");
    let password = pgpass.rsplit(':').next().expect("a password");
    std::fs::remove_file(cluster.directory().join(".pgpass")).expect("our own file");
    let right = cluster.ctl_with(&ask(&["-c", recovery, "--password", "--format", "json"]), password);
    let printed = String::from_utf8_lossy(&right.stdout).into_owned();
    let json = printed.strip_prefix("Password: ").expect("a question");
    assert_eq!(serde_json::from_str::<Value>(json).expect("JSON"), serde_json::json!([{"pg_is_in_recovery": false}]));
}
