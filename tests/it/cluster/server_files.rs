//! The files of the servers: access rules, mappings and settings that depend on the role, files of the user's, another directory for them.

use std::path::Path;

use serde_json::json;

use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::{eventually, user};

/// A file that the servers can read.
fn give(path: &Path, content: &str) {
    std::fs::write(path, content).expect("a new file");
    user::give_to_servers(path);
}

const ALL_LINES: [&str; 3] =
    ["local all all scram-sha-256", "host all all all scram-sha-256", "host replication all all scram-sha-256"];

/// With one line of its own, for a database of this name.
fn lines(database: &str) -> Vec<String> {
    let own = format!("host {database} all 127.0.0.1/32 reject");
    ALL_LINES.iter().map(|line| (*line).to_owned()).chain([own]).collect()
}

const DATABASES: &str = "SELECT unnest(database) FROM pg_hba_file_rules WHERE auth_method = 'reject'";
const MAPPED: &str = "SELECT pg_username FROM pg_ident_file_mappings";

#[test]
fn rules_mappings_and_settings_follow_the_role() {
    let cluster = Cluster::start(3);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    cluster.configure(&json!({ "postgresql": { "parameters": { "work_mem": "5MB" } } }));
    for node in [&leader, &replica] {
        cluster.shows(node, "SHOW work_mem", &["5MB"]);
    }
    cluster.configure(&json!({ "postgresql": {
        "pg_hba": lines("of_all"), "pg_hba_primary": lines("of_primary"), "pg_ident": ["map me all"], "pg_ident_replica": ["map me replica"],
        "parameters_primary": { "work_mem": "6MB", "max_connections": 999 },
        "parameters_replica": { "work_mem": "nonsense", "maintenance_work_mem": "70MB" } } }));
    let shows = |node: &str, database: &str, mapped: &str, memory: &str| {
        cluster.shows(node, DATABASES, &[database]);
        cluster.shows(node, MAPPED, &[mapped]);
        cluster.shows(node, "SHOW work_mem", &[memory]);
        // Not the role's to say.
        cluster.shows(node, "SHOW max_connections", &["100"]);
    };
    shows(&leader, "of_primary", "all", "6MB");
    shows(&replica, "of_all", "replica", "5MB");
    cluster.shows(&replica, "SHOW maintenance_work_mem", &["70MB"]);
    let switchover = cluster.ctl(&["switchover", "--leader", &leader, "--candidate", &replica, "--force"]);
    assert!(text(&switchover).contains("Successfully switched over"), "{}", text(&switchover));
    cluster.wait_healthy();
    shows(&replica, "of_primary", "all", "6MB");
    shows(&leader, "of_all", "replica", "5MB");
    cluster.shows(&leader, "SHOW maintenance_work_mem", &["70MB"]);
}

#[test]
fn access_rules_that_cannot_be_read_leave_those_of_before_also_for_a_restart() {
    let cluster = Cluster::start(3);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let before = cluster.sql(&leader, "SELECT count(*) FROM pg_hba_file_rules").expect("an answer").remove(0);
    let bad = ["host all all all scram-sha-256", "host all all 300.1.2.3/8 guess"];
    cluster.configure(&json!({ "postgresql": { "pg_hba": bad } }));
    for node in [&leader, &replica] {
        eventually("the log says why", LONG, || {
            let log = std::fs::read_to_string(cluster.node(node).log).map_err(|error| error.to_string())?;
            let said = log.lines().find(|line| line.contains("postgresql.pg_hba is not used"));
            said.filter(|line| line.contains("line 2: ")).map(drop).ok_or_else(|| "not yet".to_owned())
        });
        cluster.shows(node, "SELECT count(*) FROM pg_hba_file_rules", &[&before]);
        cluster.shows(node, "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL", &["0"]);
    }
    // Rules that keep the agents out are no better.
    cluster.configure(&json!({ "postgresql": { "pg_hba": ["host all nobody all scram-sha-256"] } }));
    for node in [&leader, &replica] {
        eventually("the log says why", LONG, || {
            let log = std::fs::read_to_string(cluster.node(node).log).map_err(|error| error.to_string())?;
            let said = log.contains("postgresql.pg_hba is not used: it does not let this agent in");
            if said { Ok(()) } else { Err("not yet".to_owned()) }
        });
        cluster.shows(node, "SELECT count(*) FROM pg_hba_file_rules", &[&before]);
    }
    for node in [&replica, &leader] {
        let output = text(&cluster.ctl(&["restart", "demo", node, "--force"]));
        assert!(output.contains(&format!("Success: restart on member {node}")), "{output}");
        cluster.wait_healthy();
    }
    // A node that was down meanwhile knows what it served with.
    let node = cluster.node(&replica);
    node.agent.signal(rustix::process::Signal::TERM);
    node.agent.ended_within(LONG);
    cluster.configure(&json!({ "postgresql": { "pg_hba": ["host all all all guess"] } }));
    cluster.start_agent(&replica);
    cluster.wait_healthy();
    cluster.configure(&json!({ "postgresql": { "pg_hba": lines("corrected") } }));
    for node in [&leader, &replica] {
        cluster.shows(node, DATABASES, &["corrected"]);
    }
}

