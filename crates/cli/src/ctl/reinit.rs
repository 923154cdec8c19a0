//! `pgherd reinit`: replicas throw their data away and copy the leader's again.
//!
//! Tested in `orders_tests`.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use pgherd_ha::Member;
use reqwest::Method;
use serde_json::{Value, json};

use super::context::{Access, Context};
use super::rest;
use super::selection::{self, Part, REINITIALIZE, Targets};

/// How often a member is asked whether it is done. The first time it must have begun.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What the status of a member says while its data are copied.
const COPYING: &str = "creating replica";

#[derive(Args, Clone, Debug, Default)]
pub struct ReinitArguments {
    /// The cluster
    #[arg(value_name = "CLUSTER")]
    pub cluster: String,
    /// These replicas
    #[arg(value_name = "MEMBER")]
    pub members: Vec<String>,
    /// Ask nothing, and break off what the member is doing
    #[arg(long)]
    pub force: bool,
    /// Copy from the leader, not from another replica
    #[arg(long)]
    pub from_leader: bool,
    /// Wait until the copies are made
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub access: Access,
}

pub async fn run(arguments: ReinitArguments, context: &mut Context) -> anyhow::Result<()> {
    let ReinitArguments { cluster, members: named, force, from_leader, wait, .. } = arguments;
    let view = context.load(&cluster).await?;
    let targets = Targets { cluster, members: named, role: Part::Replica, force };
    let members = selection::choose(context, &view, &targets, REINITIALIZE).await?;
    if members.is_empty() {
        tracing::warn!("nothing is done: name the members whose data shall be copied anew");
    }
    if !force {
        selection::confirm(context, &members, REINITIALIZE, None).await?;
    }
    let mut started = Vec::new();
    for member in members {
        if reinitialize(context, &member, force, from_leader).await? {
            started.push(member);
        }
    }
    if wait { wait_for(context, started).await } else { Ok(()) }
}

/// Whether the member has begun.
async fn reinitialize(
    context: &mut Context,
    member: &Member,
    mut force: bool,
    from_leader: bool,
) -> anyhow::Result<bool> {
    loop {
        let body = json!({"force": force, "from_leader": from_leader});
        let reply = context.rest.call(member, Method::POST, "/reinitialize", Some(&body), rest::SHORT).await?;
        if !reply.is_refusal() {
            context.terminal.line(&format!("Success: {REINITIALIZE} for member {}", member.name))?;
            return Ok(true);
        }
        context.terminal.line(&reply.refusal(REINITIALIZE, member))?;
        let is_busy = reply.body.ends_with(" already in progress");
        let question = "Do you want to cancel it and reinitialize anyway?";
        if force || !is_busy || !context.terminal.confirm(question).await? {
            return Ok(false);
        }
        force = true;
    }
}

/// Until all are done. It takes as long as copying takes.
async fn wait_for(context: &mut Context, mut members: Vec<Member>) -> anyhow::Result<()> {
    let mut shown = 0;
    while !members.is_empty() {
        if members.len() != shown {
            let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            context.terminal.line(&format!("Waiting for reinitialize to complete on: {}", names.join(", ")))?;
            shown = members.len();
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        let mut still_copying = Vec::new();
        for member in members {
            if state(context, &member).await? == COPYING {
                still_copying.push(member);
            } else {
                context.terminal.line(&format!("Reinitialize is completed on: {}", member.name))?;
            }
        }
        members = still_copying;
    }
    Ok(())
}

async fn state(context: &Context, member: &Member) -> anyhow::Result<String> {
    let reply = context.rest.call(member, Method::GET, "/patroni", None, rest::SHORT).await?;
    let status: Value = serde_json::from_str(&reply.body)
        .with_context(|| format!("the status of {} is no JSON (status {})", member.name, reply.status))?;
    Ok(status.get("state").and_then(Value::as_str).unwrap_or_default().to_owned())
}
