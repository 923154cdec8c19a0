//! The daemon: the thin driver of `pgherd_ha::Agent` on a real machine.
//!
//! Two threads matter. The main thread runs the [loop](round) and the REST API; the [lease](lease) thread renews and tells the guard.
//! Whatever hangs in the first never delays the second, and the second stops by itself when the first hangs for too long.
//! Tested on real servers in `tests/it`.

mod callbacks;
mod commands;
mod complaints;
mod execute;
mod failsafe;
mod fallback;
mod history;
mod jobs;
mod lease;
mod lock;
mod member;
mod node;
mod orders;
mod patience;
mod pending;
mod publish;
mod round;
mod settings;
mod signals;
mod slots;
mod store_member;
mod story;
mod systemd;
mod tell;
mod timeline;
mod tls;
mod unsupported;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pgherd_dcs::Store;
use pgherd_ha::View;
use tokio::sync::mpsc;

use self::callbacks::Callbacks;
use self::commands::Commands;
use self::failsafe::Failsafe;
use self::jobs::Jobs;
use self::lease::LeaseState;
use self::lock::{Lock, LockError};
use self::node::Node;
use self::patience::Impatient;
use self::publish::Publisher;
use self::round::{Daemon, Parts};
use self::settings::Current;
use self::signals::Signals;
use self::store_member::StoreMember;
use self::systemd::Systemd;
use crate::api::{self, ApiState, BasicAuth, PeerClient};
use crate::config::{Config, Environment};
use crate::guard::GuardMode;
use crate::log;
use crate::postgres::installation;
use crate::postgres::probe::WriteProbe;
use crate::postgres::unfinished::Unfinished;
use crate::privileges::{DEFAULT_USER, leave_root};
use crate::watchdog::Watchdog;

/// Between two writes of the probe to the data directory.
const PROBE: Duration = Duration::from_secs(1);

/// Patroni's exit code where the log takes no lines any more.
const LOG_HANGS: u8 = 5;

/// Threads for what blocks: files, names to resolve. Idle ones cost nothing, and look-ups of a name server that is gone must not keep a
/// configuration from being written.
const BLOCKING_THREADS: usize = 32;

/// How long a peer's connection may take to open.
const PEER_CONNECT: Duration = Duration::from_secs(1);

/// Runs the agent until it is told to stop. `path`: the YAML file or a directory of them; without, the environment alone.
pub fn run(path: Option<&Path>) -> ExitCode {
    let code = match start(path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("pgherd ends: {error:#}");
            ExitCode::FAILURE
        }
    };
    if log::finish() { code } else { ExitCode::from(LOG_HANGS) }
}

fn start(path: Option<&Path>) -> anyhow::Result<()> {
    let environment = Environment::of_process();
    let config = Config::load(path, &environment)?;
    leave_root(DEFAULT_USER, Some(&config.node.data_dir), required_watchdog(&config))?;
    log::apply(&config.log);
    for warning in &config.warnings.0 {
        tracing::warn!("{warning}");
    }
    let guard = guard_mode(&config);
    let current = Current::new(config, guard);
    current.warn();
    rustls::crypto::ring::default_provider().install_default().ok();
    // One thread: what the agent does is waiting, and a second one would cost memory without serving anybody.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
    let result = runtime.block_on(serve(current, path, environment));
    // A blocking write to a hung disk must not keep the process from ending.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(mut current: Current, path: Option<&Path>, environment: Environment) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let alone = alone(&current)?;
    if alone.is_some() {
        end_survivors(&current.config.node.data_dir).await?;
    }
    let server = current.server(pgherd_ha::Role::Replica);
    installation::check_programs(&server)?;
    let version = installation::version(&server).await?;
    current.ask_for_acceptance().await;
    let server = current.server(pgherd_ha::Role::Replica);
    tracing::info!("pgherd {} on {}, PostgreSQL {}", env!("CARGO_PKG_VERSION"), current.identity.name, version);
    let timing = current.dynamic.timing;
    let watchdog = Watchdog::start(current.watchdog())?;
    let lease = LeaseState::new(watchdog);
    lease.set_times(timing.ttl, timing.loop_wait);
    let member = match current.store_member().context("the section `store`")? {
        Some(options) => Some(StoreMember::start(options).await?),
        None => None,
    };
    let store: Arc<dyn Store> = lease::start(current.store_options(), lease.clone()).await?;
    let peers = peer_client(&current)?;
    refuse_second_of_name(&current, &store, &peers).await?;
    let (orders, receiver) = mpsc::channel(api::QUEUE);
    let (questions, asked) = mpsc::channel(api::FAILSAFE_QUEUE);
    let mut node = Node::new(server.clone(), version.major);
    recover_unfinished(&server.data_dir)?;
    match node.find() {
        // Whose directory may not be looked into waits until it may; the loop says so.
        Err(error) if error.is_denied() => {}
        found => found.context("looking for a running PostgreSQL")?,
    }
    let publisher = Publisher::new(&current).await?;
    let state = ApiState {
        snapshot: publisher.snapshot.clone(),
        permit: lease.permit.clone(),
        route: publisher.route_source(),
        commands: orders,
        failsafe: questions,
        store: store.clone(),
        peers: peers.clone(),
        settings: publisher.settings.clone(),
    };
    let listen = api::resolve_listen(&current.config.restapi.listen.to_string()).await?;
    let api = api::serve(&listen, state)?;
    let jobs = Jobs::new(WriteProbe::start(&server.data_dir, PROBE)?);
    let callbacks = Callbacks::take_over(&server.data_dir);
    let parts = Parts {
        current,
        path: path.map(Path::to_owned),
        environment,
        node,
        jobs,
        callbacks,
        store: Arc::new(Impatient::new(store, lease.permit.clone())),
        lease,
        peers,
        publisher,
        commands: Commands::new(receiver),
        failsafe: Failsafe::new(asked),
        signals,
        api,
        systemd: Systemd::connect(),
    };
    let result = Box::pin(Daemon::new(parts).run()).await.map_err(anyhow::Error::msg);
    if let Some(member) = member {
        member.stop().await;
    }
    result
}

