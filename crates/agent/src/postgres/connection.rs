//! The agent's own connection to its server: kept, re-made when it breaks, every use with a deadline.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgherd_ha::Address;
use tokio::task::JoinHandle;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Config, Statement};

use super::postmaster::PidFile;
use super::tls::{ConnectError, SqlTls};
use super::{Credentials, Error, Server};

/// A local server that cannot be connected to in this time is not well.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// For a statement of the heartbeat: PostgreSQL cancels it after the first, the connection is given up after the
/// second.
const STATEMENT_TIMEOUT: &str = "2000";
const ANSWER_LIMIT: Duration = Duration::from_millis(2_500);

/// Set on each connection. The agent's own writes must never wait for a synchronous standby (`postgres-facts` 11),
/// and no schema of a user may put its functions in the way of ours.
const SESSION_OPTIONS: &str = "-c search_path=pg_catalog -c synchronous_commit=local -c jit=off";

/// What a connection is for; shown in `pg_stat_activity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The agent's loop.
    Heartbeat,
    /// The REST API's own.
    RestApi,
}

impl Purpose {
    fn application_name(self) -> &'static str {
        match self {
            Purpose::Heartbeat => "Patroni heartbeat",
            Purpose::RestApi => "Patroni restapi",
        }
    }
}

/// A connection to the local server that re-connects by itself when it is used after a failure.
#[derive(Debug)]
pub struct Connection {
    server: Server,
    purpose: Purpose,
    open: Option<Open>,
}

struct Open {
    client: Client,
    /// Prepared once a connection: the text of the observation is long.
    observation: Option<Statement>,
    driver: JoinHandle<()>,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("closed", &self.client.is_closed()).finish_non_exhaustive()
    }
}

/// The driver holds the socket: without it a stuck connection would stay open.
impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Not connected yet.
    pub fn new(server: &Server, purpose: Purpose) -> Connection {
        Connection { server: server.clone(), purpose, open: None }
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    pub fn is_open(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.client.is_closed())
    }

    /// Closes it; the next use connects again.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Connects if it is not connected.
    pub async fn connect(&mut self) -> Result<(), Error> {
        if !self.is_open() {
            let config = local_config(&self.server, self.purpose.application_name(), Some(STATEMENT_TIMEOUT));
            self.open = Some(open(&self.server, config).await?);
        }
        Ok(())
    }

    /// Runs statements that return nothing of interest. `what` names them in an error.
    pub async fn execute(&mut self, what: &str, sql: &str) -> Result<(), Error> {
        self.connect().await?;
        let Some(open) = &self.open else { return Ok(()) };
        let result = answered(what, ANSWER_LIMIT, open.client.batch_execute(sql)).await;
        self.keep_unless_broken(result)
    }

    /// Runs a query of one row with one column of text; `None` if it is null or there is no row.
    pub async fn query_text(&mut self, what: &str, sql: &str) -> Result<Option<String>, Error> {
        self.connect().await?;
        let Some(open) = &self.open else { return Ok(None) };
        let result = answered(what, ANSWER_LIMIT, open.client.simple_query(sql)).await;
        let messages = self.keep_unless_broken(result)?;
        Ok(messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// Runs the observation's query, prepared on first use.
    pub(super) async fn query_prepared(&mut self, what: &str, sql: &str) -> Result<String, Error> {
        self.connect().await?;
        let Some(open) = &mut self.open else { return Ok(String::new()) };
        let query = async {
            let statement = match &open.observation {
                Some(statement) => statement.clone(),
                None => open.client.prepare(sql).await?,
            };
            let row = open.client.query_one(&statement, &[]).await?;
            open.observation = Some(statement);
            row.try_get::<_, String>(0)
        };
        let result = answered(what, ANSWER_LIMIT, query).await;
        self.keep_unless_broken(result)
    }

    /// A refusal of the server (an SQL error) leaves the connection good; anything else does not.
    fn keep_unless_broken<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if matches!(&result, Err(error) if error.sql_state().is_none()) {
            self.open = None;
        }
        result
    }
}

/// Runs statements on a connection of their own, for what may take longer than a heartbeat (`CHECKPOINT`):
/// `statement_timeout` is off, and the server is told to cancel when `limit` ends or the future is dropped (by losing
/// its client).
pub async fn execute_alone(server: &Server, what: &str, sql: &str, limit: Duration) -> Result<(), Error> {
    execute_in_database(server, &server.database, what, sql, limit).await
}

