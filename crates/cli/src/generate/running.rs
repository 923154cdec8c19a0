//! What a PostgreSQL that runs here has to say of itself.
//!
//! One session as a superuser, without TLS, and the files beside the data. Settings go where Patroni puts them: commands and paths of files to
//! the member's own section, the others to what the cluster shares.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use tokio_postgres::config::{ChannelBinding, Host, SslMode};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::{FIX, section};
use crate::ctl::sql::own_name;
use crate::ctl::terminal::Terminal;

/// Where the packages of Debian have the socket; the next is PostgreSQL's own default.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// What stands in the member's own section: commands run with PostgreSQL's rights, and files are each node's own.
const LOCAL: [&str; 8] = [
    "archive_command",
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "ssl_passphrase_command",
    "hba_file",
    "ident_file",
    "config_file",
];

/// Settings that are wanted whatever their source: what Patroni controls, and where the files are.
const ALWAYS: &str = "'hba_file', 'ident_file', 'config_file', 'data_directory', 'listen_addresses', 'port', 'cluster_name', 'wal_level', \
     'hot_standby', 'max_connections', 'max_wal_senders', 'wal_keep_segments', 'wal_keep_size', 'max_prepared_transactions', \
     'max_locks_per_transaction', 'track_commit_timestamp', 'max_replication_slots', 'max_worker_processes', 'wal_log_hints'";

/// What a line of `pg_hba.conf` begins with.
const CONNECTIONS: [&str; 9] = [
    "local",
    "host",
    "hostssl",
    "hostnossl",
    "hostgssenc",
    "hostnogssenc",
    "include",
    "include_if_exists",
    "include_dir",
];

/// Fills the template with what the server says.
pub fn describe(config: &mut Map<String, Value>, dsn: Option<&str>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(Asked::new(config, dsn))?;
    let (version, settings) = runtime.block_on(asked.settings())?;
    let mut superuser = asked.options(version);
    superuser.insert("username".into(), asked.user.clone().into());
    superuser.insert("password".into(), asked.password.clone().into());
    let authentication = json!({"superuser": superuser, "replication": {"username": FIX, "password": FIX}});
    section(config, "postgresql").insert("authentication".into(), authentication);
    let (mut listen, mut port) = (String::new(), String::new());
    for (name, value) in settings {
        match name.as_str() {
            "data_directory" => {
                section(config, "postgresql").insert("data_dir".into(), value.into());
            }
            "cluster_name" if value.is_empty() => {}
            "cluster_name" => {
                config.insert("scope".into(), value.into());
            }
            "listen_addresses" => listen = value,
            "port" => port = value,
            name if LOCAL.contains(&name) => {
                section(section(config, "postgresql"), "parameters").insert(name.into(), value.into());
            }
            name => {
                let dynamic = section(section(section(config, "bootstrap"), "dcs"), "postgresql");
                section(dynamic, "parameters").insert(name.into(), value.into());
            }
        }
    }
    let postgresql = section(config, "postgresql");
    let host = text(postgresql, "connect_address");
    let host = host.split(':').next().unwrap_or_default();
    let reached = asked.port.map_or_else(|| port.clone(), |port| port.to_string());
    postgresql.insert("connect_address".into(), format!("{host}:{reached}").into());
    postgresql.insert("listen".into(), format!("{listen}:{port}").into());
    files(postgresql)?;
    let directory = programs(Path::new(&text(postgresql, "data_dir")))?;
    postgresql.insert("bin_dir".into(), directory.into());
    Ok(())
}

