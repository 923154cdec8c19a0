//! No store answers when a node starts.

use std::os::unix::fs::PermissionsExt;

use super::messages;
use crate::harness::agent::Agent;
use crate::harness::cluster::LONG;
use crate::harness::ports::free_ports;
use crate::harness::postgres::bin_dir;
use crate::harness::zookeeper::ZooKeeperServer;
use crate::harness::{eventually, user};

#[test]
fn a_node_without_a_store_waits_and_then_makes_its_cluster() {
    let mut store = ZooKeeperServer::start();
    store.stop();
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("its mode can be set");
    let place = directory.path().join("node");
    user::servers_directory(&place);
    let [rest, postgres] = free_ports();
    let config = directory.path().join("node.yml");
    let yaml = format!(
        "scope: alone
name: one
restapi: {{listen: '127.0.0.1:{rest}', connect_address: '127.0.0.1:{rest}'}}
zookeeper: {{hosts: ['{store}']}}
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
        store = store.address(),
        place = place.display(),
        bin = bin_dir().display(),
    );
    std::fs::write(&config, yaml).expect("a configuration");
    user::give_to_servers(&config);
    let agent = Agent::start(&config, directory.path().join("log"));
    eventually("the agent says what is wrong", LONG, || messages::STORE_AWAY.said_in(&agent.log()));
    assert!(!place.join("data").exists());
    store.restart();
    eventually("the node leads a new cluster", LONG, || {
        if agent.log().contains("and takes writes") { Ok(()) } else { Err("not yet".to_owned()) }
    });
    assert_eq!(messages::STORE_AWAY.lines(&agent.log()).len(), 1);
}
