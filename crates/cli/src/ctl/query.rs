//! `pgherd query`: SQL on a member.
//!
//! What goes wrong on the way to the answer is printed as a row of its own and is no error, as with Patroni's console:
//! who repeats the query (`-W`) watches for it. Tested on a real cluster in `tests/it/cluster/commands.rs`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use pgherd_ha::View;
use serde_json::Value;
use tokio_postgres::Client;

use super::context::{Access, Context};
use super::list::{self, Watch};
use super::selection::{One, Part};
use super::sql::{self, Credentials, Rows};
use super::sql_text;
use super::table::{Align, Column, Format, Table};

/// `-c` and `-d` mean other things here than before the command.
#[derive(Args, Clone, Debug, Default)]
#[command(
    mut_arg("config_file", |argument| argument.short(None)),
    mut_arg("dcs_url", |argument| argument.short(None))
)]
pub struct QueryArguments {
    /// The cluster [default: the configured scope]
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// SQL
    #[arg(short, long, value_name = "SQL")]
    pub command: Option<String>,
    /// A file with SQL; - is the standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Format::Tsv)]
    pub format: Format,
    /// What stands between the columns of `tsv`
    #[arg(long, value_name = "TEXT", default_value = "\t", hide_default_value = true)]
    pub delimiter: String,
    /// Connect as this user [default: PGUSER, else your own name]
    #[arg(short = 'U', long, value_name = "USER")]
    pub username: Option<String>,
    /// Ask for the password [default: PGPASSWORD, else the password file]
    #[arg(long)]
    pub password: bool,
    /// Connect to this database [default: PGDATABASE, else the user's name]
    #[arg(short, long, value_name = "DATABASE")]
    pub dbname: Option<String>,
    #[command(flatten)]
    pub one: One,
    #[command(flatten)]
    pub watch: Watch,
    #[command(flatten)]
    pub access: Access,
}

pub async fn run(arguments: QueryArguments, context: &mut Context) -> anyhow::Result<()> {
    // Before anything is asked or opened: options that contradict each other are wrong in any case.
    arguments.one.part()?;
    let sql = sql_of(&arguments, context)?;
    let cluster = context.cluster(arguments.cluster.as_deref(), "query")?;
    let password = match arguments.password {
        true => Some(context.terminal.ask_for_secret("Password").await?),
        false => None,
    };
    let credentials = Credentials { user: arguments.username.clone(), password, database: arguments.dbname.clone() };
    let view = context.load(&cluster).await?;
    list::repeat(arguments.watch.interval(), false, context, async |context| {
        let text = match ask(&view, &arguments.one, &credentials, &sql).await {
            Ok(rows) => text_of(&rows, arguments.format, &arguments.delimiter),
            Err(line) => text_of_failure(&line, arguments.format, &arguments.delimiter),
        };
        Ok(context.terminal.print(&text)?)
    })
    .await
}

fn sql_of(arguments: &QueryArguments, context: &mut Context) -> anyhow::Result<String> {
    match (&arguments.command, &arguments.file) {
        (Some(_), Some(_)) => bail!("--file and --command are mutually exclusive options"),
        (None, None) => bail!("You need to specify either --command or --file"),
        (Some(command), None) => Ok(command.clone()),
        (None, Some(file)) if file.as_os_str() == "-" => Ok(context.terminal.read_text()?),
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
        }
    }
}

/// The answer, or what is printed in its place.
async fn ask(view: &View, one: &One, credentials: &Credentials, sql: &str) -> Result<Rows, String> {
    let nobody = || match (&one.member, one.role) {
        (Some(member), _) => format!("No connection to member {member} is available"),
        (None, Some(role)) => format!("No connection to role '{role}' is available"),
        (None, None) => "No connection is available".to_owned(),
    };
    let member = one.find(view).map_err(|error| error.to_string())?;
    let (host, port) = member.and_then(|member| member.postgres_address()).ok_or_else(nobody)?;
    let client = sql::connect(&host, port, credentials).await.map_err(|error| failure(&format!("{error:#}")))?;
    if let Some(role) = one.role {
        let plays = plays(&client, role).await;
        plays.map_err(|error| failure(&sql::code_or_text(&error)))?.then_some(()).ok_or_else(nobody)?;
    }
    let rows = sql::execute(&client, sql).await.map_err(|error| failure(&sql::code_or_text(&error)))?;
    rows.ok_or_else(|| failure("the last operation didn't produce records"))
}

/// What the store says of the roles may be old; the server knows.
async fn plays(client: &Client, role: Part) -> Result<bool, tokio_postgres::Error> {
    let standby = match role {
        Part::Any => return Ok(true),
        Part::Leader | Part::Primary => false,
        Part::StandbyLeader | Part::Replica | Part::Standby => true,
    };
    let row = client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?;
    Ok(row.get::<_, bool>(0) == standby)
}

/// On one line.
fn failure(text: &str) -> String {
    format!("ERROR, SQLSTATE: {}", text.replace('\n', " "))
}

fn text_of(rows: &Rows, format: Format, delimiter: &str) -> String {
    let columns = rows.columns.iter().map(|(name, _)| Column { name: name.clone().into(), align: Align::Left });
    let cell = |at: usize, text: Option<&str>| {
        let kind = rows.columns.get(at).and_then(|(_, kind)| kind.as_ref());
        match format {
            Format::Pretty | Format::Tsv => Value::String(sql_text::as_text(text, kind)),
            Format::Json | Format::Yaml => sql_text::as_value(text, kind),
        }
    };
    let row = |row: &Vec<Option<String>>| row.iter().enumerate().map(|(at, text)| cell(at, text.as_deref())).collect();
    let table = Table { columns: columns.collect(), rows: rows.rows.iter().map(row).collect(), ..Table::default() };
    match format {
        Format::Tsv => table.delimited(delimiter),
        _ => table.render(format),
    }
}

fn text_of_failure(line: &str, format: Format, delimiter: &str) -> String {
    let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
    match format {
        Format::Tsv => format!("{now}{delimiter}{line}\n"),
        _ => {
            // The names that patronictl gives to columns without a name.
            let columns = ["Field 1", "Field 2"].map(|name| Column { name: name.into(), align: Align::Left });
            let rows = vec![vec![now.into(), line.into()]];
            Table { columns: columns.into(), rows, ..Table::default() }.render(format)
        }
    }
}
