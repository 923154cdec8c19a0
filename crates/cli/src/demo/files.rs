//! The files of a demo: its directory, and the configuration of store, nodes and entrypoint as a user would write them.
//!
//! The nodes' files have Patroni's format and the entrypoint's is a `haproxy.cfg`, so that they serve as examples.
//! Started by root, the directory itself stays root's and only the servers' own subdirectories belong to user
//! `postgres`: a server that is broken into cannot change what root reads and runs. Tested below.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::launch::User;
use super::ports::Ports;
use super::programs::Programs;
use super::store::{self, StoreKind, has_third_member};

/// The cluster's name.
pub const SCOPE: &str = "demo";

/// Where everything of one demo lies.
#[derive(Clone, Debug)]
pub struct Layout {
    pub directory: PathBuf,
}

impl Layout {
    /// Its presence says that the directory was made by a demo and may be removed by one.
    pub fn marker(&self) -> PathBuf {
        self.directory.join("pgherd-demo")
    }

    pub fn state(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    /// For the user's `psql` and for the drill.
    pub fn pgpass(&self) -> PathBuf {
        self.directory.join("pgpass")
    }

    pub fn store_config(&self) -> PathBuf {
        self.directory.join("store.cfg")
    }

    pub fn store_data(&self) -> PathBuf {
        self.directory.join("store")
    }

    pub fn entry_config(&self) -> PathBuf {
        self.directory.join("haproxy.cfg")
    }

    pub fn node_config(&self, node: &str) -> PathBuf {
        self.directory.join(format!("{node}.yml"))
    }

    /// The server's own directory; the data directory and what is moved aside lie in it.
    pub fn node(&self, node: &str) -> PathBuf {
        self.directory.join(node)
    }

    pub fn node_data(&self, node: &str) -> PathBuf {
        self.node(node).join("data")
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }
}

/// The passwords of one demo, made up for it.
#[derive(Clone)]
pub struct Passwords {
    pub superuser: String,
    pub replication: String,
    /// Of the members of a built-in store.
    pub store: String,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords(hidden)")
    }
}

impl Passwords {
    pub fn random() -> io::Result<Passwords> {
        Ok(Passwords { superuser: random_hex()?, replication: random_hex()?, store: random_hex()? })
    }
}

/// 128 random bits, enough for any password.
fn random_hex() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub fn node_name(number: usize) -> String {
    format!("node{number}")
}

/// Writes everything for `nodes` nodes below the (existing, empty but for the marker) directory.
pub fn write_all(
    layout: &Layout,
    nodes: usize,
    ports: Ports,
    programs: &Programs,
    passwords: &Passwords,
    user: Option<User>,
) -> io::Result<()> {
    make_directory(&layout.store_data(), user)?;
    match programs.store.kind() {
        StoreKind::ZooKeeper => write(&layout.store_config(), &store_config(layout, ports), user)?,
        StoreKind::BuiltIn if has_third_member(nodes) => {
            let section = store::section(StoreKind::BuiltIn, ports, nodes, None, &passwords.store);
            let directory = quoted(&layout.store_data());
            let text = format!("scope: {SCOPE}\nname: third\n\n{section}  data_dir: {directory}\n");
            write(&layout.store_config(), &text, user)?;
        }
        StoreKind::Etcd | StoreKind::BuiltIn => {}
    }
    write(&layout.entry_config(), &entry_config(nodes, ports), user)?;
    write(&layout.pgpass(), &format!("*:*:*:postgres:{}\n", passwords.superuser), None)?;
    for number in 1..=nodes {
        make_directory(&layout.node(&node_name(number)), user)?;
        let text = node_config(layout, nodes, number, ports, programs, passwords);
        write(&layout.node_config(&node_name(number)), &text, user)?;
    }
    Ok(())
}

