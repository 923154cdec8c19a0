//! Which number PostgreSQL gives to a new timeline, what two servers with the same one do to a row, and the cure (`postgres-facts` 5,
//! `pgherd_agent::postgres::history_files`).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pgherd_agent::postgres::base_backup::{CopyProgress, base_backup};
use pgherd_agent::postgres::lineage::RewindVerdict;
use pgherd_agent::postgres::parameters::start_settings;
use pgherd_agent::postgres::{Recovery, control_data, history_files, promote, rewind};
use pgherd_ha::{Lsn, Timeline};
use rustix::process::Signal;
use tokio::sync::watch;

use super::node::{LIMIT, Node, as_postgres};
use super::{clone_of, verdict};
use crate::harness::postgres::bin_dir;

/// A primary that is lost, and two standbys of it that have the same and are cut off from each other.
async fn orphans(directory: &Path) -> (Node, Node) {
    let mut primary = Node::new(directory, "n1");
    // pg_rewind cannot work with a socket in the source's directory.
    let socket_directory = directory.display().to_string();
    primary.server.parameters.insert("unix_socket_directories".into(), socket_directory.clone());
    primary.bootstrapped().await;
    primary.execute("CREATE TABLE public.t (id text)").await;
    let mut standbys = Vec::new();
    for name in ["n2", "n3"] {
        let mut standby = clone_of(&mut primary, directory, name).await;
        standby.end(Signal::INT);
        standby.server.parameters.insert("unix_socket_directories".into(), socket_directory.clone());
        standby.follow(&primary).await;
        standby.start().await;
        standby.until("streaming", |seen| seen.replication_state() == Some("streaming")).await;
        standbys.push(standby);
    }
    let (mut two, mut three) = (standbys.remove(0), standbys.remove(0));
    two.until_caught_up(&mut primary).await;
    three.until_caught_up(&mut primary).await;
    primary.end(Signal::INT);
    for standby in [&mut two, &mut three] {
        standby.configure(&Recovery::Standby { upstream: None }).await;
        standby.reload();
        promote::receiver_stopped(&mut standby.connection, LIMIT).await.expect("at the end of WAL");
    }
    (two, three)
}

/// Promoted, with the checkpoint that every promotion brings about done, and one row of its own.
async fn promoted(node: &mut Node, row: &str) -> Timeline {
    promote::promote(&mut node.connection, LIMIT).await.expect("promoted");
    let timeline = node.observe().await.timeline;
    let on_disk = format!("SELECT (timeline_id = {timeline})::text FROM pg_control_checkpoint()");
    let begun = std::time::Instant::now();
    while node.query(&on_disk).await != "true" {
        assert!(begun.elapsed() < LIMIT, "no checkpoint on timeline {timeline}");
    }
    node.execute(&format!("INSERT INTO public.t VALUES ('{row}')")).await;
    timeline
}

fn history(node: &Node, timeline: u32) -> Option<String> {
    std::fs::read_to_string(node.server.data_dir.join(format!("pg_wal/{timeline:08X}.history"))).ok()
}

/// Stopped in order: where its last record is.
async fn stopped(node: &mut Node) -> Lsn {
    node.end(Signal::INT);
    control_data::read(&node.server).await.expect("control data").checkpoint
}

