//! `pgherd pause` and `pgherd resume`: maintenance mode, in which nobody fails over by itself.
//!
//! The change is one of the dynamic configuration, made by the first member that answers. Tested in `pause_tests`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use pgherd_dcs::Store;
use pgherd_ha::View;
use reqwest::Method;
use serde_json::json;

use super::context::{Access, Context};
use super::{members, rest};

#[derive(Args, Clone, Debug, Default)]
pub struct PauseArguments {
    /// The cluster [default: the configured scope]
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// Wait until every member has taken notice
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub access: Access,
}

/// `paused` is what is wanted.
pub async fn run(arguments: PauseArguments, paused: bool, context: &mut Context) -> anyhow::Result<()> {
    let (verb, participle) = if paused { ("pause", "paused") } else { ("resume", "resumed") };
    let cluster = context.cluster(arguments.cluster.as_deref(), verb)?;
    let view = context.load(&cluster).await?;
    if view.is_paused() == paused {
        bail!("Cluster is {} paused", if paused { "already" } else { "not" });
    }
    let change = if paused { json!({"pause": true}) } else { json!({"pause": null}) };
    for member in members::leader_first(&view) {
        let reply = match context.rest.call(member, Method::PATCH, "/config", Some(&change), rest::SHORT).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::warn!("member {} is not accessible: {error}", member.name);
                continue;
            }
        };
        if reply.status != 200 {
            let text = format!("Failed: {verb} cluster management status code={}, ({})", reply.status, reply.body);
            return Ok(context.terminal.line(&text)?);
        }
        if arguments.wait {
            let text = format!("'{verb}' request sent, waiting until it is recognized by all nodes");
            context.terminal.line(&text)?;
            wait_for_all(context, &cluster, &view, paused).await?;
        }
        return Ok(context.terminal.line(&format!("Success: cluster management is {participle}"))?);
    }
    bail!("Can not find accessible cluster member")
}

/// A member takes notice at the latest in its next round, `loop_wait` from now.
async fn wait_for_all(context: &mut Context, cluster: &str, before: &View, paused: bool) -> anyhow::Result<()> {
    let limit = members::loop_wait(before) + Duration::from_secs(1);
    let store = context.store(cluster).await?;
    if tokio::time::timeout(limit, all_agree(&*store, paused)).await.is_ok_and(|agreed| agreed.is_ok()) {
        return Ok(());
    }
    let view = store.load().await?;
    let missing = view.members.iter().filter(|member| member.pause != paused).count();
    let verb = if paused { "pause" } else { "resume" };
    let text = format!("{missing} members didn't recognized {verb} state after {} seconds", limit.as_secs());
    Ok(context.terminal.line(&text)?)
}

async fn all_agree(store: &dyn Store, paused: bool) -> anyhow::Result<()> {
    let mut changes = store.changes();
    loop {
        let view = store.load().await?;
        if view.members.iter().all(|member| member.pause == paused) {
            return Ok(());
        }
        // A change that the store does not report is seen a second later.
        let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
    }
}
