//! Members of several versions in one cluster: what a later one adds is passed over by this one, and a guard that this one cannot read is left alone.
//!
//! The rule is in `docs/operations.md`, "Two versions in one cluster". Lines of routes are tried in `pgherd_ha::RouteMessage`.

use std::io::{Seek, SeekFrom, Write};
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::ctl::patronictl;
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;

/// Where the version stands in a permit page, behind the eight bytes that say what it is.
const VERSION_AT: u64 = 8;

/// Creates a key or replaces its value, as a member of any version might.
fn write_key(cluster: &Cluster, key: &str, value: &Value) {
    let script = "import sys
from kazoo.client import KazooClient
store = KazooClient(hosts=sys.argv[1])
store.start()
store.ensure_path(sys.argv[2])
store.set(sys.argv[2], sys.argv[3].encode())
store.stop()";
    let python = patronictl().with_file_name("python3");
    let config = std::fs::read_to_string(cluster.node("node1").config).expect("its file");
    let hosts = config.lines().find_map(|line| line.strip_prefix("    - ")).expect("the store's address");
    let arguments = ["-c", script, hosts, &format!("/service/demo/{key}"), &value.to_string()];
    let output = Command::new(python).args(arguments).output().expect("python runs");
    assert!(output.status.success(), "{key}: {}", text(&output));
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    // A member that says more than this version knows, and does what it has no word for.
    write_key(
        &cluster,
        "members/node9",
        &json!({
            "conn_url": "postgres://127.0.0.1:1/postgres", "api_url": "http://127.0.0.1:1/patroni", "state": "contemplating",
            "role": "observer", "version": "99.1.0", "pgherd": "99.0.0", "timeline": 1, "moods": {"calm": [1, null]}, "tags": {"nofailover": true}
        }),
    );
    let list = text(&cluster.ctl(&["list"]));
    assert!(list.contains("node9") && list.contains("contemplating"), "{list}");
    assert_eq!(list, text(&cluster.ctl_by(&patronictl(), &["list"])));

    // A question with more in it than this version asks.
    cluster.configure(&json!({"failsafe_mode": true}));
    let question = json!({
        "name": leader, "conn_url": "postgres://127.0.0.1:1/postgres", "api_url": "http://127.0.0.1:1/patroni",
        "slots": {"a": 5, "b": {"position": 7}}, "ttl": 2.5, "mood": "calm"
    });
    eventually("the mode is on, and the question is understood", LONG, || {
        match cluster.rest(&replica, "POST", "/failsafe", &question.to_string())? {
            (200, said) if said == "Accepted" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    cluster.configure(&json!({"failsafe_mode": null}));

    // An order with more in it than this version gives.
    write_key(&cluster, "failover", &json!({"leader": leader, "member": replica, "mood": "calm", "priority": 7}));
    assert_eq!(cluster.another_leader(&leader), replica);
    eventually("the former leader follows", LONG, || match cluster.status(&leader)? {
        status if status["replication_state"] == "streaming" => Ok(()),
        status => Err(status.to_string()),
    });
}

#[test]
fn a_guard_of_a_version_that_cannot_be_read_is_left_alone_with_its_server() {
    let cluster = Cluster::start(2);
    let replica = cluster.replicas().remove(0);
    let (server, guard) = (cluster.postmaster(&replica), cluster.guard(&replica).expect("a guard"));
    let files = std::fs::read_dir(format!("/proc/{}/fd", guard.pid)).expect("its files").flatten();
    let is_page = |path: &std::path::Path| {
        std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:pgherd-permit"))
    };
    let page = files.map(|file| file.path()).find(|path| is_page(path)).expect("a permit page");
    let set_version = |version: u32| {
        let mut file = std::fs::File::options().write(true).open(&page).expect("the page");
        file.seek(SeekFrom::Start(VERSION_AT)).expect("a place in it");
        file.write_all(&version.to_ne_bytes()).expect("the page can be written");
    };
    let agent = cluster.node(&replica).agent;
    agent.signal(Signal::KILL);
    agent.ended_within(LONG);

    set_version(99);
    cluster.start_agent(&replica).ended_within(LONG);
    let log = cluster.log(&replica);
    assert!(log.contains("permit page has version 99") && log.contains("restart PostgreSQL"), "{log}");
    assert!(guard.is_alive() && cluster.postmaster(&replica) == server, "the server was touched");

    set_version(1);
    cluster.start_agent(&replica);
    cluster.wait_healthy();
    assert_eq!((cluster.postmaster(&replica), cluster.guard(&replica)), (server, Some(guard)));
}
