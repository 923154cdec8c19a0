//! The REST API whose section of the file changes while the agent runs.

use serde_json::json;

use crate::harness::cluster::{Cluster, LONG};
use crate::harness::eventually;
use crate::harness::ports::free_ports;

#[test]
fn it_moves_to_another_port_and_stays_where_it_is_if_it_cannot() {
    let cluster = Cluster::start(2);
    let before = cluster.node("node2").rest_port;
    let taken = cluster.node("node1").rest_port;
    let edit = |from: u16, to: u16| {
        for key in ["listen", "connect_address"] {
            cluster.edit("node2", &format!("{key}: 127.0.0.1:{from}\n"), &format!("{key}: 127.0.0.1:{to}\n"));
        }
    };
    edit(before, taken);
    cluster.reload("node2");
    let log = cluster.log("node2");
    assert!(log.contains(&format!("the REST API listens on 127.0.0.1:{before} as before")), "{log}");
    assert_eq!(cluster.status("node2").expect("an answer")["state"], "running");

    let [free] = free_ports();
    edit(taken, free);
    let (status, _) = cluster.rest("node2", "POST", "/reload", "").expect("an answer");
    assert_eq!(status, 202);
    cluster.change_state(|state| {
        let nodes = state["nodes"].as_array_mut().expect("nodes");
        nodes.iter_mut().find(|node| node["name"] == "node2").expect("a node of this name")["rest_port"] = json!(free);
    });
    eventually("it answers there", LONG, || cluster.status("node2").map(drop));
    std::net::TcpStream::connect(("127.0.0.1", before)).expect_err("it does not listen there any more");
    eventually("the others are told of it", LONG, || {
        let (_, members) = cluster.rest("node1", "GET", "/cluster", "")?;
        if members.contains(&format!("http://127.0.0.1:{free}/patroni")) { Ok(()) } else { Err(members) }
    });
    let said = cluster.ctl(&["reload", "demo", "node2", "--force"]);
    assert!(said.status.success(), "{}", crate::harness::cluster::text(&said));
}