/// The same in another database than the agent's.
pub async fn execute_in_database(
    server: &Server,
    database: &str,
    what: &str,
    sql: &str,
    limit: Duration,
) -> Result<(), Error> {
    let mut config = local_config(server, Purpose::Heartbeat.application_name(), Some("0"));
    config.dbname(database);
    let open = open(server, config).await?;
    let result = answered(what, limit, open.client.batch_execute(sql)).await;
    if matches!(result, Err(Error::Deadline { .. })) {
        // Best effort: the statement is given up in any case.
        let cancel = async {
            let connector = tls_of(&server.superuser)?.connector().await?;
            Ok::<_, ConnectError>(open.client.cancel_token().cancel_query(connector).await?)
        };
        let cancelled = tokio::time::timeout(CONNECT_LIMIT, cancel).await;
        tracing::debug!(?cancelled, "{what} took too long and was cancelled");
    }
    result
}

/// Connects to another member's server, for a few small questions.
pub(super) async fn query_remote(
    server: &Server,
    upstream: &super::Upstream,
    what: &str,
    sql: &str,
) -> Result<Option<String>, Error> {
    let open = open_remote(server, upstream, server.rewind_credentials()).await?;
    let messages = answered(what, ANSWER_LIMIT, open.client.simple_query(sql)).await?;
    Ok(messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

/// Whether another member's server lets this node in as the role that replicates (in the ordinary database: the client library has no
/// replication protocol, so what `pg_hba.conf` says of `replication` is not tried).
pub(super) async fn try_replication_role(server: &Server, upstream: &super::Upstream) -> Result<(), Error> {
    open_remote(server, upstream, &server.replication).await.map(drop)
}

async fn open_remote(server: &Server, upstream: &super::Upstream, credentials: &Credentials) -> Result<Open, Error> {
    let mut config = base_config(server, credentials, &server.name, Some(STATEMENT_TIMEOUT));
    for Address { host, port } in &upstream.addresses {
        match host.starts_with('/') {
            true => config.host_path(host),
            false => config.host(host),
        };
        config.port(*port);
    }
    // Of several servers of another cluster the primary is the one whose history counts.
    if upstream.addresses.len() > 1 {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    open_at(upstream.to_string(), credentials, config).await
}

/// Where the local server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddress {
    /// The directory of its unix socket.
    Socket(PathBuf),
    Host(String),
}

/// Over the socket if the configuration says so, or if the superuser has no password to show; else the first address
/// that it listens on, loopback for a wildcard.
pub fn local_address(server: &Server) -> LocalAddress {
    if server.use_unix_socket || (server.bootstraps && has_socket(server)) || server.superuser.password.is_none() {
        return LocalAddress::Socket(socket_directory(server));
    }
    let mut addresses: Vec<&str> = server.listen_addresses.split(',').map(str::trim).collect();
    // A change of where it listens waits for a restart.
    let running = PidFile::read(&server.data_dir).and_then(|file| file.listen_address);
    if let Some(running) = running.as_deref().filter(|running| !addresses.contains(running)) {
        addresses = vec![running];
    }
    let is_local = |address: &&str| matches!(*address, "*" | "0.0.0.0" | "localhost" | "127.0.0.1");
    match addresses.first() {
        _ if addresses.iter().any(is_local) => LocalAddress::Host("127.0.0.1".to_owned()),
        Some(&"::") => LocalAddress::Host("::1".to_owned()),
        Some(&"") | None => LocalAddress::Socket(socket_directory(server)),
        Some(first) => LocalAddress::Host((*first).to_owned()),
    }
}

/// `unix_socket_directories` may be empty, and then there is none.
pub(super) fn has_socket(server: &Server) -> bool {
    server.parameters.get("unix_socket_directories").is_none_or(|directories| !directories.trim().is_empty())
}

/// The running server says where its socket is; before that, its settings; a relative one is in the data directory,
/// where the server works.
fn socket_directory(server: &Server) -> PathBuf {
    let of_pid_file = PidFile::read(&server.data_dir).and_then(|file| file.socket_directory);
    let configured = || {
        let setting = server.parameters.get("unix_socket_directories")?;
        setting
            .split(',')
            .map(|directory| directory.trim().trim_matches('"'))
            .find(|it| !it.is_empty())
            .map(PathBuf::from)
    };
    let directory = of_pid_file.or_else(configured).unwrap_or_else(|| {
        // Debian's build; others have /tmp.
        let debian = Path::new("/var/run/postgresql");
        if debian.is_dir() { debian.to_owned() } else { PathBuf::from("/tmp") }
    });
    server.data_dir.join(directory)
}

fn local_config(server: &Server, application_name: &str, statement_timeout: Option<&str>) -> Config {
    let mut config = base_config(server, &server.superuser, application_name, statement_timeout);
    match local_address(server) {
        LocalAddress::Socket(directory) => config.host_path(directory),
        LocalAddress::Host(host) => match host.parse() {
            // The name that its certificate is for, if it is for any that this machine has of itself.
            Ok(address @ IpAddr::V4(Ipv4Addr::LOCALHOST)) => config.host("localhost").hostaddr(address),
            _ => config.host(host),
        },
    };
    config.port(local_port(server));
    config
}

/// Of the running server, which may wait for a restart to have the configured one.
fn local_port(server: &Server) -> u16 {
    PidFile::read(&server.data_dir).and_then(|file| file.port).unwrap_or(server.port)
}

fn base_config(
    server: &Server,
    credentials: &Credentials,
    application_name: &str,
    statement_timeout: Option<&str>,
) -> Config {
    let mut config = Config::new();
    config
        .user(&credentials.username)
        .dbname(&server.database)
        .application_name(application_name)
        .connect_timeout(CONNECT_LIMIT)
        .tcp_user_timeout(CONNECT_LIMIT);
    if let Some(password) = &credentials.password {
        config.password(password.expose());
    }
    let timeout = statement_timeout.map(|limit| format!(" -c statement_timeout={limit}")).unwrap_or_default();
    config.options(format!("{SESSION_OPTIONS}{timeout}"));
    config
}

async fn open(server: &Server, config: Config) -> Result<Open, Error> {
    let address = match local_address(server) {
        LocalAddress::Socket(directory) => format!("{}/.s.PGSQL.{}", directory.display(), local_port(server)),
        LocalAddress::Host(host) => format!("{host}:{}", local_port(server)),
    };
    open_at(address, &server.superuser, config).await
}

fn tls_of(credentials: &Credentials) -> Result<SqlTls, ConnectError> {
    SqlTls::new(|name| credentials.options.get(name).cloned())
}

async fn open_at(address: String, credentials: &Credentials, config: Config) -> Result<Open, Error> {
    // connect_timeout covers the socket only, not the answers of a stopped server behind it.
    let connect = async { tls_of(credentials)?.connect(&config).await };
    let connected = tokio::time::timeout(CONNECT_LIMIT, connect).await;
    let connected = connected
        .map_err(|_| Error::Deadline { operation: format!("connecting to {address}"), limit: CONNECT_LIMIT })?;
    let (client, connection) = connected.map_err(|error| match error {
        ConnectError::Server(source) => Error::Connect { address, source },
        source => Error::Tls { address, source: Box::new(source) },
    })?;
    // Ends with the client, or with the connection; its error reaches the client as "connection closed".
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a connection to PostgreSQL ended: {error}");
        }
    });
    Ok(Open { client, observation: None, driver })
}

