//! The section `postgresql`: what is this node's own ([`Node`]), and what the cluster may set too ([`Postgresql`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pgherd_ha::Role;
use serde_json::{Map, Value};

use super::address::{Address, Listen};
use super::methods;
use super::place::{Problem, Problems};
use super::tool::{self, Tool, ToolOption};
use super::tree::Tree;
use super::values::text;
use crate::postgres::{Credentials, CustomBootstrap, ReplicaMethod};
use crate::user_command::UserCommand;

/// Addresses, directories and users: never from the store.
#[derive(Clone, Debug)]
pub struct Node {
    pub listen: Listen,
    pub connect_address: Address,
    pub proxy_address: Option<Address>,
    pub data_dir: PathBuf,
    pub config_dir: Option<PathBuf>,
    pub pgpass: PathBuf,
    pub superuser: Credentials,
    pub replication: Credentials,
    /// `None`: the superuser.
    pub rewind: Option<Credentials>,
}

impl Node {
    /// `None` if a required key is missing; the check has said so.
    pub(super) fn read(tree: &Tree<'_>) -> Option<Node> {
        let listen: Listen = tree.text("postgresql.listen")?.parse().ok()?;
        let address = |path: &str| tree.text(path).and_then(|text| text.parse::<Address>().ok());
        Some(Node {
            connect_address: address("postgresql.connect_address").unwrap_or_else(|| listen.default_address()),
            listen,
            proxy_address: address("postgresql.proxy_address"),
            data_dir: tree.file("postgresql.data_dir")?,
            config_dir: tree.file("postgresql.config_dir"),
            pgpass: tree.file("postgresql.pgpass")?,
            superuser: credentials(tree, "superuser")?,
            replication: credentials(tree, "replication")?,
            rewind: credentials(tree, "rewind"),
        })
    }
}

fn credentials(tree: &Tree<'_>, role: &str) -> Option<Credentials> {
    let section = format!("postgresql.authentication.{role}");
    let username = tree.text(&format!("{section}.username"))?;
    let password = tree.text(&format!("{section}.password"));
    let mut credentials = Credentials::new(username, password.as_deref());
    if let Some(Value::Object(keys)) = tree.written(&section) {
        let options = keys.iter().filter(|(key, _)| !matches!(key.as_str(), "username" | "password"));
        credentials.options = options.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect();
    }
    Some(credentials)
}

/// What may be set in the file and for the whole cluster.
#[derive(Clone, Debug)]
pub struct Postgresql {
    pub config_base_name: String,
    pub bin_dir: Option<PathBuf>,
    pub bin_names: BTreeMap<String, String>,
    pub database: String,
    pub krbsrvname: Option<String>,
    /// Names in lower case, values as PostgreSQL writes them.
    pub parameters: BTreeMap<String, String>,
    pub recovery_conf: BTreeMap<String, String>,
    pub custom_conf: Option<PathBuf>,
    /// Sections that hold in one role only.
    by_role: BTreeMap<&'static str, ByRole>,
    pub pg_hba: Vec<String>,
    pub pg_ident: Vec<String>,
    /// In order of preference; never empty.
    pub replica_methods: Vec<ReplicaMethod>,
    pub basebackup: Vec<ToolOption>,
    pub rewind: Vec<ToolOption>,
    pub use_pg_rewind: bool,
    pub remove_data_directory_on_rewind_failure: bool,
    pub remove_data_directory_on_diverged_timelines: bool,
    pub use_unix_socket: bool,
    pub use_unix_socket_repl: bool,
    pub use_slots: bool,
    pub pg_ctl_timeout: Duration,
    /// `on_start` and its kin: event to command.
    pub callbacks: BTreeMap<String, UserCommand>,
    pub pre_promote: Option<UserCommand>,
    pub before_stop: Option<UserCommand>,
}

#[derive(Clone, Debug, Default)]
struct ByRole {
    parameters: BTreeMap<String, String>,
    pg_hba: Vec<String>,
    pg_ident: Vec<String>,
}

