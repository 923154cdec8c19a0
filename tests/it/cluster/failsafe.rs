//! Failsafe mode on a cluster of three whose store is killed: the primary goes on while every member agrees, and not a lease longer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::cluster::{Cluster, LONG};
use crate::harness::eventually;
use crate::harness::writers::Writers;

/// The default where every member is pgherd.
const TTL: Duration = Duration::from_secs(8);

/// A session ends a tick later, and tests share the machine.
const SLACK: Duration = Duration::from_secs(4);

const ALL: [i32; 4] = [0, 1, 2, 3];

/// A cluster with the mode on, whose leader has listed everybody.
fn cluster() -> (Cluster, String) {
    let cluster = Cluster::start(3);
    cluster.configure(&json!({"failsafe_mode": true}));
    let leader = cluster.leader();
    for node in cluster.nodes() {
        eventually("everybody is listed, and everybody knows it", LONG, || {
            let (status, text) = cluster.rest(&node.name, "GET", "/failsafe", "")?;
            let list: Value = serde_json::from_str(&text).map_err(|_| format!("{status} {text}"))?;
            let listed = list.as_object().is_some_and(|members| members.len() == 3);
            if listed && flag(&cluster, &node.name, "enabled")? { Ok(()) } else { Err(text) }
        });
    }
    (cluster, leader)
}

fn flag(cluster: &Cluster, node: &str, name: &str) -> Result<bool, String> {
    let (_, text) = cluster.rest(node, "GET", "/metrics", "")?;
    let line = |line: &&str| line.starts_with(&format!("patroni_failsafe_mode_{name}{{"));
    text.lines().find(line).map(|line| line.ends_with(" 1")).ok_or(text)
}

/// Waits until the clients have been served for this long, again and again.
fn served_for(writers: &Writers, time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        writers.wait_for_more();
    }
}

fn timeline(cluster: &Cluster, node: &str) -> Value {
    eventually("an answer", LONG, || cluster.status(node))["timeline"].clone()
}

/// A connection that was kept may have been closed meanwhile, which says nothing.
fn code(cluster: &Cluster, node: &str, path: &str) -> u16 {
    eventually("an answer", LONG, || cluster.rest(node, "GET", path, "")).0
}

#[test]
fn without_the_store_a_primary_goes_on_while_everybody_agrees() {
    let (cluster, leader) = cluster();
    let writers = Writers::start(&cluster, &leader);
    let (epoch, before) = (cluster.epoch(&leader), timeline(&cluster, &leader));
    let replicas = cluster.replicas();
    cluster.store().kill();
    for node in cluster.nodes() {
        eventually("the mode is active", LONG, || {
            let status = cluster.status(&node.name)?;
            let active = status["failsafe_mode_is_active"] == true && flag(&cluster, &node.name, "is_active")?;
            if active { Ok(()) } else { Err(status.to_string()) }
        });
    }
    served_for(&writers, 3 * TTL);
    // Standbys keep no more log than the primary does, though the store tells them nothing.
    let to = cluster.sql(&leader, "SELECT pg_current_wal_lsn()").expect("the primary answers").remove(0);
    let moved = format!("SELECT restart_lsn >= '{to}' FROM pg_replication_slots WHERE slot_name = '{}'", replicas[1]);
    cluster.shows(&replicas[0], &moved, &["t"]);
    for (path, expected) in [("/", 200), ("/primary", 200), ("/replica", 503), ("/read-only", 200), ("/failsafe", 200)]
    {
        assert_eq!(code(&cluster, &leader, path), expected, "{path}");
    }
    assert_eq!(cluster.epoch(&leader), epoch, "the route that is pushed is the same");
    for replica in cluster.nodes().into_iter().map(|node| node.name).filter(|name| *name != leader) {
        assert_eq!(code(&cluster, &replica, "/replica"), 200);
        assert_eq!(timeline(&cluster, &replica), before, "nobody was promoted");
    }
    cluster.start_store();
    cluster.wait_healthy();
    // Longer than anybody is bound by what it agreed to: who would take over does it now.
    served_for(&writers, TTL + SLACK);
    assert_eq!((cluster.leader(), timeline(&cluster, &leader)), (leader.clone(), before));
    let record = writers.finish();
    assert_eq!(record.errors_of(&ALL), 0, "{:?}", record.errors);
    record.assert_one_writer_at_a_time();
    record.assert_nothing_lost(&cluster);
    let log = cluster.log(&leader);
    assert!(log.contains("every member has agreed: going on as primary"), "{log}");
}

#[test]
fn one_member_that_does_not_answer_ends_it_before_the_others_are_free() {
    let (cluster, leader) = cluster();
    let writers = Writers::start(&cluster, &leader);
    cluster.store().kill();
    served_for(&writers, TTL + SLACK);
    let silent = cluster.nodes().into_iter().map(|node| node.name).find(|name| *name != leader).expect("a replica");
    let frozen = Instant::now();
    cluster.node(&silent).agent.freeze();
    eventually("the primary has stopped", LONG, || match cluster.sql(&leader, "SELECT pg_is_in_recovery()") {
        Ok(rows) if rows == ["f"] => Err("it takes writes".to_owned()),
        _ => Ok(()),
    });
    let last = writers.look(|record| record.rows.iter().map(|row| row.acknowledged).max()).expect("rows");
    assert!(last < frozen + TTL, "the last row came {:?} after a member fell silent", last - frozen);
    let log = cluster.log(&leader);
    assert!(log.contains(&format!("{silent}: no answer within")), "{log}");
    cluster.node(&silent).agent.thaw();
    cluster.start_store();
    writers.wait_for_more();
    cluster.wait_healthy();
    let record = writers.finish();
    record.assert_one_writer_at_a_time();
    record.assert_nothing_lost(&cluster);
}

#[test]
fn turned_off_the_primary_stops_and_a_value_that_cannot_be_read_turns_nothing() {
    let (cluster, leader) = cluster();
    cluster.configure(&json!({"failsafe_mode": "perhaps"}));
    eventually("the value is refused", LONG, || {
        let log = cluster.log(&leader);
        let said = log.contains("failsafe_mode: expected a boolean") && log.contains("true stays in force");
        if said { Ok(()) } else { Err(log) }
    });
    assert_eq!(flag(&cluster, &leader, "enabled"), Ok(true));
    cluster.configure(&json!({"failsafe_mode": false}));
    for node in cluster.nodes() {
        eventually("the mode is off", LONG, || match flag(&cluster, &node.name, "enabled")? {
            true => Err("it is on".to_owned()),
            false => Ok(()),
        });
        let ask = || cluster.rest(&node.name, "POST", "/failsafe", r#"{"name": "x"}"#);
        assert_eq!(eventually("an answer", LONG, ask).0, 502);
    }
    let writers = Writers::start(&cluster, &leader);
    let killed = Instant::now();
    cluster.store().kill();
    eventually("the primary has stopped", LONG, || match cluster.sql(&leader, "SELECT pg_is_in_recovery()") {
        Ok(rows) if rows == ["f"] => Err("it takes writes".to_owned()),
        _ => Ok(()),
    });
    let last = writers.look(|record| record.rows.iter().map(|row| row.acknowledged).max()).expect("rows");
    assert!(last < killed + TTL, "the last row came {:?} after the store was lost", last - killed);
    cluster.start_store();
    writers.wait_for_more();
    cluster.wait_healthy();
    let record = writers.finish();
    record.assert_one_writer_at_a_time();
    record.assert_nothing_lost(&cluster);
}
