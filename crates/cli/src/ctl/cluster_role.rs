//! `pgherd demote-cluster` and `pgherd promote-cluster`: a whole cluster becomes a copy of another one, or stands alone again.
//!
//! Both are a change of `standby_cluster` in the dynamic configuration, and the wait until it has had its effect. Tested in
//! `cluster_role_tests`, and on real clusters in `tests/it/cluster/standby_cluster.rs`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use pgherd_ha::{Member, MemberState, Role, View};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::context::{Access, Context};
use super::table::Format;
use super::{list, rest};

/// Between two looks at the cluster; each is a line of output.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Args, Clone, Debug, Default)]
pub struct DemoteArguments {
    /// The cluster [default: the configured scope]
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// The address of a server of the cluster to follow, or several with commas
    #[arg(long)]
    pub host: Option<String>,
    /// Its port
    #[arg(long)]
    pub port: Option<u16>,
    /// The command that fetches archived log of the cluster to follow
    #[arg(long, value_name = "COMMAND")]
    pub restore_command: Option<String>,
    /// The slot to use there
    #[arg(long, value_name = "NAME")]
    pub primary_slot_name: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args, Clone, Debug, Default)]
pub struct PromoteArguments {
    /// The cluster [default: the configured scope]
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub access: Access,
}

/// What the cluster is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    StandbyCluster,
    Alone,
}

impl Wanted {
    /// The beginning of `demote`, `demoted` and `demotion`.
    fn stem(self) -> &'static str {
        match self {
            Wanted::StandbyCluster => "demot",
            Wanted::Alone => "promot",
        }
    }

    fn leader(self) -> Role {
        match self {
            Wanted::StandbyCluster => Role::StandbyLeader,
            Wanted::Alone => Role::Primary,
        }
    }
}

pub async fn demote(arguments: DemoteArguments, context: &mut Context) -> anyhow::Result<()> {
    let DemoteArguments { cluster, host, port, restore_command, primary_slot_name, force, .. } = arguments;
    let text = |value: Option<String>| value.filter(|text| !text.is_empty()).map(Value::from);
    let (host, restore_command) = (text(host), text(restore_command));
    if host.is_none() && port.is_none() && restore_command.is_none() {
        bail!("At least --host, --port or --restore-command should be specified");
    }
    let section = [
        ("host", host),
        ("port", port.map(Value::from)),
        ("primary_slot_name", text(primary_slot_name)),
        ("restore_command", restore_command),
    ];
    let section: Map<String, Value> =
        section.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    let cluster = context.cluster(cluster.as_deref(), "demote-cluster")?;
    change(context, &cluster, Wanted::StandbyCluster, section.into(), force).await
}

pub async fn promote(arguments: PromoteArguments, context: &mut Context) -> anyhow::Result<()> {
    let cluster = context.cluster(arguments.cluster.as_deref(), "promote-cluster")?;
    change(context, &cluster, Wanted::Alone, Value::Null, arguments.force).await
}

async fn change(
    context: &mut Context,
    cluster: &str,
    wanted: Wanted,
    section: Value,
    force: bool,
) -> anyhow::Result<()> {
    let stem = wanted.stem();
    let view = context.load(cluster).await?;
    let leader = view.leader.as_ref().map(|leader| leader.name.clone());
    let leader = leader.with_context(|| format!("Cluster has no leader, {stem}ion is not possible"))?;
    if view.leader_member().is_some_and(|member| member.role == wanted.leader()) {
        bail!("Cluster is already in the required state");
    }
    context.terminal.line("Current cluster topology")?;
    context.terminal.print(&list::text_of(cluster, &view, Format::Pretty, false))?;
    if !force && !context.terminal.confirm(&format!("Are you sure you want to {stem}e {cluster} cluster?")).await? {
        bail!("Aborted cluster {stem}ion");
    }
    order(context, cluster, &view, wanted, section).await?;
    wait(context, cluster, wanted, &leader).await
}

/// The leader makes the change: it is the one that acts on it.
async fn order(context: &Context, cluster: &str, view: &View, wanted: Wanted, section: Value) -> anyhow::Result<()> {
    let failed = || format!("Failed to {}e {cluster} cluster", wanted.stem());
    let leader = view.leader_member().with_context(|| format!("{}: its leader is not registered", failed()))?;
    let change = json!({ "standby_cluster": section });
    let reply = context.rest.call(leader, Method::PATCH, "/config", Some(&change), rest::SHORT).await;
    let reply = reply.with_context(failed)?;
    if reply.status != 200 {
        bail!("{}: /config PATCH status code={}, ({})", failed(), reply.status, reply.body);
    }
    Ok(())
}

/// Until the leader is what it is to be, and the one of before runs as well. That may take as long as copying takes.
async fn wait(context: &mut Context, cluster: &str, wanted: Wanted, old: &str) -> anyhow::Result<()> {
    loop {
        let view = context.load(cluster).await?;
        let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
        if is_done(&view, wanted, old) {
            context.terminal.line(&format!("{now} cluster is successfully {}ed", wanted.stem()))?;
            return context.terminal.print(&list::text_of(cluster, &view, Format::Pretty, false)).map_err(Into::into);
        }
        context.terminal.line(&format!("{now} {}", progress(&view, wanted, old)))?;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn is_running(member: &Member) -> bool {
    member.state == MemberState::Running
}

fn is_done(view: &View, wanted: Wanted, old: &str) -> bool {
    let leads = view.leader_member().is_some_and(|leader| leader.role == wanted.leader() && is_running(leader));
    leads && (wanted == Wanted::Alone || view.member(old).is_some_and(is_running))
}

fn progress(view: &View, wanted: Wanted, old: &str) -> String {
    let leader = view.leader_member();
    let unlocked = if view.leader.is_none() { "True" } else { "False" };
    let role = leader.map_or("None", |leader| leader.role.as_str());
    let state = leader.map_or("None", |leader| leader.state.as_str());
    let mut text = format!("cluster is unlocked: {unlocked}, leader role: {role}, leader state: {state}");
    let another = leader.filter(|leader| wanted == Wanted::StandbyCluster && leader.name != old);
    if let Some(former) = another.and_then(|_| view.member(old)) {
        text.push_str(&format!(", previous leader state: '{}'", former.state.as_str()));
    }
    text
}
