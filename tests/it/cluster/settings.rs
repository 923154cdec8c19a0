//! The settings of the servers: what waits for a restart and why, what PostgreSQL would not accept, and the limits of which standbys need as
//! much as their primary.

use serde_json::{Value, json};

use crate::ctl::patronictl;
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;
use crate::harness::writers::Writers;

/// Sets parameters through the dynamic configuration; null takes one out.
fn set(cluster: &Cluster, parameters: &Value) {
    cluster.configure(&json!({ "postgresql": { "parameters": parameters } }));
}

/// Waits until exactly this waits for a restart of the node, in its key and in its status.
fn waits(cluster: &Cluster, node: &str, expected: &Value) {
    let expected = Some(expected.clone()).filter(|reasons| reasons.as_object().is_some_and(|map| !map.is_empty()));
    eventually(&format!("{expected:?} waits for a restart of {node}"), LONG, || {
        let (_, body) = cluster.rest(node, "GET", "/cluster", "")?;
        let body: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let members = body["members"].as_array().ok_or("no members")?;
        let member = members.iter().find(|member| member["name"] == node).ok_or("no member")?;
        for shown in [member, &cluster.status(node)?] {
            let flag = shown.get("pending_restart").is_some();
            if shown.get("pending_restart_reason") != expected.as_ref() || flag != expected.is_some() {
                return Err(format!("{shown}"));
            }
        }
        Ok(())
    });
}

fn change(old: &str, new: &str) -> Value {
    json!({ "old_value": old, "new_value": new })
}

fn restarts(cluster: &Cluster, arguments: &[&str]) -> Vec<String> {
    let output = cluster.ctl(&[&["restart", "demo", "--force"], arguments].concat());
    let said = text(&output);
    let lines = said.lines().filter(|line| line.contains("restart on member") || line.starts_with("Failed"));
    assert!(output.status.success(), "{said}");
    lines.map(str::to_owned).collect()
}

fn log_says(cluster: &Cluster, node: &str, expected: &str) {
    eventually(&format!("the log of {node} says {expected:?}"), LONG, || {
        let log = std::fs::read_to_string(cluster.node(node).log).map_err(|error| error.to_string())?;
        if log.contains(expected) { Ok(()) } else { Err(log.lines().rev().take(20).collect::<Vec<_>>().join("\n")) }
    });
}

fn status_says(cluster: &Cluster, node: &str, expected: &str) {
    eventually(&format!("{node} shows that {expected:?}"), LONG, || {
        match cluster.status(node)?["left_out"].to_string() {
            left_out if left_out.contains(expected) => Ok(()),
            left_out => Err(left_out),
        }
    });
}

#[test]
fn what_waits_for_a_restart_is_shown_with_reasons_until_it_is_no_longer_so() {
    let cluster = Cluster::start(3);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let nodes: Vec<String> = cluster.nodes().into_iter().map(|node| node.name).collect();
    // The same value in another unit is no change.
    let before = cluster.sql(&leader, "SHOW shared_buffers").expect("an answer").remove(0);
    let kilobytes =
        cluster.sql(&leader, "SELECT (setting::int * 8) || 'kB' FROM pg_settings WHERE name = 'shared_buffers'");
    let kilobytes = kilobytes.expect("an answer").remove(0);
    set(&cluster, &json!({ "shared_buffers": kilobytes, "max_connections": "0x96", "work_mem": "5MB" }));
    for node in &nodes {
        cluster.shows(node, "SHOW work_mem", &["5MB"]);
        waits(&cluster, node, &json!({ "max_connections": change("100", "150") }));
    }
    set(&cluster, &json!({ "shared_buffers": "17MB", "max_connections": null, "archive_mode": "on" }));
    let expected = json!({ "archive_mode": change("off", "on"), "shared_buffers": change(&before, "17MB") });
    for node in &nodes {
        waits(&cluster, node, &expected);
    }
    let list = text(&cluster.ctl(&["list"]));
    let theirs = text(&cluster.ctl_by(&patronictl(), &["list"]));
    assert!(list.contains(&format!("shared_buffers: {before}->17MB")), "{list}");
    assert_eq!(list, theirs);
    // Taken out again, where PostgreSQL itself leaves its flag.
    set(&cluster, &json!({ "shared_buffers": null, "archive_mode": null }));
    for node in &nodes {
        waits(&cluster, node, &json!({}));
    }
    // And done.
    set(&cluster, &json!({ "shared_buffers": "17MB" }));
    waits(&cluster, &replica, &json!({ "shared_buffers": change(&before, "17MB") }));
    assert_eq!(restarts(&cluster, &[&replica, "--pending"]), [format!("Success: restart on member {replica}")]);
    waits(&cluster, &replica, &json!({}));
    cluster.shows(&replica, "SHOW shared_buffers", &["17MB"]);
    waits(&cluster, &leader, &json!({ "shared_buffers": change(&before, "17MB") }));
}

