//! `pgherd switchover` and `pgherd failover`: another member becomes the leader, because the operator wants it.
//!
//! A switchover goes away from a leader that is there; a failover goes to a named candidate, leader or not. The request
//! goes to the leader's REST API; if it cannot be reached, into the store's `failover` key, which is where
//! the API would put it. Tested in `switchover_tests` against a fake member and a store in memory.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Zoned;
use pgherd_dcs::{Expect, Key, Written, layout};
use pgherd_ha::{FailoverKey, Member, View};
use reqwest::Method;
use serde_json::{Map, Value};

use super::context::{Access, Context};
use super::list;
use super::members::{self, Synchronous};
use super::rest::{Reply, RestError};
use super::schedule;
use super::table::Format;
use super::terminal::timestamp;

#[derive(Args, Clone, Debug, Default)]
pub struct SwitchoverArguments {
    /// The cluster [default: the configured scope]
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// The present leader
    #[arg(long, visible_alias = "primary", value_name = "MEMBER")]
    pub leader: Option<String>,
    /// The member to take over [default: the best replica]
    #[arg(long, value_name = "MEMBER")]
    pub candidate: Option<String>,
    /// When: `now`, or a time like 2030-12-31T23:59 (local) or 2030-12-31T23:59+01:00
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args, Clone, Debug, Default)]
pub struct FailoverArguments {
    /// The cluster [default: the configured scope]
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// The member to take over
    #[arg(long, value_name = "MEMBER")]
    pub candidate: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Switchover,
    Failover,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Switchover => "switchover",
            Action::Failover => "failover",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Action::Switchover => "Switchover",
            Action::Failover => "Failover",
        }
    }
}

/// What the options say of the candidate.
struct Choice {
    given: Option<String>,
    force: bool,
    action: Action,
}

/// What was decided with the operator.
#[derive(Debug)]
struct Request {
    leader: Option<String>,
    candidate: Option<String>,
    at: Option<Zoned>,
}

impl Request {
    fn body(&self) -> Value {
        let mut body = Map::new();
        if let Some(leader) = &self.leader {
            body.insert("leader".into(), leader.as_str().into());
        }
        if let Some(candidate) = &self.candidate {
            body.insert("candidate".into(), candidate.as_str().into());
        }
        if let Some(at) = &self.at {
            body.insert("scheduled_at".into(), schedule::iso(at).into());
        }
        Value::Object(body)
    }

    fn key(&self) -> FailoverKey {
        FailoverKey {
            leader: self.leader.clone(),
            member: self.candidate.clone(),
            scheduled_at: self.at.as_ref().map(Zoned::timestamp),
        }
    }
}

pub async fn switchover(arguments: SwitchoverArguments, context: &mut Context) -> anyhow::Result<()> {
    let cluster = context.cluster(arguments.cluster.as_deref(), "switchover")?;
    let view = show_topology(context, &cluster).await?;
    let leader = agree_on_leader(context, &cluster, &view, &arguments).await?;
    let choice = Choice { given: arguments.candidate.clone(), force: arguments.force, action: Action::Switchover };
    let candidate = agree_on_candidate(context, &cluster, &view, choice).await?;
    let at = agree_on_time(context, &view, arguments.scheduled, arguments.force).await?;
    let request = Request { leader: Some(leader), candidate, at };
    if !arguments.force {
        confirm(context, &cluster, &view, &request, Action::Switchover).await?;
    }
    perform(context, &cluster, &view, &request, Action::Switchover).await
}

pub async fn failover(arguments: FailoverArguments, context: &mut Context) -> anyhow::Result<()> {
    let cluster = context.cluster(arguments.cluster.as_deref(), "failover")?;
    let view = show_topology(context, &cluster).await?;
    let choice = Choice { given: arguments.candidate, force: arguments.force, action: Action::Failover };
    let candidate = agree_on_candidate(context, &cluster, &view, choice).await?;
    let request = Request { leader: None, candidate, at: None };
    if !arguments.force {
        confirm(context, &cluster, &view, &request, Action::Failover).await?;
    }
    perform(context, &cluster, &view, &request, Action::Failover).await
}

