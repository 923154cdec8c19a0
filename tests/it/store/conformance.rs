//! What every store must do, on a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgherd_dcs::{Acquired, Expect, Key, Outcome, Store, StoreOptions, Written, boot_now};
use pgherd_ha::{Epoch, LeaderOwner, Lease, View};

use super::subject::{SecuredZooKeeper, Subject};
use super::{Client, LIMIT, MEMBER, lead, load, renew, until};
use crate::harness::built_in::BuiltInServer;
use crate::harness::etcd::EtcdServer;
use crate::harness::zookeeper::ZooKeeperServer;

/// Every case on every store.
macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        mod zookeeper {
            $(#[tokio::test] async fn $case() { super::$case::<super::ZooKeeperServer>().await; })*
        }
        mod built_in {
            $(#[tokio::test] async fn $case() { super::$case::<super::BuiltInServer>().await; })*
        }
        mod secured_zookeeper {
            $(#[tokio::test] async fn $case() { super::$case::<super::SecuredZooKeeper>().await; })*
        }
        mod etcd {
            $(#[tokio::test] async fn $case() { super::$case::<super::EtcdServer>().await; })*
        }
    };
}

suite![
    of_eight_that_race_for_the_key_one_wins,
    a_write_is_conditional_and_version_0_is_a_version,
    a_load_shows_every_key,
    a_release_takes_no_key_but_ones_own,
    taking_ones_own_key_again_is_success,
    a_lease_counts_from_before_its_write_and_by_what_was_granted,
    the_key_outlives_the_lease_and_not_for_long,
    a_change_wakes_whoever_has_loaded,
    a_request_that_is_not_answered_is_unknown_and_one_that_was_not_sent_is_not_done,
    no_server_is_a_plain_error,
    what_is_seen_across_reconnects_is_in_order_and_complete,
    a_total_outage_is_survived,
    an_unknown_write_is_never_told_as_failed,
    the_member_key_is_its_newest_value,
    a_killed_agents_session_is_taken_up_by_the_next,
];

async fn of_eight_that_race_for_the_key_one_wins<S: Subject>() {
    let server = S::start();
    let mut clients = Vec::new();
    for at in 0..8 {
        clients.push(server.client(&format!("pg-{at}")).await);
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

async fn a_write_is_conditional_and_version_0_is_a_version<S: Subject>() {
    let server = S::start();
    let one = server.client("one").await;
    let write =
        async |value: &str, expect| one.store.write(Key::Sync, value.as_bytes(), expect).await.expect("a verdict");

    assert_eq!(write("a", Expect::Version(0)).await, Written::Conflict, "there is no key yet");
    let first = done(write("a", Expect::Absent).await);
    assert_eq!(write("b", Expect::Absent).await, Written::Conflict);
    let second = done(write("b", Expect::Any).await);
    assert_eq!(write("c", Expect::Version(first)).await, Written::Conflict, "{first} is not any");
    for none in [0, -1].into_iter().filter(|none| *none != first) {
        assert_eq!(write("c", Expect::Version(none)).await, Written::Conflict, "nor is {none}");
    }
    let third = done(write("c", Expect::Version(second)).await);
    assert!(first < second && second < third, "{first}, {second}, {third}");
    let view = load(&one).await;
    assert_eq!(view.sync.map(|sync| sync.version), Some(third), "a load shows what a write said");
    assert!(!one.store.delete(Key::Sync, Expect::Version(first)).await.expect("a verdict"));
    assert!(!one.store.delete(Key::Sync, Expect::Absent).await.expect("a verdict"));
    assert!(one.store.delete(Key::Sync, Expect::Version(third)).await.expect("a verdict"));
    assert!(!one.store.delete(Key::Sync, Expect::Any).await.expect("a verdict"));
    done(write("d", Expect::Any).await);
    assert!(one.store.delete(Key::Sync, Expect::Any).await.expect("a verdict"));

    let error = one.store.write(Key::Config, &vec![b' '; 2_000_000], Expect::Any).await.expect_err("far too large");
    assert_eq!(error.outcome, Outcome::NotDone, "{error}");
}

async fn a_load_shows_every_key<S: Subject>() {
    let server = S::start();
    let one = server.client("one").await;
    assert_eq!(load(&one).await, View::default(), "an empty store is an empty view");
    let two = server.client("two").await;
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
    assert_eq!(view.config.as_ref().map(|config| config.value["ttl"].as_u64()), Some(Some(8)));
    assert_eq!(view.leader.as_ref().map(|leader| (leader.epoch, leader.owner)), Some((lease.epoch, LeaderOwner::Me)));
    assert_eq!(view.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((view.status.optime.0, view.history.len()), (42, 1), "the legacy key stands in for a missing status");
    assert_eq!(view.sync.map(|sync| sync.value.sync_standby), Some(vec!["two".to_owned()]));
    assert!(view.failover.is_some_and(|request| request.value.is_empty()), "a cleared request still has a version");
    assert_eq!(view.failsafe.len(), 1);
    assert_eq!(view.reservation.map(|key| key.value.timeline.0), Some(4));
    one.store.write(Key::Status, br#"{"optime":43}"#, Expect::Any).await.expect("the server runs");
    assert_eq!(load(&two).await.status.optime.0, 43);

    assert_eq!(one.store.clusters().await.expect("the server runs"), ["my_cluster"]);
    one.store.delete_cluster().await.expect("the server runs");
    assert_eq!(load(&one).await, View::default());
}

async fn a_release_takes_no_key_but_ones_own<S: Subject>() {
    let server = S::start();
    let one = server.client("one").await;
    let two = server.client("two").await;
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

async fn taking_ones_own_key_again_is_success<S: Subject>() {
    let server = S::start();
    let one = server.client("one").await;
    let first = lead(&one).await;
    let again = lead(&one).await;
    assert_eq!(first.epoch, again.epoch);
    assert!(again.sent > first.sent);
}

async fn a_lease_counts_from_before_its_write_and_by_what_was_granted<S: Subject>() {
    let server = S::start();
    // One second is less than some of them grant: two ticks of two seconds, or some elections of etcd.
    let one = Client::start(StoreOptions { ttl: Duration::from_secs(1), ..server.options("one") }).await;
    let before = boot_now();
    let lease = lead(&one).await;
    assert!(lease.granted >= S::LEAST, "{:?}", lease.granted);
    assert!(lease.tick.is_some() && lease.end() < lease.sent + lease.granted, "{lease:?}");
    assert!(before <= lease.sent && lease.sent <= boot_now());
    let renewed = renew(&one, lease.epoch).await.expect("it is ours");
    assert!(renewed.sent >= lease.sent && renewed.epoch == lease.epoch);
}

async fn the_key_outlives_the_lease_and_not_for_long<S: Subject>() {
    let server = S::start();
    let one = server.client("one").await;
    let two = server.client("two").await;
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

async fn a_change_wakes_whoever_has_loaded<S: Subject>() {
    let server = S::start();
    let one = server.client("one").await;
    let two = server.client("two").await;
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

async fn a_request_that_is_not_answered_is_unknown_and_one_that_was_not_sent_is_not_done<S: Subject>() {
    let server = S::start();
    let one = Client::start(StoreOptions { retry_timeout: Duration::from_millis(500), ..server.options("one") }).await;
    server.sigstop();
    let started = Instant::now();
    let error = one.store.write(Key::Config, b"{}", Expect::Any).await.expect_err("the server is frozen");
    assert_eq!(error.outcome, Outcome::Unknown, "{error}");
    assert!(started.elapsed() < Duration::from_secs(3), "it had a deadline of half a second");
    let error = one.store.load().await.expect_err("the server is frozen");
    assert_eq!(error.outcome, Outcome::NotDone, "a read does nothing: {error}");
    server.sigcont();
    until("answer", LIMIT, async || one.store.load().await.ok()).await;
}

async fn no_server_is_a_plain_error<S: Subject>() {
    let mut server = S::start();
    server.stop();
    let one = Client::start_unconnected(server.options("one"));
    let error = one.store.ready(Duration::from_millis(300)).await.expect_err("no server runs");
    let text = error.to_string();
    for part in [server.address().as_str(), "Connection refused", S::CHECK] {
        assert!(text.contains(part), "{text}");
    }
    let started = Instant::now();
    one.store.load().await.expect_err("no server runs");
    let error = one.store.write(Key::Config, b"{}", Expect::Any).await.expect_err("no server runs");
    assert_eq!(error.outcome, Outcome::NotDone, "{error}");
    assert!(started.elapsed() < Duration::from_secs(3), "a load without a connection must fail soon");
    // It goes on trying.
    server.restart();
    one.store.ready(LIMIT).await.expect("the server runs again");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Done,
    Failed,
    Unknown,
}

/// Writes 0, 1, 2, ... on a thread of its own until it is told to stop; what it was told of each.
struct Counter {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<Told>>,
}

impl Counter {
    fn start(store: Arc<dyn Store>) -> Counter {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let count = async move {
            let mut told = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let value = format!("{{\"n\":{}}}", told.len());
                told.push(match store.write(Key::Config, value.as_bytes(), Expect::Any).await {
                    Ok(written) => {
                        done(written);
                        Told::Done
                    }
                    Err(error) if error.outcome == Outcome::Unknown => Told::Unknown,
                    Err(_) => Told::Failed,
                });
            }
            told
        };
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(count)
        };
        Counter { stop, thread: std::thread::spawn(run) }
    }

    fn finish(self) -> Vec<Told> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the counter ends")
    }
}

/// The number in the configuration.
fn number(view: &View) -> Option<usize> {
    view.config.as_ref()?.value["n"].as_u64()?.try_into().ok()
}

async fn an_unknown_write_is_never_told_as_failed<S: Subject>() {
    let mut server = S::start();
    let (one, two) = (server.client("one").await, server.client("two").await);
    for round in 0..4 {
        let counter = Counter::start(one.store.clone());
        // At any moment of a write.
        until("number", LIMIT, async || two.store.load().await.ok().and_then(|view| number(&view))).await;
        if round % 2 == 0 {
            server.kill()
        } else {
            server.stop()
        }
        server.restart();
        let told = counter.finish();
        let view = until("answer", LIMIT, async || two.store.load().await.ok()).await;
        let found = number(&view).expect("it was there before");
        let last = told.iter().rposition(|told| *told == Told::Done).expect("some were done");
        // One that was given up may have come after a later one.
        assert!(
            found >= last || told[found] == Told::Unknown,
            "round {round}: {last} was done, and {found} ({:?}) is there",
            told[found]
        );
        assert_ne!(told[found], Told::Failed, "round {round}: {found} was told as failed");
        assert!(told.iter().any(|told| *told != Told::Done), "round {round}: the outage went unnoticed");
        assert!(one.store.delete(Key::Config, Expect::Any).await.expect("the server runs"));
    }
}

async fn what_is_seen_across_reconnects_is_in_order_and_complete<S: Subject>() {
    let mut server = S::start();
    let (one, two) = (server.client("one").await, server.client("two").await);
    let mut changes = two.store.changes();
    let store = two.store.clone();
    let (sender, seen) = tokio::sync::watch::channel(Vec::new());
    let reader = tokio::spawn(async move {
        loop {
            changes.mark_unchanged();
            match store.load().await {
                // From here on only a hint makes it look again.
                Ok(view) => {
                    sender.send_modify(|seen: &mut Vec<usize>| seen.extend(number(&view)));
                    changes.changed().await.expect("the client lives");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    let mut next = 0;
    for round in 0..3 {
        for _ in 0..20 {
            let value = format!("{{\"n\":{next}}}");
            until("write", LIMIT, async || one.store.write(Key::Config, value.as_bytes(), Expect::Any).await.ok())
                .await;
            next += 1;
        }
        until("the last number", LIMIT, async || (seen.borrow().last() == Some(&(next - 1))).then_some(())).await;
        if round < 2 {
            server.kill();
            server.restart();
        }
    }
    reader.abort();
    assert!(seen.borrow().is_sorted(), "an older one came after a newer: {:?}", seen.borrow());
}

async fn a_total_outage_is_survived<S: Subject>() {
    let mut server = S::start();
    let options = |name| StoreOptions { ttl: Duration::from_secs(4), ..server.options(name) };
    let (one, two) = (Client::start(options("one")).await, Client::start(options("two")).await);
    let lease = lead(&one).await;
    done(one.store.write(Key::Config, b"{\"n\":7}", Expect::Any).await.expect("the server runs"));
    server.kill();
    until("end of the lease", LIMIT, async || (boot_now() > lease.sent + lease.granted).then_some(())).await;
    let error = one.store.renew(lease.epoch).await.expect_err("no server runs");
    assert!(error.retry, "{error}");
    server.restart();
    // Whether the key is kept is the store's affair; that everybody agrees on whose it is, is not.
    let kept = until("verdict", LIMIT, async || one.store.renew(lease.epoch).await.ok()).await;
    let view = until("load", LIMIT, async || two.store.load().await.ok()).await;
    assert_eq!(number(&view), Some(7));
    if let Some(kept) = kept {
        assert_eq!(view.leader.map(|leader| (leader.epoch, leader.owner)), Some((kept.epoch, LeaderOwner::Other)));
        assert!(kept.sent > lease.sent + lease.granted);
        assert!(one.store.release(kept.epoch).await.expect("the server runs"));
    }
    until("free leader key", LIMIT, async || load(&two).await.leader.is_none().then_some(())).await;
    assert!(lead(&two).await.epoch > lease.epoch);
}

async fn the_member_key_is_its_newest_value<S: Subject>() {
    let server = S::start();
    let one = server.client("one").await;
    for round in 0..5 {
        let values: Vec<String> = (0..8)
            .map(|at| format!(r#"{{"conn_url":"postgres://h:{}/postgres","state":"running"}}"#, round * 8 + at))
            .collect();
        let writes = values.iter().map(|value| one.store.write_member(value.as_bytes()));
        for written in futures::future::join_all(writes).await {
            written.expect("the server runs");
        }
        let view = load(&one).await;
        let member = view.member("one").expect("it was written");
        assert_eq!(member.conn_url, format!("postgres://h:{}/postgres", round * 8 + 7));
    }
}

fn done(written: Written) -> i64 {
    match written {
        Written::Done { version } => version,
        Written::Conflict => panic!("nobody else writes this key"),
    }
}

/// A session of ZooKeeper, a lease of etcd.
async fn a_killed_agents_session_is_taken_up_by_the_next<S: Subject>() {
    let server = S::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("session");
    let with_file = || StoreOptions { session_file: Some(file.clone()), ..server.options("one") };
    let first = Client::start(with_file()).await;
    let lease = lead(&first).await;
    until("session file", LIMIT, async || file.exists().then_some(())).await;
    drop(first);

    let second = Client::start(with_file()).await;
    assert_eq!(load(&second).await.leader.map(|leader| leader.owner), Some(LeaderOwner::Me));
    let renewed = renew(&second, lease.epoch).await.expect("the key is still ours");
    assert!(load(&second).await.member("one").is_some_and(|member| !member.conn_url.is_empty()), "it keeps its value");
    assert_eq!(renewed.epoch, lease.epoch);
    assert!(!file.with_extension("new").exists());
    second.store.close().await.expect("the server runs");
    assert!(!file.exists(), "a closed session is not to be taken up");

    // Without its session a node does not take another's key for its own, though its name is in it.
    let third = Client::start(with_file()).await;
    assert!(load(&third).await.leader.is_none(), "closing freed the key at once");
    let lease = lead(&third).await;
    drop(third);
    until("session file", LIMIT, async || std::fs::remove_file(&file).ok()).await;
    let fourth = Client::start(with_file()).await;
    fourth.store.write_member(MEMBER).await.expect("the server runs");
    assert_eq!(load(&fourth).await.leader.map(|leader| leader.owner), Some(LeaderOwner::Other));
    assert_eq!(renew(&fourth, lease.epoch).await, None);
    assert_eq!(fourth.store.acquire().await.expect("a verdict"), Acquired::Taken);
    assert!(!fourth.store.release(lease.epoch).await.expect("a verdict"));
    // The member key was taken over: it does not go with the old session.
    until("free leader key", LIMIT, async || load(&fourth).await.leader.is_none().then_some(())).await;
    assert!(load(&fourth).await.member("one").is_some());
}
