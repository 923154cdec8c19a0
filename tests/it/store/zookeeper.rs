//! Who may do what on ZooKeeper: TLS, access lists, credentials, SASL, and a path that stands for the root.

use std::time::Duration;

use pgherd_dcs::{Expect, Key, Servers, StoreOptions, ZooKeeperOptions, open};
use serde_json::{Value, json};

use super::{Client, LIMIT, lead, load, options_on, renew, until};
use crate::harness::certificates::Certificates;
use crate::harness::zookeeper::ZooKeeperServer;

/// `base64(sha1("pgherd:secret"))`
const HASH: &str = "9sJpSMP6/pcI24SsWUcY9eIF42k=";

/// A client with a section as a configuration has it.
pub fn section(name: &str, section: &Value) -> StoreOptions {
    let read = ZooKeeperOptions::from_section(section.as_object().expect("an object"));
    options_on(Servers::ZooKeeper(read.unwrap_or_else(|error| panic!("{section}: {error}"))), name)
}

/// What a client that does not get in says.
async fn turned_away(options: StoreOptions) -> String {
    let client = Client::start_unconnected(options);
    client.store.ready(Duration::from_secs(3)).await.expect_err("it is not let in").to_string()
}

/// What a client that got in says of a key that is not its own.
async fn not_authorised(options: StoreOptions) {
    let client = Client::start(options).await;
    for error in [
        client.store.load().await.map(|_| ()).expect_err("it may not read"),
        client.store.write(Key::Config, b"{}", Expect::Any).await.map(|_| ()).expect_err("it may not write"),
        client.store.delete(Key::Sync, Expect::Any).await.map(|_| ()).expect_err("it may not delete"),
    ] {
        assert!(error.cause.contains("not authorised") && error.cause.contains("`zookeeper.auth_data`"), "{error}");
        assert_eq!(error.outcome, pgherd_dcs::Outcome::NotDone);
    }
}

