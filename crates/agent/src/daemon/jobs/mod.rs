//! The long actions: one at a time, in the background, each ending with a report that the loop takes in. One file a situation.
//!
//! A job decides nothing. It may be cut off at any of its awaits: what it leaves behind is what a later observation finds.

mod advice;
mod compare;
mod create;
mod promote;
mod start;
mod stop;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, Divergence, Job, StopMode, Timeline};
use tokio::task::JoinHandle;

pub use self::start::rewrite;
use super::lease::LeaseState;
use super::node::Postmaster;
use crate::guard::GuardMode;
use crate::postgres::probe::WriteProbe;
use crate::postgres::{self, ControlData, Observation, Server, Upstream};

/// A checkpoint in the background may take as long as the disk does.
const CHECKPOINT: Duration = Duration::from_secs(600);
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
            match postgres::promote::checkpoint(&server, CHECKPOINT).await {
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
        Job::Initdb => create::by_initdb(&context).await,
        Job::CustomBootstrap => create::custom_bootstrap(&context).await,
        Job::PostBootstrap { .. } => create::make_roles(&context).await,
        Job::AbandonBootstrap => create::abandon_bootstrap(&context).await,
        Job::Clone { source, make_room, from_leader } => {
            create::make_replica(&context, source.as_ref(), make_room, from_leader).await
        }
        Job::CheckDivergence { epoch, leader } => compare::check_divergence(&context, epoch, &leader).await,
        Job::Rewind { source } => compare::rewind_to(&context, &source).await,
        Job::StartPrimary { .. } => start::start_primary(&context).await,
        Job::StartStandby { upstream } => start::start_standby(&context, upstream).await,
        Job::CopySlots { source, slots } => start::copy_slots(&context, &source, &slots).await,
        Job::PrePromote { .. } => promote::pre_promote(&context).await,
        Job::Promote { timeline, names, slots, .. } => promote::promote_server(&context, timeline, names, &slots).await,
        Job::Stop(mode) => {
            let slots = stop::stop_server(&context, mode).await?;
            if mode == StopMode::Demotion {
                stop::archive_shutdown(&context).await;
            }
            Ok(Report { postmaster: Some(None), slots, ..Report::default() })
        }
        Job::Restart { epoch, .. } => start::restart(&context, epoch).await,
    }
}

/// A server that is asked or copied.
pub fn server_of(upstream: &pgherd_ha::Upstream) -> Upstream {
    Upstream { addresses: upstream.addresses.clone(), slot: None }
}

/// The same to stream from: members have a slot for each other, another cluster has the one that was made there for this one.
pub fn streaming(upstream: &pgherd_ha::Upstream, own_slot: Option<&String>) -> Upstream {
    let slot = match &upstream.remote {
        Some(remote) => remote.slot.clone(),
        None => own_slot.cloned(),
    };
    Upstream { slot, ..server_of(upstream) }
}

fn full(error: postgres::Error) -> String {
    error.full()
}
