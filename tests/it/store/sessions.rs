//! What only ZooKeeper does: sessions that outlive connections, servers and processes, and a follower that answers
//! reads after its quorum has gone on without it.

use std::time::{Duration, Instant};

use pgherd_dcs::{Expect, Key, Outcome, StoreError, StoreOptions, boot_now};

use super::{Client, LIMIT, lead, options, renew, until};
use crate::harness::zookeeper::{Ensemble, ZooKeeperServer};

#[tokio::test]
async fn a_restart_of_the_server_within_three_seconds_changes_nothing() {
    let mut server = ZooKeeperServer::start();
    let one = Client::start(options("one", &[server.address()])).await;
    let lease = lead(&one).await;
    let mut changes = one.store.changes();
    changes.mark_unchanged();
    server.kill();
    let killed = Instant::now();
    tokio::time::timeout(LIMIT, changes.changed()).await.expect("a lost connection is a hint").expect("it lives");
    let error = one.store.renew(lease.epoch).await.expect_err("no server");
    assert!(error.retry, "{error}");
    // The length of the fault, not a wait for anything.
    tokio::time::sleep_until((killed + Duration::from_millis(2_300)).into()).await;
    server.restart();
    let renewed = until("renewal", Duration::from_secs(3), async || one.store.renew(lease.epoch).await.ok()).await;
    assert_eq!(renewed.map(|lease| lease.epoch), Some(lease.epoch), "session and key were lost");
}

#[tokio::test]
async fn a_follower_without_its_quorum_renews_nothing() {
    let ensemble = Ensemble::start();
    let leader = ensemble.leader();
    let follower = (leader + 1) % 3;
    // This client knows only the follower, as if the network had cut the others off for it, too.
    let one = Client::start(StoreOptions {
        retry_timeout: Duration::from_secs(1),
        ..options("one", &[ensemble.servers[follower].address()])
    })
    .await;
    // A second one only reads: a session's reads wait for its own writes, so the first would not see the trap.
    let onlooker =
        Client::start(StoreOptions { name: None, ..options("", &[ensemble.servers[follower].address()]) }).await;
    let lease = lead(&one).await;
    assert!(renew(&one, lease.epoch).await.is_some());
    for at in (0..3).filter(|at| *at != follower) {
        ensemble.servers[at].sigstop();
    }
    let stopped = boot_now();
    let mut still_read = 0;
    let mut last_error: Option<StoreError> = None;
    while boot_now() < lease.end() + Duration::from_secs(1) {
        match one.store.renew(lease.epoch).await {
            Ok(Some(renewed)) => panic!("renewed {:?} after the quorum was gone", renewed.sent.since(stopped)),
            Ok(None) => {}
            Err(error) => last_error = Some(error),
        }
        let seen = onlooker.store.load().await;
        still_read += usize::from(seen.is_ok_and(|view| view.leader.is_some_and(|leader| leader.epoch == lease.epoch)));
    }
    assert!(still_read > 3, "the trap that this test is about did not open");
    assert!(last_error.is_some());
    for at in (0..3).filter(|at| *at != follower) {
        ensemble.servers[at].sigcont();
    }
}

#[tokio::test]
async fn a_lost_leader_of_the_ensemble_is_survived() {
    let mut ensemble = Ensemble::start();
    let hosts: Vec<String> = ensemble.servers.iter().map(ZooKeeperServer::address).collect();
    let one = Client::start(options("one", &hosts)).await;
    let lease = lead(&one).await;
    let leader = ensemble.leader();
    ensemble.servers[leader].kill();
    let renewed = until("renewal", LIMIT, async || one.store.renew(lease.epoch).await.ok()).await;
    assert_eq!(renewed.map(|lease| lease.epoch), Some(lease.epoch), "session and key were lost");
}

