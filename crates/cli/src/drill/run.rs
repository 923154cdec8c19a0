//! One run of a drill: writers, the fault, the recovery, the healing, the count.
//!
//! Whatever happens in between, the fault is healed at the end, also on Ctrl-C, SIGTERM and SIGHUP.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;

use super::fault::{self, Caused, Fault};
use super::key::{Epochs, KeyWatch};
use super::lease;
use super::measure::Term;
use super::outcome::{Circumstances, Outcome};
use super::recovery::{self, Faulted};
use super::writers::{ANSWER_LIMIT, CREATE_TABLE, Writers};
use crate::demo::cluster::{Member, Rest, postgres_at};
use crate::demo::files::SCOPE;
use crate::demo::progress::Progress;
use crate::demo::state::{Node, State};
use crate::demo::store;
use crate::interrupts::Interrupts;

/// Long enough for connections and caches to settle.
const WARM_UP: Duration = Duration::from_secs(2);
/// Twice what today's peers need for their slowest fault, and what a session without an answer needs to be given up.
const RECOVERY_LIMIT: Duration = Duration::from_secs(90);
/// A rejoin may need a fresh copy of the database.
const HEALTH_LIMIT: Duration = Duration::from_secs(120);
/// With all members there nobody has to wait; this is for a busy machine, and shorter than a client's own patience.
const SERVED_LIMIT: Duration = Duration::from_secs(15);
/// Writing goes on this long after the last member is back.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// A running leader serves under an epoch at once; a busy machine may be late to say so.
const EPOCH_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub fault: Fault,
    /// Commits wait for standbys, so no acknowledged row may be lost.
    pub synchronous: bool,
    pub writers: u8,
    /// How long writing goes on between the recovery and the healing.
    pub watch: Duration,
}

/// Does one run on a healthy demo.
pub async fn run(
    plan: Plan,
    state: &mut State,
    rest: &Rest,
    interrupts: &mut Interrupts,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    progress.doing("waiting until all members are healthy");
    let scene = interrupts.or(set_scene(plan, state, rest)).await?;

    let mut caused = None;
    let dealt = interrupts.or(until_recovered(plan, state, &scene, rest, &mut caused, progress)).await;
    progress.doing("healing the fault and waiting for all members");
    let healed = interrupts.or(fault::heal(plan.fault, caused.is_some(), state, &scene.primary.name)).await;
    // What is still broken matters more than why the run ended.
    let unexpected = healed.context("the fault may not be healed; `pgherd demo --stop` ends the demo as it is")?;
    if dealt.is_err() {
        progress.done(&format!("drill {}: the fault is healed", plan.fault.name()));
    }
    let mut known = dealt?;
    known.problems.extend(unexpected);
    interrupts.or(until_served(state, rest, &scene, &mut known)).await?;

    let Scene { writers, key, entry, primary, .. } = scene;
    known.primary_before = primary.name;
    known.lease = scene.lease;
    known.synchronous = plan.synchronous;
    known.key_freed = key.zip(caused).and_then(|(key, fault)| key.freed_after(fault));
    known.leader_key_changed |= known.key_freed.is_some();
    let (record, end) = writers.finish()?;
    let found = match interrupts.or(async { Ok(rows(&entry).await) }).await? {
        Ok(found) => found,
        Err(error) => {
            known.problems.push(format!("the rows could not be read back, so all count as lost ({error})"));
            BTreeSet::new()
        }
    };
    progress.done(&format!("drill {}: counted", plan.fault.name()));
    Ok(Outcome::count(plan.fault, &record, end, &found, known))
}

/// What there is before the fault.
struct Scene {
    primary: Node,
    epoch: Option<u64>,
    lease: Option<Duration>,
    /// How to get in through the entrypoint.
    entry: tokio_postgres::Config,
    writers: Writers,
    key: Option<KeyWatch>,
}