async fn answered<T>(
    what: &str,
    limit: Duration,
    query: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, query).await {
        Ok(result) => result.map_err(|source| Error::Query { operation: what.to_owned(), source }),
        Err(_) => Err(Error::Deadline { operation: what.to_owned(), limit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_agent_connects() {
        let address = |listen: &str, password: Option<&str>, socket: Option<&str>| {
            let mut server = Server::new("n", "c", "/nonexistent/data", Credentials::new("postgres", password));
            server.listen_addresses = listen.into();
            if let Some(directory) = socket {
                server.use_unix_socket = true;
                server.parameters.insert("unix_socket_directories".into(), directory.into());
            }
            match local_address(&server) {
                LocalAddress::Socket(directory) => directory.display().to_string(),
                LocalAddress::Host(host) => host,
            }
        };
        for (listen, socket, expected) in [
            ("0.0.0.0", None, "127.0.0.1"),
            ("*", None, "127.0.0.1"),
            ("::", None, "::1"),
            ("10.0.0.1, localhost", None, "127.0.0.1"),
            ("10.0.0.1,10.0.0.2", None, "10.0.0.1"),
            ("10.0.0.1", Some("/run/pg, /tmp"), "/run/pg"),
            ("10.0.0.1", Some("."), "/nonexistent/data/."),
        ] {
            assert_eq!(address(listen, Some("x"), socket), expected);
        }
        assert!(address("10.0.0.1", None, None).starts_with('/'));
    }
}
