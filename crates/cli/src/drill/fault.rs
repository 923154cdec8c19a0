//! The faults of a drill: how each is caused on real processes, and how it is healed.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::demo::cluster::Rest;
use crate::demo::launch::{Launch, Process};
use crate::demo::processes::{Identity, marked, postgres_in, postmaster_of};
use crate::demo::state::{Node, State};

/// What happens to the primary's node, or to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The agent is told to stop (SIGTERM), and stops its PostgreSQL.
    #[default]
    Stop,
    /// The postmaster is killed (SIGKILL).
    KillPostgres,
    /// The agent is killed (SIGKILL); PostgreSQL and the guard are left.
    KillAgent,
    /// The agent is stopped (SIGSTOP) until the end of the drill.
    HangAgent,
    /// Agent, guard and PostgreSQL of the node are killed (SIGKILL) in one go. Unlike on a lost machine, the kernel
    /// still closes the connections.
    KillHost,
    /// A planned switchover to any standby.
    Switchover,
    /// The store is killed (SIGKILL) and back within 3 s. No change of leader is expected.
    RestartStore,
    /// Nobody reaches the store for 1 s: it is stopped (SIGSTOP), so its answers come late, and then continued. No
    /// change of leader is expected.
    Blip,
    /// The agent is stopped (SIGSTOP) for 2 s. No change of leader is expected.
    HangAgentBriefly,
    /// Sixteen busy loops on every core for 10 s. No change of leader is expected.
    CpuLoad,
    /// In each run another of those that take the primary away, at random.
    Any,
}

/// How one sees that the cluster has dealt with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Another server acknowledges.
    NewPrimary,
    /// After the first error, or on another server, somebody acknowledges.
    Recovery,
    /// The leader stays; somebody acknowledges after the fault has passed.
    SameLeader,
}

/// The store is down this long before it is started again; ZooKeeper then needs 0.3 s, or a second more on a busy machine.
const STORE_DOWN: Duration = Duration::from_millis(1500);
const STORE_START_LIMIT: Duration = Duration::from_secs(30);
const BLIP: Duration = Duration::from_secs(1);
const BRIEF_HANG: Duration = Duration::from_secs(2);
const LOAD: Duration = Duration::from_secs(10);
const LOAD_FACTOR: usize = 16;
/// A stop waits for a checkpoint and for the standbys to have received it.
const ORDERLY_STOP: Duration = Duration::from_secs(60);
/// The agent itself gives up on a switchover after about 20 s.
const SWITCHOVER_LIMIT: Duration = Duration::from_secs(40);

impl Fault {
    pub fn expectation(self) -> Expectation {
        match self {
            Fault::Stop | Fault::KillAgent | Fault::HangAgent | Fault::KillHost | Fault::Switchover => {
                Expectation::NewPrimary
            }
            Fault::KillPostgres | Fault::Any => Expectation::Recovery,
            Fault::RestartStore | Fault::Blip | Fault::HangAgentBriefly | Fault::CpuLoad => Expectation::SameLeader,
        }
    }

    /// Itself, or what [`Fault::Any`] stands for in this run.
    pub fn concrete(self) -> anyhow::Result<Fault> {
        const TAKE_THE_PRIMARY: [Fault; 6] =
            [Fault::Stop, Fault::KillPostgres, Fault::KillAgent, Fault::HangAgent, Fault::KillHost, Fault::Switchover];
        if self != Fault::Any {
            return Ok(self);
        }
        let number = getrandom::u32().map_err(|error| anyhow::anyhow!("the kernel gave no random number: {error}"))?;
        Ok(TAKE_THE_PRIMARY[usize::try_from(number)? % TAKE_THE_PRIMARY.len()])
    }

    /// The primary shuts down in order: what it acknowledged must be on its successor.
    pub fn is_planned(self) -> bool {
        matches!(self, Fault::Stop | Fault::Switchover)
    }

    /// The primary's agent ends by it.
    fn ends_the_agent(self) -> bool {
        matches!(self, Fault::Stop | Fault::KillAgent | Fault::KillHost)
    }

