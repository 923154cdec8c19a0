//! `pgherd store`: a member of the built-in store without a PostgreSQL, and looking after its members.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use pgherd_agent::config::{self, Environment};
use pgherd_dcs::BuiltInOptions;
use pgherd_store::client::Client;
use pgherd_store::member::serve;
use pgherd_store::types::Member;
use pgherd_store::wire::Status;
use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::ctl::context::Access;
use crate::ctl::document;
use crate::ctl::table::{Align, Column, Format, Table};

/// For one member; the store's own patience with its quorum is two seconds.
const ANSWER: Duration = Duration::from_secs(5);

#[derive(clap::Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    /// Run the member of the store that this file's section `store` describes, without a PostgreSQL: a third vote for two nodes
    #[arg(value_name = "FILE", required = true)]
    file: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Show the members of the store
    Status {
        #[command(flatten)]
        access: Access,
        #[arg(short, long, value_enum, default_value_t = Format::Pretty)]
        format: Format,
    },
    /// Add a member, which is new and runs already
    Add {
        /// Its `store.connect_address`
        #[arg(value_name = "HOST:PORT")]
        address: String,
        #[command(flatten)]
        access: Access,
    },
    /// Remove a member; if it runs, stop it afterwards
    Remove {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        access: Access,
    },
}

impl Arguments {
    /// A member is to run here.
    pub fn is_member(&self) -> bool {
        self.command.is_none()
    }
}

pub fn run(arguments: Arguments, earlier: &Access) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("the event loop cannot be started")?;
    match arguments.command {
        None => runtime.block_on(member(arguments.file))?,
        Some(Command::Status { access, format }) => runtime.block_on(status(&store(&access.or(earlier))?, format))?,
        Some(Command::Add { address, access }) => {
            let client = client(&store(&access.or(earlier))?)?;
            let members = runtime.block_on(async { client.add(&address, Instant::now() + ANSWER).await })?;
            println!("Added {address}; the store's members are {}", names(&members));
        }
        Some(Command::Remove { name, access }) => {
            let client = client(&store(&access.or(earlier))?)?;
            let members = runtime.block_on(async { client.remove(&name, Instant::now() + ANSWER).await })?;
            println!("Removed {name}; the store's members are {}", names(&members));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn member(file: Option<PathBuf>) -> anyhow::Result<()> {
    let document = config::document(file.as_deref(), &Environment::of_process())?;
    let name = document.get("name").and_then(Value::as_str).context("`name` is missing: how this member is called")?;
    let Some(options) = options(&document)?.member(name, None)? else {
        bail!("`store.listen` is missing: where this member of the store listens")
    };
    let (address, directory) = (options.listen.clone(), options.directory.clone());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let started = || {
        tracing::info!("the store's member {name} listens on {address}; its files are in {}", directory.display());
    };
    serve(options, stop, started).await?;
    Ok(())
}

fn store(access: &Access) -> anyhow::Result<BuiltInOptions> {
    options(&document::load(access.config_file.as_deref())?)
}

fn options(document: &Map<String, Value>) -> anyhow::Result<BuiltInOptions> {
    let section = document.get("store").and_then(Value::as_object);
    let section = section.context("there is no section `store`: give a configuration that has one (-c FILE)")?;
    let scope = document.get("scope").and_then(Value::as_str).unwrap_or_default();
    BuiltInOptions::from_section(section, scope).map_err(|error| {
        anyhow::anyhow!("`store{}{}`: {error}", if error.key.is_empty() { "" } else { "." }, error.key)
    })
}

fn client(options: &BuiltInOptions) -> anyhow::Result<Client> {
    let (_, tls) = options.tls()?;
    Ok(Client::new(options.dialer(tls), &options.members))
}

async fn status(options: &BuiltInOptions, format: Format) -> anyhow::Result<()> {
    let client = Arc::new(client(options)?);
    let ask = |address: String| {
        let client = client.clone();
        async move {
            let status = client.status(&address, Instant::now() + ANSWER).await;
            (address, status)
        }
    };
    let mut answers = futures::future::join_all(options.members.iter().cloned().map(ask)).await;
    // Those that were added since the file was written.
    let known =
        answers.iter().find_map(|(_, status)| status.as_ref().ok().filter(|status| status.initialized).cloned());
    let later = known.iter().flat_map(|status| status.voters.iter().chain(&status.learners));
    let later: Vec<String> = later.map(|member| member.address.clone()).collect();
    let later = later.into_iter().filter(|address| !options.members.contains(address));
    answers.extend(futures::future::join_all(later.map(ask)).await);
    let columns = ["Member", "Address", "Role", "Term", "Log", "Revision", "State"];
    let columns = columns.map(|name| Column { name: name.into(), align: Align::Left }).into();
    let rows = answers.iter().map(|(address, status)| row(address, status.as_ref().map_err(ToString::to_string)));
    let title = format!("Store: {}", options.name);
    let table = Table { title: Some(title), columns, rows: rows.collect(), ..Table::default() };
    print!("{}", table.render(format));
    Ok(())
}

fn row(address: &str, status: Result<&Status, String>) -> Vec<Value> {
    let status = match status {
        Ok(status) => status,
        Err(why) => {
            return vec![Value::Null, address.into(), Value::Null, Value::Null, Value::Null, Value::Null, why.into()];
        }
    };
    let own = |members: &[Member]| members.iter().any(|member| member.name == status.name);
    let role = match &status.leader {
        Some(leader) if leader.name == status.name => "Leader",
        _ if own(&status.voters) => "Voter",
        _ if own(&status.learners) => "Learner",
        _ => "None",
    };
    let state = match (status.initialized, &status.leader) {
        (false, _) => "new, and of no store yet".to_owned(),
        (true, None) => "knows of no leader".to_owned(),
        (true, Some(_)) => "running".to_owned(),
    };
    let number = |number: Option<u64>| number.map_or(Value::Null, Value::from);
    vec![
        status.name.clone().into(),
        address.into(),
        role.into(),
        status.term.into(),
        number(status.applied),
        status.revision.0.into(),
        state.into(),
    ]
}

fn names(members: &[Member]) -> String {
    let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    names.join(", ")
}
