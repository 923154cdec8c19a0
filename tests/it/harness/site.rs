//! A second cluster beside that of a demo, as at another site: a scope of its own in the same store, the same roles and passwords.
//!
//! Its nodes are recorded like the demo's, so that they are found, and ended with it. Its configuration begins with the document that it is given.

use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{Cluster, LONG};
use super::ports::free_ports;
use super::{eventually, patroni, user};

/// For a cluster to be made as a copy of another, or at the pace of Patroni, which waits for its timers.
const PATIENCE: Duration = LONG.saturating_mul(4);

/// What looks after a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Pgherd,
    Patroni,
}

/// A cluster that was added to another one's demo.
#[derive(Clone, Debug)]
pub struct Site {
    pub nodes: Vec<String>,
}

impl Site {
    /// Starts the agents of `nodes` nodes; nothing of theirs is there yet.
    pub fn start(cluster: &Cluster, scope: &str, nodes: usize, dynamic: &Value) -> Site {
        Site::of(cluster, scope, &vec![Program::Pgherd; nodes], dynamic)
    }

    /// A node with each of these.
    pub fn of(cluster: &Cluster, scope: &str, programs: &[Program], dynamic: &Value) -> Site {
        Site::on(cluster, scope, programs, dynamic, None)
    }

    /// The same on another store, whose section this is.
    pub fn on(
        cluster: &Cluster,
        scope: &str,
        programs: &[Program],
        dynamic: &Value,
        zookeeper: Option<&Value>,
    ) -> Site {
        let mut nodes = Vec::new();
        for (number, program) in (1..).zip(programs) {
            let name = format!("{scope}{number}");
            add(cluster, scope, &name, *program, dynamic, zookeeper);
            nodes.push(name);
        }
        Site { nodes }
    }

    /// The member that leads in this role, as soon as one does.
    pub fn leader(&self, cluster: &Cluster, role: &str) -> String {
        eventually(&format!("a {role} among {:?}", self.nodes), PATIENCE, || {
            let members = self.nodes.iter().find_map(|node| cluster.members_by(node).ok()).ok_or("nobody answers")?;
            let leader = members.iter().find(|member| member.role == role && member.state != "stopped");
            leader.map(|leader| leader.name.clone()).ok_or_else(|| format!("{members:?}"))
        })
    }

    /// The same, once it is another than this one.
    pub fn another_leader(&self, cluster: &Cluster, role: &str, old: &str) -> String {
        eventually(&format!("a {role} other than {old}"), PATIENCE, || match self.leader(cluster, role) {
            leader if leader != old => Ok(leader),
            leader => Err(leader),
        })
    }

    /// Waits until one leads in this role and everybody else streams.
    pub fn healthy(&self, cluster: &Cluster, role: &str) -> String {
        let leader = self.leader(cluster, role);
        eventually(&format!("{leader} leads and all of {:?} stream", self.nodes), PATIENCE, || {
            let members = cluster.members_by(&self.nodes[0])?;
            let streams = |name: &&String| members.iter().any(|it| it.name == **name && it.state == "streaming");
            match self.nodes.iter().filter(|name| **name != leader).all(|name| streams(&name)) {
                true if members.iter().any(|it| it.name == leader && it.role == role) => Ok(()),
                _ => Err(format!("{members:?}")),
            }
        });
        leader
    }

    /// Starts a node's agent again with another configuration to begin with.
    pub fn begin_with(&self, cluster: &Cluster, node: &str, dynamic: &Value) {
        let config = cluster.node(node).config;
        let text = std::fs::read_to_string(&config).expect("its file");
        let kept: String = text.split_inclusive('\n').filter(|line| !line.starts_with("  dcs: ")).collect();
        let changed = kept.replace("bootstrap:\n", &format!("bootstrap:\n  dcs: {dynamic}\n"));
        std::fs::write(&config, changed).expect("its file");
        let agent = cluster.node(node).agent;
        agent.signal(rustix::process::Signal::TERM);
        eventually("its agent has ended", LONG, || if agent.is_alive() { Err(String::new()) } else { Ok(()) });
        cluster.start_agent(node);
    }

