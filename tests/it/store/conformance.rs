//! What every store must do, on a real server.

use std::time::{Duration, Instant};

use pgherd_dcs::{Acquired, Expect, Key, Outcome, Written, ZooKeeperOptions, boot_now};
use pgherd_ha::{Epoch, LeaderOwner, Lease, View};

use super::{Client, LIMIT, MEMBER, lead, load, options, renew, until};
use crate::harness::zookeeper::ZooKeeperServer;

#[tokio::test]
async fn of_eight_that_race_for_the_key_one_wins() {
    let server = ZooKeeperServer::start();
    let mut clients = Vec::new();
    for at in 0..8 {
        clients.push(Client::start(options(&format!("pg-{at}"), &[server.address()])).await);
    }
    for round in 0..10 {
        let race = clients.iter().map(|client| client.store.acquire());
        let verdicts = futures::future::join_all(race).await;
        let winners: Vec<(usize, Lease)> = verdicts
            .into_iter()
            .enumerate()
            .filter_map(|(at, verdict)| match verdict.expect("the server runs") {
                Acquired::Ours(lease) => Some((at, lease)),
                Acquired::Taken => None,
            })
            .collect();
        assert_eq!(winners.len(), 1, "round {round}");
        let (winner, lease) = winners[0];
        let view = load(&clients[(winner + 1) % 8]).await;
        let leader = view.leader.expect("somebody has won");
        assert_eq!(
            (leader.name, leader.epoch, leader.owner),
            (format!("pg-{winner}"), lease.epoch, LeaderOwner::Other)
        );
        assert!(clients[winner].store.release(lease.epoch).await.expect("the server runs"));
    }
}

#[tokio::test]
async fn a_write_is_conditional_and_version_0_is_a_version() {
    let server = ZooKeeperServer::start();
    let one = Client::start(options("one", &[server.address()])).await;
    let write =
        async |value: &str, expect| one.store.write(Key::Sync, value.as_bytes(), expect).await.expect("a verdict");

    assert_eq!(write("a", Expect::Version(0)).await, Written::Conflict, "there is no key yet");
    assert_eq!(write("a", Expect::Absent).await, Written::Done { version: 0 });
    assert_eq!(write("b", Expect::Absent).await, Written::Conflict);
    assert_eq!(write("b", Expect::Any).await, Written::Done { version: 1 });
    assert_eq!(write("c", Expect::Version(0)).await, Written::Conflict, "0 is not any");
    assert_eq!(write("c", Expect::Version(-1)).await, Written::Conflict, "nor is -1");
    assert_eq!(write("c", Expect::Version(1)).await, Written::Done { version: 2 });
    assert!(!one.store.delete(Key::Sync, Expect::Version(0)).await.expect("a verdict"));
    assert!(one.store.delete(Key::Sync, Expect::Version(2)).await.expect("a verdict"));
    assert!(!one.store.delete(Key::Sync, Expect::Any).await.expect("a verdict"));
    assert_eq!(write("d", Expect::Any).await, Written::Done { version: 0 }, "any creates, too");

    let error = one.store.write(Key::Config, &vec![b' '; 2_000_000], Expect::Any).await.expect_err("far too large");
    assert_eq!(error.outcome, Outcome::NotDone, "{error}");
}

