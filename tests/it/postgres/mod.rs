//! What the agent does to a PostgreSQL server (`pgherd_agent::postgres`), on real servers.

mod node;

use std::time::{Duration, Instant};

use node::{LIMIT, Node, as_postgres};
use pgherd_agent::postgres::base_backup::{CopyProgress, base_backup};
use pgherd_agent::postgres::data_directory::{self, DataDirectory, Marker};
use pgherd_agent::postgres::{Recovery, control_data, installation, promote};
use pgherd_ha::Timeline;
use rustix::process::Signal;
use tokio::sync::watch;

/// A standby of `leader`, copied from it and streaming.
async fn clone_of(leader: &mut Node, directory: &std::path::Path, name: &str) -> Node {
    let mut node = Node::new(directory, name);
    let (progress, seen) = watch::channel(CopyProgress::default());
    base_backup(&node.server, &leader.upstream(), LIMIT, &progress)
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
        standby.configure(&Recovery::Standby { upstream: None }).await;
        standby.reload();
        let started = Instant::now();
        promote::receiver_stopped(&mut standby.connection, LIMIT).await.expect("at the end of WAL");
        assert!(standby.observe().await.standby.expect("a standby").is_at_end_of_wal());
        promote::promote(&mut standby.connection, LIMIT).await.expect("promoted");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(1), "the promotion took {took:?}");
        let seen = standby.observe().await;
        assert_eq!((seen.in_recovery, seen.timeline), (false, Timeline(2)));
        promote::checkpoint(&standby.server, LIMIT).await.expect("a checkpoint");
        assert_eq!(control_data::read(&standby.server).await.expect("control data").timeline, Timeline(2));
    });
}
