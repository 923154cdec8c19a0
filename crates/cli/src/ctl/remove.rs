//! `pgherd remove`: deletes everything that the store knows of a cluster. Its servers and their data are not touched.
//!
//! Tested below, and on a real store in `tests/it/ctl.rs`.

use anyhow::ensure;
use clap::Args;

use super::context::{Access, Context};
use super::list;
use super::table::Format;

/// What has to be typed to the letter.
const ASSURANCE: &str = "Yes I am aware";

#[derive(Args, Clone, Debug, Default)]
pub struct RemoveArguments {
    /// The cluster
    #[arg(value_name = "CLUSTER")]
    pub cluster: String,
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    #[command(flatten)]
    pub access: Access,
}

/// There is no way around the questions.
pub async fn run(arguments: RemoveArguments, context: &mut Context) -> anyhow::Result<()> {
    let cluster = &arguments.cluster;
    let view = context.load(cluster).await?;
    context.terminal.print(&list::text_of(cluster, &view, arguments.format, false))?;
    let name = context.terminal.ask_for("Please confirm the cluster name to remove").await?;
    ensure!(name == *cluster, "Cluster names specified do not match");
    let question =
        format!("You are about to remove all information in DCS for {cluster}, please type: \"{ASSURANCE}\"");
    let assurance = context.terminal.ask_for(&question).await?;
    ensure!(assurance == ASSURANCE, "You did not exactly type \"{ASSURANCE}\"");
    if let Some(leader) = &view.leader {
        let question = "This cluster currently is healthy. Please specify the leader name to continue";
        let name = context.terminal.ask_for(question).await?;
        ensure!(name == leader.name, "You did not specify the current leader of the cluster");
    }
    Ok(context.store(cluster).await?.delete_cluster().await?)
}