#[tokio::test]
async fn a_load_shows_every_key() {
    let server = ZooKeeperServer::start();
    let one = Client::start(options("one", &[server.address()])).await;
    assert_eq!(load(&one).await, View::default(), "an empty store is an empty view");
    let two = Client::start(options("two", &[server.address()])).await;
    for (key, value) in [
        (Key::Initialize, "7123456789012345678"),
        (Key::Config, r#"{"ttl":8}"#),
        (Key::OptimeLeader, "42"),
        (Key::History, r#"[[1,42,"r"]]"#),
        (Key::Sync, r#"{"leader":"one","quorum":0,"sync_standby":"two"}"#),
        (Key::Failover, "{}"),
        (Key::Failsafe, r#"{"one":"http://h:8008/patroni"}"#),
        (Key::Timelines, r#"{"timeline":4,"epoch":9,"leader":"one"}"#),
    ] {
        one.store.write(key, value.as_bytes(), Expect::Any).await.expect("the server runs");
    }
    let lease = lead(&one).await;
    two.store.write_member(MEMBER).await.expect("the server runs");
    let view = load(&one).await;
    assert_eq!(view.system_id().map(|id| id.0), Some(7123456789012345678));
    assert_eq!(view.config.as_ref().map(|config| (config.value["ttl"].as_u64(), config.version)), Some((Some(8), 0)));
    assert_eq!(view.leader.as_ref().map(|leader| (leader.epoch, leader.owner)), Some((lease.epoch, LeaderOwner::Me)));
    assert_eq!(view.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((view.status.optime.0, view.history.len()), (42, 1), "the legacy key stands in for a missing status");
    assert_eq!(view.sync.map(|sync| sync.value.sync_standby), Some(vec!["two".to_owned()]));
    assert!(view.failover.is_some_and(|request| request.value.is_empty()), "a cleared request still has a version");
    assert_eq!(view.failsafe.len(), 1);
    assert_eq!(view.reservation.map(|key| (key.value.timeline.0, key.version)), Some((4, 0)));
    one.store.write(Key::Status, br#"{"optime":43}"#, Expect::Any).await.expect("the server runs");
    assert_eq!(load(&two).await.status.optime.0, 43);

    assert_eq!(one.store.clusters().await.expect("the server runs"), ["my_cluster"]);
    one.store.delete_cluster().await.expect("the server runs");
    assert_eq!(load(&one).await, View::default());
}

#[tokio::test]
async fn a_release_takes_no_key_but_ones_own() {
    let server = ZooKeeperServer::start();
    let one = Client::start(options("one", &[server.address()])).await;
    let two = Client::start(options("two", &[server.address()])).await;
    let lease = lead(&one).await;
    // The epoch is right; the key is another's.
    assert!(!two.store.release(lease.epoch).await.expect("a verdict"));
    // The key is ours; the epoch is one of the past.
    assert!(!one.store.release(Epoch(lease.epoch.0 - 1)).await.expect("a verdict"));
    assert_eq!(load(&two).await.leader.map(|leader| leader.epoch), Some(lease.epoch));
    assert!(one.store.release(lease.epoch).await.expect("a verdict"));
    assert_eq!(renew(&one, lease.epoch).await, None);

    let second = lead(&two).await;
    assert!(second.epoch > lease.epoch, "epochs only grow");
    assert!(!one.store.release(lease.epoch).await.expect("a verdict"));
    let view = load(&one).await;
    assert_eq!(view.leader.as_ref().map(|leader| leader.epoch), Some(second.epoch));
    assert!(view.member("one").is_some(), "a release keeps the session");
}

#[tokio::test]
async fn taking_ones_own_key_again_is_success() {
    let server = ZooKeeperServer::start();
    let one = Client::start(options("one", &[server.address()])).await;
    let first = lead(&one).await;
    let again = lead(&one).await;
    assert_eq!(first.epoch, again.epoch);
    assert!(again.sent > first.sent);
}

#[tokio::test]
async fn a_lease_counts_from_before_its_write_and_by_what_was_granted() {
    let server = ZooKeeperServer::start();
    // One second is less than ZooKeeper grants: two ticks.
    let one =
        Client::start(ZooKeeperOptions { ttl: Duration::from_secs(1), ..options("one", &[server.address()]) }).await;
    let before = boot_now();
    let lease = lead(&one).await;
    assert_eq!((lease.granted, lease.end()), (Duration::from_secs(4), lease.sent + Duration::from_secs(2)));
    assert!(before <= lease.sent && lease.sent <= boot_now());
    let renewed = renew(&one, lease.epoch).await.expect("it is ours");
    assert!(renewed.sent >= lease.sent && renewed.epoch == lease.epoch);
}

#[tokio::test]
async fn the_key_outlives_the_lease_and_not_for_long() {
    let server = ZooKeeperServer::start();
    let one = Client::start(options("one", &[server.address()])).await;
    let two = Client::start(options("two", &[server.address()])).await;
    lead(&one).await;
    let lease = renew(&one, lead(&one).await.epoch).await.expect("it is ours");
    drop(one);
    until("free leader key", Duration::from_secs(15), async || load(&two).await.leader.is_none().then_some(())).await;
    let freed = boot_now();
    assert!(freed >= lease.end(), "the store freed the key {:?} before the lease's end", lease.end().since(freed));
    let late = freed.since(lease.sent + lease.granted);
    assert!(late < Duration::from_secs(5), "the key was kept for {late:?} after the session's time");
    assert!(load(&two).await.member("one").is_none(), "the member went with it");
}

#[tokio::test]
async fn a_change_wakes_whoever_has_loaded() {
    let server = ZooKeeperServer::start();
    let one = Client::start(options("one", &[server.address()])).await;
    let two = Client::start(options("two", &[server.address()])).await;
    let mut changes = two.store.changes();
    // Does something and measures how long the hint takes. The hints of what went before come before the load's answers.
    let mut woken = async |what: &str, act: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
        load(&two).await;
        changes.mark_unchanged();
        let at = Instant::now();
        act.await;
        let hint = tokio::time::timeout(LIMIT, changes.changed()).await;
        hint.unwrap_or_else(|_| panic!("{what} woke nobody")).expect("the client lives");
        assert!(at.elapsed() < Duration::from_secs(3), "{what} was heard of after {:?}", at.elapsed());
    };
    let write = |key: Key, value: &'static [u8]| {
        let store = one.store.clone();
        async move {
            store.write(key, value, Expect::Any).await.expect("the server runs");
        }
    };
    let store = one.store.clone();
    woken("a member", Box::pin(async move { store.write_member(MEMBER).await.expect("the server runs") })).await;
    for key in [Key::Initialize, Key::Config, Key::Sync, Key::Failover, Key::Status] {
        woken(&format!("the new {key:?}"), Box::pin(write(key, b"{}"))).await;
        woken(&format!("the changed {key:?}"), Box::pin(write(key, b"{ }"))).await;
    }
    let store = one.store.clone();
    woken("the leader", Box::pin(async move { assert!(store.acquire().await.is_ok()) })).await;
    let (store, epoch) = (one.store.clone(), load(&one).await.leader.expect("it was just taken").epoch);
    woken("the leader's end", Box::pin(async move { assert!(store.release(epoch).await.is_ok()) })).await;
}

#[tokio::test]
async fn a_request_that_is_not_answered_is_unknown_and_one_that_was_not_sent_is_not_done() {
    let server = ZooKeeperServer::start();
    let one = Client::start(ZooKeeperOptions {
        retry_timeout: Duration::from_millis(500),
        ..options("one", &[server.address()])
    })
    .await;
    server.sigstop();
    let started = Instant::now();
    let error = one.store.write(Key::Config, b"{}", Expect::Any).await.expect_err("the server is frozen");
    assert_eq!(error.outcome, Outcome::Unknown, "{error}");
    assert!(started.elapsed() < Duration::from_secs(3), "it had a deadline of half a second");
    let error = one.store.load().await.expect_err("the server is frozen");
    assert_eq!(error.outcome, Outcome::NotDone, "a read does nothing: {error}");
    let error = until("lost connection", LIMIT, async || {
        one.store.write(Key::Sync, b"{}", Expect::Any).await.err().filter(|error| error.outcome == Outcome::NotDone)
    })
    .await;
    assert!(error.cause.contains("no connection"), "{error}");
    server.sigcont();
    until("answer", LIMIT, async || one.store.load().await.ok()).await;
}

#[tokio::test]
async fn no_server_is_a_plain_error() {
    let mut server = ZooKeeperServer::start();
    server.stop();
    let one = Client::start_unconnected(options("one", &[server.address()]));
    let error = one.store.ready(Duration::from_millis(300)).await.expect_err("no server runs");
    let text = error.to_string();
    for part in [server.address().as_str(), "Connection refused", "check that ZooKeeper runs"] {
        assert!(text.contains(part), "{text}");
    }
    let started = Instant::now();
    one.store.load().await.expect_err("no server runs");
    assert!(started.elapsed() < Duration::from_secs(3), "a load without a connection must fail soon");
    // It goes on trying.
    server.restart();
    one.store.ready(LIMIT).await.expect("the server runs again");
}