async fn show_topology(context: &mut Context, cluster: &str) -> anyhow::Result<View> {
    let view = context.load(cluster).await?;
    context.terminal.line("Current cluster topology")?;
    context.terminal.print(&list::text_of(cluster, &view, Format::Pretty, false))?;
    Ok(view)
}

fn leader_name(view: &View) -> Option<&str> {
    view.leader.as_ref().map(|leader| leader.name.as_str())
}

async fn agree_on_leader(
    context: &mut Context,
    cluster: &str,
    view: &View,
    arguments: &SwitchoverArguments,
) -> anyhow::Result<String> {
    let present = leader_name(view).context("This cluster has no leader")?;
    let wanted = match &arguments.leader {
        Some(leader) => leader.clone(),
        None if arguments.force => present.to_owned(),
        None => {
            let role = if members::is_standby_cluster(view) { "Standby Leader" } else { "Primary" };
            context.terminal.ask(role, present).await?
        }
    };
    if wanted != present {
        bail!("Member {wanted} is not the leader of cluster {cluster}");
    }
    Ok(wanted)
}

/// `None`: the cluster chooses (a switchover only).
async fn agree_on_candidate(
    context: &mut Context,
    cluster: &str,
    view: &View,
    choice: Choice,
) -> anyhow::Result<Option<String>> {
    let Choice { given, force, action } = choice;
    let leader = leader_name(view);
    let possible: Vec<&str> = view
        .members
        .iter()
        .filter(|member| Some(member.name.as_str()) != leader && !member.nofailover())
        .map(|member| member.name.as_str())
        .collect();
    if possible.is_empty() {
        bail!("No candidates found to {} to", action.word());
    }
    let chosen = match given {
        Some(candidate) => candidate,
        None if force => String::new(),
        None => {
            let names: Vec<String> = possible.iter().map(|name| format!("'{name}'")).collect();
            context.terminal.ask(&format!("Candidate [{}]", names.join(", ")), "").await?
        }
    };
    if chosen.is_empty() {
        return match action {
            Action::Switchover => Ok(None),
            Action::Failover => bail!("Failover could be performed only to a specific candidate"),
        };
    }
    if Some(chosen.as_str()) == leader {
        bail!("Member {chosen} is already the leader of cluster {cluster}");
    }
    if !possible.contains(&chosen.as_str()) {
        bail!("Member {chosen} does not exist in cluster {cluster} or is tagged as nofailover");
    }
    if action == Action::Failover && !force && is_asynchronous(view, &chosen) {
        let question = format!(
            "{chosen} is an asynchronous replica: acknowledged transactions may be missing there. Fail over to it all the same?"
        );
        if !context.terminal.confirm(&question).await? {
            bail!("Aborting {}", action.word());
        }
    }
    Ok(Some(chosen))
}

/// In synchronous mode, a member that acknowledged commits need not have reached.
fn is_asynchronous(view: &View, candidate: &str) -> bool {
    let synchronous = members::synchronous_mode(view) != Synchronous::Off;
    let sync = view.sync.as_ref().map(|key| &key.value).filter(|sync| sync.leader.is_some());
    synchronous && sync.is_some_and(|sync| !sync.sync_standby.iter().any(|name| name.eq_ignore_ascii_case(candidate)))
}

async fn agree_on_time(
    context: &mut Context,
    view: &View,
    given: Option<String>,
    force: bool,
) -> anyhow::Result<Option<Zoned>> {
    let now = Zoned::now();
    let text = match given {
        Some(text) => text,
        None if force => return Ok(None),
        None => {
            let question = format!("When should the switchover take place (e.g. {})", schedule::example(&now));
            context.terminal.ask(&question, "now").await?
        }
    };
    let at = schedule::parse(&text, now.time_zone(), now.date())?;
    if at.is_some() && view.is_paused() {
        bail!("Can't schedule switchover in the paused state");
    }
    Ok(at)
}