#[test]
fn mappings_that_cannot_be_read_leave_those_of_before_also_for_a_restart() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let restart = || {
        for node in [&replica, &leader] {
            let output = text(&cluster.ctl(&["restart", "demo", node, "--force"]));
            assert!(output.contains(&format!("Success: restart on member {node}")), "{output}");
            cluster.wait_healthy();
        }
    };
    cluster.configure(&json!({ "postgresql": { "pg_ident": ["map me good"] } }));
    for node in [&leader, &replica] {
        cluster.shows(node, MAPPED, &["good"]);
    }
    cluster.configure(&json!({ "postgresql": { "pg_ident": ["map me better", "map /( half"] } }));
    for node in [&leader, &replica] {
        eventually("the log says why, and so does the status", LONG, || {
            let log = cluster.log(node);
            let said = log.lines().find(|line| line.contains("postgresql.pg_ident is not used"));
            let status = cluster.status(node)?;
            let shown = status["left_out"].to_string();
            match said.is_some_and(|line| line.contains("line 2: "))
                && shown.contains("postgresql.pg_ident is not used")
            {
                true => Ok(()),
                false => Err(format!("{status}\n{log}")),
            }
        });
        cluster.shows(node, MAPPED, &["good"]);
    }
    restart();
    for node in [&leader, &replica] {
        cluster.shows(node, MAPPED, &["good"]);
    }
    cluster.configure(&json!({ "postgresql": { "pg_ident": ["map me better"] } }));
    for node in [&leader, &replica] {
        cluster.shows(node, MAPPED, &["better"]);
        eventually("nothing is left out", LONG, || match cluster.status(node)?.get("left_out") {
            None => Ok(()),
            Some(left) => Err(left.to_string()),
        });
    }
}

#[test]
fn a_file_of_the_users_is_included_and_recovery_settings_reach_the_standbys() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let custom = cluster.directory().join("custom.conf");
    give(&custom, "work_mem = '7MB'\nmaintenance_work_mem = '80MB'\n");
    cluster.configure(
        &json!({ "postgresql": { "custom_conf": custom, "parameters": { "maintenance_work_mem": "90MB" },
        "recovery_conf": { "recovery_min_apply_delay": "20ms", "archive_cleanup_command": "true", "no_such_thing": 1,
            "recovery_end_command": "true" } } }),
    );
    for node in [&leader, &replica] {
        cluster.shows(node, "SHOW work_mem", &["7MB"]);
        cluster.shows(node, "SHOW maintenance_work_mem", &["90MB"]);
    }
    cluster.shows(&replica, "SHOW recovery_min_apply_delay", &["20ms"]);
    cluster.shows(&replica, "SHOW archive_cleanup_command", &["true"]);
    // Another that is not there changes nothing, for a restart neither.
    cluster.configure(&json!({ "postgresql": { "custom_conf": cluster.directory().join("gone.conf") } }));
    for node in [&replica, &leader] {
        let output = text(&cluster.ctl(&["restart", "demo", node, "--force"]));
        assert!(output.contains(&format!("Success: restart on member {node}")), "{output}");
        cluster.wait_healthy();
        cluster.shows(node, "SHOW work_mem", &["7MB"]);
    }
    cluster.configure(&json!({ "postgresql": { "custom_conf": null } }));
    cluster.shows(&leader, "SHOW work_mem", &["4MB"]);
}

#[test]
fn a_server_that_is_to_listen_elsewhere_is_seen_where_it_listens() {
    let cluster = Cluster::start(2);
    let replica = cluster.replicas().remove(0);
    let node = cluster.node(&replica);
    let (old, new) = (node.postgres_port, crate::harness::ports::free_port());
    let config = std::fs::read_to_string(&node.config).expect("the node's file");
    std::fs::write(&node.config, config.replace(&format!(":{old}"), &format!(":{new}"))).expect("the node's file");
    let server = cluster.postmaster(&replica);
    cluster.reload(&replica);
    eventually("the port waits for a restart", LONG, || match cluster.status(&replica)? {
        status if status["pending_restart_reason"]["port"]["new_value"].as_str() == Some(&new.to_string()) => Ok(()),
        status => Err(status.to_string()),
    });
    cluster.wait_healthy();
    assert_eq!(cluster.postmaster(&replica), server);
    let output = text(&cluster.ctl(&["restart", "demo", &replica, "--pending", "--force"]));
    assert!(output.contains(&format!("Success: restart on member {replica}")), "{output}");
    cluster.wait_healthy();
    assert_eq!(cluster.sql_at(new, "SHOW port").expect("an answer"), [new.to_string()]);
}

#[test]
fn the_files_may_move_to_another_directory_and_have_another_name() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let node = cluster.node(&replica);
    let elsewhere = cluster.directory().join("etc");
    user::servers_directory(&elsewhere);
    let moved = format!("  config_dir: {}\n  config_base_name: server\n  pgpass:", elsewhere.display());
    cluster.reload_with(&replica, "  pgpass:", &moved);
    let output = text(&cluster.ctl(&["restart", "demo", &replica, "--force"]));
    assert!(output.contains(&format!("Success: restart on member {replica}")), "{output}");
    let files = || {
        cluster.wait_healthy();
        let file = |name: &str| elsewhere.join(name).display().to_string();
        cluster.shows(&replica, "SHOW config_file", &[&file("server.conf")]);
        cluster.shows(&replica, "SHOW hba_file", &[&file("pg_hba.conf")]);
        cluster.shows(&replica, "SHOW data_directory", &[&node.data_dir.display().to_string()]);
    };
    files();
    cluster.reinitialize(&replica, &json!({"force": true}));
    files();
    let switchover = cluster.ctl(&["switchover", "--leader", &leader, "--candidate", &replica, "--force"]);
    assert!(text(&switchover).contains("Successfully switched over"), "{}", text(&switchover));
    files();
    cluster.write("CREATE TABLE from_here AS SELECT 1 AS number");
}