#[test]
fn values_that_postgresql_would_not_accept_change_nothing_and_no_restart_fails_for_them() {
    let cluster = Cluster::start(3);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    set(&cluster, &json!({ "work_mem": "5MB", "max_connections": 120 }));
    cluster.shows(&leader, "SHOW work_mem", &["5MB"]);
    let server = cluster.postmaster(&leader);
    cluster.configure(&json!({ "postgresql": { "custom_conf": "/nonexistent/custom.conf", "parameters": {
        "work_mem": "a lot", "wal_level": "everything", "max_connections": 7, "max_wal_senders": 99_999_999, "no_such_setting": 1,
        "two words": "x", "autovacuum_naptime": 0, "fsync": "perhaps", "maintenance_work_mem": "99999999999999",
        "timezone": "Nowhere/Else", "data_directory": "/tmp", "include": "/etc/passwd", "wal_keep_size": "1", "my.own": "kept",
        "log_min_messages": "panicking", "block_size": "16384", "max_replication_slots": "12" } } }));
    for node in [&leader, &replica] {
        for what in [
            "max_wal_senders = '99999999' is not accepted",
            "work_mem = 'a lot' is not accepted",
            "wal_level = 'everything' is not accepted",
            "no_such_setting = '1' is not accepted",
            "max_connections = '7' is not accepted: expected a number of at least 25; 120 stays in force",
            "two words = 'x' is not accepted",
            "autovacuum_naptime = '0' is not accepted",
            "; 1 is used until it is corrected",
            "maintenance_work_mem = '99999999999999' is not accepted",
            "timezone = 'Nowhere/Else' is not accepted",
            "data_directory = '/tmp' is left out",
            "include = '/etc/passwd' is left out",
            "block_size = '16384' is not accepted",
            "postgresql.custom_conf = /nonexistent/custom.conf is not used",
        ] {
            log_says(&cluster, node, what);
        }
        status_says(&cluster, node, "parameters.no_such_setting = '1' is not accepted");
        status_says(&cluster, node, "include = '/etc/passwd' is left out");
        for (setting, value) in [
            ("work_mem", "5MB"),
            ("autovacuum_naptime", "1s"),
            ("fsync", "on"),
            ("my.own", "kept"),
            ("max_connections", "100"),
            ("maintenance_work_mem", "2147483647kB"),
            ("wal_keep_size", "128MB"),
            ("log_min_messages", "warning"),
        ] {
            cluster.shows(node, &format!("SHOW {setting}"), &[value]);
        }
    }
    assert_eq!(cluster.postmaster(&leader), server);
    set(&cluster, &json!({ "max_wal_senders": "11" }));
    let expected = json!({ "max_connections": change("100", "120"), "max_replication_slots": change("10", "12"),
        "max_wal_senders": change("10", "11") });
    waits(&cluster, &leader, &expected);
    let mut lines = restarts(&cluster, &["--pending"]);
    assert_eq!(lines.pop().expect("three lines"), format!("Success: restart on member {leader}"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    cluster.wait_healthy();
    for node in [&leader, &replica] {
        waits(&cluster, node, &json!({}));
        cluster.shows(node, "SHOW max_connections", &["120"]);
        cluster.shows(node, "SHOW work_mem", &["5MB"]);
    }
    assert_eq!(cluster.leader(), leader);
}

#[test]
fn a_server_that_does_not_start_with_new_settings_starts_with_those_of_before() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    // Each value is accepted, and only a start shows that they do not do.
    set(&cluster, &json!({ "shared_preload_libraries": "no_such_library", "superuser_reserved_connections": "99" }));
    eventually("they wait for a restart", LONG, || match cluster.status(&leader)? {
        status if status["pending_restart_reason"]["shared_preload_libraries"].is_object() => Ok(()),
        status => Err(status.to_string()),
    });
    for node in cluster.replicas().into_iter().chain([leader.clone()]) {
        let before = cluster.postmaster(&node);
        let lines = restarts(&cluster, &[&node]);
        assert!(lines[0].starts_with("Failed: restart for member"), "{lines:?}");
        log_says(&cluster, &node, "PostgreSQL did not start after a change of its settings (shared_preload_libraries");
        cluster.wait_healthy();
        assert_ne!(cluster.postmaster(&node), before);
        cluster.shows(&node, "SHOW shared_preload_libraries", &[""]);
        status_says(&cluster, &node, "did not start with these changed (shared_preload_libraries");
        assert_eq!(cluster.leader(), leader, "no reason for a failover");
    }
    // They are not tried again, until they are corrected.
    assert_eq!(restarts(&cluster, &[&leader]), [format!("Success: restart on member {leader}")]);
    set(&cluster, &json!({ "shared_preload_libraries": null, "superuser_reserved_connections": "5" }));
    waits(&cluster, &leader, &json!({ "superuser_reserved_connections": change("3", "5") }));
    assert_eq!(restarts(&cluster, &[&leader]), [format!("Success: restart on member {leader}")]);
    cluster.shows(&leader, "SHOW superuser_reserved_connections", &["5"]);
}

#[test]
fn limits_are_raised_on_the_standbys_first_and_lowered_on_the_primary_first() {
    let cluster = Cluster::start(3);
    let (leader, replicas) = (cluster.leader(), cluster.replicas());
    let nodes: Vec<&String> = replicas.iter().chain([&leader]).collect();
    let all_wait = |old: &str, new: &str| {
        nodes.iter().for_each(|node| waits(&cluster, node, &json!({ "max_connections": change(old, new) })));
    };
    set(&cluster, &json!({ "max_connections": 150 }));
    all_wait("100", "150");
    let success = |node: &String| format!("Success: restart on member {node}");
    let order: Vec<String> = nodes.iter().map(|node| success(node)).collect();
    assert_eq!(restarts(&cluster, &[]), order);
    cluster.wait_healthy();
    nodes.iter().for_each(|node| waits(&cluster, node, &json!({})));

    set(&cluster, &json!({ "max_connections": 110 }));
    all_wait("150", "110");
    // A standby alone cannot have less than its primary yet.
    assert_eq!(restarts(&cluster, &[&replicas[0]]), [success(&replicas[0])]);
    cluster.wait_healthy();
    cluster.shows(&replicas[0], "SHOW max_connections", &["150"]);
    waits(&cluster, &replicas[0], &json!({ "max_connections": change("150", "110") }));
    let order = [success(&leader), success(&replicas[0]), success(&replicas[1])];
    assert_eq!(restarts(&cluster, &[]), order);
    cluster.wait_healthy();
    for node in nodes {
        cluster.shows(node, "SHOW max_connections", &["110"]);
        waits(&cluster, node, &json!({}));
    }
}

#[test]
fn raises_and_lowers_in_one_change_are_done_by_one_command() {
    let cluster = Cluster::start(3);
    let (leader, replicas) = (cluster.leader(), cluster.replicas());
    let nodes: Vec<&String> = replicas.iter().chain([&leader]).collect();
    set(&cluster, &json!({ "max_connections": 150, "max_worker_processes": 6 }));
    let pending = json!({ "max_connections": change("100", "150"), "max_worker_processes": change("8", "6") });
    nodes.iter().for_each(|node| waits(&cluster, node, &pending));
    let success = |node: &String| format!("Success: restart on member {node}");
    // A standby alone takes the raise, and shows what it cannot take before its primary.
    assert_eq!(restarts(&cluster, &[&replicas[0]]), [success(&replicas[0])]);
    cluster.wait_healthy();
    waits(&cluster, &replicas[0], &json!({ "max_worker_processes": change("8", "6") }));
    let mut expected: Vec<String> = nodes.iter().map(|node| success(node)).collect();
    expected.extend(replicas.iter().map(success));
    assert_eq!(restarts(&cluster, &["--pending"]), expected);
    cluster.wait_healthy();
    for node in nodes {
        waits(&cluster, node, &json!({}));
        cluster.shows(node, "SHOW max_connections", &["150"]);
        cluster.shows(node, "SHOW max_worker_processes", &["6"]);
        assert!(!cluster.log(node).contains("RestartForReplay"), "no replay has paused");
    }
    assert_eq!(cluster.leader(), leader);
}

#[test]
fn a_standby_that_is_alone_with_a_paused_replay_takes_over_all_the_same() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    // Nobody looks after it.
    cluster.node(&replica).agent.kill();
    set(&cluster, &json!({ "max_connections": 150 }));
    waits(&cluster, &leader, &json!({ "max_connections": change("100", "150") }));
    assert_eq!(restarts(&cluster, &[&leader]), [format!("Success: restart on member {leader}")]);
    eventually("its replay is paused", LONG, || {
        match cluster.sql(&replica, "SELECT pg_get_wal_replay_pause_state()")?.concat() {
            state if state == "paused" => Ok(()),
            state => Err(state),
        }
    });
    cluster.sql(&leader, "CREATE TABLE before_the_end AS SELECT 7 AS number").expect("a primary");
    let end = cluster.sql(&leader, "SELECT pg_current_wal_lsn()").expect("a primary").concat();
    cluster.shows(&replica, &format!("SELECT pg_last_wal_receive_lsn() >= '{end}'"), &["t"]);
    cluster.kill_host(&leader);
    cluster.start_agent(&replica);
    assert_eq!(cluster.another_leader(&leader), replica);
    assert_eq!(cluster.sql(&replica, "SELECT number FROM before_the_end").expect("a primary"), ["7"]);
    assert_eq!(cluster.sql(&replica, "SHOW max_connections").expect("a primary"), ["150"]);
    log_says(&cluster, &replica, "RestartForReplay");
}

