//! `pgherd dsn`: where a member's PostgreSQL is, in the words of libpq.

use anyhow::Context as _;
use clap::Args;

use super::context::{Access, Context};
use super::selection::One;

#[derive(Args, Clone, Debug, Default)]
pub struct DsnArguments {
    /// The cluster [default: the configured scope]
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
    #[command(flatten)]
    pub one: One,
    #[command(flatten)]
    pub access: Access,
}

pub async fn run(arguments: DsnArguments, context: &mut Context) -> anyhow::Result<()> {
    // Before the store is asked: options that contradict each other are wrong in any case.
    arguments.one.part()?;
    let cluster = context.cluster(arguments.cluster.as_deref(), "dsn")?;
    let view = context.load(&cluster).await?;
    let address = arguments.one.find(&view)?.and_then(|member| member.postgres_address());
    let (host, port) = address.context("Can not find a suitable member")?;
    Ok(context.terminal.line(&format!("host={host} port={port}"))?)
}
