//! `pgherd restart`: the PostgreSQL of members is restarted, one after the other, now or at a given time.
//!
//! Tested in `orders_tests`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use jiff::Zoned;
use pgherd_agent::api::PostgresVersion;
use pgherd_ha::Member;
use reqwest::Method;
use serde_json::{Map, Value};

use super::context::{Access, Context};
use super::restart_order::{self, Order};
use super::selection::{self, Targets};
use super::{rest, schedule};

/// A member answers when its restart is over; the recovery of a large server can take long, and for longer than this
/// nobody sits by.
const PATIENCE: Duration = Duration::from_secs(3600);

#[derive(Args, Clone, Debug, Default)]
pub struct RestartArguments {
    #[command(flatten)]
    pub targets: Targets,
    /// Only one of them, whichever
    #[arg(long)]
    pub any: bool,
    /// When: `now`, or a time like 2030-12-31T23:59 (local) or 2030-12-31T23:59+01:00
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Only a PostgreSQL older than this version, like 15.4
    #[arg(long, value_name = "VERSION")]
    pub pg_version: Option<String>,
    /// Only where a changed parameter waits for a restart
    #[arg(long)]
    pub pending: bool,
    /// Report an error, and fail over if need be, if it takes longer
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<String>,
    /// In the order of names, and also a primary whose standbys, run by a plain Patroni, would then pause their replay
    #[arg(long)]
    pub unordered: bool,
    #[command(flatten)]
    pub access: Access,
}

pub async fn run(arguments: RestartArguments, context: &mut Context) -> anyhow::Result<()> {
    let force = arguments.targets.force;
    let view = context.load(&arguments.targets.cluster).await?;
    let mut members = selection::choose(context, &view, &arguments.targets, "restart").await?;
    let at = agree_on_time(context, arguments.scheduled.as_deref(), force).await?;
    if arguments.pending && at.is_none() {
        members.retain(|member| member.pending_restart);
        if members.is_empty() {
            tracing::warn!("nothing is done: none of these members has a pending restart");
            return Ok(());
        }
    }
    if !force {
        let at = at.as_ref().map(|at| schedule::iso(at).replacen('T', " ", 1));
        selection::confirm(context, &members, "restart", at.as_deref()).await?;
    }
    if arguments.any {
        members = one_of(members)?;
    }
    let version = agree_on_version(context, arguments.pg_version.as_deref(), force).await?;
    if at.is_some() && view.is_paused() {
        bail!("Can't schedule restart in the paused state");
    }
    let mut request = Map::new();
    if arguments.pending {
        request.insert("restart_pending".into(), true.into());
    }
    if let Some(version) = version {
        request.insert("postgres_version".into(), version.text.into());
    }
    if let Some(at) = &at {
        request.insert("schedule".into(), schedule::iso(at).into());
    }
    if let Some(timeout) = arguments.timeout {
        request.insert("timeout".into(), timeout.into());
    }
    if arguments.unordered {
        request.insert("unordered".into(), true.into());
    }
    let request = Value::Object(request);
    let order = if at.is_some() || arguments.unordered { Order::Any } else { restart_order::order(&view.members) };
    restart_order::sort(&mut members, order, &view);
    let primary = view.leader_member().filter(|leader| members.iter().any(|member| member.name == leader.name));
    for member in &members {
        if at.is_some() && force {
            forget_scheduled(context, member).await?;
        }
        if let (Order::PrimaryFirst, Some(primary)) = (order, primary.filter(|primary| primary.name != member.name)) {
            restart_order::wait_for_replay(context, primary, member).await?;
        }
        restart(context, member, &request).await?;
    }
    if let (Order::StandbysTwice, Some(primary)) = (order, primary) {
        for standby in members.iter().filter(|member| member.name != primary.name) {
            restart_order::wait_for_replay(context, primary, standby).await?;
            restart(context, standby, &request).await?;
        }
    }
    Ok(())
}

async fn agree_on_time(context: &mut Context, given: Option<&str>, force: bool) -> anyhow::Result<Option<Zoned>> {
    let now = Zoned::now();
    let text = match given {
        Some(text) => text.to_owned(),
        None if force => return Ok(None),
        None => {
            let question = format!("When should the restart take place (e.g. {}) ", schedule::example(&now));
            context.terminal.ask(&question, "now").await?
        }
    };
    Ok(schedule::parse(&text, now.time_zone(), now.date())?)
}

async fn agree_on_version(
    context: &mut Context,
    given: Option<&str>,
    force: bool,
) -> anyhow::Result<Option<PostgresVersion>> {
    let text = match given {
        Some(text) => text.to_owned(),
        None if force => return Ok(None),
        None => {
            let question = "Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ";
            context.terminal.ask(question, "").await?
        }
    };
    Ok(if text.is_empty() { None } else { Some(text.parse()?) })
}

fn one_of(mut members: Vec<Member>) -> anyhow::Result<Vec<Member>> {
    let number = usize::try_from(getrandom::u32()?)?;
    let chosen = number.checked_rem(members.len()).map(|at| members.swap_remove(at));
    Ok(chosen.into_iter().collect())
}

/// Makes way for another schedule. Only a refusal is told.
async fn forget_scheduled(context: &mut Context, member: &Member) -> anyhow::Result<()> {
    if !member.extra.contains_key("scheduled_restart") {
        return Ok(());
    }
    let reply = context.rest.call(member, Method::DELETE, "/restart", None, rest::SHORT).await?;
    if reply.is_refusal() {
        context.terminal.line(&reply.refusal("flush scheduled restart", member))?;
    }
    Ok(())
}

async fn restart(context: &mut Context, member: &Member, request: &Value) -> anyhow::Result<()> {
    let reply = context.rest.call(member, Method::POST, "/restart", Some(request), PATIENCE).await?;
    let name = &member.name;
    Ok(context.terminal.line(&match reply.status {
        200 => format!("Success: restart on member {name}"),
        202 => format!("Success: restart scheduled on member {name}"),
        409 => format!("Failed: another restart is already scheduled on member {name}"),
        _ => reply.refusal("restart", member),
    })?)
}
