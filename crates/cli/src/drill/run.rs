//! One run of a drill: writers, the fault, the recovery, the healing, the count.
//!
//! Whatever happens in between, the fault is healed at the end, also on Ctrl-C.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;

use super::fault::{self, Caused, Expectation, Fault};
use super::key::KeyWatch;
use super::lease;
use super::measure::Term;
use super::outcome::{Circumstances, Outcome};
use super::writers::{CREATE_TABLE, Writers};
use crate::demo::cluster::{Member, Rest, postgres_at};
use crate::demo::files::SCOPE;
use crate::demo::progress::Progress;
use crate::demo::state::{Node, State};

/// Long enough for connections and caches to settle.
const WARM_UP: Duration = Duration::from_secs(2);
/// Twice what today's peers need for their slowest fault.
const RECOVERY_LIMIT: Duration = Duration::from_secs(90);
/// A rejoin may need a fresh copy of the database.
const HEALTH_LIMIT: Duration = Duration::from_secs(120);
/// Writing goes on this long after the last member is back.
const AFTERWARDS: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(10);

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub fault: Fault,
    pub writers: u8,
    /// How long writing goes on between the recovery and the healing.
    pub watch: Duration,
}

/// Does one run on a healthy demo.
pub async fn run(plan: Plan, state: &mut State, rest: &Rest, progress: &Progress) -> anyhow::Result<Outcome> {
    progress.doing("waiting until all members are healthy");
    let members = until_healthy(state, rest).await?;
    let primary = leader(state, &members)?;
    let epoch = rest.epoch(primary.rest_port).await;
    let mut known = Circumstances {
        lease: lease::granted(state.store_port, &format!("/service/{SCOPE}/leader")).await,
        primary_before: primary.name.clone(),
        ..Circumstances::default()
    };
    let entry = postgres_at(state, state.entry_port, Duration::from_secs(30))?;
    let direct = postgres_at(state, primary.postgres_port, Duration::from_secs(5))?;
    execute(&entry, CREATE_TABLE).await.context("creating the drill's table through the entrypoint failed")?;
    let writers = Writers::start(entry.clone(), direct, plan.writers)?;

    let key = KeyWatch::start(state.store_port, SCOPE).await;
    let faulted = tokio::select! {
        result = until_recovered(plan, state, &primary, rest, &writers, progress) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    progress.doing("healing the fault and waiting for all members");
    let healed = fault::heal(plan.fault, state, &primary.name).await;
    let dealt = faulted?;
    known.key_freed = key.and_then(|key| key.freed_after(dealt.fault));
    known.store_gone = dealt.store_gone;
    known.problems = dealt.problems;
    healed?;
    match until_healthy(state, rest).await {
        Ok(members) => {
            let primary = leader(state, &members)?;
            known.leader_key_changed = changed(epoch, rest.epoch(primary.rest_port).await);
            known.primary_after = Some(primary.name);
        }
        Err(error) => known.problems.push(format!("{error:#}")),
    }
    sleep(AFTERWARDS).await;
    let (record, end) = writers.finish()?;
    let found = match rows(&entry).await {
        Ok(found) => found,
        Err(error) => {
            known.problems.push(format!("the rows could not be read back, so all count as lost ({error})"));
            BTreeSet::new()
        }
    };
    progress.done(&format!("drill {}: counted", plan.fault.name()));
    Ok(Outcome::count(plan.fault, &record, end, &found, known))
}

/// What became of a fault.
struct Dealt {
    /// Just before it was caused.
    fault: Instant,
    store_gone: Option<Duration>,
    problems: Vec<String>,
}

/// Causes the fault and waits until the cluster has dealt with it.
async fn until_recovered(
    plan: Plan,
    state: &mut State,
    primary: &Node,
    rest: &Rest,
    writers: &Writers,
    progress: &Progress,
) -> anyhow::Result<Dealt> {
    progress.doing(&format!("writing through the entrypoint with {} clients", plan.writers));
    let first = first_term(writers).await?;
    sleep(WARM_UP).await;
    let (fault_at, fault) = (writers.now(), Instant::now());
    progress.doing(&format!("fault {} on {}", plan.fault.name(), primary.name));
    let caused: Caused = fault::cause(plan.fault, state, primary, rest).await?;
    let passed_at = writers.now();
    let mut problems = Vec::new();
    let recovered = || is_recovered(plan.fault.expectation(), writers, first, fault_at, passed_at);
    let end = Instant::now() + RECOVERY_LIMIT;
    while !recovered() && Instant::now() < end {
        sleep(POLL).await;
    }
    match recovered() {
        true => progress.done(&format!("drill {}: writes are acknowledged again", plan.fault.name())),
        false => problems.push(format!("writing did not recover within {} s", RECOVERY_LIMIT.as_secs())),
    }
    progress.doing("watching for a second writer");
    sleep(plan.watch).await;
    let store_gone = caused.store_gone;
    problems.extend(caused.refusal().await);
    Ok(Dealt { fault, store_gone, problems })
}

/// The server that the writers write to before the fault. The direct one must have reached the same.
async fn first_term(writers: &Writers) -> anyhow::Result<Term> {
    let end = Instant::now() + RECOVERY_LIMIT;
    loop {
        let terms = writers.look(|record| {
            let first = |one: Option<&super::measure::Insert>| one.map(|insert| insert.term);
            (first(record.through_entry().next()), first(record.direct().next()))
        });
        match terms {
            (Some(through_entry), Some(direct)) if through_entry.port == direct.port => return Ok(through_entry),
            (Some(_), Some(_)) => bail!("the entrypoint writes to another server than the leader"),
            _ if Instant::now() >= end => {
                let errors = writers.look(|record| record.failures.last().map(|failure| failure.message.clone()));
                bail!("writing did not begin within {} s: {errors:?}", RECOVERY_LIMIT.as_secs());
            }
            _ => sleep(POLL).await,
        }
    }
}

fn is_recovered(
    expectation: Expectation,
    writers: &Writers,
    first: Term,
    fault_at: Duration,
    passed_at: Duration,
) -> bool {
    writers.look(|record| {
        // From the newest backwards: the writers wait while this looks.
        let inserts = || record.through_entry().rev().take_while(|insert| insert.acknowledged >= fault_at);
        let by_another = || inserts().any(|insert| insert.term != first);
        let sent_after = |at: Duration| inserts().any(|insert| insert.sent > at);
        let first_error = || record.failures_through_entry().map(|failure| failure.at).find(|at| *at >= fault_at);
        match expectation {
            Expectation::NewPrimary => by_another(),
            Expectation::Recovery => by_another() || first_error().is_some_and(sent_after),
            Expectation::SameLeader => sent_after(passed_at),
        }
    })
}

async fn until_healthy(state: &State, rest: &Rest) -> anyhow::Result<Vec<Member>> {
    let end = Instant::now() + HEALTH_LIMIT;
    loop {
        match rest.all_healthy(&state.nodes).await {
            Ok(members) => return Ok(members),
            Err(reason) if Instant::now() >= end => {
                bail!("not all members were healthy within {} s: {reason}", HEALTH_LIMIT.as_secs());
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

fn leader(state: &State, members: &[Member]) -> anyhow::Result<Node> {
    let leader = members.iter().find(|member| member.is_leader()).context("the cluster has no leader")?;
    let node = state.nodes.iter().find(|node| node.name == leader.name);
    node.cloned().with_context(|| format!("the leader {} is no node of the demo", leader.name))
}

/// The leader key was created anew. An epoch that could not be read says nothing.
fn changed(before: Option<u64>, after: Option<u64>) -> bool {
    before.zip(after).is_some_and(|(before, after)| before != after)
}

async fn execute(config: &tokio_postgres::Config, sql: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(connection);
    client.batch_execute(sql).await
}

/// The rows of all writers on the primary of now.
async fn rows(config: &tokio_postgres::Config) -> Result<BTreeSet<(i32, i64)>, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(connection);
    let rows = client.query("SELECT writer, sequence FROM pgherd_drill", &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
