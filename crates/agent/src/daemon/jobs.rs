//! The long actions: one at a time, in the background, each ending with a report that the loop takes in.
//!
//! A job decides nothing. It may be cut off at any of its awaits: what it leaves behind is what a later observation finds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{
    Boot, Divergence, Epoch, Job, Permit, SlotChange, SlotKind, StandbyNames, StopMode, Timeline, Verdict,
};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::lease::LeaseState;
use super::node::Postmaster;
use super::slots;
use crate::children;
use crate::guard::{Guard, GuardMode, Spawn, scan, start_unguarded};
use crate::postgres::archive;
use crate::postgres::base_backup::{self, CopyProgress};
use crate::postgres::lineage::{
    LeaderLineage, LocalKind, LocalPosition, RewindVerdict, needs_rewind, other_beginning, parse_history,
};
use crate::postgres::probe::WriteProbe;
use crate::postgres::unfinished::Unfinished;
use crate::postgres::{
    self, Connection, ControlData, Marker, Observation, Purpose, Recovery, ReplicaMethod, Server, Upstream,
    config_files, history_files, hooks, initdb, installation, own_method, parameters, promote, rewind, roles,
    slot_copy, start, stop,
};
use crate::user_command::UserCommand;

/// initdb writes some 40 MB.
const INITDB: Duration = Duration::from_secs(120);
/// A promotion takes 20 to 160 ms once the receiver is gone.
const PROMOTE: Duration = Duration::from_secs(30);
/// How long the receiver may take to go. Promotion works without, but may then sleep (`postgres-facts` 1).
const SETTLE: Duration = Duration::from_secs(2);
/// What logical slots lag behind is what was written within a `loop_wait`, which is read in milliseconds. Longer is not worth the wait: their
/// consumers get again what they have confirmed since.
const SLOTS_BEFORE: Duration = Duration::from_millis(300);
/// A standby that streams has replayed within milliseconds what a consumer has confirmed.
const REPLAYED: Duration = Duration::from_secs(10);
/// A checkpoint before a planned stop shortens the stop (`postgres-facts` 14). One that takes longer has done part of the work, and whoever
/// told the agent to stop kills it after some seconds (10 in Docker).
const CHECKPOINT_BEFORE: Duration = Duration::from_secs(5);
/// A checkpoint in the background may take as long as the disk does.
const CHECKPOINT: Duration = Duration::from_secs(600);
/// An immediate stop takes 20 to 170 ms; a postmaster that is stopped (SIGSTOP) or wedged does not hear of it at all.
const IMMEDIATE: Duration = Duration::from_secs(5);
/// A walsender whose standby does not answer within this time would hold up a fast stop (`postgres-facts` 13).
const STANDBY_ANSWERS: Duration = Duration::from_secs(1);
/// Crash recovery of a former primary before it is rewound: it replays all since its last checkpoint and syncs the whole directory. Cut
/// off, all that remains is a copy, which takes longer still.
const CRASH_RECOVERY: Duration = Duration::from_secs(3600);
/// How long a copy or a rewind may stand still: neither a word of the program nor a byte that it reads or writes. A checkpoint of
/// the source and the sync at the end can take minutes.
const STANDSTILL: Duration = Duration::from_secs(600);

/// The job in progress, and the threads and tasks that serve the server beside it.
#[derive(Debug)]
pub struct Jobs {
    running: Option<Current>,
    /// The last job, if it has failed: that it is tried again is no news.
    failed: Option<&'static str>,
    checkpoint: Option<JoinHandle<bool>>,
    pub probe: WriteProbe,
}

#[derive(Debug)]
struct Current {
    job: Job,
    since: Boot,
    task: JoinHandle<Result<Report, String>>,
}

/// A job's end.
#[derive(Debug)]
pub struct Ended {
    pub job: Job,
    pub since: Boot,
    pub result: Result<Report, String>,
}