/// A private directory of the servers' user.
fn make_directory(path: &Path, user: Option<User>) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    match user {
        Some(User { uid, gid }) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// A file that only `user` (or the caller) can read: passwords are in most of them.
pub fn write(path: &Path, text: &str, user: Option<User>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    if let Some(User { uid, gid }) = user {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    file.write_all(text.as_bytes())
}

/// A stand-alone ZooKeeper. `cons` and `dump` tell a drill which session time-out the leader was granted; the
/// small pre-allocation keeps the directory small.
fn store_config(layout: &Layout, ports: Ports) -> String {
    let directory = layout.store_data().display().to_string().replace('\\', "\\\\");
    format!(
        "tickTime=2000\ndataDir={directory}\nclientPort={}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n\
         4lw.commands.whitelist=ruok,cons,dump\npreAllocSize=1024\n",
        ports.store()
    )
}

fn entry_config(nodes: usize, ports: Ports) -> String {
    let mut text = format!(
        "global
    maxconn 100

defaults
    log global
    mode tcp
    retries 3
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s

listen stats
    mode http
    bind 127.0.0.1:{}
    stats enable
    stats uri /

listen postgres
    bind 127.0.0.1:{}
    option httpchk
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
",
        ports.stats(),
        ports.entry()
    );
    for node in 1..=nodes {
        let (postgres, rest) = (ports.postgres(node), ports.rest(node));
        text += &format!("    server {} 127.0.0.1:{postgres} maxconn 100 check port {rest}\n", node_name(node));
    }
    text
}

fn node_config(
    layout: &Layout,
    nodes: usize,
    number: usize,
    ports: Ports,
    programs: &Programs,
    passwords: &Passwords,
) -> String {
    let name = node_name(number);
    format!(
        "scope: {SCOPE}
name: {name}

restapi:
  listen: 127.0.0.1:{rest}
  connect_address: 127.0.0.1:{rest}

{store}
postgresql:
  listen: 127.0.0.1:{postgres}
  connect_address: 127.0.0.1:{postgres}
  data_dir: {data}
  bin_dir: {bin}
  pgpass: {pgpass}
  authentication:
    replication:
      username: replicator
      password: {replication}
    superuser:
      username: postgres
      password: {superuser}
  parameters:
    unix_socket_directories: \"\"

watchdog:
  mode: off
",
        rest = ports.rest(number),
        store = store::section(programs.store.kind(), ports, nodes, Some(number), &passwords.store),
        postgres = ports.postgres(number),
        data = quoted(&layout.node_data(&name)),
        bin = quoted(&programs.postgres),
        pgpass = quoted(&layout.node(&name).join("pgpass")),
        replication = quoted(Path::new(&passwords.replication)),
        superuser = quoted(Path::new(&passwords.superuser)),
    )
}

/// A double-quoted YAML scalar; JSON's escapes are YAML's.
fn quoted(path: &Path) -> String {
    serde_json::Value::String(path.display().to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::programs::StoreProgram;

    #[test]
    fn a_nodes_file_is_yaml_whatever_the_directory_is_called() {
        let layout = Layout { directory: PathBuf::from("/a b/\"c\": #d") };
        let programs =
            Programs { postgres: "/usr/lib/postgresql/15/bin".into(), store: StoreProgram::Etcd("e".into()) };
        let passwords = Passwords { superuser: "123e4".into(), replication: "0777".into(), store: "1e5".into() };
        let (ports, _claimed) = super::super::ports::free(2).expect("free ports");
        let text = node_config(&layout, 2, 2, ports, &programs, &passwords);
        let value: serde_json::Value = serde_saphyr::from_str(&text).expect("valid YAML");
        assert_eq!(value["postgresql"]["data_dir"], "/a b/\"c\": #d/node2/data");
        assert_eq!(value["postgresql"]["authentication"]["superuser"]["password"], "123e4");
        assert_eq!(value["postgresql"]["authentication"]["replication"]["password"], "0777");
    }

    #[test]
    fn passwords_differ_and_are_not_shown() {
        let passwords = Passwords::random().expect("random bytes");
        assert_ne!(passwords.superuser, passwords.replication);
        assert_eq!(passwords.superuser.len(), 32);
        assert!(!format!("{passwords:?}").contains(&passwords.superuser));
    }
}
