//! What the agent does to a PostgreSQL server (`pgherd_agent::postgres`), on real servers.

mod acceptance;
mod node;
mod timelines;
mod tls;

use std::time::{Duration, Instant};

use node::{LIMIT, Node, as_postgres};
use pgherd_agent::postgres::base_backup::{CopyProgress, base_backup};
use pgherd_agent::postgres::data_directory::{self, DataDirectory, Marker};
use pgherd_agent::postgres::lineage::{LocalKind, LocalPosition, RewindVerdict, needs_rewind};
use pgherd_agent::postgres::parameters::start_settings;
use pgherd_agent::postgres::stop::terminate_silent_walsenders;
use pgherd_agent::postgres::{Postmaster, Recovery, control_data, installation, promote, rewind, slots};
use pgherd_ha::Timeline;
use rustix::process::Signal;
use tokio::sync::watch;

/// A standby of `leader`, copied from it and streaming.
async fn clone_of(leader: &mut Node, directory: &std::path::Path, name: &str) -> Node {
    let mut node = Node::new(directory, name);
    let (progress, seen) = watch::channel(CopyProgress::default());
    base_backup(&node.server, &leader.upstream(), LIMIT, false, &progress)
        .await
        .unwrap_or_else(|error| panic!("{}", error.full()));
    assert!(seen.borrow().total > 0, "no progress was told");
    node.follow(leader).await;
    node.start().await;
    node.until("streaming", |seen| seen.replication_state() == Some("streaming")).await;
    Marker::Unproven.clear(&node.server.data_dir).expect("cleared");
    node
}

#[test]
fn a_new_cluster_its_copy_and_a_promotion() {
    as_postgres("postgres::a_new_cluster_its_copy_and_a_promotion", |directory| async move {
        let mut primary = Node::bootstrap(&directory, "n1").await;
        let version = installation::version(&primary.server).await.expect("a version");
        let seen = primary.observe().await;
        assert_eq!((seen.in_recovery, seen.timeline, seen.server_version), (false, Timeline(1), version.number));
        assert!(seen.position().is_some() && seen.standby.is_none() && seen.pending_restart.is_empty());
        let control = control_data::read(&primary.server).await.expect("control data");
        assert!(control.system_id == seen.system_id && control.checksums && control.wal_log_hints);
        assert_eq!(primary.query("SHOW wal_retrieve_retry_interval").await, "100ms");
        assert_eq!(primary.query("SHOW max_slot_wal_keep_size").await.replace(char::is_numeric, ""), "GB");
        assert!(!primary.log().contains("SCRAM-SHA-256"), "a verifier is in the log");

        let mut standby = clone_of(&mut primary, &directory, "n2").await;
        assert!(matches!(data_directory::classify(&standby.server, version.major).await, DataDirectory::Present(_)));
        primary.execute("CREATE TABLE public.t AS SELECT 1 AS id").await;
        standby.until_caught_up(&mut primary).await;
        assert_eq!(standby.query("SELECT id FROM public.t").await, "1");
        let walsenders = primary.observe().await.walsenders;
        assert_eq!(walsenders[0].application_name, "n2");
        assert_eq!(walsenders[0].state.as_deref(), Some("streaming"));

        primary.end(Signal::KILL);
        promote_quickly(&mut standby).await;
        promote::checkpoint(&standby.server, LIMIT).await.expect("a checkpoint");
        assert_eq!(control_data::read(&standby.server).await.expect("control data").timeline, Timeline(2));
    });
}

/// The fast promotion, within a second; returns the server on the next timeline.
async fn promote_quickly(standby: &mut Node) {
    let before = standby.observe().await.timeline;
    standby.configure(&Recovery::Standby { upstream: None }).await;
    standby.reload();
    let started = Instant::now();
    promote::receiver_stopped(&mut standby.connection, LIMIT).await.expect("at the end of WAL");
    // The startup process wakes up ten times a second to look for more, so one look may find it awake.
    while !standby.observe().await.standby.expect("a standby").is_at_end_of_wal() {
        assert!(started.elapsed() < LIMIT, "the observation does not see the end of WAL");
    }
    promote::promote(&mut standby.connection, LIMIT).await.expect("promoted");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(3), "the promotion took {took:?}");
    let seen = standby.observe().await;
    assert_eq!((seen.in_recovery, seen.timeline), (false, Timeline(before.0 + 1)));
}