/// What a job has changed.
#[derive(Debug, Default)]
pub struct Report {
    /// A postmaster was started (`Some(Some)`), or none is left (`Some(None)`).
    pub postmaster: Option<Option<Postmaster>>,
    /// Where the written recovery settings point to now.
    pub following: Option<Option<pgherd_ha::Upstream>>,
    pub divergence: Option<Divergence>,
    /// The timelines of the leader that was compared with.
    pub lineage: Vec<Timeline>,
    /// The data was replaced or rewound: what was known of its history is void.
    pub new_data: bool,
    /// The server has just left recovery.
    pub promoted: bool,
    /// The new cluster is complete.
    pub bootstrapped: bool,
    /// Where the slots were when the server was about to stop.
    pub slots: Option<BTreeMap<String, u64>>,
    /// Why the standby does not stream, for the operator.
    pub complaint: Option<String>,
}

/// What a job may use.
#[derive(Clone, Debug)]
pub struct Context {
    pub server: Arc<Server>,
    pub lease: Arc<LeaseState>,
    pub guard: GuardMode,
    /// `pg_ctl_timeout`: an orderly stop that takes longer is a failure, and the decision is made anew.
    pub stop_timeout: Duration,
    /// The name of this node's slot on its upstream, where slots are used.
    pub slot: Option<String>,
    pub postmaster: Option<Postmaster>,
    pub control: Option<ControlData>,
    pub seen: Option<Observation>,
    pub following: Option<pgherd_ha::Upstream>,
    /// The timelines of the leader that leads now, if our history has been compared with its.
    pub lineage: Option<Vec<Timeline>>,
    /// The newest timeline that the store shows of any server.
    pub timeline_of_others: Timeline,
    /// The standby has not streamed for a while.
    pub stalls: bool,
    /// The leader is a standby, too.
    pub standby_cluster: bool,
}

impl Jobs {
    pub fn new(probe: WriteProbe) -> Jobs {
        Jobs { running: None, failed: None, checkpoint: None, probe }
    }

    pub fn in_progress(&self) -> Option<(&Job, Boot)> {
        self.running.as_ref().map(|current| (&current.job, current.since))
    }

    /// Begins a job; one in progress is cut off first.
    pub async fn begin(&mut self, job: Job, context: Context) {
        self.cancel().await;
        // It is asked for again and again while a leader does not answer, and its verdict is logged when there is one.
        match job {
            Job::CheckDivergence { .. } => tracing::debug!("begin: {}", job.name()),
            _ if self.failed == Some(job.name()) => tracing::debug!("begin: {}, again", job.name()),
            _ => tracing::info!("begin: {}", job.name()),
        }
        let task = tokio::spawn(run(job.clone(), context));
        self.running = Some(Current { job, since: boot_now(), task });
    }

    /// Cuts the job off and waits until it is gone, with the child processes that it ran.
    pub async fn cancel(&mut self) {
        if let Some(current) = self.running.take() {
            current.task.abort();
            let cut = current.task.await;
            if cut.is_err_and(|error| error.is_cancelled()) {
                tracing::info!("cut off: {}", current.job.name());
            }
        }
    }

    /// Completes when the job in progress ends, or a background checkpoint; never if there is none.
    pub async fn next_end(&mut self) -> Ended {
        let Some(current) = &mut self.running else { return std::future::pending().await };
        let result = match (&mut current.task).await {
            Ok(result) => result,
            Err(error) => Err(format!("the job broke off: {error}")),
        };
        let (job, since) = (current.job.clone(), current.since);
        if !matches!(job, Job::CheckDivergence { .. }) {
            self.failed = result.is_err().then(|| job.name());
        }
        self.running = None;
        Ended { job, since, result }
    }

    /// A checkpoint in the background, unless one is in progress.
    pub fn checkpoint(&mut self, server: &Arc<Server>) {
        if self.checkpoint.is_some() {
            return;
        }
        let server = server.clone();
        self.checkpoint = Some(tokio::spawn(async move {
            match promote::checkpoint(&server, CHECKPOINT).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!("{}", error.full());
                    false
                }
            }
        }));
    }

    /// Whether the background checkpoint has ended well since the last call.
    pub async fn checkpointed(&mut self) -> bool {
        if !self.checkpoint.as_ref().is_some_and(JoinHandle::is_finished) {
            return false;
        }
        match self.checkpoint.take() {
            Some(task) => task.await.unwrap_or(false),
            None => false,
        }
    }
}