/// What pg_rewind itself says of a stopped target; it changes nothing.
fn pg_rewind_says(target: &Node, source: &Node) -> String {
    let mut command = Command::new(bin_dir().join("pg_rewind"));
    let conninfo = format!("host=127.0.0.1 port={} user=rewinder dbname=postgres", source.server.port);
    command.arg("--dry-run").arg("--target-pgdata").arg(&target.server.data_dir);
    command.arg(format!("--source-server={conninfo}")).env("PGPASSWORD", "rewind-pass").env("LC_ALL", "C");
    let output = command.output().expect("pg_rewind runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn two_promotions_apart_take_the_same_timeline_and_a_lost_row_stays() {
    as_postgres("postgres::timelines::two_promotions_apart_take_the_same_timeline_and_a_lost_row_stays", |directory| {
        async move {
            let (mut two, mut three) = Box::pin(orphans(&directory)).await;
            let numbers = (promoted(&mut two, "lost").await, promoted(&mut three, "kept").await);
            assert_eq!(numbers, (Timeline(2), Timeline(2)));
            let files = [&two, &three].map(|node| history(node, 2).expect("a history"));
            assert_eq!(files[0], files[1], "the same number, parent and switch point");

            // The successor goes on; whoever comes back has no more than it.
            three.execute("INSERT INTO public.t SELECT 'more' FROM generate_series(1, 10000)").await;
            stopped(&mut two).await;
            assert_eq!(verdict(&two, &three).await, RewindVerdict::NotNeeded, "positions say nothing about it");
            let words = pg_rewind_says(&two, &three);
            assert!(words.contains("no rewind required"), "{words}");
            two.follow(&three).await;
            two.start().await;
            let rows = two.query("SELECT string_agg(DISTINCT id, ' ') FROM public.t").await;
            assert!(rows.contains("lost"), "a standby of a server without that row has {rows}");
            assert_eq!(three.query("SELECT count(*) FROM public.t WHERE id = 'lost'").await, "0");
        }
    });
}

#[test]
fn a_reserved_timeline_keeps_two_promotions_apart_and_the_rewind_removes_the_lost_row() {
    as_postgres(
        "postgres::timelines::a_reserved_timeline_keeps_two_promotions_apart_and_the_rewind_removes_the_lost_row",
        |directory| async move {
            let (mut two, mut three) = Box::pin(orphans(&directory)).await;
            assert_eq!(promoted(&mut two, "lost").await, Timeline(2));
            // A standby that stays behind, to come back later from timeline 1.
            stopped(&mut three).await;
            let mut late = Node::new(&directory, "n4");
            copy_directory(&three.server.data_dir, &late.server.data_dir);
            late.server.parameters.clone_from(&three.server.parameters);
            three.start().await;
            promote::receiver_stopped(&mut three.connection, LIMIT).await.expect("at the end of WAL");

            // 2 and 3 were reserved by others, 4 is its own.
            let begun = std::time::Instant::now();
            let placed = history_files::pass_over(&three.server.data_dir, Timeline(1), Timeline(4)).expect("placed");
            let took = begun.elapsed();
            println!("{} placeholders in {} µs", placed.len(), took.as_micros());
            assert_eq!(promoted(&mut three, "kept").await, Timeline(4));
            let own = history(&three, 4).expect("a history");
            assert!(own.starts_with("1\t") && own.lines().count() == 1, "its parent is timeline 1: {own}");

            stopped(&mut two).await;
            assert!(matches!(verdict(&two, &three).await, RewindVerdict::Needed(_)));
            let settings = start_settings(&two.server, None);
            let rewound = rewind::rewind(&two.server, &three.upstream(), &settings.file, LIMIT).await;
            rewound.unwrap_or_else(|error| panic!("{}", error.full()));
            for node in [&mut two, &mut late] {
                node.follow(&three).await;
                node.start().await;
                node.until("streaming", |seen| seen.replication_state() == Some("streaming")).await;
                node.until_caught_up(&mut three).await;
                assert_eq!(node.query("SELECT string_agg(id, ' ') FROM public.t").await, "kept");
                assert_eq!(node.observe().await.timeline, Timeline(4));
            }
            assert_eq!(history(&late, 2), history(&three, 2), "it has fetched every file in between");
            assert_eq!(history(&late, 3), history(&three, 3));

            // A copy of a copy, and a standby of a standby.
            let mut copied = Node::new(&directory, "n5");
            let (progress, _) = watch::channel(CopyProgress::default());
            let copy = base_backup(&copied.server, &three.upstream(), LIMIT, false, &progress).await;
            copy.unwrap_or_else(|error| panic!("{}", error.full()));
            copied.follow(&late).await;
            copied.start().await;
            copied.until("streaming", |seen| seen.replication_state() == Some("streaming")).await;
            three.execute("INSERT INTO public.t VALUES ('more')").await;
            copied.until_caught_up(&mut three).await;
            assert_eq!(copied.query("SELECT string_agg(id, ' ') FROM public.t").await, "kept more");
        },
    );
}

fn copy_directory(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success());
}