#[test]
fn limits_are_raised_under_load_in_quorum_mode_without_a_lost_row() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    cluster.configure(&json!({ "synchronous_mode": "quorum" }));
    eventually("commits wait for a standby", LONG, || {
        match cluster.sql(&leader, "SHOW synchronous_standby_names")?.concat() {
            names if names.contains("ANY 1 (") => Ok(()),
            names => Err(names),
        }
    });
    let writers = Writers::start(&cluster, &leader);
    set(&cluster, &json!({ "max_connections": 130, "max_locks_per_transaction": 80 }));
    let pending = json!({ "max_connections": change("100", "130"), "max_locks_per_transaction": change("64", "80") });
    cluster.nodes().iter().for_each(|node| waits(&cluster, &node.name, &pending));
    let lines = restarts(&cluster, &["--pending"]);
    assert_eq!(lines.iter().filter(|line| line.starts_with("Success")).count(), 3, "{lines:?}");
    cluster.wait_healthy();
    writers.wait_for_more();
    assert_eq!(cluster.leader(), leader);
    cluster.nodes().iter().for_each(|node| waits(&cluster, &node.name, &json!({})));
    let record = writers.finish();
    record.assert_one_writer_at_a_time();
    record.assert_nothing_lost(&cluster);
}

#[test]
fn a_standby_whose_replay_has_paused_for_its_limits_is_restarted_with_what_the_log_needs() {
    let cluster = Cluster::start(3);
    let (leader, replicas) = (cluster.leader(), cluster.replicas());
    set(&cluster, &json!({ "max_connections": 150, "max_worker_processes": 12 }));
    let pending = json!({ "max_connections": change("100", "150"), "max_worker_processes": change("8", "12") });
    waits(&cluster, &leader, &pending);
    let before: Vec<_> = replicas.iter().map(|node| cluster.postmaster(node)).collect();
    // As patronictl does it, which asks the members by name.
    let output = cluster.ctl_by(&patronictl(), &["restart", "demo", &leader, "--force"]);
    assert!(text(&output).contains(&format!("Success: restart on member {leader}")), "{}", text(&output));
    cluster.write("CREATE TABLE after_it AS SELECT 1 AS number");
    for (node, before) in replicas.iter().zip(before) {
        cluster.shows(node, "SELECT number FROM after_it", &["1"]);
        cluster.shows(node, "SHOW max_worker_processes", &["12"]);
        assert_ne!(cluster.postmaster(node), before);
        log_says(&cluster, node, "RestartForReplay");
    }
    cluster.wait_healthy();
    assert_eq!(cluster.leader(), leader);
    // One that an operator has paused is left alone.
    cluster.sql(&replicas[0], "SELECT pg_wal_replay_pause()").expect("an answer");
    let paused = cluster.postmaster(&replicas[0]);
    cluster.write("CREATE TABLE later AS SELECT 2 AS number");
    cluster.shows(&replicas[1], "SELECT number FROM later", &["2"]);
    assert!(cluster.sql(&replicas[0], "SELECT number FROM later").is_err());
    cluster.sql(&replicas[0], "SELECT pg_wal_replay_resume()").expect("an answer");
    cluster.shows(&replicas[0], "SELECT number FROM later", &["2"]);
    assert_eq!(cluster.postmaster(&replicas[0]), paused);
}