async fn run(job: Job, context: Context) -> Result<Report, String> {
    match job {
        Job::Initdb => {
            installation::check_programs(&context.server).map_err(full)?;
            initdb::initdb(&context.server, INITDB)
                .await
                .map_err(|error| with_advice(&context.server, error.full()))?;
            Ok(Report { new_data: true, ..Report::default() })
        }
        Job::CustomBootstrap => custom_bootstrap(&context).await,
        Job::PostBootstrap { .. } => make_roles(&context).await,
        Job::AbandonBootstrap => abandon_bootstrap(&context).await,
        Job::Clone { source, make_room, from_leader } => {
            make_replica(&context, source.as_ref(), make_room, from_leader).await
        }
        Job::PrePromote { .. } => pre_promote(&context).await,
        Job::CheckDivergence { epoch, leader } => check_divergence(&context, epoch, &leader).await,
        Job::Rewind { source } => rewind_to(&context, &source).await,
        Job::StartPrimary { .. } => start_primary(&context).await,
        Job::StartStandby { upstream } => start_standby(&context, upstream).await,
        Job::CopySlots { source, slots } => copy_slots(&context, &source, &slots).await,
        Job::Promote { timeline, names, slots, .. } => promote_server(&context, timeline, names, &slots).await,
        Job::Stop(mode) => {
            let slots = stop_server(&context, mode).await?;
            if mode == StopMode::Demotion {
                archive_shutdown(&context).await;
            }
            Ok(Report { postmaster: Some(None), slots, ..Report::default() })
        }
        Job::Restart { epoch, .. } => restart(&context, epoch).await,
    }
}

async fn custom_bootstrap(context: &Context) -> Result<Report, String> {
    let Some(custom) = &context.server.custom_bootstrap else {
        return Err("the configuration names no method any more to make a cluster with".into());
    };
    own_method::bootstrap(&context.server, custom).await.map_err(full)?;
    Ok(Report { new_data: true, ..Report::default() })
}

async fn make_roles(context: &Context) -> Result<Report, String> {
    let server = &context.server;
    let mut connection = Connection::new(server, Purpose::Heartbeat);
    roles::create_roles(&mut connection).await.map_err(full)?;
    if let Some(command) = &server.hooks.post_bootstrap {
        tracing::info!("running bootstrap.post_bootstrap: {command}");
        let login = hooks::local_login(server).map_err(full)?;
        command.with([login.conninfo]).run(&login.environment, None).await.map_err(|error| error.to_string())?;
    }
    Marker::NewCluster.clear(&server.data_dir).map_err(full)?;
    Ok(Report { bootstrapped: true, ..Report::default() })
}

async fn abandon_bootstrap(context: &Context) -> Result<Report, String> {
    stop_server(context, StopMode::Immediate).await?;
    let data_dir = context.server.data_dir.clone();
    let moved = tokio::task::spawn_blocking(move || postgres::data_directory::move_failed_aside(&data_dir)).await;
    let moved = moved.map_err(|error| error.to_string())?.map_err(full)?;
    if let Some(aside) = moved {
        tracing::warn!("what was made of the new cluster lies in {}", aside.display());
    }
    Ok(Report { postmaster: Some(None), new_data: true, following: Some(None), ..Report::default() })
}

/// Its failure is the decision's to judge.
async fn pre_promote(context: &Context) -> Result<Report, String> {
    if let Some(command) = &context.server.hooks.pre_promote {
        tracing::info!("running pre_promote: {command}");
        command.run(&[], None).await.map_err(|error| error.to_string())?;
    }
    Ok(Report::default())
}