#[test]
fn placeholders_of_a_promotion_that_did_not_happen_stop_a_start_until_they_are_removed() {
    as_postgres(
        "postgres::timelines::placeholders_of_a_promotion_that_did_not_happen_stop_a_start_until_they_are_removed",
        |directory| async move {
            let mut primary = Node::bootstrap(&directory, "n1").await;
            let mut standby = clone_of(&mut primary, &directory, "n2").await;
            history_files::pass_over(&standby.server.data_dir, Timeline(1), Timeline(4)).expect("placed");

            // A running standby looks for the latest timeline whenever its stream breaks; it sees that this is none of its own.
            primary.end(Signal::INT);
            primary.start().await;
            standby.until("streaming again", |seen| seen.replication_state() == Some("streaming")).await;
            primary.execute("CREATE TABLE public.t AS SELECT 1 AS id").await;
            standby.until_caught_up(&mut primary).await;
            let log = standby.log();
            assert!(log.contains("new timeline 3 is not a child of database system timeline 1"), "{log}");

            // At its start it takes the newest for its target, in whose history its own checkpoint is not: it tries for ever.
            standby.end(Signal::INT);
            standby.launch().await;
            let begun = std::time::Instant::now();
            while !standby.log().contains("unexpected timeline ID 1 in log segment") {
                assert!(begun.elapsed() < LIMIT, "{}", standby.log());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            standby.connection.connect().await.expect_err("it lets nobody in");
            standby.end(Signal::QUIT);

            let removed = history_files::remove_unused(&standby.server.data_dir).expect("removed");
            assert_eq!(removed, [Timeline(2), Timeline(3)]);
            standby.start().await;
            standby.until("streaming", |seen| seen.replication_state() == Some("streaming")).await;
        },
    );
}

#[test]
fn a_standby_that_knows_a_timeline_the_leader_does_not_come_from_refuses_to_start_until_it_is_forgotten() {
    as_postgres(
        "postgres::timelines::a_standby_that_knows_a_timeline_the_leader_does_not_come_from_refuses_to_start_until_it_is_forgotten",
        |directory| async move {
            let (mut two, mut three) = Box::pin(orphans(&directory)).await;
            history_files::pass_over(&three.server.data_dir, Timeline(1), Timeline(3)).expect("placed");
            assert_eq!(promoted(&mut three, "kept").await, Timeline(3));
            stopped(&mut two).await;
            // It has streamed, for a moment, from a leader that left timeline 1 before what it has; that leader is lost with its timeline.
            let has = control_data::read(&two.server).await.expect("control data").min_recovery_end;
            let dead_end = format!("1\t{}\tno recovery target specified\n", Lsn(has.0 - 8));
            std::fs::write(two.server.data_dir.join("pg_wal/00000002.history"), dead_end).expect("written");
            two.follow(&three).await;
            two.launch().await;
            let begun = std::time::Instant::now();
            while !two.log().contains("requested timeline 2 does not contain minimum recovery point") {
                assert!(begun.elapsed() < LIMIT, "{}", two.log());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            two.end(Signal::QUIT);

            assert_eq!(verdict(&two, &three).await, RewindVerdict::NotNeeded, "nothing is wrong with its data");
            let lineage = [Timeline(1), Timeline(3)];
            let removed = history_files::remove_dead_ends(&two.server.data_dir, Timeline(1), &lineage);
            assert_eq!(removed.expect("removed"), [Timeline(2)]);
            two.start().await;
            two.until("streaming", |seen| seen.replication_state() == Some("streaming")).await;
            two.until_caught_up(&mut three).await;
            assert_eq!(two.query("SELECT string_agg(id, ' ') FROM public.t").await, "kept");
        },
    );
}

#[test]
fn an_archive_without_holes_leads_to_the_latest_timeline() {
    as_postgres("postgres::timelines::an_archive_without_holes_leads_to_the_latest_timeline", |directory| async move {
        let archive = directory.join("archive");
        std::fs::create_dir(&archive).expect("a directory");
        let into = |name: &str| format!("cp %p {}/{name}", archive.display());
        let (mut two, mut three) = Box::pin(orphans(&directory)).await;
        // The restore begins from where this one is: timeline 1.
        stopped(&mut two).await;
        let out_of = format!("cp {}/%f %p", archive.display());
        three.end(Signal::INT);
        three.server.parameters.insert("archive_mode".into(), "on".into());
        three.server.parameters.insert("archive_command".into(), into("%f"));
        three.configure(&Recovery::Standby { upstream: None }).await;
        three.start().await;
        promote::receiver_stopped(&mut three.connection, LIMIT).await.expect("at the end of WAL");
        let placed = history_files::pass_over(&three.server.data_dir, Timeline(1), Timeline(4)).expect("placed");
        assert_eq!(promoted(&mut three, "kept").await, Timeline(4));
        three.until_archived(&archive, "00000004.history").await;
        assert!(!archive.join("00000002.history").exists(), "PostgreSQL does not archive them by itself");
        history_files::archive(&three.server.data_dir, &placed).expect("marked");
        three.execute("SELECT pg_switch_wal()").await;
        for file in ["00000002.history", "00000003.history"] {
            three.until_archived(&archive, file).await;
        }
        three.end(Signal::INT);

        two.server.recovery_conf.insert("restore_command".into(), out_of);
        two.configure(&Recovery::Standby { upstream: None }).await;
        two.start().await;
        let begun = std::time::Instant::now();
        while two.query("SELECT string_agg(id, ' ') FROM public.t").await != "kept" {
            assert!(begun.elapsed() < LIMIT, "the row of timeline 4 does not come\n{}", two.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}
