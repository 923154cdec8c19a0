//! A node whose tablespaces and log lie outside of its data directory is copied anew, again and again.

use std::path::Path;

use serde_json::json;

use super::own_bootstrap::directory;
use crate::harness::cluster::Cluster;

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn tablespaces_and_the_log_directory_come_with_every_copy() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    cluster.kill_host(&replica);
    let node = cluster.node(&replica);
    std::fs::remove_dir_all(&node.data_dir).expect("the test's own cluster");
    // On one machine the two nodes cannot have it in the same place.
    let (theirs, ours) = (directory(&cluster, "theirs"), directory(&cluster, "ours"));
    cluster.sql(&leader, &format!("CREATE TABLESPACE room LOCATION '{}'", theirs.display())).expect("a primary");
    cluster.sql(&leader, "CREATE TABLE town TABLESPACE room AS SELECT 'Ulm' AS name").expect("a primary");
    // A copy of what comes before would replay the tablespace's creation where the primary has it.
    cluster.sql(&leader, "CHECKPOINT").expect("a primary");
    let options = format!(
        "  basebackup:\n    - waldir: {wal}\n    - tablespace-mapping: {theirs}={room}\n  pgpass:",
        wal = ours.join("wal").display(),
        theirs = theirs.display(),
        room = ours.join("room").display(),
    );
    let config = std::fs::read_to_string(&node.config).expect("the node's file");
    std::fs::write(&node.config, config.replacen("  pgpass:", &options, 1)).expect("the node's file");
    cluster.start_agent(&replica);
    cluster.wait_healthy();
    for _copy in 2..4 {
        cluster.reinitialize(&replica, &json!({"force": true}));
        cluster.wait_healthy();
        cluster.shows(&replica, "SELECT name FROM town", &["Ulm"]);
        assert_eq!(names(&ours), ["room", "wal"], "nothing is left of the copy before");
        let link = std::fs::read_link(node.data_dir.join("pg_wal")).expect("a link");
        assert_eq!(link, ours.join("wal"));
    }
    cluster.sql(&leader, "INSERT INTO town VALUES ('Hof')").expect("a primary");
    cluster.shows(&replica, "SELECT name FROM town ORDER BY name", &["Hof", "Ulm"]);
}