async fn confirm(
    context: &mut Context,
    cluster: &str,
    view: &View,
    request: &Request,
    action: Action,
) -> anyhow::Result<()> {
    let when = request.at.as_ref().map_or(String::new(), |at| format!(" at {}", schedule::iso(at)));
    let from = leader_name(view).map_or(String::new(), |leader| format!(", demoting current leader {leader}"));
    let to = request.candidate.as_ref().map_or(String::new(), |candidate| format!(", in favour of {candidate}"));
    let question = format!("Are you sure you want to {} cluster {cluster}{when}{from}{to}?", action.word());
    match context.terminal.confirm(&question).await? {
        true => Ok(()),
        false => bail!("Aborting {}", action.word()),
    }
}

async fn perform(
    context: &mut Context,
    cluster: &str,
    view: &View,
    request: &Request,
    action: Action,
) -> anyhow::Result<()> {
    let target = leader_name(view).or(request.candidate.as_deref()).and_then(|name| view.member(name));
    let answer = match target {
        Some(member) => call(context, view, member, request, action).await,
        None => Ok(None),
    };
    match answer {
        Ok(Some(reply)) if matches!(reply.status, 200 | 202) => {
            context.terminal.line(&format!("{} {}", timestamp(), reply.body))?;
        }
        Ok(Some(reply)) => {
            let outcome = if reply.body.contains("status unknown") { "result unknown" } else { "failed" };
            let text = format!("{} {outcome}, details: {}, {}", action.title(), reply.status, reply.body);
            return Ok(context.terminal.line(&text)?);
        }
        Ok(None) => write_key(context, cluster, view, request, action).await?,
        Err(error) => {
            tracing::warn!("{error}");
            write_key(context, cluster, view, request, action).await?;
        }
    }
    let after = context.load(cluster).await?;
    Ok(context.terminal.print(&list::text_of(cluster, &after, Format::Pretty, false))?)
}

/// `None`: the member publishes no API.
async fn call(
    context: &Context,
    view: &View,
    member: &Member,
    request: &Request,
    action: Action,
) -> Result<Option<Reply>, RestError> {
    if member.api_url.is_empty() {
        return Ok(None);
    }
    // The member answers when the change is done or it has waited for max(10 s, loop_wait) twice.
    let patience = Duration::from_secs(10) + 2 * members::loop_wait(view).max(Duration::from_secs(10));
    let body = request.body();
    let post = async |path: &'static str| context.rest.call(member, Method::POST, path, Some(&body), patience).await;
    let reply = match action {
        Action::Switchover => post("/switchover").await?,
        Action::Failover => post("/failover").await?,
    };
    // Members older than the separate endpoint know `/failover` only.
    if action == Action::Switchover
        && reply.status == 501
        && reply.body.contains("Server does not support this operation")
    {
        return post("/failover").await.map(Some);
    }
    Ok(Some(reply))
}

/// Only over the key that was seen when the request was agreed on: if the call did arrive, or somebody else asked
/// meanwhile, theirs stands.
async fn write_key(
    context: &mut Context,
    cluster: &str,
    view: &View,
    request: &Request,
    action: Action,
) -> anyhow::Result<()> {
    let word = action.word();
    let expect = view.failover.as_ref().map_or(Expect::Absent, |key| Expect::Version(key.version));
    let value = layout::encode_failover(&request.key());
    let written = context.store(cluster).await?.write(Key::Failover, &value, expect).await?;
    match written {
        Written::Done { .. } => {
            let text = format!("{} Could not {word} using Patroni api, falling back to DCS", timestamp());
            Ok(context.terminal.line(&text)?)
        }
        Written::Conflict => bail!(
            "no member answered, and the failover key has changed since the table above: another {word} is under way. \
             Look again (`pgherd list {cluster}`) before you repeat it"
        ),
    }
}