/// Ours is stopped first: the copy takes its place as soon as it is complete. The methods are tried in the order of the configuration.
async fn make_replica(
    context: &Context,
    source: Option<&pgherd_ha::Upstream>,
    make_room: bool,
    from_leader: bool,
) -> Result<Report, String> {
    stop_server(context, StopMode::Fast).await?;
    if context.control.is_some() {
        archive::archive_ready(&context.server).await;
    }
    let server = &context.server;
    let base_backup = [ReplicaMethod::BaseBackup];
    let of_another = source.is_none_or(|source| source.remote.is_some()) && !server.standby_cluster_methods.is_empty();
    let methods = match (from_leader, of_another) {
        (true, _) => base_backup.as_slice(),
        (false, true) => server.standby_cluster_methods.as_slice(),
        (false, false) => server.replica_methods.as_slice(),
    };
    let mut failures = Vec::new();
    for method in methods {
        let made = match (method, source) {
            (ReplicaMethod::BaseBackup, Some(source)) => copy(context, source, make_room).await,
            (ReplicaMethod::Own(method), Some(source)) => {
                let upstream = Upstream { host: source.host.clone(), port: source.port, slot: None };
                own_method::make_replica(server, method, Some(&upstream), make_room).await.map_err(full)
            }
            (ReplicaMethod::Own(method), None) if method.no_leader => {
                own_method::make_replica(server, method, None, make_room).await.map_err(full)
            }
            (ReplicaMethod::BaseBackup | ReplicaMethod::Own(_), None) => continue,
        };
        match made {
            Ok(()) => {
                Unfinished::clear(&server.data_dir).map_err(full)?;
                return Ok(Report {
                    postmaster: Some(None),
                    new_data: true,
                    following: Some(None),
                    ..Report::default()
                });
            }
            Err(error) => failures.push(error),
        }
    }
    Err(match failures.is_empty() {
        true => "there is no server to copy from, and no method that needs none".to_owned(),
        false => failures.join("; then: "),
    })
}

async fn copy(context: &Context, source: &pgherd_ha::Upstream, make_room: bool) -> Result<(), String> {
    let (progress, mut seen) = watch::channel(CopyProgress::default());
    let upstream = server_of(source);
    let told = async {
        let mut shown = 0;
        while seen.changed().await.is_ok() {
            let CopyProgress { done, total } = *seen.borrow_and_update();
            let percent = (done * 100).checked_div(total).unwrap_or(0);
            if percent >= shown + 10 {
                shown = percent;
                tracing::info!("base backup of {}: {percent} % of {} MB", source.name, total >> 20);
            }
        }
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        result = base_backup::base_backup(&context.server, &upstream, STANDSTILL, make_room, &progress) => result,
        () = told => Ok(()),
    };
    result.map_err(|error| with_advice(&context.server, error.full()))
}

/// What to do about the commonest reasons: another server does not let this node in, the disk is full.
fn with_advice(server: &Server, error: String) -> String {
    let user = &server.replication.username;
    let advice = if error.contains("password authentication failed") || error.contains("no password supplied") {
        format!(
            "; this node logs in there as {user}: compare postgresql.authentication.replication (or PATRONI_REPLICATION_PASSWORD) of the \
             two nodes"
        )
    } else if error.contains("no pg_hba.conf entry") || error.contains("pg_hba.conf rejects") {
        format!(
            "; that server's pg_hba.conf needs a line that lets {user} in from this host, for the database `replication`"
        )
    } else if error.contains("Connection refused")
        || error.contains("timeout expired")
        || error.contains("No route to host")
    {
        "; is that server up, does it listen on this address, and does a firewall let port and host through?".to_owned()
    } else if error.contains("No space left on device") {
        let left = postgres::data_directory::free_bytes(&server.data_dir).unwrap_or(0) >> 20;
        format!(
            "; the disk of {} is full: what was begun there has been removed ({left} MB are left now) and nothing half-made is started; \
             free some space, it is tried again by itself",
            server.data_dir.display()
        )
    } else {
        String::new()
    };
    format!("{error}{advice}")
}

/// Asks the leader; one that does not answer is an unknown verdict and no failure.
async fn check_divergence(context: &Context, epoch: Epoch, leader: &pgherd_ha::Upstream) -> Result<Report, String> {
    let (verdict, lineage) = compare(context, leader).await;
    let may_stream = context.stalls && matches!(verdict, Verdict::Same | Verdict::Unknown);
    let complaint = match context.following.as_ref().filter(|_| may_stream) {
        Some(pgherd_ha::Upstream { name, host, port, .. }) => {
            let upstream = Upstream { host: host.clone(), port: *port, slot: None };
            let reason = with_advice(&context.server, rewind::why_not_streaming(&context.server, &upstream).await);
            Some(format!("this standby does not stream from {name} ({host}:{port}): {reason}"))
        }
        None => None,
    };
    let divergence = Some(Divergence { epoch, verdict, at: boot_now() });
    Ok(Report { divergence, lineage, complaint, ..Report::default() })
}

