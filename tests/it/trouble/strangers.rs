//! An agent that is pointed at the wrong data, or started twice: it refuses, ends with 1, and touches nothing.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::json;

use super::messages;
use crate::harness::agent::run_agent;
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::content::content;
use crate::harness::eventually;
use crate::harness::postgres::bin_dir;

/// As the owner of the node's directory, who is not root.
fn initdb(directory: &Path) {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    let owner = std::fs::metadata(directory.parent().expect("a node's directory")).expect("it is there");
    let mut command = Command::new(bin_dir().join("initdb"));
    command.args(["--no-sync", "--username=postgres", "--auth=trust", "--pgdata"]).arg(directory);
    if rustix::process::geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let output = command.current_dir("/").stdin(Stdio::null()).output().expect("initdb runs");
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_data_of_another_cluster_is_never_touched() {
    let cluster = Cluster::start(2);
    // A configuration that is worth keeping beside the data, but not beside these.
    cluster.configure(&json!({"postgresql": {"parameters": {"work_mem": "5MB"}}}));
    let replica = cluster.replicas().remove(0);
    let node = cluster.node(&replica);
    node.agent.signal(Signal::TERM);
    node.agent.ended_within(LONG);
    std::fs::remove_dir_all(&node.data_dir).expect("the test's own cluster");
    initdb(&node.data_dir);
    let before = content(&node.data_dir);

    messages::FOREIGN.ends(&run_agent(&node.config));
    assert_eq!(content(&node.data_dir), before);

    // Moved away, as the message says, it is made anew from the cluster.
    std::fs::rename(&node.data_dir, node.data_dir.with_file_name("strange")).expect("the test's own cluster");
    cluster.start_agent(&replica);
    cluster.wait_healthy();
}

#[test]
fn a_second_agent_is_refused_and_the_first_does_not_notice() {
    let cluster = Cluster::start(2);
    let node = cluster.node(&cluster.leader());
    let before = (cluster.postmaster(&node.name), cluster.epoch(&node.name), cluster.log(&node.name));
    // The same name with other ports and other data; the same data with another name; and the very same file again.
    let file = std::fs::read_to_string(&node.config).expect("its configuration");
    let port = |text: &str| text.replace(&format!("127.0.0.1:{}", node.rest_port), "127.0.0.1:1");
    let elsewhere = node.data_dir.with_file_name("elsewhere");
    let other_data = port(&file).replace(&node.data_dir.display().to_string(), &elsewhere.display().to_string());
    let other_name = port(&file).replace(&format!("name: {}", node.name), "name: stranger");
    let cases =
        [(other_data, &messages::SECOND_NAME), (other_name, &messages::SECOND_DATA), (file, &messages::SECOND_DATA)];
    for (text, expected) in cases {
        let config = cluster.directory().join("second.yml");
        std::fs::write(&config, text).expect("a configuration");
        let said = expected.ends(&run_agent(&config));
        assert!(said.contains(&node.name), "{said}");
    }
    assert!(!elsewhere.exists());
    cluster.wait_healthy();
    let after = (cluster.postmaster(&node.name), cluster.epoch(&node.name), cluster.log(&node.name));
    assert_eq!(after, before);
}

#[test]
fn a_directory_that_holds_other_files_is_never_touched() {
    let cluster = Cluster::start(2);
    let replica = cluster.replicas().remove(0);
    let node = cluster.node(&replica);
    node.agent.signal(Signal::TERM);
    node.agent.ended_within(LONG);
    std::fs::rename(&node.data_dir, node.data_dir.with_file_name("kept")).expect("the test's own cluster");
    std::fs::create_dir(&node.data_dir).expect("a directory");
    std::fs::write(node.data_dir.join("precious"), "data").expect("a file");
    if rustix::process::geteuid().is_root() {
        own_like(&node.data_dir, node.data_dir.parent().expect("a node's directory"));
    }
    let before = content(&node.data_dir);
    cluster.start_agent(&replica);
    eventually("the agent says what is wrong", LONG, || messages::NO_DATA_DIRECTORY.said_in(&cluster.log(&replica)));
    assert_eq!(content(&node.data_dir), before);
}

fn own_like(directory: &Path, model: &Path) {
    use std::os::unix::fs::{MetadataExt, chown};
    let owner = std::fs::metadata(model).expect("it is there");
    chown(directory, Some(owner.uid()), Some(owner.gid())).expect("root may");
}