/// What a stopped `node` needs to follow `leader`.
async fn verdict(node: &Node, leader: &Node) -> RewindVerdict {
    let control = control_data::read(&node.server).await.expect("control data");
    let local = rewind::local_position(&node.server, &control).await;
    let lineage = rewind::leader_lineage(&node.server, &leader.upstream()).await;
    needs_rewind(&local, control.system_id, &lineage.unwrap_or_else(|error| panic!("{}", error.full())))
}

#[test]
fn ten_failovers_in_a_row_each_with_a_rewind_of_the_old_primary() {
    as_postgres("postgres::ten_failovers_in_a_row_each_with_a_rewind_of_the_old_primary", |directory| async move {
        let mut primary = Node::new(&directory, "n1");
        // pg_rewind cannot work with the relative one.
        let socket_directory = directory.display().to_string();
        primary.server.parameters.insert("unix_socket_directories".into(), socket_directory.clone());
        primary.bootstrapped().await;
        primary.execute("CREATE TABLE public.t (id int)").await;
        let mut standby = clone_of(&mut primary, &directory, "n2").await;
        standby.end(Signal::INT);
        standby.server.parameters.insert("unix_socket_directories".into(), socket_directory);
        standby.follow(&primary).await;
        standby.start().await;
        for round in 1..=10 {
            primary.execute(&format!("INSERT INTO public.t VALUES ({round})")).await;
            standby.until_caught_up(&mut primary).await;
            // The standby is cut off, the primary writes on: these rows are lost with it.
            standby.configure(&Recovery::Standby { upstream: None }).await;
            standby.reload();
            promote::receiver_stopped(&mut standby.connection, LIMIT).await.expect("at the end of WAL");
            primary.execute("INSERT INTO public.t SELECT -1 FROM generate_series(1, 1000)").await;
            primary.end(Signal::KILL);
            promote_quickly(&mut standby).await;
            promote::checkpoint(&standby.server, LIMIT).await.expect("a checkpoint");

            rewind::recover_crashed_primary(&primary.server, LIMIT)
                .await
                .unwrap_or_else(|error| panic!("{}", error.full()));
            assert!(matches!(verdict(&primary, &standby).await, RewindVerdict::Needed(_)));
            let settings = start_settings(&primary.server, None);
            // The marker is a FIFO because pg_rewind lets one be; it must stay there to the end.
            let other_fifo = primary.server.data_dir.join("fifo");
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &other_fifo, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
            let rewound = rewind::rewind(&primary.server, &standby.upstream(), &settings.file, LIMIT).await;
            rewound.unwrap_or_else(|error| panic!("{}", error.full()));
            std::fs::remove_file(other_fifo).expect("pg_rewind left it");
            assert!(Marker::Unproven.is_set(&primary.server.data_dir));
            assert!(!Marker::Incomplete.is_set(&primary.server.data_dir), "the rewind is complete");
            primary.start().await;
            primary.until("streaming", |seen| seen.replication_state() == Some("streaming")).await;
            Marker::Unproven.clear(&primary.server.data_dir).expect("cleared");
            primary.until_caught_up(&mut standby).await;
            let rows = primary.query("SELECT count(*) || ' ' || count(*) FILTER (WHERE id < 0) FROM public.t").await;
            assert_eq!(rows, format!("{round} 0"));
            std::mem::swap(&mut primary, &mut standby);
        }
    });
}

