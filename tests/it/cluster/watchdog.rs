//! The watchdog under a real cluster, with the testing driver: FIFOs in place of the devices, and the test in place of the machines.
//!
//! No machine here has a device, so the requests of the real driver are tested only as far as `/dev/null` goes, in `watchdog/device.rs`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::Signal;
use serde_json::json;

use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;

/// A cluster, and what the watchdog of each node has heard.
struct Scene {
    cluster: Cluster,
    devices: RefCell<BTreeMap<String, Device>>,
}

struct Device {
    reader: Option<File>,
    heard: String,
}

impl Scene {
    fn set(nodes: u8, mode: &str) -> Scene {
        let cluster = Cluster::start(nodes);
        eventually("the cluster has a configuration", LONG, || {
            let node = cluster.nodes().remove(0);
            match cluster.rest(&node.name, "GET", "/config", "")? {
                (200, _) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        cluster.configure(&json!({"ttl": 21, "loop_wait": 1, "retry_timeout": 3}));
        let mut devices = BTreeMap::new();
        for node in cluster.nodes() {
            let path = cluster.directory().join(format!("{}.watchdog", node.name));
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
            // The agents run as user postgres, the test perhaps as root.
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).expect("its mode can be set");
            let device = Device { reader: Some(reader(&path)), heard: String::new() };
            let config = std::fs::read_to_string(&node.config).expect("the node's file");
            let section = format!("  mode: {mode}\n  driver: testing\n  device: {}\n", path.display());
            std::fs::write(&node.config, config.replace("  mode: off\n", &section)).expect("the node's file");
            devices.insert(node.name.clone(), device);
            cluster.reload(&node.name);
        }
        Scene { cluster, devices: RefCell::new(devices) }
    }

    /// Waits until the node's watchdog has heard this since it was last asked; all that came with it is forgotten.
    fn hears(&self, node: &str, expected: &str) {
        eventually(&format!("the watchdog of {node} hears {expected:?}"), LONG, || {
            let mut devices = self.devices.borrow_mut();
            let device = devices.get_mut(node).expect("a device");
            device.listen();
            let end = device.heard.find(expected).map(|start| start + expected.len());
            end.map(|end| drop(device.heard.drain(..end))).ok_or_else(|| format!("{:?}", device.heard))
        });
    }

    /// What came and was not asked for yet.
    fn heard(&self, node: &str) -> String {
        let mut devices = self.devices.borrow_mut();
        let device = devices.get_mut(node).expect("a device");
        device.listen();
        std::mem::take(&mut device.heard)
    }

    /// The device breaks, or is mended.
    fn listen(&self, node: &str, listen: bool) {
        let path = self.cluster.directory().join(format!("{node}.watchdog"));
        self.devices.borrow_mut().get_mut(node).expect("a device").reader = listen.then(|| reader(&path));
    }

    fn order(&self, arguments: &[&str]) {
        let output = self.cluster.ctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
}

impl Device {
    fn listen(&mut self) {
        let mut heard = Vec::new();
        if let Some(reader) = &mut self.reader {
            // Ends with "would block" while the agent has it open.
            let _ = reader.read_to_end(&mut heard);
        }
        self.heard += &String::from_utf8(heard).expect("ASCII");
    }
}

fn reader(path: &std::path::Path) -> File {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag");
    File::options().read(true).custom_flags(flags).open(path).expect("a FIFO")
}

#[test]
fn the_watchdog_runs_while_its_node_leads_and_no_longer() {
    let scene = Scene::set(2, "automatic");
    let (leader, replica) = (scene.cluster.leader(), scene.cluster.replicas().remove(0));
    scene.hears(&leader, "Ctimeout=16\n");
    scene.hears(&leader, "111");
    scene.cluster.configure(&json!({"ttl": 20}));
    scene.hears(&leader, "Ctimeout=15\n");

    scene.order(&["pause", "--wait"]);
    scene.hears(&leader, "V");
    assert_eq!(scene.heard(&leader), "", "paused, it does not run");
    scene.order(&["resume", "--wait"]);
    scene.hears(&leader, "Ctimeout=15\n");
    assert_eq!(scene.heard(&replica), "", "a standby needs none");

    scene.order(&["switchover", "demo", "--leader", &leader, "--candidate", &replica, "--force"]);
    scene.hears(&leader, "V");
    scene.hears(&replica, "Ctimeout=15\n");
    assert_eq!(scene.cluster.another_leader(&leader), replica);
    scene.hears(&replica, "1");
    let log = scene.cluster.log(&replica);
    let (armed, promoted) = (log.find("activated with 15 second timeout"), log.find("begin: promote"));
    assert!(armed < promoted && armed.is_some(), "it is armed before the promotion\n{log}");
    assert_eq!(scene.heard(&leader), "");
}

#[test]
fn where_the_watchdog_is_required_its_failure_costs_the_leadership() {
    let scene = Scene::set(2, "required");
    let (leader, replica) = (scene.cluster.leader(), scene.cluster.replicas().remove(0));
    scene.hears(&leader, "Ctimeout=16\n");
    scene.cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    scene.listen(&leader, false);
    assert_eq!(scene.cluster.another_leader(&leader), replica);
    scene.hears(&replica, "Ctimeout=16\n");
    scene.cluster.shows(&replica, "SELECT name FROM town", &["Ulm"]);
    scene.cluster.wait_healthy();

    // The device is tried again when there is something to lead.
    scene.cluster.kill_host(&replica);
    eventually("the node says that it cannot lead", LONG, || match scene.cluster.status(&leader)? {
        status if status["watchdog_failed"] == true => Ok(()),
        other => Err(other.to_string()),
    });
    scene.listen(&leader, true);
    assert_eq!(scene.cluster.another_leader(&replica), leader);
    scene.hears(&leader, "Ctimeout=16\n");
    assert_eq!(scene.cluster.status(&leader).expect("an answer")["watchdog_failed"], json!(null));
}

#[test]
fn an_agent_that_is_killed_leaves_its_watchdog_running_and_the_next_one_takes_it_over() {
    let scene = Scene::set(1, "automatic");
    let leader = scene.cluster.leader();
    scene.hears(&leader, "Ctimeout=16\n1");
    let agent = scene.cluster.node(&leader).agent;
    agent.signal(Signal::KILL);
    agent.ended_within(LONG);
    let last = scene.heard(&leader);
    assert!(!last.contains('V'), "nobody has stopped it: {last}");
    scene.cluster.start_agent(&leader);
    scene.hears(&leader, "Ctimeout=16\n1");
}
