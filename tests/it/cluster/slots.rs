//! Replication slots over a change of the primary: members' own, permanent ones, and a logical consumer that gets every row once.

use std::collections::BTreeMap;

use serde_json::json;

use crate::harness::cluster::{Cluster, LONG, Node, text};
use crate::harness::eventually;
use crate::harness::notes::note;

/// Slots with what they are for, in a row each.
const SLOTS: &str = "SELECT slot_name || ' ' || slot_type FROM pg_replication_slots ORDER BY 1";

/// A cluster whose servers can decode their log, with a table that a consumer reads.
fn logical_cluster(slots: &serde_json::Value) -> Cluster {
    let cluster = Cluster::start(3);
    let parameters = json!({"wal_level": "logical", "max_replication_slots": 20});
    cluster.configure(&json!({"postgresql": {"parameters": parameters}}));
    let waits = "SELECT count(*) > 0 FROM pg_settings WHERE pending_restart";
    cluster.nodes().iter().for_each(|node| cluster.shows(&node.name, waits, &["t"]));
    for node in cluster.nodes() {
        let output = cluster.ctl(&["restart", "demo", &node.name, "--force"]);
        assert!(output.status.success(), "{}", text(&output));
        cluster.wait_healthy();
    }
    cluster.nodes().iter().for_each(|node| cluster.shows(&node.name, "SHOW wal_level", &["logical"]));
    cluster.write("CREATE TABLE counted (number int PRIMARY KEY)");
    cluster.configure(&json!({ "slots": slots }));
    cluster
}

/// Every node has the slot; on the standbys it is copied.
fn everywhere(cluster: &Cluster, slot: &str) {
    let sql = format!("SELECT slot_name FROM pg_replication_slots WHERE slot_name = '{slot}'");
    cluster.nodes().iter().for_each(|node| cluster.shows(&node.name, &sql, &[slot]));
    cluster.wait_healthy();
}

fn switch_over(cluster: &Cluster) {
    let leader = cluster.leader();
    // A candidate that is just being started again is none yet.
    eventually("a switchover", LONG, || {
        cluster.wait_healthy();
        let output = cluster.ctl(&["switchover", "demo", "--leader", &leader, "--force"]);
        if text(&output).contains("Successfully switched over") { Ok(()) } else { Err(text(&output)) }
    });
    cluster.another_leader(&leader);
}

/// The primary, once a standby could take over from it without a loss.
fn replaceable_leader(cluster: &Cluster) -> String {
    let leader = cluster.leader();
    eventually("a synchronous standby", LONG, || {
        let members = cluster.members_by(&leader)?;
        let synchronous = members.iter().any(|member| member.role == "sync_standby" && member.state == "streaming");
        if synchronous { Ok(()) } else { Err(format!("{members:?}")) }
    });
    leader
}

/// The primary's server is killed, and its agent gives the key away. It starts its server again at once, which has everything, so it may be the one
/// that takes the key; but a new primary that is.
fn crash_over(cluster: &Cluster) {
    let leader = replaceable_leader(cluster);
    let epoch = cluster.epoch(&leader);
    cluster.postmaster(&leader).expect("a postmaster").kill();
    eventually("the cluster is led anew", LONG, || match cluster.epoch(&cluster.leader()) {
        Some(new) if Some(new) != epoch => Ok(()),
        other => Err(format!("{other:?} after {epoch:?}")),
    });
}

/// Kills agent, guard and server of the primary, and starts its agent again once another leads.
fn lose_host(cluster: &Cluster) {
    let leader = replaceable_leader(cluster);
    cluster.kill_host(&leader);
    cluster.another_leader(&leader);
    cluster.start_agent(&leader);
}

/// A consumer that remembers how far it got. It confirms what it has got, and takes no notice of what it gets again.
#[derive(Debug, Default)]
struct Consumer {
    position: u64,
    /// How often it has taken each row.
    taken: BTreeMap<i64, u32>,
    /// Changes that it was sent although it had confirmed them.
    again: usize,
}

impl Consumer {
    /// One visit through the entrypoint: looks, and then confirms. A primary that goes away in between is asked again later.
    ///
    /// It takes only what a synchronous standby has as well: before PostgreSQL 17 a primary sends logical changes that may still be lost with it.
    fn visit(&mut self, cluster: &Cluster, slot: &str) -> Result<(), String> {
        let changes = format!(
            "SELECT lsn - '0/0' || ' ' || data FROM pg_logical_slot_peek_changes('{slot}', (SELECT max(flush_lsn) FROM pg_stat_replication \
             WHERE sync_state = 'sync'), NULL, 'include-xids', '0') WHERE EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')"
        );
        let rows = cluster.sql_at(cluster.entry_port(), &changes)?;
        let mut pending = Vec::new();
        let mut confirmed = self.position;
        for row in rows {
            let (position, data) = row.split_once(' ').ok_or("a position and a change")?;
            let position: u64 = position.parse().map_err(|error| format!("{position}: {error}"))?;
            match data {
                "BEGIN" => pending.clear(),
                "COMMIT" if position <= self.position => self.again += pending.len(),
                "COMMIT" => {
                    pending.drain(..).for_each(|number| *self.taken.entry(number).or_default() += 1);
                    confirmed = position;
                }
                // The drill and the agent write some to have something in the log; `pgoutput` leaves them out.
                message if message.starts_with("message: ") => {}
                insert => {
                    let number = insert.strip_prefix("table public.counted: INSERT: number[integer]:");
                    pending.push(number.and_then(|number| number.parse().ok()).ok_or(format!("no row: {insert}"))?);
                }
            }
        }
        if confirmed > self.position {
            self.position = confirmed;
            let confirm = format!("SELECT pg_replication_slot_advance('{slot}', '0/0'::pg_lsn + {confirmed})");
            cluster.sql_at(cluster.entry_port(), &confirm)?;
        }
        Ok(())
    }