async fn compare(context: &Context, leader: &pgherd_ha::Upstream) -> (Verdict, Vec<Timeline>) {
    let name = &leader.name;
    let unknown = (Verdict::Unknown, Vec::new());
    let Some(control) = &context.control else { return unknown };
    let local = match context.seen.as_ref().map(|seen| (seen, &seen.standby)) {
        Some((seen, Some(standby))) => {
            let lsn = standby.replay_lsn.unwrap_or_default();
            LocalPosition { timeline: seen.timeline, lsn, kind: LocalKind::Standby }
        }
        Some((_, None)) => return unknown,
        None => rewind::local_position(&context.server, control).await,
    };
    // In a cluster that follows another one every server is a standby, and in the other one those that were named may be.
    let may_be_standby = context.standby_cluster || leader.remote.is_some();
    match rewind::leader_lineage(&context.server, &server_of(leader)).await {
        // It has won the key and is not yet promoted: its history is not written yet.
        Ok(lineage) if lineage.in_recovery && !may_be_standby => unknown,
        Ok(lineage) => {
            let verdict = match judged(context, &local, control, &lineage) {
                RewindVerdict::NotNeeded => Verdict::Same,
                RewindVerdict::Needed(why) => diverged(name, &why, Verdict::Diverged),
                RewindVerdict::OnlyCopy(why) => diverged(name, &why, Verdict::OnlyCopy),
            };
            (verdict, lineage.timelines())
        }
        Err(error) => {
            tracing::debug!("{name} could not be asked for its history: {}", error.full());
            unknown
        }
    }
}

fn judged(context: &Context, local: &LocalPosition, control: &ControlData, leader: &LeaderLineage) -> RewindVerdict {
    let history = history_files::read(&context.server.data_dir, local.timeline).unwrap_or_default();
    let apart = other_beginning(local.timeline, &parse_history(&history), leader);
    let same_system = control.system_id == leader.system_id;
    apart.filter(|_| same_system).unwrap_or_else(|| needs_rewind(local, control.system_id, leader))
}

fn diverged(leader: &str, why: &postgres::lineage::Divergence, verdict: Verdict) -> Verdict {
    tracing::warn!("this node cannot follow {leader} as it is: {why}");
    verdict
}

/// A server that is asked or copied.
fn server_of(upstream: &pgherd_ha::Upstream) -> Upstream {
    Upstream { host: upstream.host.clone(), port: upstream.port, slot: None }
}

/// The same to stream from: members have a slot for each other, another cluster has the one that was made there for this one.
pub(super) fn streaming(upstream: &pgherd_ha::Upstream, own_slot: Option<&String>) -> Upstream {
    let slot = match &upstream.remote {
        Some(remote) => remote.slot.clone(),
        None => own_slot.cloned(),
    };
    Upstream { slot, ..server_of(upstream) }
}

async fn rewind_to(context: &Context, source: &pgherd_ha::Upstream) -> Result<Report, String> {
    stop_server(context, StopMode::Fast).await?;
    let upstream = server_of(source);
    // pg_rewind wants a server that was stopped in order.
    let control = postgres::control_data::read(&context.server).await.map_err(full)?;
    if control.state.is_crashed_primary() {
        rewind::recover_crashed_primary(&context.server, CRASH_RECOVERY).await.map_err(full)?;
    }
    archive::archive_ready(&context.server).await;
    if source.remote.is_some() {
        rewind::wait_for_checkpoint(&context.server, &upstream, CHECKPOINT).await.map_err(full)?;
    }
    let settings = parameters::start_settings(&context.server, Some(&control));
    let rewound = rewind::rewind(&context.server, &upstream, &settings.file, STANDSTILL).await;
    rewound.map_err(|error| with_advice(&context.server, error.full()))?;
    Ok(Report { postmaster: Some(None), new_data: true, following: Some(None), ..Report::default() })
}

