//! Servers of etcd that a domain's SRV records name.

use std::time::Duration;

use pgherd_dcs::{EtcdOptions, EtcdSrv, Servers, StoreOptions};

use super::{Client, LIMIT, lead, load, options_on, renew, until};
use crate::harness::certificates::Certificates;
use crate::harness::dns::NameServer;
use crate::harness::etcd::{EtcdServer, Trio};
use crate::harness::ports::free_port;

fn srv(name_server: &NameServer, suffix: Option<&str>) -> Option<EtcdSrv> {
    let suffix = suffix.map(str::to_owned);
    Some(EtcdSrv { domain: "example.org".into(), suffix, name_servers: vec![name_server.address()] })
}

fn options(name: &str, name_server: &NameServer) -> StoreOptions {
    options_on(Servers::Etcd(EtcdOptions { srv: srv(name_server, None), ..EtcdOptions::default() }), name)
}

#[tokio::test]
async fn records_name_the_servers() {
    let trio = Trio::start();
    for truncates in [false, true] {
        let name_server = NameServer::start(truncates);
        let records: Vec<_> = (1..).zip(&trio.servers).map(|(priority, server)| (priority, server.port())).collect();
        name_server.set("_etcd-client._tcp.example.org", &records);
        let one = Client::start(options(&format!("over tcp: {truncates}"), &name_server)).await;
        let lease = lead(&one).await;
        assert!(renew(&one, lease.epoch).await.is_some());
        assert!(one.store.release(lease.epoch).await.expect("the servers run"));
    }
    // The port where they meet each other knows where clients are served.
    let name_server = NameServer::start(false);
    let records: Vec<_> = trio.peer_ports.iter().map(|port| (1, *port)).collect();
    name_server.set("_etcd-server._tcp.example.org", &records);
    Client::start(options("two", &name_server)).await;
    // One cluster of several in the domain.
    name_server.set("_etcd-server._tcp.example.org", &[]);
    name_server.set("_etcd-client._tcp.example.org", &[(1, free_port())]);
    name_server.set("_etcd-client-blue._tcp.example.org", &[(1, trio.servers[0].port())]);
    let blue = EtcdOptions { srv: srv(&name_server, Some("blue")), ..EtcdOptions::default() };
    Client::start(options_on(Servers::Etcd(blue), "three")).await;
}

#[tokio::test]
async fn records_with_tls_go_before_others() {
    let certificates = Certificates::make();
    let server = EtcdServer::start_secured(&certificates);
    let name_server = NameServer::start(false);
    name_server.set("_etcd-client-ssl._tcp.example.org", &[(1, server.port())]);
    name_server.set("_etcd-client._tcp.example.org", &[(1, free_port())]);
    let options = EtcdOptions {
        srv: srv(&name_server, None),
        cacert: Some(certificates.file("ca.crt")),
        cert: Some(certificates.file("client.crt")),
        key: Some(certificates.file("client.key")),
        ..EtcdOptions::default()
    };
    let one = Client::start_unconnected(options_on(Servers::Etcd(options), "one"));
    one.store.ready(LIMIT).await.expect("the server runs");
    lead(&one).await;
}

#[tokio::test]
async fn records_are_asked_again_when_nobody_is_left() {
    let (mut old, new) = (EtcdServer::start(), EtcdServer::start());
    let name_server = NameServer::start(false);
    let name = "_etcd-client._tcp.example.org";
    name_server.set(name, &[(1, old.port())]);
    let one = Client::start(options("one", &name_server)).await;
    let mut changes = one.store.changes();
    lead(&one).await;
    name_server.set(name, &[(1, new.port())]);
    assert!(load(&one).await.leader.is_some(), "who answers is not left");
    old.kill();
    // Another cluster, so nothing is there of what was written.
    until("the new server", LIMIT, async || {
        one.store.load().await.ok().filter(|view| view.leader.is_none() && view.members.is_empty())
    })
    .await;
    lead(&one).await;
    // The watch has come along.
    load(&one).await;
    changes.mark_unchanged();
    new.call("kv/put", r#"{"key":"L3NlcnZpY2UvbXlfY2x1c3Rlci9jb25maWc=","value":"e30="}"#).expect("the server runs");
    tokio::time::timeout(LIMIT, changes.changed()).await.expect("a change is told").expect("the client lives");
}

#[tokio::test]
async fn records_that_name_nobody() {
    let server = EtcdServer::start();
    let name_server = NameServer::start(false);
    let said = |options: StoreOptions| async {
        let client = Client::start_unconnected(options);
        client.store.ready(Duration::from_millis(1_500)).await.expect_err("there is no server").to_string()
    };
    let nobody = said(options("one", &name_server)).await;
    assert!(nobody.contains("etcd srv example.org: connect failed"), "{nobody}");
    assert!(nobody.contains("no SRV record of the domain `example.org` names a server of etcd"), "{nobody}");
    // Hosts beside it count then.
    let beside = EtcdOptions {
        srv: srv(&name_server, None),
        urls: vec![format!("http://{}", server.address())],
        ..EtcdOptions::default()
    };
    Client::start(options_on(Servers::Etcd(beside), "one")).await;
    // And records that come later, where there was nobody.
    let late = Client::start_unconnected(options("one", &name_server));
    late.store.ready(Duration::from_millis(100)).await.expect_err("not yet");
    name_server.set("_etcd._tcp.example.org", &[(1, server.port())]);
    late.store.ready(LIMIT).await.expect("the server runs");
}
