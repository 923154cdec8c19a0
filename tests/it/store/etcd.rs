//! What only etcd does: leases that outlive connections, servers and processes, several servers that know a different leader, and a
//! deposed leader that goes on answering.

use std::time::Duration;

use pgherd_dcs::{Acquired, EtcdOptions, Expect, Key, Outcome, Servers, StoreOptions, StoreSecret, boot_now};
use pgherd_ha::LeaderOwner;

use super::{Client, LIMIT, MEMBER, etcd_options, lead, load, options_on, renew, until};
use crate::harness::certificates::Certificates;
use crate::harness::etcd::{EtcdServer, Trio};

fn options_of(trio: &Trio, first: usize) -> StoreOptions {
    // Tried in this order.
    let hosts: Vec<String> = (0..3).map(|at| trio.servers[(first + at) % 3].address()).collect();
    etcd_options("one", &hosts)
}

/// A client that knows only this server, as if the network had cut the others off for it.
fn options_of_one(trio: &Trio, at: usize) -> StoreOptions {
    let urls = vec![format!("http://{}", trio.servers[at].address())];
    let servers = Servers::Etcd(EtcdOptions { urls, proxies: true, ..EtcdOptions::default() });
    StoreOptions { retry_timeout: Duration::from_secs(1), ..options_on(servers, "one") }
}