async fn set_scene(plan: Plan, state: &State, rest: &Rest) -> anyhow::Result<Scene> {
    let members = until_healthy(state, rest).await?;
    let primary = leader(state, &members)?;
    let epoch = epoch(rest, &primary).await;
    let lease = lease::granted(state.store_kind, state.store_port, &format!("/service/{SCOPE}/leader")).await;
    let entry = postgres_at(state, state.entry_port, ANSWER_LIMIT)?;
    let direct = postgres_at(state, primary.postgres_port, Duration::from_secs(5))?;
    execute(&entry, CREATE_TABLE).await.context("creating the drill's table through the entrypoint failed")?;
    let key = KeyWatch::start(store::servers(state)?, SCOPE).await;
    let writers = Writers::start(entry.clone(), direct, plan.writers)?;
    Ok(Scene { primary, epoch, lease, entry, writers, key })
}

/// Causes the fault and waits until the cluster has dealt with it. `caused` is set just before.
async fn until_recovered(
    plan: Plan,
    state: &mut State,
    scene: &Scene,
    rest: &Rest,
    caused: &mut Option<Instant>,
    progress: &Progress,
) -> anyhow::Result<Circumstances> {
    let (primary, writers) = (&scene.primary, &scene.writers);
    progress.doing(&format!("writing through the entrypoint with {} clients", plan.writers));
    let first = first_term(writers).await?;
    sleep(WARM_UP).await;
    let at = writers.now();
    *caused = Some(Instant::now());
    progress.doing(&format!("fault {} on {}", plan.fault.name(), primary.name));
    let fault: Caused = fault::cause(plan.fault, state, primary, rest).await?;
    let faulted = Faulted { first, at, passed: writers.now() };
    let expectation = plan.fault.expectation();
    let mut known = Circumstances { store_gone: fault.store_gone, ..Circumstances::default() };
    let waiting = || writers.look(|record| recovery::waiting(expectation, record, faulted));
    match until_none(waiting, RECOVERY_LIMIT).await {
        left if left.is_empty() => {
            progress.done(&format!("drill {}: writes are acknowledged again", plan.fault.name()));
        }
        left => known.problems.push(format!(
            "writing did not recover within {} s for {}",
            RECOVERY_LIMIT.as_secs(),
            recovery::names(&left)
        )),
    }
    progress.doing("watching for a second writer");
    sleep(plan.watch).await;
    known.problems.extend(fault.refusal().await);
    Ok(known)
}

/// Waits until all members are healthy and every writer is served again; what is not becomes a problem.
async fn until_served(state: &State, rest: &Rest, scene: &Scene, known: &mut Circumstances) -> anyhow::Result<()> {
    match until_healthy(state, rest).await {
        Ok(members) => {
            let primary = leader(state, &members)?;
            let epochs = Epochs { before: scene.epoch, after: epoch(rest, &primary).await };
            known.leader_key_changed = epochs.differ();
            known.problems.extend(epochs.unknown());
            if scene.key.is_none() {
                known.problems.push("the leader key could not be read from the store before the fault".into());
            }
            known.primary_after = Some(primary.name);
        }
        Err(error) => known.problems.push(format!("{error:#}")),
    }
    let since = scene.writers.now();
    sleep(AFTERWARDS).await;
    let unserved = || scene.writers.look(|record| recovery::unserved(record, since));
    let left = until_none(unserved, SERVED_LIMIT).await;
    if !left.is_empty() {
        let waited = scene.writers.now().saturating_sub(since).as_secs();
        let who = recovery::names(&left);
        known.problems.push(format!("all members were there, and {who} had no row acknowledged within {waited} s"));
    }
    Ok(())
}

/// Asks until the answer is empty, or the limit has passed; the last answer.
async fn until_none(ask: impl Fn() -> Vec<i32>, limit: Duration) -> Vec<i32> {
    let end = Instant::now() + limit;
    loop {
        let left = ask();
        if left.is_empty() || Instant::now() >= end {
            return left;
        }
        sleep(POLL).await;
    }
}

/// The epoch under which the primary serves; `None` if it does not say.
async fn epoch(rest: &Rest, primary: &Node) -> Option<u64> {
    let asked = async {
        loop {
            match rest.epoch(primary.rest_port).await {
                Some(epoch) => return epoch,
                None => sleep(POLL).await,
            }
        }
    };
    tokio::time::timeout(EPOCH_LIMIT, asked).await.ok()
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
