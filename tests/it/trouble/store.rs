//! No store answers when a node starts, or it does not let the node in.

use std::os::unix::fs::PermissionsExt;

use super::messages;
use crate::harness::agent::Agent;
use crate::harness::cluster::LONG;
use crate::harness::etcd::EtcdServer;
use crate::harness::ports::free_ports;
use crate::harness::postgres::bin_dir;
use crate::harness::zookeeper::ZooKeeperServer;
use crate::harness::{eventually, user};

/// A node's place and its file, with this store.
fn node(directory: &std::path::Path, store: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).expect("its mode can be set");
    let place = directory.join("node");
    user::servers_directory(&place);
    let [rest, postgres] = free_ports();
    let config = directory.join("node.yml");
    let yaml = format!(
        "scope: alone
name: one
restapi: {{listen: '127.0.0.1:{rest}', connect_address: '127.0.0.1:{rest}'}}
{store}
postgresql:
  listen: 127.0.0.1:{postgres}
  connect_address: 127.0.0.1:{postgres}
  data_dir: {place}/data
  bin_dir: {bin}
  pgpass: {place}/pgpass
  authentication:
    replication: {{username: replicator, password: secret}}
    superuser: {{username: postgres, password: secret}}
  parameters: {{unix_socket_directories: ''}}
",
        place = place.display(),
        bin = bin_dir().display(),
    );
    std::fs::write(&config, yaml).expect("a configuration");
    user::give_to_servers(&config);
    (place, config)
}

#[test]
fn a_node_without_a_store_waits_and_then_makes_its_cluster() {
    let mut store = ZooKeeperServer::start();
    store.stop();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (place, config) = node(directory.path(), &format!("zookeeper: {{hosts: ['{}']}}", store.address()));
    let agent = Agent::start(&config, directory.path().join("log"));
    eventually("the agent says what is wrong", LONG, || messages::STORE_AWAY.said_in(&agent.log()));
    assert!(!place.join("data").exists());
    store.restart();
    eventually("the node leads a new cluster", LONG, || {
        if agent.log().contains("and takes writes") { Ok(()) } else { Err("not yet".to_owned()) }
    });
    assert_eq!(messages::STORE_AWAY.lines(&agent.log()).len(), 1);
}

#[test]
fn a_node_with_a_wrong_password_waits_for_the_right_one() {
    let store = EtcdServer::start();
    store.demand_login("right-one");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let section =
        |password: &str| format!("etcd3: {{host: '{}', username: root, password: {password}}}", store.address());
    let (place, config) = node(directory.path(), &section("wrong-one"));
    let agent = Agent::start(&config, directory.path().join("log"));
    eventually("the agent says what is wrong", LONG, || messages::STORE_LOGIN.said_in(&agent.log()));
    assert!(!place.join("data").exists());
    let text = std::fs::read_to_string(&config).expect("its file");
    std::fs::write(&config, text.replace(&section("wrong-one"), &section("right-one"))).expect("its file");
    agent.signal(rustix::process::Signal::HUP);
    let says = |part: &str| if agent.log().contains(part) { Ok(()) } else { Err(agent.log()) };
    eventually("the node leads a new cluster", LONG, || says("and takes writes"));
    let log = agent.log();
    assert!(!log.contains("right-one") && !log.contains("wrong-one"), "a password is in the log\n{log}");
    // Debian 12's is one with which leases are not quite safe.
    let version = std::process::Command::new("etcd").arg("--version").output().expect("etcd is there").stdout;
    if String::from_utf8_lossy(&version).contains("etcd Version: 3.4.23") {
        let warning = "etcd 3.4.23: a leader of this version that was frozen may end leases";
        assert_eq!(log.matches(warning).count(), 1, "{log}");
    }
}