/// Commands of the user's that a killed agent has left at work: nobody waits for them any more, and they must not meet those of this agent.
async fn end_survivors(data_dir: &Path) -> anyhow::Result<()> {
    let half = Unfinished::is_set(data_dir);
    match crate::survivors::end_awaited(data_dir, half).await {
        Ok(0) => Ok(()),
        Ok(ended) => {
            tracing::warn!(
                "the agent before was killed while a command of the user's ran for it, which is ended ({ended} processes)"
            );
            Ok(())
        }
        // A hook that hangs is no reason to leave PostgreSQL without its agent.
        Err(error) if !half => {
            tracing::error!("{error}");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// A user's command that filled the directory was cut off with the agent that ran it.
fn recover_unfinished(data_dir: &Path) -> anyhow::Result<()> {
    match crate::guard::scan::processes_of(data_dir) {
        Ok(left) if left.is_empty() => {
            crate::postgres::unfinished::recover(data_dir).map_err(|error| anyhow::anyhow!(error.full()))
        }
        // Somebody still works on it; the loop sees what it is.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The device that PostgreSQL's user must be able to open. One that is only wanted where it works stays as it is: nobody's machine is to be
/// reset because of a default.
fn required_watchdog(config: &Config) -> Option<&Path> {
    let watchdog = &config.watchdog;
    (watchdog.mode == crate::config::Demand::Required).then_some(watchdog.device.as_path())
}

fn guard_mode(config: &Config) -> GuardMode {
    use crate::config::Demand;
    match config.guard {
        Demand::Required => GuardMode::Required,
        Demand::Automatic => GuardMode::Automatic,
        Demand::Off => GuardMode::Off,
    }
}

fn peer_client(current: &Current) -> anyhow::Result<PeerClient> {
    let login = current.config.ctl.authentication.as_ref().or(current.config.restapi.authentication.as_ref());
    let auth = login.map(|login| BasicAuth::new(&login.username, login.password.expose()));
    let tls = tls::to_peers(&current.config.ctl).context("ctl.certfile")?;
    Ok(PeerClient::new(auth.as_ref(), tls, PEER_CONNECT)?)
}

/// A directory beside which nothing can be written has no kept session either, which is what a second agent could take.
fn alone(current: &Current) -> anyhow::Result<Option<Lock>> {
    let Some(path) = current.lock_file() else { return Ok(None) };
    match lock::lock(&current.config.node.data_dir, &path) {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ LockError::Held { .. }) => Err(error.into()),
        Err(error @ LockError::File { .. }) => {
            tracing::warn!("{:#}", anyhow::Error::from(error));
            Ok(None)
        }
    }
}

/// Two processes of one name would take turns in one member key. Where the store does not answer yet, the loop asks once it does.
async fn refuse_second_of_name(current: &Current, store: &Arc<dyn Store>, peers: &PeerClient) -> anyhow::Result<()> {
    let Ok(Ok(view)) = tokio::time::timeout(Duration::from_secs(2), store.load()).await else { return Ok(()) };
    match second_of_name(&view, &current.identity.name, peers).await {
        Some(refusal) => anyhow::bail!(refusal),
        None => Ok(()),
    }
}

/// Any answer from the registered address means that another node of this name lives.
async fn second_of_name(view: &View, name: &str, peers: &PeerClient) -> Option<String> {
    let member = view.member(name)?;
    peers.answers(&member.api_url, Duration::from_secs(3)).await.then(|| {
        format!(
            "Can't start; there is already a node named '{}' running ({}): stop it, or give this one another name",
            member.name, member.api_url
        )
    })
}
