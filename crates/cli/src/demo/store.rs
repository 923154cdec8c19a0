//! The store of a demo: the program, its arguments, and how the nodes name it.

use std::path::Path;

use pgherd_dcs::{EtcdOptions, Servers, ZooKeeperOptions};
use serde::{Deserialize, Serialize};

use super::files::Layout;
use super::programs::StoreProgram;

/// The kinds of store that a demo can start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    #[default]
    #[value(name = "zookeeper")]
    ZooKeeper,
    Etcd,
}

impl std::fmt::Display for StoreKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StoreKind::ZooKeeper => "ZooKeeper",
            StoreKind::Etcd => "etcd",
        })
    }
}

impl StoreKind {
    /// As the store's clients of a drill want it.
    pub fn servers(self, port: u16) -> Servers {
        match self {
            StoreKind::ZooKeeper => Servers::ZooKeeper(ZooKeeperOptions {
                hosts: vec![format!("127.0.0.1:{port}")],
                ..ZooKeeperOptions::default()
            }),
            StoreKind::Etcd => {
                Servers::Etcd(EtcdOptions { urls: vec![format!("http://127.0.0.1:{port}")], ..EtcdOptions::default() })
            }
        }
    }

    /// The section of a node's file.
    pub fn section(self) -> &'static str {
        match self {
            StoreKind::ZooKeeper => "zookeeper",
            StoreKind::Etcd => "etcd3",
        }
    }
}

/// The program and its arguments.
pub fn command(program: &StoreProgram, layout: &Layout, port: u16) -> (String, Vec<String>) {
    let (program, arguments) = match program {
        StoreProgram::ZooKeeper { java, jar } => (java, zookeeper_arguments(jar, &layout.store_config())),
        StoreProgram::Etcd(etcd) => (etcd, etcd_arguments(&layout.store_data(), port)),
    };
    (program.display().to_string(), arguments)
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
