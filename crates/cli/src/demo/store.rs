//! The store of a demo: the program, its arguments, and how the nodes name it.

use std::path::Path;

use anyhow::Context as _;
use pgherd_agent::config::{self, Environment};
use pgherd_dcs::{BuiltInOptions, EtcdOptions, Servers, ZooKeeperOptions};
use serde::{Deserialize, Serialize};

use super::files::{Layout, SCOPE};
use super::ports::Ports;
use super::processes::own_program;
use super::programs::StoreProgram;
use super::state::State;

/// The kinds of store that a demo can start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    #[default]
    #[value(name = "zookeeper")]
    ZooKeeper,
    Etcd,
    /// Members in the agents; of two nodes a third one beside them.
    #[serde(rename = "built-in")]
    BuiltIn,
}

impl std::fmt::Display for StoreKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StoreKind::ZooKeeper => "ZooKeeper",
            StoreKind::Etcd => "etcd",
            StoreKind::BuiltIn => "built in",
        })
    }
}

/// As a client of the store is told: by what the first node's file says.
pub fn servers(state: &State) -> anyhow::Result<Servers> {
    let host = format!("127.0.0.1:{}", state.store_port);
    Ok(match state.store_kind {
        StoreKind::ZooKeeper => {
            Servers::ZooKeeper(ZooKeeperOptions { hosts: vec![host], ..ZooKeeperOptions::default() })
        }
        StoreKind::Etcd => {
            Servers::Etcd(EtcdOptions { urls: vec![format!("http://{host}")], ..EtcdOptions::default() })
        }
        StoreKind::BuiltIn => {
            let node = state.nodes.first().context("the demo has no nodes")?;
            let document = config::document(Some(&node.config), &Environment::default())?;
            let section = document.get("store").and_then(serde_json::Value::as_object);
            let section = section.with_context(|| format!("{} has no section `store`", node.config.display()))?;
            Servers::BuiltIn(BuiltInOptions::from_section(section, SCOPE)?)
        }
    })
}

/// How many of the nodes have a member of the built-in store: an odd number, so that one more would make it no safer. Two have one more beside them.
fn members(nodes: usize) -> usize {
    match nodes {
        1 | 2 => nodes,
        3 | 4 => 3,
        _ => 5,
    }
}

/// A member that is in no agent.
pub fn has_third_member(nodes: usize) -> bool {
    nodes == 2
}

/// The store's section of a node's file. `number`: which node; `None`: the member that is in no agent.
pub fn section(kind: StoreKind, ports: Ports, nodes: usize, number: Option<usize>, secret: &str) -> String {
    let name = match kind {
        StoreKind::ZooKeeper => "zookeeper",
        StoreKind::Etcd => "etcd3",
        StoreKind::BuiltIn => return built_in_section(ports, nodes, number, secret),
    };
    format!("{name}:\n  hosts:\n    - 127.0.0.1:{}\n", ports.store())
}

fn built_in_section(ports: Ports, nodes: usize, number: Option<usize>, secret: &str) -> String {
    let of_nodes = (1..=members(nodes)).map(|node| ports.member(node));
    let all = of_nodes.chain(has_third_member(nodes).then(|| ports.store()));
    let all: String = all.map(|port| format!("    - 127.0.0.1:{port}\n")).collect();
    let own = match number {
        Some(number) if number <= members(nodes) => Some(ports.member(number)),
        Some(_) => None,
        None => Some(ports.store()),
    };
    let listen = own.map_or(String::new(), |port| format!("  listen: 127.0.0.1:{port}\n"));
    format!("store:\n{listen}  members:\n{all}  secret: {secret}\n")
}

/// The program and its arguments.
pub fn command(program: &StoreProgram, layout: &Layout, port: u16) -> anyhow::Result<(String, Vec<String>)> {
    let own;
    let (program, arguments) = match program {
        StoreProgram::ZooKeeper { java, jar } => (java, zookeeper_arguments(jar, &layout.store_config())),
        StoreProgram::Etcd(etcd) => (etcd, etcd_arguments(&layout.store_data(), port)),
        StoreProgram::BuiltIn => {
            own = own_program().context("finding pgherd's own program failed")?;
            (&own, vec!["store".to_owned(), layout.store_config().display().to_string()])
        }
    };
    Ok((program.display().to_string(), arguments))
}

/// A small heap and a quick start: this store holds a few kilobytes.
fn zookeeper_arguments(jar: &Path, config: &Path) -> Vec<String> {
    let logging = "/usr/share/java/slf4j-simple.jar";
    let mut class_path = jar.display().to_string();
    if Path::new(logging).is_file() {
        class_path = format!("{class_path}:{logging}");
    }
    let options = ["-Xmx96m", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:+UseSerialGC", "-XX:-UsePerfData"];
    let mut arguments: Vec<String> = options.map(str::to_owned).into();
    arguments.push("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into());
    arguments.extend(["-cp".into(), class_path]);
    arguments.push("org.apache.zookeeper.server.ZooKeeperServerMain".into());
    arguments.push(config.display().to_string());
    arguments
}

/// Alone, so any free port will do for peers.
fn etcd_arguments(data: &Path, port: u16) -> Vec<String> {
    let clients = format!("http://127.0.0.1:{port}");
    let peers = "http://127.0.0.1:0";
    let options = [
        ("--name", "demo"),
        ("--data-dir", &data.display().to_string()),
        ("--listen-client-urls", &clients),
        ("--advertise-client-urls", &clients),
        ("--listen-peer-urls", peers),
        ("--initial-advertise-peer-urls", peers),
        ("--initial-cluster", &format!("demo={peers}")),
        ("--logger", "zap"),
        ("--log-level", "warn"),
    ];
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect()
}
