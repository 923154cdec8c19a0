//! The real patronictl, unmodified, operates a cluster of pgherd with the configuration file of one of its nodes.
//!
//! That its tables and ours are the same is tested in `ctl.rs`; our own commands on a running cluster in `commands`.

use std::process::Output;

use serde_json::Value;

use crate::ctl::patronictl;
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;

fn ctl(cluster: &Cluster, arguments: &[&str]) -> Output {
    let output = cluster.ctl_by(&patronictl(), arguments);
    assert!(output.status.success(), "patronictl {arguments:?}: {}", text(&output));
    output
}

fn says(cluster: &Cluster, arguments: &[&str], expected: &str) {
    let output = ctl(cluster, arguments);
    assert!(text(&output).contains(expected), "patronictl {arguments:?}: {}", text(&output));
}

fn list(cluster: &Cluster) -> Vec<(String, String, String)> {
    let output = ctl(cluster, &["list", "--format", "json"]);
    let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = rows.as_array().expect("rows").iter();
    rows.map(|row| (word(row, "Member"), word(row, "Role"), word(row, "State"))).collect()
}

#[test]
fn patronictl_lists_and_switches_over() {
    lists_and_switches_over(&Cluster::start(3));
}

#[test]
fn patronictl_lists_and_switches_over_on_etcd() {
    lists_and_switches_over(&Cluster::start_on("etcd", 3));
}

fn lists_and_switches_over(cluster: &Cluster) {
    let first = cluster.leader();
    for (member, role, state) in list(cluster) {
        let expected = if member == first { ("Leader", "running") } else { ("Replica", "streaming") };
        assert_eq!((role.as_str(), state.as_str()), expected, "{member}");
    }
    assert_eq!(ctl(cluster, &["list"]).stdout, cluster.ctl(&["list"]).stdout);
    says(cluster, &["switchover", "--force"], "Successfully switched over to");
    let second = cluster.another_leader(&first);
    cluster.wait_healthy();
    assert!(list(cluster).contains(&(second.clone(), "Leader".into(), "running".into())));
    says(cluster, &["failover", "--candidate", &first, "--force"], "Successfully failed over to");
    assert_eq!(cluster.another_leader(&second), first);
    cluster.wait_healthy();
    says(cluster, &["history"], "no recovery target specified");
}

#[test]
fn patronictl_pauses_configures_and_restarts() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    says(&cluster, &["pause", "--wait"], "Success: cluster management is paused");
    says(&cluster, &["list"], "Maintenance mode: on");
    says(&cluster, &["resume", "--wait"], "Success: cluster management is resumed");

    says(&cluster, &["edit-config", "-p", "log_min_duration_statement=1234", "--force"], "Configuration changed");
    says(&cluster, &["show-config"], "log_min_duration_statement: 1234");
    for node in [&leader, &replica] {
        cluster.shows(node, "SHOW log_min_duration_statement", &["1234ms"]);
    }

    says(&cluster, &["edit-config", "-p", "max_connections=120", "--force"], "Configuration changed");
    eventually("a restart is pending", LONG, || match text(&ctl(&cluster, &["list"])) {
        list if list.contains("Pending restart") => Ok(()),
        list => Err(list),
    });
    for node in [&replica, &leader] {
        says(&cluster, &["restart", "demo", node, "--force"], &format!("Success: restart on member {node}"));
        cluster.wait_healthy();
        cluster.shows(node, "SHOW max_connections", &["120"]);
    }
    says(&cluster, &["reload", "demo", "--force"], "Reload request received for member");
    says(&cluster, &["reinit", "demo", &replica, "--force", "--wait"], "Success: reinitialize for member");
    cluster.wait_healthy();
    assert_eq!(cluster.leader(), leader);
}