#[test]
fn a_clean_stop_needs_no_rewind_and_a_frozen_standby_does_not_hold_it() {
    as_postgres(
        "postgres::a_clean_stop_needs_no_rewind_and_a_frozen_standby_does_not_hold_it",
        |directory| async move {
            let mut primary = Node::bootstrap(&directory, "n1").await;
            slots::create(&mut primary.connection, "n2").await.expect("a slot");
            slots::create(&mut primary.connection, "n2").await.expect("the same slot");
            let mut standby = clone_of(&mut primary, &directory, "n2").await;
            let mut frozen = clone_of(&mut primary, &directory, "n3").await;
            assert_eq!(terminate_silent_walsenders(&mut primary.connection, LIMIT).await.expect("both answer"), 0);

            let receiver = frozen.query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'").await;
            let receiver = rustix::process::Pid::from_raw(receiver.parse().expect("a number")).expect("a process");
            rustix::process::kill_process(receiver, Signal::STOP).expect("stopped");
            let short = Duration::from_millis(500);
            assert_eq!(terminate_silent_walsenders(&mut primary.connection, short).await.expect("one is silent"), 1);

            promote::checkpoint(&primary.server, LIMIT).await.expect("a checkpoint");
            let postmaster = Postmaster::find(&primary.server.data_dir).expect("it runs");
            let started = Instant::now();
            postmaster.signal(Signal::INT).expect("signalled");
            tokio::time::timeout(LIMIT, postmaster.exited()).await.expect("in time").expect("stopped");
            assert!(started.elapsed() < Duration::from_secs(10), "the stop took {:?}", started.elapsed());
            primary.end(Signal::QUIT);
            rustix::process::kill_process(receiver, Signal::CONT).expect("goes on");

            let control = control_data::read(&primary.server).await.expect("control data");
            assert!(control.is_shut_down());
            let local = rewind::local_position(&primary.server, &control).await;
            let LocalPosition { kind: LocalKind::FormerPrimary { shutdown_checkpoint_end: Some(end) }, .. } = local
            else {
                panic!("{local:?}")
            };
            standby.until("the shutdown checkpoint", |seen| seen.position() == Some(end)).await;
            promote_quickly(&mut standby).await;
            assert_eq!(verdict(&primary, &standby).await, RewindVerdict::NotNeeded);
            slots::create(&mut standby.connection, "n1").await.expect("a slot");
            primary.follow(&standby).await;
            primary.start().await;
            primary.until("streaming", |seen| seen.replication_state() == Some("streaming")).await;
            let seen = standby.until("the slot in use", |seen| !seen.walsenders.is_empty()).await;
            assert_eq!(seen.slots.len(), 1);
            slots::remove(&mut standby.connection, "n1").await.expect("dropped");
            assert_eq!(standby.observe().await.slots, []);
        },
    );
}

#[test]
fn a_rewind_that_cannot_begin_leaves_the_directory_as_it_was() {
    as_postgres("postgres::a_rewind_that_cannot_begin_leaves_the_directory_as_it_was", |directory| async move {
        let mut primary = Node::bootstrap(&directory, "n1").await;
        let standby = Node::new(&directory, "n2");
        let nobody = standby.upstream();
        let settings = start_settings(&primary.server, None);
        let refused = rewind::rewind(&primary.server, &nobody, &settings.file, LIMIT).await.expect_err("it runs");
        assert!(refused.to_string().contains("still runs"), "{refused}");
        primary.end(Signal::INT);
        rewind::rewind(&primary.server, &nobody, &settings.file, LIMIT).await.expect_err("nobody is there");
        assert!(!Marker::Incomplete.is_set(&primary.server.data_dir));

        let (progress, _) = watch::channel(CopyProgress::default());
        let before = control_data::read(&primary.server).await.expect("control data");
        let mut server = primary.server.clone();
        server.basebackup_options.push(pgherd_agent::postgres::ToolOption::flag("no-such-option"));
        base_backup(&server, &nobody, LIMIT, false, &progress).await.expect_err("no such option");
        assert_eq!(control_data::read(&primary.server).await.expect("control data"), before);
        let left = std::fs::read_dir(&directory).expect("a directory").flatten();
        assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().contains(".pgherd-new")));
    });
}