#[tokio::test]
async fn a_changed_ttl_is_a_new_lease_under_the_same_keys() {
    let server = EtcdServer::start();
    let one = Client::start(etcd_options("one", &[server.address()])).await;
    let lease = lead(&one).await;
    assert_eq!(lease.granted, Duration::from_secs(8));
    for seconds in [20, 12] {
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
    let one = Client::start(options_of_one(&trio, leader)).await;
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
    // Long enough for a busy machine.
    let one = Client::start(StoreOptions { ttl: Duration::from_secs(20), ..options_of(&trio, first) }).await;
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
    let one = Client::start(options_of_one(&trio, leader)).await;
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

#[tokio::test]
async fn servers_that_are_not_configured_are_learned() {
    let mut trio = Trio::start();
    let one = Client::start(etcd_options("one", &[trio.servers[0].address()])).await;
    let lease = lead(&one).await;
    trio.servers[0].kill();
    let renewed = until("renewal", LIMIT, async || one.store.renew(lease.epoch).await.ok()).await;
    assert_eq!(renewed.map(|lease| lease.epoch), Some(lease.epoch), "lease and key were lost");
}

#[tokio::test]
async fn a_user_logs_in_and_a_lost_token_is_asked_for_again() {
    let mut server = EtcdServer::start();
    server.demand_login("secret");
    let with = |password: Option<&str>| {
        let urls = vec![format!("http://{}", server.address())];
        let password = password.map(|password| StoreSecret(password.into()));
        let username = password.as_ref().map(|_| "root".to_owned());
        options_on(Servers::Etcd(EtcdOptions { urls, username, password, ..EtcdOptions::default() }), "one")
    };
    for (password, part) in
        [(Some("wrong"), "check `etcd3.username` and `etcd3.password`"), (None, "user name is empty")]
    {
        let client = Client::start_unconnected(with(password));
        let error = client.store.ready(LIMIT).await.expect_err("it is not let in");
        assert!(!error.retry && error.to_string().contains(part), "{error}");
    }
    let one = Client::start(with(Some("secret"))).await;
    let mut changes = one.store.changes();
    let lease = lead(&one).await;
    // It keeps the tokens in its memory only.
    server.kill();
    server.restart();
    let renewed = until("renewal", LIMIT, async || one.store.renew(lease.epoch).await.ok()).await;
    assert_eq!(renewed.map(|lease| lease.epoch), Some(lease.epoch), "lease and key were lost");
    // The watch logs in again, too: it goes on telling.
    until("hint", LIMIT, async || {
        load(&one).await;
        changes.mark_unchanged();
        one.store.write(Key::Config, b"{}", Expect::Any).await.expect("the server runs");
        tokio::time::timeout(Duration::from_millis(500), changes.changed()).await.ok()
    })
    .await
    .expect("the client lives");
}

#[tokio::test]
async fn a_password_may_change_under_way() {
    let server = EtcdServer::start();
    server.demand_login("first");
    let servers = |password: &str| {
        Servers::Etcd(EtcdOptions {
            urls: vec![format!("http://{}", server.address())],
            username: Some("root".into()),
            password: Some(StoreSecret(password.into())),
            ..EtcdOptions::default()
        })
    };
    let one = Client::start(options_on(servers("first"), "one")).await;
    let lease = lead(&one).await;
    // Here first, then there: nothing is seen of it.
    one.store.reconfigure(&servers("second"));
    assert!(renew(&one, lease.epoch).await.is_some(), "the token is good still");
    server.change_password("first", "second");
    for _ in 0..5 {
        let renewed = one.store.renew(lease.epoch).await.expect("it logs in anew").expect("the key is ours");
        assert_eq!(renewed.epoch, lease.epoch);
    }
    // There first: it is said, and mended by the new one.
    server.change_password("second", "third");
    let error = until("refusal", LIMIT, async || one.store.renew(lease.epoch).await.err()).await;
    assert!(error.to_string().contains("check `etcd3.username` and `etcd3.password`"), "{error}");
    assert_eq!(error.outcome, Outcome::NotDone, "nothing was done without a login");
    one.store.reconfigure(&servers("third"));
    one.store.load().await.expect("it is let in at once");
    lead_again(&one).await;
}

/// The lease may be over by then.
async fn lead_again(client: &Client) {
    until("lead", LIMIT, async || {
        client.store.write_member(MEMBER).await.ok()?;
        client.store.acquire().await.ok().filter(|acquired| matches!(acquired, Acquired::Ours(_)))
    })
    .await;
}

/// Many calls beside each other and one after the other cost the store one login a second.
#[tokio::test]
async fn a_wrong_password_is_not_tried_at_every_call() {
    let server = EtcdServer::start();
    server.demand_login("right");
    let servers = Servers::Etcd(EtcdOptions {
        urls: vec![format!("http://{}", server.address())],
        username: Some("root".into()),
        password: Some(StoreSecret("wrong".into())),
        ..EtcdOptions::default()
    });
    let client = Client::start_unconnected(options_on(servers, "one"));
    let begun = std::time::Instant::now();
    for _ in 0..200 {
        client.store.load().await.expect_err("the password is wrong");
    }
    // A login takes the server some 50 ms: 200 of them would take ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn tls_checks_both_ends() {
    let certificates = Certificates::make();
    let server = EtcdServer::start_secured(&certificates);
    let with = |cacert: bool, cert: bool| {
        let file = |wanted: bool, name: &str| wanted.then(|| certificates.file(name));
        let options = EtcdOptions {
            urls: vec![format!("https://{}", server.address())],
            cacert: file(cacert, "ca.crt"),
            cert: file(cert, "client.crt"),
            key: file(cert, "client.key"),
            ..EtcdOptions::default()
        };
        options_on(Servers::Etcd(options), "one")
    };
    let one = Client::start_unconnected(with(true, true));
    one.store.ready(Duration::from_secs(60)).await.expect("both show their certificates");
    let lease = lead(&one).await;
    assert!(renew(&one, lease.epoch).await.is_some());
    for (cacert, cert) in [(false, true), (true, false)] {
        let client = Client::start_unconnected(with(cacert, cert));
        let error = client.store.ready(Duration::from_secs(5)).await.expect_err("one certificate is missing");
        assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
    }
}

/// A watch that would ask for what was compacted could not go on.
#[tokio::test]
async fn a_compaction_costs_no_hint() {
    let mut server = EtcdServer::start();
    let (one, two) = (
        Client::start(etcd_options("one", &[server.address()])).await,
        Client::start(etcd_options("two", &[server.address()])).await,
    );
    let mut changes = two.store.changes();
    for _ in 0..10 {
        one.store.write(Key::Config, b"{}", Expect::Any).await.expect("the server runs");
    }
    let answer = server.call("kv/compaction", r#"{"revision":"8"}"#).expect("the server runs");
    assert!(answer.contains(" 200 "), "{answer}");
    server.kill();
    server.restart();
    until("hint", LIMIT, async || {
        two.store.load().await.ok()?;
        changes.mark_unchanged();
        one.store.write(Key::Config, b"{}", Expect::Any).await.ok()?;
        tokio::time::timeout(Duration::from_millis(500), changes.changed()).await.ok()
    })
    .await
    .expect("the client lives");
}
