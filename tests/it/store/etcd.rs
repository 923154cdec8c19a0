//! What only etcd does: leases that outlive connections, servers and processes, several servers that know a different leader, and a
//! deposed leader that goes on answering.

use std::time::Duration;

use pgherd_dcs::{Acquired, StoreOptions, boot_now};
use pgherd_ha::LeaderOwner;

use super::{Client, LIMIT, MEMBER, etcd_options, lead, load, renew, until};
use crate::harness::etcd::{EtcdServer, Trio};

fn options_of(trio: &Trio, first: usize) -> StoreOptions {
    // Tried in this order.
    let hosts: Vec<String> = (0..3).map(|at| trio.servers[(first + at) % 3].address()).collect();
    etcd_options("one", &hosts)
}

#[tokio::test]
async fn a_killed_agents_lease_is_taken_up_by_the_next() {
    let server = EtcdServer::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("session");
    let with_file = || StoreOptions { session_file: Some(file.clone()), ..etcd_options("one", &[server.address()]) };
    let first = Client::start(with_file()).await;
    let lease = lead(&first).await;
    until("session file", LIMIT, async || file.exists().then_some(())).await;
    drop(first);

    let second = Client::start(with_file()).await;
    assert_eq!(load(&second).await.leader.map(|leader| leader.owner), Some(LeaderOwner::Me));
    let renewed = renew(&second, lease.epoch).await.expect("the key is still ours");
    assert_eq!(renewed.epoch, lease.epoch);
    second.store.close().await.expect("the server runs");
    assert!(!file.exists(), "an ended lease is not to be taken up");

    // Without its lease a node does not take another's key for its own, though its name is in it.
    let third = Client::start(with_file()).await;
    assert!(load(&third).await.leader.is_none(), "closing freed the key at once");
    let lease = lead(&third).await;
    drop(third);
    std::fs::remove_file(&file).expect("the third client's file");
    let fourth = Client::start(with_file()).await;
    fourth.store.write_member(MEMBER).await.expect("the server runs");
    assert_eq!(load(&fourth).await.leader.map(|leader| leader.owner), Some(LeaderOwner::Other));
    assert_eq!(renew(&fourth, lease.epoch).await, None);
    assert_eq!(fourth.store.acquire().await.expect("a verdict"), Acquired::Taken);
    assert!(!fourth.store.release(lease.epoch).await.expect("a verdict"));
    // The member key was taken over: it does not go with the old lease.
    until("free leader key", LIMIT, async || load(&fourth).await.leader.is_none().then_some(())).await;
    assert!(load(&fourth).await.member("one").is_some());
}

#[tokio::test]
async fn a_changed_ttl_is_a_new_lease_under_the_same_keys() {
    let server = EtcdServer::start();
    let one = Client::start(etcd_options("one", &[server.address()])).await;
    let lease = lead(&one).await;
    assert_eq!(lease.granted, Duration::from_secs(8));
    for seconds in [5, 20] {
        one.store.set_ttl(Duration::from_secs(seconds));
        let renewed = until("other lease", LIMIT, async || {
            let renewed = one.store.renew(lease.epoch).await.ok()?.expect("the key is still ours");
            (renewed.granted == Duration::from_secs(seconds)).then_some(renewed)
        })
        .await;
        assert_eq!(renewed.epoch, lease.epoch);
        let view = load(&one).await;
        assert_eq!(view.leader.as_ref().map(|leader| leader.owner), Some(LeaderOwner::Me));
        assert!(view.member("one").is_some_and(|member| !member.conn_url.is_empty()));
    }
}