impl Postgresql {
    pub(super) fn read(tree: &Tree<'_>, problems: &mut Problems) -> Postgresql {
        Postgresql {
            config_base_name: tree.text("postgresql.config_base_name").unwrap_or_default(),
            bin_dir: tree.file("postgresql.bin_dir"),
            bin_names: texts_below(tree, "postgresql.bin_name"),
            database: tree.text("postgresql.database").unwrap_or_default(),
            krbsrvname: tree.text("postgresql.krbsrvname"),
            parameters: tree.settings("postgresql.parameters"),
            recovery_conf: tree.settings("postgresql.recovery_conf"),
            custom_conf: tree.file("postgresql.custom_conf"),
            by_role: ["primary", "replica", "standby_leader"].map(|role| (role, ByRole::read(tree, role))).into(),
            pg_hba: tree.texts("postgresql.pg_hba"),
            pg_ident: tree.texts("postgresql.pg_ident"),
            replica_methods: methods::replica_methods(&create_replica_methods(tree), tree, problems),
            basebackup: tool::options(Tool::PgBasebackup, tree.written("postgresql.basebackup"), problems),
            rewind: tool::options(Tool::PgRewind, tree.written("postgresql.rewind"), problems),
            use_pg_rewind: tree.flag("postgresql.use_pg_rewind"),
            remove_data_directory_on_rewind_failure: tree.flag("postgresql.remove_data_directory_on_rewind_failure"),
            remove_data_directory_on_diverged_timelines: tree
                .flag("postgresql.remove_data_directory_on_diverged_timelines"),
            use_unix_socket: tree.flag("postgresql.use_unix_socket"),
            use_unix_socket_repl: tree.flag("postgresql.use_unix_socket_repl"),
            use_slots: tree.flag("postgresql.use_slots"),
            pg_ctl_timeout: tree.seconds("postgresql.pg_ctl_timeout"),
            callbacks: texts_below(tree, "postgresql.callbacks")
                .into_iter()
                .filter_map(|(event, text)| Some((event, UserCommand::parse(&text)?)))
                .collect(),
            pre_promote: command(tree, "postgresql.pre_promote"),
            before_stop: command(tree, "postgresql.before_stop"),
        }
    }

    /// The settings of PostgreSQL while the node has this role. Controlled ones cannot depend on it: standby and primary must
    /// agree on them.
    pub fn parameters_for(&self, role: Role) -> BTreeMap<String, String> {
        let mut parameters = self.parameters.clone();
        let own = self.by_role.get(section_of(role)).map(|section| &section.parameters).into_iter().flatten();
        let own = own.filter(|(name, _)| !crate::postgres::parameters::is_controlled(name));
        parameters.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        parameters
    }

    /// The lines of `pg_hba.conf` while the node has this role; those of the role replace the general ones.
    pub fn pg_hba_for(&self, role: Role) -> &[String] {
        let own = self.by_role.get(section_of(role)).map(|section| &section.pg_hba);
        own.filter(|lines| !lines.is_empty()).unwrap_or(&self.pg_hba)
    }

    /// The lines of `pg_ident.conf` while the node has this role.
    pub fn pg_ident_for(&self, role: Role) -> &[String] {
        let own = self.by_role.get(section_of(role)).map(|section| &section.pg_ident);
        own.filter(|lines| !lines.is_empty()).unwrap_or(&self.pg_ident)
    }
}

impl ByRole {
    fn read(tree: &Tree<'_>, role: &str) -> ByRole {
        ByRole {
            parameters: tree.settings(&format!("postgresql.parameters_{role}")),
            pg_hba: tree.texts(&format!("postgresql.pg_hba_{role}")),
            pg_ident: tree.texts(&format!("postgresql.pg_ident_{role}")),
        }
    }
}

fn section_of(role: Role) -> &'static str {
    match role {
        Role::Primary | Role::Promoted => "primary",
        Role::StandbyLeader => "standby_leader",
        Role::Replica | Role::Demoted | Role::Uninitialized => "replica",
    }
}

/// The old name counts where the new one is not written.
fn create_replica_methods(tree: &Tree<'_>) -> Vec<String> {
    let old = tree.written("postgresql.create_replica_method").is_some();
    let new = tree.written("postgresql.create_replica_methods").is_some();
    tree.texts(if old && !new { "postgresql.create_replica_method" } else { "postgresql.create_replica_methods" })
}

/// What cannot be split into words was complained of when the document was checked.
fn command(tree: &Tree<'_>, path: &str) -> Option<UserCommand> {
    UserCommand::parse(&tree.text(path)?)
}

fn texts_below(tree: &Tree<'_>, section: &str) -> BTreeMap<String, String> {
    let map = tree.written(section).and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
}

/// `bootstrap`: how a new cluster is made. All of it may be missing.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// The first dynamic configuration, as written.
    pub dcs: Map<String, Value>,
    /// `None`: initdb.
    pub custom: Option<CustomBootstrap>,
    pub initdb: Vec<ToolOption>,
    /// Lines for `pg_hba.conf`, if `postgresql.pg_hba` has none.
    pub pg_hba: Vec<String>,
    pub post_bootstrap: Option<UserCommand>,
}

impl Bootstrap {
    pub(super) fn read(tree: &Tree<'_>, problems: &mut Problems) -> Bootstrap {
        if tree.written("bootstrap.users").is_some() {
            let text = "has no effect; create the users in `bootstrap.post_bootstrap`";
            problems.push(Problem::warning("bootstrap.users", text));
        }
        Bootstrap {
            dcs: tree.map("bootstrap.dcs"),
            custom: methods::custom_bootstrap(tree, problems),
            initdb: tool::options(Tool::Initdb, tree.written("bootstrap.initdb"), problems),
            pg_hba: tree.texts("bootstrap.pg_hba"),
            post_bootstrap: command(tree, "bootstrap.post_bootstrap").or_else(|| command(tree, "bootstrap.post_init")),
        }
    }
}
