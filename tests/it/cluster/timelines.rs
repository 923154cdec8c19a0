//! Two members are promoted apart from each other, and nobody keeps a row that the cluster has lost.

use crate::harness::cluster::{Cluster, LONG};
use crate::harness::eventually;

const NAMES: &str = "SELECT name FROM town ORDER BY name";

/// The history file of a timeline, on a node.
fn history(cluster: &Cluster, node: &str, timeline: u32) -> Option<String> {
    std::fs::read_to_string(cluster.node(node).data_dir.join(format!("pg_wal/{timeline:08X}.history"))).ok()
}

/// Waits until a primary says so of itself; one on another timeline never does.
fn leads_on(cluster: &Cluster, node: &str, timeline: u64) {
    eventually(&format!("{node} leads on timeline {timeline}"), LONG, || match cluster.status(node)? {
        status if status["role"] == "primary" && status["timeline"] == timeline => Ok(()),
        status => Err(status.to_string()),
    });
}

/// The first primary is lost; the second is promoted without the third, takes a row and is lost, too; the third, which has heard of none of
/// it, is promoted at the same position. Then all come back.
#[test]
fn promotions_apart_begin_different_timelines_and_a_lost_row_does_not_come_back() {
    let cluster = Cluster::start(3);
    let first = cluster.leader();
    cluster.write("CREATE TABLE town (name text); INSERT INTO town VALUES ('Ulm')");
    for replica in cluster.replicas() {
        cluster.shows(&replica, NAMES, &["Ulm"]);
    }
    let [second, third] = <[String; 2]>::try_from(cluster.replicas()).expect("two replicas");
    cluster.kill_host(&third);
    cluster.kill_host(&first);
    assert_eq!(cluster.another_leader(&first), second);
    leads_on(&cluster, &second, 2);
    cluster.write("INSERT INTO town VALUES ('lost')");
    cluster.kill_host(&second);

    cluster.start_agent(&third);
    assert_eq!(cluster.another_leader(&second), third);
    leads_on(&cluster, &third, 3);
    let own = history(&cluster, &third, 3).expect("a history");
    assert!(own.starts_with("1\t"), "its parent is the timeline that it was on: {own}");
    assert!(history(&cluster, &third, 2).is_some_and(|text| text.starts_with("# pgherd")));
    cluster.write("INSERT INTO town VALUES ('Hof')");

    for node in [&first, &second] {
        cluster.start_agent(node);
    }
    cluster.wait_healthy();
    assert_eq!(cluster.leader(), third);
    for node in [&first, &second, &third] {
        cluster.shows(node, NAMES, &["Hof", "Ulm"]);
    }
    let log = cluster.log(&second);
    let log = log.rsplit(" INFO pgherd ").next().expect("since its last start");
    assert!(log.contains("rewind done") && !log.contains("base backup of"), "it was not rewound\n{log}");

    // The store's history has a line for the number that was passed over, for whoever reads it as Patroni does.
    let told = cluster.rest(&third, "GET", "/history", "").expect("an answer").1;
    let lines: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let numbers: Vec<u64> = lines.as_array().expect("lines").iter().filter_map(|line| line[0].as_u64()).collect();
    assert_eq!(numbers, [1, 2], "{told}");
}