fn text(map: &Map<String, Value>, key: &str) -> String {
    map.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Who connects, and how.
struct Asked {
    config: Config,
    user: String,
    password: String,
    /// Where somebody said it.
    port: Option<u16>,
    has_dsn: bool,
}

/// Options of a connection, the variable of each, what libpq takes for it, and since which PostgreSQL it is known.
const OPTIONS: [(&str, &str, &str, u32); 10] = [
    ("sslmode", "PGSSLMODE", "prefer", 0),
    ("sslcert", "PGSSLCERT", "", 0),
    ("sslkey", "PGSSLKEY", "", 0),
    ("sslpassword", "", "", 0),
    ("sslrootcert", "PGSSLROOTCERT", "", 0),
    ("sslcrl", "PGSSLCRL", "", 0),
    ("sslcrldir", "PGSSLCRLDIR", "", 140_000),
    ("gssencmode", "PGGSSENCMODE", "prefer", 120_000),
    ("channel_binding", "PGCHANNELBINDING", "prefer", 130_000),
    ("sslnegotiation", "PGSSLNEGOTIATION", "postgres", 170_000),
];

impl Asked {
    /// From the connection string, else libpq's variables, else Patroni's for the superuser; a password that nobody knows is asked for.
    async fn new(template: &mut Map<String, Value>, dsn: Option<&str>) -> anyhow::Result<Asked> {
        let mut config: Config = dsn
            .unwrap_or_default()
            .parse()
            .context("--dsn: this is no connection string; expected for example `host=/tmp port=5432 user=postgres` (TLS is not supported here)")?;
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let of_environment = |template: &mut Map<String, Value>, key: &str| {
            let superuser = section(section(section(template, "postgresql"), "authentication"), "superuser");
            std::env::var_os(format!("PATRONI_SUPERUSER_{}", key.to_ascii_uppercase())).map(|_| text(superuser, key))
        };
        let user = config.get_user().map(str::to_owned).or_else(|| variable("PGUSER"));
        let user = user.or_else(|| of_environment(template, "username")).or_else(own_name);
        let user = user.context("who runs this has no name: say whom to connect as, with user= in --dsn")?;
        let given = config.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
        let password = given.or_else(|| variable("PGPASSWORD")).or_else(|| of_environment(template, "password"));
        let password = match password {
            Some(password) => password,
            None => Terminal::beside_output().ask_for_secret("The password of the superuser").await?,
        };
        let port = config.get_ports().first().copied();
        let port = port.or_else(|| variable("PGPORT").and_then(|port| port.parse().ok()));
        if config.get_hosts().is_empty() {
            match variable("PGHOST") {
                Some(host) => config.host(host),
                None => config.host_path(own_socket(port.unwrap_or(5432))),
            };
        }
        if config.get_ports().is_empty() {
            config.port(port.unwrap_or(5432));
        }
        if config.get_dbname().is_none() {
            config.dbname(variable("PGDATABASE").unwrap_or_else(|| user.clone()));
        }
        config.user(&user).password(&password).connect_timeout(std::time::Duration::from_secs(5));
        Ok(Asked { config, user, password, port, has_dsn: dsn.is_some() })
    }

    /// What the superuser's section says of the connection: the variables of libpq, or what a connection string means where it says nothing.
    fn options(&self, version: u32) -> Map<String, Value> {
        let given = |name: &str| match (name, self.config.get_ssl_mode(), self.config.get_channel_binding()) {
            ("sslmode", SslMode::Disable, _) => Some("disable"),
            ("sslmode", SslMode::Require, _) => Some("require"),
            ("channel_binding", _, ChannelBinding::Disable) => Some("disable"),
            ("channel_binding", _, ChannelBinding::Require) => Some("require"),
            _ => None,
        };
        let known = OPTIONS.iter().filter(|(.., since)| *since <= version);
        let options = known.filter_map(|(name, variable, usual, _)| {
            let set = std::env::var(variable).ok().filter(|value| !value.is_empty());
            let usual = Some((*usual).to_owned()).filter(|usual| self.has_dsn && !usual.is_empty());
            let value = given(name).filter(|_| self.has_dsn).map(str::to_owned).or(usual).or(set)?;
            Some(((*name).to_owned(), Value::from(value)))
        });
        options.collect()
    }

    /// The server's version, and names and values of what was configured, and of what is always wanted.
    async fn settings(&self) -> anyhow::Result<(u32, Vec<(String, String)>)> {
        let (client, connection) = self.config.connect(NoTls).await.with_context(|| {
            let hosts: Vec<String> = self.config.get_hosts().iter().map(shown).collect();
            format!("cannot connect to PostgreSQL at {} as {}; say how with --dsn", hosts.join(", "), self.user)
        })?;
        let session = tokio::spawn(connection);
        let first =
            rows(&client, "SELECT current_setting('server_version_num'), current_setting('is_superuser')").await?;
        let version = first.first().and_then(|(version, _)| version.parse().ok()).unwrap_or_default();
        if first.iter().any(|(_, is_superuser)| is_superuser != "on") {
            bail!("{} is no superuser, and only a superuser sees all settings: connect as another", self.user);
        }
        let sql = format!(
            "SELECT name, current_setting(name) FROM pg_catalog.pg_settings WHERE name IN ({ALWAYS}) OR \
             (context <> 'internal' AND setting <> '(disabled)' AND category <> 'Write-Ahead Log / Recovery Target' AND \
             source IN ('configuration file', 'command line', 'environment variable'))"
        );
        let settings = rows(&client, &sql).await.map(|settings| (version, settings));
        drop(client);
        // It ends with the client.
        let _ = session.await;
        settings
    }
}

async fn rows(client: &Client, sql: &str) -> anyhow::Result<Vec<(String, String)>> {
    let messages = client.simple_query(sql).await.context("PostgreSQL does not tell its settings")?;
    let row = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0)?.to_owned(), row.get(1)?.to_owned())),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