    /// The name as on the command line.
    pub fn name(self) -> String {
        use clap::ValueEnum as _;
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// A fault that has been caused.
#[derive(Debug, Default)]
pub struct Caused {
    /// How long the store did not answer, if it was restarted.
    pub store_gone: Option<Duration>,
    /// The answer to the request of a switchover, which arrives when it is over.
    request: Option<JoinHandle<anyhow::Result<(u16, String)>>>,
}

impl Caused {
    /// Why the operator's request was refused, if the fault was one and it was.
    pub async fn refusal(self) -> Option<String> {
        match self.request?.await {
            Ok(Ok((200, _))) => None,
            Ok(Ok((status, text))) => Some(format!("the switchover was answered with {status}: {text}")),
            Ok(Err(error)) => Some(format!("the request of a switchover failed: {error:#}")),
            Err(error) => Some(format!("the request of a switchover failed: {error}")),
        }
    }
}

/// Causes the fault on the node that is the primary. A fault that passes by itself has passed on return.
pub async fn cause(fault: Fault, state: &mut State, primary: &Node, rest: &Rest) -> anyhow::Result<Caused> {
    let agent = primary.agent.as_ref().with_context(|| format!("{} has no agent", primary.name))?.identity;
    match fault {
        Fault::Any => bail!("`any` stands for another fault, which is picked before it is caused"),
        Fault::Stop => agent.signal(Signal::TERM)?,
        Fault::KillAgent => agent.signal(Signal::KILL)?,
        Fault::HangAgent => agent.signal(Signal::STOP)?,
        Fault::HangAgentBriefly => {
            agent.signal(Signal::STOP)?;
            sleep(BRIEF_HANG).await;
            agent.signal(Signal::CONT)?;
        }
        Fault::KillPostgres => {
            let postmaster = postmaster_of(&primary.data_directory);
            postmaster.with_context(|| format!("{} has no running postmaster", primary.name))?.signal(Signal::KILL)?;
        }
        Fault::KillHost => kill_host(state, primary, agent)?,
        Fault::Switchover => return Ok(request_switchover(primary, rest)),
        Fault::RestartStore => return Ok(Caused { store_gone: Some(restart_store(state).await?), request: None }),
        Fault::Blip => {
            let store = store_of(state)?;
            store.signal(Signal::STOP)?;
            sleep(BLIP).await;
            store.signal(Signal::CONT)?;
        }
        Fault::CpuLoad => load_cpus().await?,
    }
    Ok(Caused::default())
}

/// Finds everything first and kills it without a pause; what was forked in between is killed after it.
fn kill_host(state: &State, primary: &Node, agent: Identity) -> anyhow::Result<()> {
    let everything = || {
        let mut all = vec![agent];
        all.extend(marked(&state.directory, Some(&primary.name)));
        all.extend(postgres_in(&primary.data_directory));
        let unique: BTreeSet<i32> = all.iter().filter(|one| one.is_alive()).map(|one| one.pid).collect();
        unique.into_iter().filter_map(Identity::of).collect::<Vec<_>>()
    };
    // A killed process may take a moment to disappear; a hundred rounds are more than a second.
    for _ in 0..100 {
        let all = everything();
        if all.is_empty() {
            return Ok(());
        }
        for process in all {
            process.signal(Signal::KILL)?;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("some processes of {} survived SIGKILL for a second", primary.name)
}

fn request_switchover(primary: &Node, rest: &Rest) -> Caused {
    let (rest, port, body) = (rest.clone(), primary.rest_port, json!({ "leader": primary.name }));
    let request = async move { rest.post(port, "/switchover", &body, SWITCHOVER_LIMIT).await };
    Caused { request: Some(tokio::spawn(request)), store_gone: None }
}

/// Of a demo whose store is in its agents.
const NO_STORE: &str = "the members of this demo's store are in its agents, and end with them; choose another fault";

fn store_of(state: &State) -> anyhow::Result<Identity> {
    Ok(state.store.as_ref().context(NO_STORE)?.identity)
}

/// Kills the store and starts it again; how long nobody could connect to it.
async fn restart_store(state: &mut State) -> anyhow::Result<Duration> {
    let store = state.store.clone().context(NO_STORE)?;
    let killed = Instant::now();
    store.identity.signal(Signal::KILL)?;
    sleep(STORE_DOWN).await;
    state.store = Some(store.launch.start().context("starting the store again failed")?);
    state.save()?;
    while TcpStream::connect(("127.0.0.1", state.store_port)).await.is_err() {
        if killed.elapsed() > STORE_DOWN + STORE_START_LIMIT {
            bail!("the store was started again, but nobody can connect to it");
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(killed.elapsed())
}

/// `timeout` ends the loops even if the drill is killed before.
async fn load_cpus() -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let seconds = LOAD.as_secs().to_string();
    let mut loops = Vec::new();
    for _ in 0..cores * LOAD_FACTOR {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", &seconds, "sh", "-c", "while :; do :; done"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        loops.push(command.spawn().context("starting the load (timeout, sh) failed")?);
    }
    sleep(LOAD).await;
    for mut one in loops {
        tokio::task::spawn_blocking(move || one.wait()).await??;
    }
    Ok(())
}

/// Undoes the fault: continues what was stopped and starts what has ended, with the same command lines. Returns, in
/// sentences, what had ended although the fault was not to end it; `caused` is whether it has been caused at all.
pub async fn heal(fault: Fault, caused: bool, state: &mut State, primary: &str) -> anyhow::Result<Vec<String>> {
    for process in state.processes() {
        process.identity.signal(Signal::CONT)?;
    }
    let mut unexpected = Vec::new();
    for index in 0..state.nodes.len() {
        let Some(agent) = state.nodes[index].agent.clone() else { continue };
        let to_end = caused && fault.ends_the_agent() && state.nodes[index].name == primary;
        if to_end && !agent.identity.ended_within(ORDERLY_STOP).await {
            bail!("{} has not ended {} s after it was told to", agent.launch.name, ORDERLY_STOP.as_secs());
        }
        if !agent.identity.is_alive() {
            unexpected.extend((!to_end).then(|| found_dead(&agent)));
            state.nodes[index].agent = Some(started_again(&agent)?);
            state.save()?;
        }
    }
    if let Some(entry) = state.entry.clone().filter(|entry| !entry.identity.is_alive()) {
        unexpected.push(found_dead(&entry));
        state.entry = Some(started_again(&entry)?);
        state.save()?;
    }
    if let Some(store) = state.store.clone().filter(|store| !store.identity.is_alive()) {
        unexpected.extend((!(caused && fault == Fault::RestartStore)).then(|| found_dead(&store)));
        restart_store(state).await?;
    }
    Ok(unexpected)
}

fn found_dead(process: &Process) -> String {
    let Launch { name, log, .. } = &process.launch;
    format!("{name} had ended, which was no part of the fault; it was started again, and its log is {}", log.display())
}

fn started_again(process: &Process) -> anyhow::Result<Process> {
    process.launch.start().with_context(|| format!("starting {} again failed", process.launch.name))
}
