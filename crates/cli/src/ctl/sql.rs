//! One session with a member's PostgreSQL, for one text of SQL.
//!
//! As libpq would make it, with the variables of its environment that are about who connects where and how. Not here: how the answer is
//! printed.

use std::time::Duration;

use anyhow::bail;
use nix::unistd::{Uid, User};
use pgherd_agent::postgres::tls::{ConnectError, SqlTls};
use tokio_postgres::error::Error;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use super::password_file::{self, Login};

/// As patronictl: a member that takes longer is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Who connects, where the operator says so.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    pub user: Option<String>,
    pub password: Option<String>,
    pub database: Option<String>,
}

/// Column names with types as far as they are known, and the texts of the rows.
#[derive(Debug, Default)]
pub struct Rows {
    pub columns: Vec<(String, Option<Type>)>,
    pub rows: Vec<Vec<Option<String>>>,
}

/// The rows of the first statement that has any.
pub async fn execute(client: &Client, sql: &str) -> Result<Option<Rows>, Error> {
    let kinds = kinds(client, sql).await?;
    let mut found: Option<Rows> = None;
    for message in client.simple_query(sql).await? {
        match (message, &mut found) {
            (SimpleQueryMessage::RowDescription(columns), None) => {
                let kind = |at: usize| kinds.get(at).cloned();
                let names = columns.iter().map(|column| column.name().to_owned());
                let columns = names.enumerate().map(|(at, name)| (name, kind(at))).collect();
                found = Some(Rows { columns, rows: Vec::new() });
            }
            (SimpleQueryMessage::Row(row), Some(found)) => {
                found.rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
            }
            (SimpleQueryMessage::CommandComplete(_), Some(_)) => break,
            _ => {}
        }
    }
    Ok(found)
}

/// The types of the columns. Several statements cannot be prepared, and then nothing is known.
async fn kinds(client: &Client, sql: &str) -> Result<Vec<Type>, Error> {
    if sql.trim_end().trim_end_matches(';').contains(';') {
        return Ok(Vec::new());
    }
    let statement = client.prepare(sql).await?;
    Ok(statement.columns().iter().map(|column| column.type_().clone()).collect())
}

/// The session goes on in a task of its own until the client is dropped.
pub async fn connect(host: &str, port: u16, credentials: &Credentials) -> anyhow::Result<Client> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    // `sslmode` is PGSSLMODE, `channel_binding` PGCHANNELBINDING; of `sslpassword` there is none.
    let tls = SqlTls::new(|option| match option {
        "sslpassword" => None,
        _ => variable(&format!("PG{}", option.replace('_', "").to_ascii_uppercase())),
    })?;
    let mut config = Config::new();
    config.host(host).port(port).connect_timeout(CONNECT_TIMEOUT);
    config.application_name(variable("PGAPPNAME").unwrap_or_else(|| "Patroni ctl".to_owned()));
    if let Some(options) = variable("PGOPTIONS") {
        config.options(options);
    }
    let user = credentials.user.clone().or_else(|| variable("PGUSER")).or_else(own_name);
    let Some(user) = user else { bail!("who runs this has no name: give one with -U") };
    let database = credentials.database.clone().or_else(|| variable("PGDATABASE")).unwrap_or_else(|| user.clone());
    let login = Login { host, port, database: &database, user: &user };
    if let Some(password) = credentials.password.clone().or_else(|| password_file::find(login)) {
        config.password(password);
    }
    config.user(&user).dbname(&database);
    let cause = match tokio::time::timeout(CONNECT_TIMEOUT, tls.connect(&config)).await {
        Ok(Ok((client, connection))) => {
            tokio::spawn(connection);
            return Ok(client);
        }
        Ok(Err(ConnectError::Server(error))) => refusal(&error),
        Ok(Err(error)) => format!("{:#}", anyhow::Error::from(error)),
        Err(_) => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
    };
    bail!("connection failed: connection to server at \"{host}\", port {port} failed: {cause}")
}

/// The server's code where it gave one, else what happened.
pub fn code_or_text(error: &Error) -> String {
    error.code().map_or_else(|| text(error), |code| code.code().to_owned())
}

/// As libpq words it.
fn refusal(error: &Error) -> String {
    let server = error.as_db_error().map(|server| format!("{}:  {}", server.severity(), server.message()));
    server.unwrap_or_else(|| text(error))
}

/// The innermost cause says what happened.
fn text(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Who runs this, to the system.
pub fn own_name() -> Option<String> {
    User::from_uid(Uid::effective()).ok().flatten().map(|user| user.name)
}