    /// Until it has these rows.
    fn catch_up(&mut self, cluster: &Cluster, slot: &str, rows: usize) {
        eventually("the consumer has every row", LONG, || {
            self.visit(cluster, slot)?;
            let found = self.taken.len();
            if found >= rows { Ok(()) } else { Err(format!("{found} of {rows}")) }
        });
    }
}

/// Inserts these numbers, each in a transaction of its own, in as many tries as it takes.
fn insert(cluster: &Cluster, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let sql = format!("INSERT INTO counted VALUES ({number}) ON CONFLICT DO NOTHING");
        eventually("a row is written", LONG, || cluster.sql_at(cluster.entry_port(), &sql).map(drop));
    }
}

#[test]
fn every_node_keeps_a_slot_for_every_other_and_moves_it_along() {
    let cluster = Cluster::start(3);
    cluster.configure(&json!({"slots": {"archiver": {"type": "physical"}}}));
    for node in cluster.nodes() {
        let others = cluster.nodes().into_iter().map(|other| other.name).filter(|name| *name != node.name);
        let mut slots: Vec<String> = others.map(|name| format!("{name} physical")).collect();
        slots.push("archiver physical".into());
        slots.sort();
        cluster.shows(&node.name, SLOTS, &slots.iter().map(String::as_str).collect::<Vec<_>>());
    }
    // A member's slot on its fellow follows it without being used there.
    let (leader, replicas) = (cluster.leader(), cluster.replicas());
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    cluster.write("SELECT pg_switch_wal()");
    let to = cluster.write("SELECT pg_current_wal_lsn()").remove(0);
    let behind = format!("SELECT restart_lsn >= '{to}' FROM pg_replication_slots WHERE slot_name = '{}'", replicas[1]);
    cluster.write("CHECKPOINT");
    cluster.shows(&leader, &behind, &["t"]);
    cluster.shows(&replicas[0], &behind, &["t"]);
    // Another primary has them all, the log with them, and a user's own slot of the former one stays where it is.
    cluster.write("SELECT pg_create_physical_replication_slot('theirs', true)");
    switch_over(&cluster);
    cluster.wait_healthy();
    let lost = "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost' OR restart_lsn IS NULL";
    cluster
        .nodes()
        .iter()
        .for_each(|node| cluster.shows(&node.name, &format!("{lost} AND slot_name <> 'archiver'"), &["0"]));
    cluster.shows(&leader, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'theirs'", &["1"]);
    // Permanent ones go with their entry.
    cluster.configure(&json!({"slots": null}));
    let archivers = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'archiver'";
    cluster.nodes().iter().for_each(|node| cluster.shows(&node.name, archivers, &["0"]));
}

#[test]
fn a_consumer_gets_every_row_once_over_ten_changes_of_the_primary() {
    let cluster = logical_cluster(&json!({"consumer": {"database": "postgres", "plugin": "test_decoding"}}));
    cluster.configure(&json!({"synchronous_mode": true, "primary_start_timeout": 0}));
    everywhere(&cluster, "consumer");
    for replica in cluster.replicas() {
        eventually("the primary keeps what the copy needs", LONG, || {
            let log = cluster.log(&replica);
            if log.contains("the logical slot `consumer` is ready for a promotion") { Ok(()) } else { Err(log) }
        });
    }
    let feedback = "SHOW hot_standby_feedback";
    cluster.nodes().iter().for_each(|node: &Node| cluster.shows(&node.name, feedback, &["on"]));
    let mut consumer = Consumer::default();
    let (mut rows, each) = (0, 20);
    let mut again = [0, 0];
    for round in 0..10 {
        insert(&cluster, rows..rows + each);
        // What is not confirmed before the primary goes is sent by the next one; what is, is not.
        if round % 3 != 1 {
            consumer.catch_up(&cluster, "consumer", usize::try_from(rows + each).expect("a few"));
        }
        insert(&cluster, rows + each..rows + 2 * each);
        rows += 2 * each;
        let planned = round % 2 == 0;
        let before = consumer.again;
        match round {
            _ if planned => switch_over(&cluster),
            5 => lose_host(&cluster),
            _ => crash_over(&cluster),
        }
        insert(&cluster, rows..rows + each);
        rows += each;
        consumer.catch_up(&cluster, "consumer", usize::try_from(rows).expect("a few"));
        again[usize::from(!planned)] += consumer.again - before;
        everywhere(&cluster, "consumer");
    }
    let table: Vec<i64> =
        cluster.write("SELECT number FROM counted ORDER BY 1").iter().filter_map(|it| it.parse().ok()).collect();
    assert_eq!(table, (0..rows).collect::<Vec<_>>());
    let once: BTreeMap<i64, u32> = table.iter().map(|number| (*number, 1)).collect();
    assert_eq!(consumer.taken, once, "each row once");
    note(&format!(
        "logical consumer: {rows} rows over 10 changes of the primary; sent again and passed over: {again:?} (planned, crashes)\n"
    ));
    assert_eq!(again[0], 0, "a planned change sends nothing again that was confirmed");
}