#[tokio::test]
async fn a_server_without_its_quorum_renews_nothing() {
    let trio = Trio::start();
    let leader = trio.leader();
    // This client knows only the leader, as if the network had cut the others off for it, too.
    let one = Client::start(StoreOptions {
        retry_timeout: Duration::from_secs(1),
        ..etcd_options("one", &[trio.servers[leader].address()])
    })
    .await;
    let lease = lead(&one).await;
    assert!(renew(&one, lease.epoch).await.is_some());
    for at in (0..3).filter(|at| *at != leader) {
        trio.servers[at].sigstop();
    }
    let stopped = boot_now();
    let mut failed = 0;
    while boot_now() < lease.end() + Duration::from_secs(1) {
        match one.store.renew(lease.epoch).await {
            Ok(Some(renewed)) => panic!("renewed {:?} after the quorum was gone", renewed.sent.since(stopped)),
            Ok(None) => panic!("nobody can say that the key is not ours"),
            Err(_) => failed += 1,
        }
    }
    assert!(failed > 0);
    for at in (0..3).filter(|at| *at != leader) {
        trio.servers[at].sigcont();
    }
}

#[tokio::test]
async fn a_lost_leader_of_etcd_is_survived() {
    let mut trio = Trio::start();
    let leader = trio.leader();
    let one = Client::start(options_of(&trio, leader)).await;
    let lease = lead(&one).await;
    trio.servers[leader].kill();
    let renewed = until("renewal", LIMIT, async || one.store.renew(lease.epoch).await.ok()).await;
    assert_eq!(renewed.map(|lease| lease.epoch), Some(lease.epoch), "lease and key were lost");
}

#[tokio::test]
async fn a_frozen_server_is_left_for_another_while_the_lease_lasts() {
    let trio = Trio::start();
    let first = (trio.leader() + 1) % 3;
    let one = Client::start(options_of(&trio, first)).await;
    let lease = lead(&one).await;
    let lease = renew(&one, lease.epoch).await.expect("it is ours");
    trio.servers[first].sigstop();
    let renewed = until("renewal", LIMIT, async || one.store.renew(lease.epoch).await.ok()).await;
    let renewed = renewed.expect("lease and key are ours still");
    assert!(
        renewed.sent < lease.deadline(),
        "renewed only {:?} after the writer's end",
        renewed.sent.since(lease.deadline())
    );
    trio.servers[first].sigcont();
}

/// The trap: etcd's leader stands still, another is elected, and the first wakes up with the lease in its memory.
#[tokio::test]
async fn a_deposed_leader_that_wakes_up_proves_nothing() {
    let trio = Trio::start();
    let leader = trio.leader();
    let one = Client::start(StoreOptions {
        retry_timeout: Duration::from_secs(1),
        ..etcd_options("one", &[trio.servers[leader].address()])
    })
    .await;
    let others = (0..3).filter(|at| *at != leader).map(|at| trio.servers[at].address()).collect::<Vec<_>>();
    let onlooker = Client::start(StoreOptions { name: None, ..etcd_options("", &others) }).await;
    let lease = lead(&one).await;
    trio.servers[leader].sigstop();
    // The others free the key when its time is over; meanwhile renewals wait in the frozen server's socket.
    let newest = std::cell::Cell::new(lease);
    let freed = until("free leader key", Duration::from_secs(40), async || {
        if let Ok(Some(renewed)) = one.store.renew(lease.epoch).await {
            newest.set(renewed);
        }
        onlooker.store.load().await.is_ok_and(|view| view.leader.is_none()).then(boot_now)
    })
    .await;
    trio.servers[leader].sigcont();
    let verdict = until("verdict", LIMIT, async || one.store.renew(lease.epoch).await.ok()).await;
    assert_eq!(verdict, None, "the key is gone");
    assert!(newest.get().end() <= freed, "a proof outlived the key by {:?}", newest.get().end().since(freed));
}

#[tokio::test]
async fn a_server_that_lost_its_data_gets_its_client_back() {
    let mut server = EtcdServer::start();
    let one =
        Client::start(StoreOptions { ttl: Duration::from_secs(2), ..etcd_options("one", &[server.address()]) }).await;
    let lease = lead(&one).await;
    renew(&one, lease.epoch).await.expect("it is ours");
    server.kill();
    server.lose_data();
    server.restart();
    until("new lease", LIMIT, async || one.store.write_member(MEMBER).await.ok()).await;
    assert_eq!(load(&one).await.leader, None);
    lead(&one).await;
}
