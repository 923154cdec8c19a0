//! `pgherd reload`: members read their configuration files again.
//!
//! Tested in `orders_tests`.

use clap::Args;
use reqwest::Method;

use super::context::{Access, Context};
use super::selection::{self, Targets};
use super::{members, rest};

#[derive(Args, Clone, Debug, Default)]
pub struct ReloadArguments {
    #[command(flatten)]
    pub targets: Targets,
    #[command(flatten)]
    pub access: Access,
}

pub async fn run(arguments: ReloadArguments, context: &mut Context) -> anyhow::Result<()> {
    let view = context.load(&arguments.targets.cluster).await?;
    let members = selection::choose(context, &view, &arguments.targets, "reload").await?;
    if !arguments.targets.force {
        selection::confirm(context, &members, "reload", None).await?;
    }
    let seconds = members::loop_wait(&view).as_secs();
    for member in &members {
        let reply = context.rest.call(member, Method::POST, "/reload", None, rest::SHORT).await?;
        let name = &member.name;
        context.terminal.line(&match reply.status {
            200 => format!("No changes to apply on member {name}"),
            202 => format!("Reload request received for member {name} and will be processed within {seconds} seconds"),
            _ => reply.refusal("reload", member),
        })?;
    }
    Ok(())
}
