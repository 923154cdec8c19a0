//! `pgherd flush`: takes back what is scheduled, restarts of members or the switchover of the cluster.
//!
//! If no member answers, the request for a switchover is cleared in the store. Tested in `orders_tests`.

use anyhow::bail;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, FromArgMatches, ValueEnum};
use pgherd_dcs::{Expect, Key, Written, layout};
use pgherd_ha::{FailoverKey, View};
use reqwest::Method;

use super::context::{Access, Context};
use super::selection::{self, Part, Targets};
use super::terminal::timestamp;
use super::{members, rest};

#[derive(Args, Clone, Debug)]
pub struct FlushArguments {
    /// The cluster
    #[arg(value_name = "CLUSTER")]
    pub cluster: String,
    #[command(flatten)]
    pub what: What,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value_t)]
    pub role: Part,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub access: Access,
}

/// `[MEMBER]... restart|switchover`, with options anywhere between the words.
#[derive(Clone, Debug)]
pub struct What {
    pub members: Vec<String>,
    pub target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    Restart,
    Switchover,
}

impl Args for What {
    fn augment_args(command: clap::Command) -> clap::Command {
        let help = "Restarts, of all members or these, or the switchover of the cluster";
        command
            .arg(Arg::new("what").value_name("[MEMBER]... restart|switchover").help(help).num_args(1..).required(true))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        What::augment_args(command)
    }
}

impl FromArgMatches for What {
    fn from_arg_matches(matches: &ArgMatches) -> Result<What, clap::Error> {
        let mut members: Vec<String> = matches.get_many("what").into_iter().flatten().cloned().collect();
        let last = members.pop().unwrap_or_default();
        let target = Target::from_str(&last, false).map_err(|_| {
            let text = format!("the last word must be `restart` or `switchover`, not `{last}`");
            clap::Error::raw(ErrorKind::InvalidValue, text)
        })?;
        Ok(What { members, target })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = What::from_arg_matches(matches)?;
        Ok(())
    }
}

pub async fn run(arguments: FlushArguments, context: &mut Context) -> anyhow::Result<()> {
    let FlushArguments { cluster, what, role, force, .. } = arguments;
    let view = context.load(&cluster).await?;
    match what.target {
        Target::Restart => restarts(context, &view, Targets { cluster, members: what.members, role, force }).await,
        Target::Switchover => switchover(context, &cluster, &view).await,
    }
}

async fn restarts(context: &mut Context, view: &View, targets: Targets) -> anyhow::Result<()> {
    let members = selection::choose(context, view, &targets, "flush").await?;
    if !targets.force {
        selection::confirm(context, &members, "flush", None).await?;
    }
    for member in &members {
        let name = &member.name;
        if !member.extra.contains_key("scheduled_restart") {
            context.terminal.line(&format!("No scheduled restart for member {name}"))?;
            continue;
        }
        let action = "flush scheduled restart";
        let reply = context.rest.call(member, Method::DELETE, "/restart", None, rest::SHORT).await?;
        context.terminal.line(&match reply.is_refusal() {
            true => reply.refusal(action, member),
            false => format!("Success: {action} for member {name}"),
        })?;
    }
    Ok(())
}

/// By the first member that takes a stand.
async fn switchover(context: &mut Context, cluster: &str, view: &View) -> anyhow::Result<()> {
    let scheduled = view.failover.as_ref().filter(|key| key.value.scheduled_at.is_some());
    let Some(scheduled) = scheduled else {
        return Ok(context.terminal.line("No pending scheduled switchover")?);
    };
    for member in members::leader_first(view) {
        let reply = match context.rest.call(member, Method::DELETE, "/switchover", None, rest::SHORT).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::warn!("member {} is not accessible: {error}", member.name);
                continue;
            }
        };
        let body = &reply.body;
        match reply.status {
            200 => return Ok(context.terminal.line(&format!("Success: {body}"))?),
            404 => return Ok(context.terminal.line(&format!("Failed: {body}"))?),
            status => {
                let text = format!("Failed: member={}, status_code={status}, {body}", member.name);
                context.terminal.line(&text)?;
            }
        }
    }
    tracing::warn!("no member took the request back: clearing it in the store");
    let text = format!("{} Could not find any accessible member of cluster {cluster}", timestamp());
    context.terminal.line(&text)?;
    let empty = layout::encode_failover(&FailoverKey::default());
    let expect = Expect::Version(scheduled.version);
    match context.store(cluster).await?.write(Key::Failover, &empty, expect).await? {
        Written::Done { .. } => Ok(()),
        Written::Conflict => bail!(
            "the request has changed since it was read, and was left alone: look again (`pgherd list {cluster}`) before you \
             repeat this"
        ),
    }
}