#[tokio::test]
async fn tls_shows_both_ends_who_is_there() {
    let certificates = Certificates::make();
    let server = ZooKeeperServer::start_secured(&certificates);
    let with = |change: Value| {
        let mut wanted = json!({
            "hosts": [server.secure_address()],
            "use_ssl": true,
            "cacert": certificates.shown("ca.crt"),
            "cert": certificates.shown("client.crt"),
            "key": certificates.shown("client.key"),
            "set_acls": {"CN=client": ["ALL"]},
        });
        wanted.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        section("one", &wanted)
    };
    let one = Client::start(with(json!({}))).await;
    let lease = lead(&one).await;
    assert!(renew(&one, lease.epoch).await.is_some());
    // Larger than a record of TLS and than a socket takes at once.
    let large = format!("{{\"ttl\":30,\"large\":\"{}\"}}", "x".repeat(900_000));
    one.store.write(Key::Config, large.as_bytes(), Expect::Any).await.expect("the server runs");
    one.store.write(Key::Sync, b"{}", Expect::Any).await.expect("the server runs");
    assert!(load(&one).await.config.is_some());

    // Checking nothing is enough where the client's certificate is right.
    let unchecked = with(
        json!({"verify": false, "cacert": certificates.shown("expired.crt"), "key": null, "cert": certificates.shown("client.pem")}),
    );
    let two = Client::start(StoreOptions { name: Some("two".into()), ..unchecked }).await;
    assert!(load(&two).await.leader.is_some(), "it is the same principal");
    // In the clear one gets in and may do nothing.
    not_authorised(section("three", &json!({"hosts": [server.address()]}))).await;

    for (change, part) in [
        (json!({"cacert": certificates.shown("expired.crt")}), "invalid peer certificate"),
        (json!({"cert": null, "key": null}), "ertificate"),
        (json!({"hosts": [server.address()]}), "TLS"),
        (json!({"use_ssl": false}), "closed the connection"),
    ] {
        let said = turned_away(with(change.clone())).await;
        assert!(said.contains(part) && said.contains("check that ZooKeeper runs"), "{change}: {said}");
    }
    for (change, part) in [
        (json!({"cacert": "/nonexistent/ca"}), "/nonexistent/ca cannot be read: No such file"),
        (json!({"key": certificates.shown("server.key")}), "server.key cannot be used"),
        (json!({"cert": certificates.shown("client.key")}), "holds no certificate"),
    ] {
        let error = open(&with(change.clone())).map(|_| ()).expect_err("it can never work");
        assert!(!error.retry && error.to_string().contains(part), "{change}: {error}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_told_and_a_renewed_one_needs_no_restart_of_ours() {
    let certificates = Certificates::make();
    let mut server = ZooKeeperServer::start_secured(&certificates);
    // Ours is in one file, which another takes the place of.
    let own = certificates.file("own.pem");
    let show = |from: &str| std::fs::copy(certificates.file(from), &own).expect("our own directory");
    show("expired.pem");
    let wanted = json!({
        "hosts": [server.secure_address()], "use_ssl": true,
        "cacert": certificates.shown("ca.crt"), "cert": certificates.shown("own.pem"),
    });
    let one = Client::start_unconnected(section("one", &wanted));
    let said = one.store.ready(Duration::from_secs(3)).await.expect_err("ours is out of date").to_string();
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    show("client.pem");
    one.store.ready(LIMIT).await.expect("it is read anew for each connection");
    let lease = lead(&one).await;

    server.stop();
    server.show(&certificates, "expired.pem");
    server.restart();
    let said = until("reason", LIMIT, async || {
        one.store.load().await.err().map(|error| error.to_string()).filter(|said| said.contains("certificate"))
    });
    let said = said.await;
    assert!(said.to_lowercase().contains("expired"), "{said}");
    server.stop();
    server.show(&certificates, "server.pem");
    server.restart();
    until("connection", LIMIT, async || one.store.load().await.ok()).await;
    // The session may be over by then; what counts is that nobody had to start this client again.
    assert!(
        until("answer", LIMIT, async || one.store.renew(lease.epoch).await.ok())
            .await
            .is_none_or(|now| now.epoch == lease.epoch)
    );
}

#[tokio::test]
async fn keys_with_an_access_list_are_nobody_elses() {
    let mut server = ZooKeeperServer::start();
    let with = |name: &str, credential: &str| {
        let acl = json!({format!("digest:pgherd:{HASH}"): ["all"]});
        section(name, &json!({"hosts": [server.address()], "auth_data": {"digest": credential}, "set_acls": acl}))
    };
    let one = Client::start(with("one", "pgherd:secret")).await;
    let lease = lead(&one).await;
    for key in [Key::Config, Key::Sync] {
        one.store.write(key, b"{}", Expect::Any).await.expect("the server runs");
    }
    let two = Client::start(with("two", "pgherd:secret")).await;
    assert!(load(&two).await.leader.is_some(), "whoever knows the password reads them");
    not_authorised(with("three", "pgherd:wrong")).await;
    not_authorised(section("three", &json!({"hosts": [server.address()]}))).await;
    let said =
        turned_away(section("four", &json!({"hosts": [server.address()], "auth_data": {"nonsense": "x"}}))).await;
    assert!(said.contains("refuses our credentials of the scheme `nonsense`"), "{said}");
    // Who we are is said again on every connection.
    server.kill();
    server.restart();
    let renewed = until("renewal", LIMIT, async || one.store.renew(lease.epoch).await.ok()).await;
    assert_eq!(renewed.map(|lease| lease.epoch), Some(lease.epoch), "session and key were lost");
    assert!(load(&two).await.leader.is_some());
}

#[tokio::test]
async fn a_path_stands_for_the_root() {
    let server = ZooKeeperServer::start();
    let hosts = |path: &str| json!({"hosts": format!("{}{path}", server.address())});
    let below = Client::start(section("one", &hosts("/a/b/"))).await;
    let lease = lead(&below).await;
    assert!(renew(&below, lease.epoch).await.is_some());
    below.store.write(Key::Sync, b"{}", Expect::Absent).await.expect("the server runs");
    assert_eq!(below.store.clusters().await.expect("the server runs"), ["my_cluster"]);
    let beside = Client::start(section("two", &hosts(""))).await;
    assert_eq!(load(&beside).await.leader, None);
    assert_eq!(beside.store.clusters().await.expect("the server runs"), Vec::<String>::new());
    let whole = StoreOptions { namespace: "/a/b/service".into(), ..section("two", &hosts("")) };
    let whole = Client::start(whole).await;
    assert_eq!(load(&whole).await.leader.map(|leader| leader.epoch), Some(lease.epoch));
    below.store.delete_cluster().await.expect("the server runs");
    assert_eq!(load(&whole).await.leader, None);
}

/// What is above a chroot may be somebody else's, who lets us do nothing there.
#[tokio::test]
async fn a_path_below_somebody_elses() {
    let server = ZooKeeperServer::start();
    let ours = json!({format!("digest:pgherd:{HASH}"): ["ALL"]});
    let section_of = |path: &str, auth: &str, acl: &Value| {
        let hosts = format!("{}{path}", server.address());
        section("one", &json!({"hosts": hosts, "auth_data": {"digest": auth}, "set_acls": acl}))
    };
    // The owner makes `/owned` for itself, and `/owned/app` for us.
    let owner = Client::start(section_of("/owned", "boss:x", &json!({"auth:": ["ALL"]}))).await;
    owner.store.write(Key::Config, b"{}", Expect::Any).await.expect("it is the owner's");
    let for_us = StoreOptions {
        namespace: "x".into(),
        ..section_of("/owned/app", "boss:x", &json!({"auth:": "READ", "world:anyone": "ALL"}))
    };
    let for_us = Client::start(for_us).await;
    for_us.store.write(Key::Config, b"{}", Expect::Any).await.expect("it is the owner's");
    let inside = Client::start(section_of("/owned/app", "pgherd:secret", &ours)).await;
    let lease = lead(&inside).await;
    assert!(renew(&inside, lease.epoch).await.is_some());
    let outside = Client::start(section_of("/owned/other", "pgherd:secret", &ours)).await;
    let error = outside.store.write(Key::Config, b"{}", Expect::Any).await.map(|_| ()).expect_err("nobody made it");
    assert!(error.cause.contains("not authorised"), "{error}");
}

#[tokio::test]
async fn sasl_proves_both_ends() {
    let server = ZooKeeperServer::start_with_user("pgherd", "sec\u{fc}ret,\"1");
    let with = |name: &str, password: &str| {
        let user = json!({"username": "pgherd", "password": password});
        section(name, &json!({"hosts": [server.address()], "sasl": user, "set_acls": {"sasl:pgherd": ["ALL"]}}))
    };
    let one = Client::start(with("one", "sec\u{fc}ret,\"1")).await;
    let lease = lead(&one).await;
    assert!(renew(&one, lease.epoch).await.is_some());
    for key in [Key::Config, Key::Sync] {
        one.store.write(key, b"{}", Expect::Any).await.expect("the server runs");
    }
    not_authorised(section("two", &json!({"hosts": [server.address()]}))).await;
    let said = turned_away(with("two", "wrong")).await;
    assert!(said.contains("refuses our credentials of SASL; check `zookeeper.sasl`"), "{said}");
    // A server without SASL.
    let plain = ZooKeeperServer::start();
    let asked = json!({"hosts": [plain.address()], "sasl": {"username": "pgherd", "password": "x"}});
    let said = turned_away(section("two", &asked)).await;
    assert!(said.contains("SASL"), "{said}");
}