async fn start_primary(context: &Context) -> Result<Report, String> {
    let permit = **context.lease.permit.load();
    let deadline = match permit {
        Permit::Until { deadline, .. } if permit.allows_writer(boot_now()) => deadline,
        Permit::Paused { .. } => Boot::NEVER,
        _ => return Err("the permit to have a writer is over; not starting".into()),
    };
    let recovery = match &context.server.custom_bootstrap {
        Some(custom) if context.server.bootstraps => Recovery::Restore(custom.recovery.clone()),
        _ => Recovery::Primary,
    };
    let postmaster = launch(context, &recovery, deadline).await?;
    match &postmaster {
        Postmaster::Guarded(guard) => context.lease.license(guard.page()).map_err(|error| error.to_string())?,
        Postmaster::Unguarded(_) => {}
    }
    Ok(Report { postmaster: Some(Some(postmaster)), following: Some(None), ..Report::default() })
}

async fn start_standby(context: &Context, upstream: Option<pgherd_ha::Upstream>) -> Result<Report, String> {
    let source = upstream.as_ref().map(|upstream| streaming(upstream, context.slot.as_ref()));
    let postmaster = launch(context, &Recovery::Standby { upstream: source }, Boot::NEVER).await?;
    Ok(Report { postmaster: Some(Some(postmaster)), following: Some(upstream), ..Report::default() })
}

/// The standby is stopped only once all is there that its slots are to be made of.
async fn copy_slots(
    context: &Context,
    source: &pgherd_ha::Upstream,
    wanted: &BTreeMap<String, SlotKind>,
) -> Result<Report, String> {
    let upstream = Upstream { host: source.host.clone(), port: source.port, slot: None };
    let mut found = slot_copy::read(&context.server, &upstream, wanted).await.map_err(full)?;
    let segment_bytes = context.control.as_ref().map_or(0, |control| control.wal_segment_bytes);
    found.retain(|slot| {
        let there = slot_copy::has_log(&context.server.data_dir, slot.restart_lsn, segment_bytes);
        if !there {
            tracing::warn!(
                "the logical slot `{}` is not copied from {} yet: it needs log from {} on, which is not here; it is tried again when its \
                 consumer has read on",
                slot.name,
                source.name,
                slot.restart_lsn
            );
        }
        there
    });
    let Some(confirmed) = found.iter().map(|slot| slot.confirmed_flush_lsn).max() else { return Ok(Report::default()) };
    let mut connection = Connection::new(&context.server, Purpose::Heartbeat);
    slot_copy::replayed(&mut connection, confirmed, REPLAYED).await.map_err(full)?;
    stop_server(context, StopMode::Fast).await?;
    for slot in &found {
        slot_copy::write(&context.server.data_dir, slot).map_err(full)?;
        tracing::info!("copied the logical slot `{}` from {}", slot.name, source.name);
    }
    start_standby(context, context.following.clone()).await
}