#[tokio::test]
async fn a_changed_ttl_keeps_session_and_key() {
    let server = ZooKeeperServer::start();
    let one = Client::start(options("one", &[server.address()])).await;
    let lease = lead(&one).await;
    assert_eq!(lease.granted, Duration::from_secs(8));
    one.store.set_ttl(Duration::from_secs(5));
    let renewed = until("shorter lease", LIMIT, async || {
        let renewed = one.store.renew(lease.epoch).await.ok()?.expect("the key is still ours");
        (renewed.granted == Duration::from_secs(5)).then_some(renewed)
    })
    .await;
    assert_eq!(renewed.epoch, lease.epoch);
    // Longer than at the session's creation does not count for this session.
    one.store.set_ttl(Duration::from_secs(20));
    let renewed = until("longer lease", LIMIT, async || {
        let renewed = one.store.renew(lease.epoch).await.ok()?.expect("the key is still ours");
        (renewed.granted > Duration::from_secs(5)).then_some(renewed)
    })
    .await;
    assert_eq!(renewed.granted, Duration::from_secs(8));
}

#[tokio::test]
async fn a_frozen_server_is_left_for_another_while_the_lease_lasts() {
    let ensemble = Ensemble::start();
    let first = (ensemble.leader() + 1) % 3;
    // Tried in this order: it begins with a follower, and the other two are a quorum without it.
    let hosts: Vec<String> = (0..3).map(|at| ensemble.servers[(first + at) % 3].address()).collect();
    let one = Client::start(options("one", &hosts)).await;
    let lease = lead(&one).await;
    let lease = renew(&one, lease.epoch).await.expect("it is ours");
    ensemble.servers[first].sigstop();
    let renewed = until("renewal", LIMIT, async || one.store.renew(lease.epoch).await.ok()).await;
    let renewed = renewed.expect("session and key are ours still");
    assert!(
        renewed.sent < lease.deadline(),
        "renewed only {:?} after the writer's end",
        renewed.sent.since(lease.deadline())
    );
    ensemble.servers[first].sigcont();
}

#[tokio::test]
async fn a_server_frozen_for_three_seconds_costs_nothing() {
    let server = ZooKeeperServer::start();
    let one = Client::start(options("one", &[server.address()])).await;
    let lease = lead(&one).await;
    server.sigstop();
    // The length of the fault, not a wait for anything.
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.sigcont();
    let renewed = until("renewal", LIMIT, async || one.store.renew(lease.epoch).await.ok()).await;
    let renewed = renewed.expect("session and key are ours still");
    assert!(renewed.sent < lease.deadline() && renewed.epoch == lease.epoch);
}

/// Such a server turns away everybody who has seen more than it has.
#[tokio::test]
async fn a_server_that_lost_its_data_gets_its_client_back() {
    let mut server = ZooKeeperServer::start();
    let one = Client::start(StoreOptions { ttl: Duration::from_secs(2), ..options("one", &[server.address()]) }).await;
    let lease = lead(&one).await;
    for _ in 0..20 {
        renew(&one, lease.epoch).await.expect("it is ours");
    }
    server.kill();
    server.lose_data();
    server.restart();
    let view = until("load", LIMIT, async || one.store.load().await.ok()).await;
    assert_eq!(view.leader, None);
    lead(&one).await;
}

#[tokio::test]
async fn a_frozen_server_is_no_connection_after_a_while() {
    let server = ZooKeeperServer::start();
    let one = Client::start(StoreOptions {
        retry_timeout: Duration::from_millis(500),
        ..options("one", &[server.address()])
    })
    .await;
    server.sigstop();
    let error = until("lost connection", LIMIT, async || {
        one.store.write(Key::Sync, b"{}", Expect::Any).await.err().filter(|error| error.outcome == Outcome::NotDone)
    })
    .await;
    assert!(error.cause.contains("no connection"), "{error}");
    server.sigcont();
}

#[tokio::test]
async fn two_ticks_are_the_least_and_one_is_taken_off() {
    let server = ZooKeeperServer::start();
    let options = options("one", &[server.address()]);
    let one = Client::start(StoreOptions { ttl: Duration::from_secs(1), ..options }).await;
    let lease = lead(&one).await;
    assert_eq!((lease.granted, lease.end()), (Duration::from_secs(4), lease.sent + Duration::from_secs(2)));
}