fn shown(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

/// The directory with a socket of this port.
fn own_socket(port: u16) -> &'static str {
    let found = SOCKETS.into_iter().find(|directory| Path::new(directory).join(format!(".s.PGSQL.{port}")).exists());
    found.unwrap_or(SOCKETS[0])
}

/// `pg_hba.conf` and `pg_ident.conf`, where they are the ones in the data directory: others may not be ours to write.
fn files(postgresql: &mut Map<String, Value>) -> anyhow::Result<()> {
    let data_dir = text(postgresql, "data_dir");
    let own = |name: &str| Path::new(&data_dir).join(name);
    let settings = section(postgresql, "parameters").clone();
    let is_own = |setting: &str, name: &str| Path::new(&text(&settings, setting)) == own(name);
    let lines = |name: &str, is_one: &dyn Fn(&str) -> bool| -> anyhow::Result<Vec<String>> {
        let path = own(name);
        let read = fs::read_to_string(&path);
        let read =
            read.with_context(|| format!("cannot read {}; run this as the owner of the data", path.display()))?;
        Ok(read.lines().map(str::trim).filter(|line| is_one(line)).map(str::to_owned).collect())
    };
    if is_own("hba_file", "pg_hba.conf") {
        let is_rule = |line: &str| line.split_whitespace().next().is_some_and(|word| CONNECTIONS.contains(&word));
        postgresql.insert("pg_hba".into(), json!(lines("pg_hba.conf", &is_rule)?));
    }
    if is_own("ident_file", "pg_ident.conf") {
        let maps = lines("pg_ident.conf", &|line| !line.is_empty() && !line.starts_with('#'))?;
        if !maps.is_empty() {
            postgresql.insert("pg_ident".into(), json!(maps));
        }
    }
    Ok(())
}

/// Where the programs of the running postmaster are.
fn programs(data_dir: &Path) -> anyhow::Result<String> {
    let file = data_dir.join("postmaster.pid");
    let read = fs::read_to_string(&file);
    let read = read.with_context(|| format!("cannot read {}; run this as the owner of the data", file.display()))?;
    let pid: u32 = read.lines().next().unwrap_or_default().trim().parse().with_context(|| {
        format!("{} does not begin with the number of a process: does PostgreSQL run?", file.display())
    })?;
    let program = fs::read_link(format!("/proc/{pid}/exe"));
    let program = program.with_context(|| format!("cannot tell which program process {pid} is, the postmaster"))?;
    let directory = program.parent().context("a program is in a directory")?;
    Ok(directory.display().to_string())
}