/// Writes the configuration and starts the postmaster under a guard; returns long before it takes connections.
async fn launch(context: &Context, recovery: &Recovery, deadline: Boot) -> Result<Postmaster, String> {
    let server = &context.server;
    let left = scan::processes_of(&server.data_dir).map_err(|error| error.to_string())?;
    if !left.is_empty() {
        return Err(format!("{} processes of PostgreSQL still work in {}", left.len(), server.data_dir.display()));
    }
    let standby = matches!(recovery, Recovery::Standby { .. });
    let settings = parameters::start_settings(server, context.control.as_ref().filter(|_| standby));
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    if standby {
        history_files::remove_unused(&server.data_dir).map_err(full)?;
        forget_dead_ends(context)?;
    }
    config_files::write(server, &settings.file, recovery).map_err(full)?;
    config_files::save_backups(server).map_err(full)?;
    postgres::data_directory::remove_copied_socket_locks(&server.data_dir).map_err(full)?;
    start::addresses_are_free(server).await.map_err(full)?;
    let program = installation::locate(server, "postgres").map_err(full)?;
    let mut spawn = Spawn::new(program, start::arguments(server, &settings), server.data_dir.clone());
    spawn.deadline = deadline;
    spawn.env_remove = children::not_inherited();
    match context.guard {
        GuardMode::Off => Ok(Postmaster::Unguarded(Arc::new(start_unguarded(&spawn).await.map_err(text)?))),
        GuardMode::Required => Ok(Postmaster::Guarded(Arc::new(Guard::start(&spawn).await.map_err(text)?))),
        GuardMode::Automatic => match Guard::start(&spawn).await {
            Ok(guard) => Ok(Postmaster::Guarded(Arc::new(guard))),
            Err(error) if standby => {
                tracing::warn!("PostgreSQL is started without a guard and will not lead: {error}");
                Ok(Postmaster::Unguarded(Arc::new(start_unguarded(&spawn).await.map_err(text)?)))
            }
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Of timelines that the leader does not come from a standby must not know.
fn forget_dead_ends(context: &Context) -> Result<(), String> {
    let Some((lineage, control)) = context.lineage.as_ref().zip(context.control.as_ref()) else { return Ok(()) };
    let own = control.timeline.max(control.min_recovery_end_timeline);
    let removed = history_files::remove_dead_ends(&context.server.data_dir, own, lineage).map_err(full)?;
    for timeline in removed {
        tracing::info!("the leader does not come from timeline {timeline}: its history file is removed");
    }
    Ok(())
}

/// The permit binds the server before it can write.
async fn promote_server(
    context: &Context,
    timeline: Timeline,
    names: Option<StandbyNames>,
    slots: &[SlotChange],
) -> Result<Report, String> {
    if let Some(Postmaster::Guarded(guard)) = &context.postmaster {
        context.lease.license(guard.page()).map_err(|error| error.to_string())?;
    }
    let mut connection = Connection::new(&context.server, Purpose::Heartbeat);
    if let Some(names) = names {
        // Before it can commit: else its first commits would wait for nobody (`postgres-facts` 10).
        rewrite(&context.server, Recovery::Standby { upstream: None }, context.control.as_ref()).await?;
        promote::names_in_force(&mut connection, &names.text(), SETTLE).await.map_err(full)?;
    }
    if let Err(error) = promote::receiver_stopped(&mut connection, SETTLE).await {
        tracing::warn!("promoting all the same: {}", error.full());
    }
    slots::bring_up(&context.server, slots, SLOTS_BEFORE).await;
    let own = context.seen.as_ref().map_or(Timeline(0), |seen| seen.timeline);
    let placed = super::timeline::pass_over(&context.server.data_dir, own, timeline).map_err(full)?;
    // Asked again, since the receiver may have taken its time; with a guard that was asked of its page, too.
    if !context.lease.permit.load().allows_writer(boot_now()) {
        return Err("the permit to have a writer is over; not promoting".into());
    }
    promote::promote(&mut connection, PROMOTE).await.map_err(full)?;
    super::timeline::check(&mut connection, timeline).await;
    if !placed.is_empty() {
        let data_dir = context.server.data_dir.clone();
        super::timeline::keep(&mut connection, data_dir, placed, context.timeline_of_others).await;
    }
    Ok(Report { promoted: true, following: Some(None), ..Report::default() })
}

async fn restart(context: &Context, epoch: Option<Epoch>) -> Result<Report, String> {
    stop_server(context, if epoch.is_some() { StopMode::Planned } else { StopMode::Fast }).await?;
    if epoch.is_some() {
        return start_primary(context).await;
    }
    // What the log needs may have changed since the server was started.
    let control = postgres::control_data::read(&context.server).await.map_err(full)?;
    let context = Context { control: Some(control), ..context.clone() };
    start_standby(&context, context.following.clone()).await
}

/// Returns when no process of the server is left, with where its slots were if it was a planned stop. Nothing to do where none runs.
async fn stop_server(context: &Context, mode: StopMode) -> Result<Option<BTreeMap<String, u64>>, String> {
    let Some(postmaster) = &context.postmaster else { return Ok(None) };
    let slots = match mode {
        StopMode::Planned | StopMode::Demotion => prepare_stop(context).await,
        StopMode::Fast | StopMode::Immediate => None,
    };
    // As in a crash there is no time.
    if let Some(command) = server_hook(context).filter(|_| mode != StopMode::Immediate) {
        tracing::info!("running before_stop: {command}");
        tokio::select! {
            ended = command.run(&[], Some(context.stop_timeout)) => {
                if let Err(error) = ended {
                    tracing::warn!("stopping all the same: {error}");
                }
            }
            // Its permit was over first, say.
            () = postmaster.exit() => tracing::warn!("PostgreSQL has ended while before_stop ran, which is ended, too"),
        }
    }
    let signal = if mode == StopMode::Immediate { Signal::QUIT } else { Signal::INT };
    match postmaster {
        Postmaster::Guarded(guard) => drop(guard.signal_postmaster(signal)),
        Postmaster::Unguarded(process) => drop(process.signal(signal)),
    }
    let gone = async {
        postmaster.exit().await;
        // An error is no proof that nothing is left: the limit ends the wait.
        while !scan::processes_of(&context.server.data_dir).is_ok_and(|left| left.is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let limit = if mode == StopMode::Immediate { IMMEDIATE } else { context.stop_timeout };
    match tokio::time::timeout(limit, gone).await {
        Ok(()) => Ok(slots),
        Err(_) if mode == StopMode::Immediate => {
            tracing::warn!("PostgreSQL does not obey an immediate stop: killing it");
            let killed = scan::kill_all(&context.server.data_dir, IMMEDIATE).await;
            killed.map(|_| slots).map_err(|error| error.to_string())
        }
        Err(_) => Err(format!("PostgreSQL has not stopped within {} s", limit.as_secs())),
    }
}

async fn archive_shutdown(context: &Context) {
    match postgres::control_data::read(&context.server).await {
        Ok(control) if control.is_shut_down() => {
            let name = rewind::segment_name(control.timeline, control.checkpoint, control.wal_segment_bytes);
            archive::archive_last(&context.server, &name).await;
        }
        Ok(_) => tracing::warn!("PostgreSQL has not stopped in order, so there is no shutdown checkpoint to archive"),
        Err(error) => tracing::warn!("where the shutdown checkpoint is cannot be read: {}", error.full()),
    }
}

/// `before_stop`, where there is a server that it is to be run for.
fn server_hook(context: &Context) -> Option<&UserCommand> {
    let runs = context.postmaster.as_ref().is_some_and(Postmaster::runs);
    context.server.hooks.before_stop.as_ref().filter(|_| runs)
}

/// What makes the stop short: little left to write, and nobody to wait for. Failures only make it longer.
async fn prepare_stop(context: &Context) -> Option<BTreeMap<String, u64>> {
    if context.seen.as_ref().is_some_and(|seen| !seen.in_recovery)
        && let Err(error) = promote::checkpoint(&context.server, CHECKPOINT_BEFORE).await
    {
        tracing::warn!("stopping without a checkpoint first: {}", error.full());
    }
    let mut connection = Connection::new(&context.server, Purpose::Heartbeat);
    if let Err(error) = stop::terminate_silent_walsenders(&mut connection, STANDBY_ANSWERS).await {
        tracing::debug!("{}", error.full());
    }
    // As late as can be: what is confirmed afterwards is sent again by the next primary.
    connection.observe().await.ok().map(|seen| seen.slot_positions())
}

/// Brings the files of the running server up to date, and tells it.
pub async fn rewrite(server: &Arc<Server>, recovery: Recovery, control: Option<&ControlData>) -> Result<(), String> {
    let (server, control) = (server.clone(), control.cloned());
    let write = move || {
        let standby = matches!(recovery, Recovery::Standby { .. });
        if let Recovery::Standby { upstream: Some(_) } = &recovery {
            history_files::remove_unused(&server.data_dir).map_err(full)?;
        }
        let settings = parameters::start_settings(&server, control.as_ref().filter(|_| standby));
        config_files::write(&server, &settings.file, &recovery).map_err(full)?;
        // Also when nothing has changed: a server that was just being started has perhaps read the files before they were written, and
        // could not be told then.
        match postgres::Postmaster::find(&server.data_dir) {
            Some(postmaster) => postmaster.reload().map_err(full),
            None => Err("PostgreSQL cannot be told yet of its new settings; trying again".into()),
        }
    };
    tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?
}

fn full(error: postgres::Error) -> String {
    error.full()
}

fn text(error: crate::guard::GuardError) -> String {
    error.to_string()
}
