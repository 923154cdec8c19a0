//! What must be known of a server to work on it. The configuration maps YAML to these values; nothing here reads files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use pgherd_ha::Address;

use super::own_method::{CustomBootstrap, ReplicaMethod};
use crate::user_command::UserCommand;

/// A password. Its text shows in no log: `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for the few places that must send or write it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// A login role: one section of `postgresql.authentication`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: Option<Secret>,
    /// libpq's keys of the section other than the password (`sslmode`, `sslcert`, `channel_binding`, ...).
    pub options: BTreeMap<String, String>,
}

impl Credentials {
    pub fn new(username: impl Into<String>, password: Option<&str>) -> Credentials {
        Credentials { username: username.into(), password: password.map(Secret::new), options: BTreeMap::new() }
    }
}

/// One option of initdb, pg_basebackup or pg_rewind as the user gave it: `- data-checksums` or `- encoding: UTF8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolOption {
    /// Without the leading dashes.
    pub name: String,
    pub value: Option<String>,
}

impl ToolOption {
    pub fn flag(name: impl Into<String>) -> ToolOption {
        ToolOption { name: name.into(), value: None }
    }

    pub fn with_value(name: impl Into<String>, value: impl Into<String>) -> ToolOption {
        ToolOption { name: name.into(), value: Some(value.into()) }
    }

    /// `--name=value`, or `--name`.
    pub fn argument(&self) -> String {
        match &self.value {
            Some(value) => format!("--{}={value}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

/// The server that a standby streams from, or that a copy is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// One or, of another cluster, perhaps several.
    pub addresses: Vec<Address>,
    /// The physical slot on it, if slots are used.
    pub slot: Option<String>,
}

impl Upstream {
    /// Without a slot.
    pub fn at(host: &str, port: u16) -> Upstream {
        Upstream { addresses: vec![Address::new(host, port)], slot: None }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(Address::to_string).collect();
        f.write_str(&addresses.join(","))
    }
}

/// One PostgreSQL server, as the merged configuration describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The member's name: `application_name` of its replication connection.
    pub name: String,
    /// The cluster's name: `cluster_name`.
    pub scope: String,
    /// Where the binaries are; `None`: on the `PATH`.
    pub bin_dir: Option<PathBuf>,
    /// `postgresql.bin_name`: program to file name, for builds that call them otherwise.
    pub bin_names: BTreeMap<String, String>,
    pub data_dir: PathBuf,
    /// Where `postgresql.conf` and its kin are; `None`: in the data directory.
    pub config_dir: Option<PathBuf>,
    /// `postgresql`: the main file is `<config_base_name>.conf`.
    pub config_base_name: String,
    /// Included in place of the original file (`postgresql.custom_conf`).
    pub custom_conf: Option<PathBuf>,
    /// `listen_addresses`, the addresses of `postgresql.listen`: `0.0.0.0`, `127.0.0.1,10.0.0.1`, `*`.
    pub listen_addresses: String,
    pub port: u16,
    /// The database of the agent's own connections.
    pub database: String,
    /// Where libpq's password file for the replication connection, pg_basebackup and pg_rewind is kept.
    pub pgpass: PathBuf,
    pub superuser: Credentials,
    pub replication: Credentials,
    /// The role of pg_rewind; the superuser if `None`.
    pub rewind: Option<Credentials>,
    /// Every setting of the user, local and dynamic merged, names in lower case; controlled ones are among them with
    /// the dynamic value.
    pub parameters: BTreeMap<String, String>,
    /// `postgresql.recovery_conf` and recovery settings of `parameters`.
    pub recovery_conf: BTreeMap<String, String>,
    /// Lines of `postgresql.pg_hba`; empty: the file is not ours.
    pub pg_hba: Vec<String>,
    /// Lines of `bootstrap.pg_hba`.
    pub bootstrap_pg_hba: Vec<String>,
    /// Lines of `postgresql.pg_ident`; empty: the file is not ours.
    pub pg_ident: Vec<String>,
    pub initdb_options: Vec<ToolOption>,
    pub basebackup_options: Vec<ToolOption>,
    pub rewind_options: Vec<ToolOption>,
    pub replica_methods: Vec<ReplicaMethod>,
    /// The same for the first node of a standby cluster; empty: this cluster follows no other.
    pub standby_cluster_methods: Vec<ReplicaMethod>,
    /// `None`: initdb.
    pub custom_bootstrap: Option<CustomBootstrap>,
    pub hooks: Hooks,
    /// The agent talks to its own server over the unix socket.
    pub use_unix_socket: bool,
    pub krbsrvname: Option<String>,
    /// `synchronous_standby_names`, where it is the agent's to set; empty: nobody is waited for.
    pub standby_names: Option<String>,
    /// Clients may log in; else `pg_hba.conf` is [narrowed](super::access).
    pub admits_clients: bool,
    /// A custom bootstrap has made it and its roles are not made yet: nobody but the agent [gets in](super::bootstrap_access).
    pub bootstraps: bool,
}

/// The user's commands around what is done to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    pub pre_promote: Option<UserCommand>,
    pub before_stop: Option<UserCommand>,
    pub post_bootstrap: Option<UserCommand>,
}

impl Server {
    /// A server with default settings, as a YAML with nothing but the required keys gives it.
    pub fn new(name: &str, scope: &str, data_dir: impl Into<PathBuf>, superuser: Credentials) -> Server {
        Server {
            name: name.to_owned(),
            scope: scope.to_owned(),
            bin_dir: None,
            bin_names: BTreeMap::new(),
            data_dir: data_dir.into(),
            config_dir: None,
            config_base_name: "postgresql".to_owned(),
            custom_conf: None,
            listen_addresses: "localhost".to_owned(),
            port: 5432,
            database: "postgres".to_owned(),
            pgpass: std::env::home_dir().unwrap_or_else(|| PathBuf::from("/")).join("pgpass"),
            replication: superuser.clone(),
            superuser,
            rewind: None,
            parameters: BTreeMap::new(),
            recovery_conf: BTreeMap::new(),
            pg_hba: Vec::new(),
            bootstrap_pg_hba: Vec::new(),
            pg_ident: Vec::new(),
            initdb_options: Vec::new(),
            basebackup_options: Vec::new(),
            rewind_options: Vec::new(),
            replica_methods: vec![ReplicaMethod::BaseBackup],
            standby_cluster_methods: Vec::new(),
            custom_bootstrap: None,
            hooks: Hooks::default(),
            use_unix_socket: false,
            krbsrvname: None,
            standby_names: None,
            admits_clients: true,
            bootstraps: false,
        }
    }

    pub fn config_dir(&self) -> &std::path::Path {
        self.config_dir.as_deref().unwrap_or(&self.data_dir)
    }

    /// The role that reads the leader's files for pg_rewind.
    pub fn rewind_credentials(&self) -> &Credentials {
        self.rewind.as_ref().unwrap_or(&self.superuser)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_shows() {
        let server = Server::new("n1", "c", "/data", Credentials::new("postgres", Some("hunter2")));
        assert!(!format!("{server:?}").contains("hunter2"));
    }

    #[test]
    fn options_become_arguments() {
        assert_eq!(ToolOption::flag("data-checksums").argument(), "--data-checksums");
        assert_eq!(ToolOption::with_value("encoding", "UTF8").argument(), "--encoding=UTF8");
    }
}