    /// Changes the dynamic configuration of this cluster.
    pub fn configure(&self, cluster: &Cluster, change: &Value) {
        let node = self.nodes.iter().find(|node| cluster.node(node).agent.is_alive()).expect("an agent");
        let (status, text) = cluster.rest(node, "PATCH", "/config", &change.to_string()).expect("an answer");
        assert_eq!(status, 200, "{text}");
    }
}

/// Another program is to look after a node from its agent's next start on.
pub fn become_of(cluster: &Cluster, name: &str, program: Program) {
    let config = cluster.node(name).config;
    let patroni = (program == Program::Patroni).then(|| patroni::launch(cluster, &config));
    cluster.change_state(|state| {
        let nodes = state["nodes"].as_array_mut().expect("nodes");
        let model = nodes[0]["agent"]["launch"].clone();
        let node = nodes.iter_mut().find(|node| node["name"] == name).expect("a node of this name");
        let launch = &mut node["agent"]["launch"];
        match patroni {
            Some((program, arguments)) => (launch["program"], launch["arguments"]) = (program, arguments),
            None => {
                (launch["program"], launch["arguments"]) = (model["program"].clone(), model["arguments"].clone());
                for argument in launch["arguments"].as_array_mut().expect("arguments") {
                    *argument = argument.as_str().expect("a text").replace("node1", name).into();
                }
            }
        }
    });
}

/// A node with the first one's file, but for its name, its cluster, its ports and its directories.
fn add(cluster: &Cluster, scope: &str, name: &str, program: Program, dynamic: &Value, zookeeper: Option<&Value>) {
    let model = cluster.node("node1");
    let [postgres, rest] = free_ports();
    let text = std::fs::read_to_string(&model.config).expect("its file");
    let text = text.replace("scope: demo", &format!("scope: {scope}")).replace("node1", name);
    let text = text.replace(&format!("127.0.0.1:{}\n", model.postgres_port), &format!("127.0.0.1:{postgres}\n"));
    let text = text.replace(&format!("127.0.0.1:{}\n", model.rest_port), &format!("127.0.0.1:{rest}\n"));
    let text = match (zookeeper, text.split_once("zookeeper:\n"), text.split_once("\npostgresql:\n")) {
        (Some(section), Some((before, _)), Some((_, after))) => {
            format!("{before}zookeeper: {section}\npostgresql:\n{after}")
        }
        _ => text,
    };
    let directory = cluster.directory().join(name);
    let config = cluster.directory().join(format!("{name}.yml"));
    user::servers_directory(&directory);
    std::fs::write(&config, format!("{text}bootstrap:\n  dcs: {dynamic}\n")).expect("its file");
    let log = cluster.directory().join(format!("{name}.log"));
    std::fs::write(&log, "").expect("its log");
    user::give_to_servers(&config);
    cluster.change_state(|state| {
        let nodes = state["nodes"].as_array_mut().expect("nodes");
        let mut node = nodes[0].clone();
        node["name"] = name.into();
        node["postgres_port"] = postgres.into();
        node["rest_port"] = rest.into();
        node["data_directory"] = json!(directory.join("data"));
        node["config"] = json!(config);
        let launch = &mut node["agent"]["launch"];
        launch["name"] = name.into();
        launch["node"] = name.into();
        launch["log"] = json!(log);
        for argument in launch["arguments"].as_array_mut().expect("arguments") {
            *argument = argument.as_str().expect("a text").replace("node1", name).into();
        }
        if program == Program::Patroni {
            (launch["program"], launch["arguments"]) = patroni::launch(cluster, &config);
        }
        // It has not been started yet.
        node["agent"]["identity"]["started_ticks"] = 0.into();
        nodes.push(node);
    });
    cluster.start_agent(name);
}
