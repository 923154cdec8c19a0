//! The loop: look, decide, do, tell; then wait for whatever comes first.
//!
//! Each round reads the world anew. What wakes it: a change in the store, the end of the postmaster or its guard, the end of a job, an
//! answer of the peers, a command, a signal, a lost lease, and last the time that the decision named.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgherd_dcs::{Store, boot_now};
use pgherd_ha::{
    Agent, Boot, Callback, Decision, Job, JobInProgress, JobOutcome, JobResult, Local, Now, PeerPoll, Permit, Postgres,
    Rule, View,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::callbacks::Callbacks;
use super::commands::Commands;
use super::complaints::Complaints;
use super::failsafe::Failsafe;
use super::jobs::{Ended, Jobs};
use super::lease::LeaseState;
use super::node::Node;
use super::publish::Publisher;
use super::settings::Current;
use super::signals::{Signal, Signals};
use super::slots::SlotWork;
use super::story::Story;
use super::systemd::Systemd;
use crate::api::{PeerClient, ServerHandle};
use crate::config::{Environment, SynchronousMode};
use crate::postgres::Observation;

/// A load of the store that takes longer is given up for this round: the round must go on, to act on what else happens.
const LOAD: Duration = Duration::from_secs(1);

/// The pause after an action that failed, however soon the rule would look again: a full disk must not be tried, and complained about,
/// a hundred times a second.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// That the store does not answer is logged this often.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// What happens in the background and is told to the loop. Bounded by what can be in progress: one poll of the peers at a time.
const EVENTS: usize = 16;

pub struct Daemon {
    pub(super) current: Current,
    pub(super) path: Option<PathBuf>,
    pub(super) environment: Environment,
    pub(super) agent: Agent,
    pub(super) node: Node,
    pub(super) jobs: Jobs,
    pub(super) lease: Arc<LeaseState>,
    pub(super) store: Arc<dyn Store>,
    pub(super) peers: PeerClient,
    pub(super) publisher: Publisher,
    pub(super) commands: Commands,
    pub(super) callbacks: Callbacks,
    pub(super) failsafe: Failsafe,
    pub(super) slots: SlotWork,
    pub(super) signals: Signals,
    pub(super) api: ServerHandle,
    pub(super) systemd: Systemd,
    pub(super) memory: Memory,
    /// Of the polls that run in the background, to the loop; at most one runs at a time.
    pub(super) events: mpsc::Sender<PeerPoll>,
    polls: mpsc::Receiver<PeerPoll>,
    /// All that is known of the cluster before the store has answered once: whether it was paused.
    kept: View,
    /// From the store: something may have changed.
    changes: watch::Receiver<u64>,
}

/// What the daemon is made of.
pub struct Parts {
    pub current: Current,
    pub path: Option<PathBuf>,
    pub environment: Environment,
    pub node: Node,
    pub jobs: Jobs,
    pub callbacks: Callbacks,
    pub lease: Arc<LeaseState>,
    pub store: Arc<dyn Store>,
    pub peers: PeerClient,
    pub publisher: Publisher,
    pub commands: Commands,
    pub failsafe: Failsafe,
    pub signals: Signals,
    pub api: ServerHandle,
    pub systemd: Systemd,
}

/// What the loop keeps from round to round, beside what the agent remembers.
#[derive(Debug, Default)]
pub struct Memory {
    pub view: Option<Arc<View>>,
    pub view_loaded: Boot,
    pub reachable: bool,
    /// It is known that no other node of this name lives.
    name_checked: bool,
    /// Since when the store does not answer.
    silence: Option<Silence>,
    /// When the decision that is carried out was made.
    pub decided: Boot,
    pub last_job: Option<JobResult>,
    pub claimed_initialize: bool,
    pub following: Option<pgherd_ha::Upstream>,
    /// This node leads a standby cluster.
    pub standby_leader: bool,
    pub peers: Option<PeerPoll>,
    pub polling: bool,
    pub divergence: Option<pgherd_ha::Divergence>,
    /// The timelines of the leader of that comparison.
    pub lineage: Vec<pgherd_ha::Timeline>,
    pub stopping: bool,
    pub exit: Option<Result<(), String>>,
    /// Where the slots were right before the server was stopped in order.
    pub last_slots: BTreeMap<String, u64>,
    /// Who wants to know of the next round.
    pub observers: Vec<oneshot::Sender<()>>,
    /// The configuration has changed and is not in force yet.
    pub apply: bool,
    /// When the store was last seen, in seconds since 1970.
    pub seen_seconds: i64,
    pub story: Story,
    /// The rule that was logged last, with why the directory cannot be used.
    pub shown: Option<(Rule, Option<String>)>,
    pub shown_at: Boot,
    /// How many seconds were left when it was last said that a race is put off.
    pub held_off: Option<u64>,
    pub complaints: Complaints,
    pub member: Option<Vec<u8>>,
    pub member_written: Boot,
}

/// The store does not answer.
#[derive(Clone, Copy, Debug)]
struct Silence {
    since: Boot,
    /// When that was last logged.
    said: Option<Boot>,
}

impl Daemon {
    pub(super) fn new(parts: Parts) -> Daemon {
        let (events, polls) = mpsc::channel(EVENTS);
        Daemon {
            agent: Agent::new(parts.current.settings(false)),
            changes: parts.store.changes(),
            kept: parts.current.kept_view(),
            current: parts.current,
            path: parts.path,
            environment: parts.environment,
            node: parts.node,
            jobs: parts.jobs,
            lease: parts.lease,
            store: parts.store,
            peers: parts.peers,
            publisher: parts.publisher,
            commands: parts.commands,
            callbacks: parts.callbacks,
            failsafe: parts.failsafe,
            slots: SlotWork::default(),
            signals: parts.signals,
            api: parts.api,
            systemd: parts.systemd,
            memory: Memory { apply: true, ..Memory::default() },
            events,
            polls,
        }
    }

    /// Runs until the decision ends it.
    pub(super) async fn run(mut self) -> Result<(), String> {
        self.systemd.ready();
        loop {
            match self.round().await {
                // What has come meanwhile is taken in all the same: a signal, or a job's end, is not put off by actions that repeat.
                Round::Again => self.wait(boot_now()).await,
                Round::Wait(until) => self.wait(until).await,
                Round::Exit(result) => {
                    self.finish().await;
                    return result;
                }
            }
        }
    }

    async fn round(&mut self) -> Round {
        // Who asks from now on asks for the next round.
        let observers = std::mem::take(&mut self.memory.observers);
        self.changes.mark_unchanged();
        self.load().await;
        if let Some(refusal) = self.refuse_late().await {
            return Round::Exit(Err(refusal));
        }
        self.apply_configuration().await;
        self.scheduled_restart();
        if self.jobs.checkpointed().await {
            self.node.checkpointed = true;
        }
        let (postgres, data) = self.node.observe().await;
        self.after_observation(&postgres);
        self.look_for_pending_restart().await;
        self.attend_slots(&postgres).await;
        let local = self.local(postgres, data);
        let now = pgherd_dcs::now();
        self.narrate(&local, now.boot);
        self.memory.decided = now.boot;
        let decision = self.decide(&local, now);
        match decision.permit {
            // What the members permit beyond the lease is no key to renew.
            Permit::Until { epoch, .. } if local.lease.is_none_or(|lease| lease.epoch != epoch) => {}
            Permit::Until { epoch, .. } | Permit::Paused { epoch: Some(epoch) } => self.lease.hold(epoch),
            Permit::None | Permit::Paused { epoch: None } => {}
        }
        self.lease.permit(decision.permit);
        self.keep_watchdog_by_members(decision.permit);
        self.write_into_data_directory(&decision, &local);
        self.show(&decision, &local);
        // Before anything that may have to wait: what entrypoints and health checks are told is what was just decided.
        self.publish(&local, &decision);
        if let Some(callback) = decision.callback {
            self.call_back(callback);
        }
        let carried_out = self.carry_out(&decision).await;
        self.tell(&local, &decision).await;
        for observer in observers {
            // Whoever asked may have gone away.
            let _ = observer.send(());
        }
        self.lease.watch.round_done(boot_now());
        self.systemd.alive();
        match self.memory.exit.take() {
            Some(result) => Round::Exit(result),
            None => match carried_out {
                Ok(true) => Round::Again,
                Ok(false) => Round::Wait(decision.wake.at),
                Err(()) => Round::Wait(decision.wake.at.max(boot_now() + AFTER_FAILURE)),
            },
        }
    }

    /// The newest picture of the store; the last good one is kept beside.
    async fn load(&mut self) {
        let loaded = boot_now();
        // While a permit runs out there is more to do than to wait for the store.
        let left = self.lease.permit.load().remaining(loaded);
        let patience = if left.is_zero() { LOAD } else { (left / 4).clamp(LOAD / 4, LOAD) };
        let store = self.store.clone();
        let result = match self.answering(tokio::time::timeout(patience, store.load())).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} ms", patience.as_millis())),
        };
        self.memory.reachable = result.is_ok();
        match result {
            Ok(view) => {
                if let Some(silence) = self.memory.silence.take() {
                    tracing::info!("the store answers again after {} ms", loaded.since(silence.since).as_millis());
                }
                self.memory.view = Some(Arc::new(view));
                self.memory.view_loaded = loaded;
                self.memory.seen_seconds = pgherd_ha::Wall::now().as_second();
            }
            Err(error) => {
                let silence = self.memory.silence.get_or_insert(Silence { since: loaded, said: None });
                if silence.said.is_none_or(|said| loaded.since(said) >= SAY_AGAIN) {
                    silence.said = Some(loaded);
                    tracing::warn!(
                        "the store cannot be read: {error}; trying on. While it is away no node can become the leader"
                    );
                }
            }
        }
    }

    fn after_observation(&mut self, postgres: &Postgres) {
        // Who gets in, and how the agent does, depends on it.
        if let Some(new_cluster) = self.node.new_cluster() {
            self.memory.apply |= std::mem::replace(&mut self.current.new_cluster, new_cluster) != new_cluster;
        }
        if std::mem::take(&mut self.node.failed_start)
            && let Some(complaint) = self.current.fallback.ended()
        {
            tracing::error!("{complaint}");
        }
        if self.node.seen.is_some() {
            let server = &self.node.server;
            self.current.fallback.answered(|| crate::postgres::access::lines_in_force(server));
        }
        let synchronous = self.current.dynamic.synchronous_mode != SynchronousMode::Off;
        if synchronous && self.node.seen.as_ref().is_some_and(Observation::may_skip_waits) {
            self.complain(
                "this minor release of PostgreSQL may acknowledge a commit right after a start without waiting for a synchronous standby; \
                 13.21, 14.18, 15.13, 16.9, 17.5 and later ones do not: upgrade it"
                    .into(),
            );
        }
        // A job may have licensed a server that it is starting since we looked: its page is not to be lost.
        let busy = self.jobs.in_progress().is_some();
        if !busy && (*postgres == Postgres::Stopped || self.node.postmaster.is_none()) {
            self.lease.forget_page();
        }
        // Only a running server's disk can be wedged in a way that matters for the lease.
        if self.node.postmaster.is_none() {
            self.lease.watch.disk_answered(boot_now());
        } else {
            self.lease.watch.disk_answered(self.jobs.probe.last_success());
        }
        // A primary that was found running: its guard follows the permit as soon as there is one. So does that of a server which lets
        // nobody in yet and was licensed by a former agent: it is a primary in its crash recovery.
        let Some(guard) = self.node.postmaster.as_ref().and_then(|postmaster| postmaster.guard()) else { return };
        let page = guard.page();
        let writer = match postgres {
            Postgres::Running(running) => !running.in_recovery,
            Postgres::Starting { .. } => page.deadline().is_some_and(|deadline| deadline < Boot::NEVER),
            Postgres::Silent { .. } | Postgres::Stopped | Postgres::Orphans => false,
        };
        if writer {
            self.lease.watch_page(page);
        }
    }

    /// Files of ours go into the data directory only while this cluster's server runs there.
    fn write_into_data_directory(&mut self, decision: &Decision, local: &Local) {
        let ours = local.control().is_some() && decision.rule != Rule::ForeignCluster;
        let runs = ours && self.node.postmaster.is_some();
        self.jobs.probe.watch(runs);
        if runs {
            self.current.keep();
        }
    }

    fn local(&mut self, mut postgres: Postgres, data: pgherd_ha::DataDirectory) -> Local {
        self.mark_broken_slots(&mut postgres);
        let leads = self.memory.view.as_ref().and_then(|view| view.leader.as_ref());
        let mine = leads.filter(|leader| leader.owner == pgherd_ha::LeaderOwner::Me).map(|leader| leader.epoch);
        let lease = self.lease.lease().filter(|lease| Some(lease.epoch) == mine);
        Local {
            data,
            postgres,
            job: self.jobs.in_progress().map(|(job, since)| JobInProgress { job: job.clone(), since }),
            last_job: self.memory.last_job.clone(),
            lease,
            claimed_initialize: self.memory.claimed_initialize,
            guarded: self.is_guarded(),
            watchdog: self.watchdog(),
            disk_stuck: self.jobs.probe.owed_for(boot_now()) > self.current.dynamic.timing.ttl,
            following: self.memory.following.clone(),
            peers: self.memory.peers.clone(),
            failsafe: self.failsafe.newest.clone(),
            divergence: self.memory.divergence,
            request: self.commands.request(),
            stopping: self.memory.stopping,
            manages_standby_names: self.current.primary.standby_names.is_some(),
            last_slots: self.memory.last_slots.clone(),
            leader_slots: self.slots.leader.clone(),
            admits_clients: self.current.primary.admits_clients,
            limits: self.node.pending.limits(),
        }
    }

    fn watchdog(&mut self) -> pgherd_ha::Watchdog {
        let (state, why) = self.lease.watchdog.state(boot_now());
        if let Some(why) = why {
            self.complain(format!("the watchdog is required and does not work, so this node must not lead: {why}"));
        }
        state
    }

    fn is_guarded(&self) -> bool {
        // A guard that would not find the server's processes is none. Before its first answer the postmaster may not be one yet.
        let answers = self.node.seen.is_some();
        let watches = |guard: &crate::guard::Guard| guard.is_alive() && (!answers || guard.sees_server());
        let guard = self.node.postmaster.as_ref().map(|held| held.guard().is_some_and(|guard| watches(guard)));
        self.current.guard == crate::guard::GuardMode::Off || guard.unwrap_or(true)
    }

    fn decide(&mut self, local: &Local, now: Now) -> Decision {
        let synchronous = self.current.dynamic.synchronous_mode != SynchronousMode::Off;
        let lacks_proof = self.node.lacks_proof(synchronous);
        self.agent.settings = self.current.settings(lacks_proof);
        let store = match &self.memory.view {
            Some(view) if self.memory.reachable => pgherd_ha::Store::Reachable(view),
            last => pgherd_ha::Store::Unreachable { last: Some(last.as_deref().unwrap_or(&self.kept)) },
        };
        let decision = self.agent.decide(store, local, now);
        self.node.barred = self.agent.keeps_out_of_races(now.boot) || local.disk_stuck || lacks_proof;
        self.node.leaves_sync = self.agent.leaves_sync();
        // Settings may hold for one of the two roles only.
        let was = std::mem::replace(&mut self.memory.standby_leader, decision.standby_leader);
        self.memory.apply |= was != decision.standby_leader;
        self.node.lives_by_archive = self.lives_by_archive();
        decision
    }

    pub(super) fn call_back(&mut self, callback: Callback) {
        self.callbacks.call(
            &self.current.dynamic.postgresql.callbacks,
            callback,
            &self.current.identity.scope,
            &self.node.server.data_dir,
        );
    }

    /// The actions in their order; the first that fails ends the round. `Ok(true)`: look again at once.
    async fn carry_out(&mut self, decision: &Decision) -> Result<bool, ()> {
        let mut again = false;
        for action in &decision.actions {
            match self.execute(action).await {
                Ok(changed) => again |= changed,
                Err(error) => {
                    self.complain(error);
                    return Err(());
                }
            }
        }
        Ok(again)
    }

    /// The store has answered for the first time: is there another node of this name? (At the start it could not be asked.) Our own address
    /// is ours: nobody else can listen there.
    async fn refuse_late(&mut self) -> Option<String> {
        if !self.memory.reachable || std::mem::replace(&mut self.memory.name_checked, true) {
            return None;
        }
        let view = self.memory.view.clone()?;
        let identity = &self.current.identity;
        view.member(&identity.name).filter(|member| member.api_url != identity.api_url)?;
        super::second_of_name(&view, &identity.name, &self.peers).await
    }

    /// Waits for the first of all that can happen.
    async fn wait(&mut self, until: Boot) {
        let until = until.min(self.systemd.due());
        let postmaster = self.node.postmaster.clone();
        let ends = async {
            match &postmaster {
                // Dead already, and its guard is still at work on what it left: the guard's end is the news.
                Some(postmaster) if postmaster.runs() || !postmaster.is_alive() => postmaster.exit().await,
                _ => std::future::pending().await,
            }
        };
        let guard_ends = async {
            match postmaster.as_ref().and_then(|postmaster| postmaster.guard()) {
                Some(guard) if guard.is_alive() => guard.guard_exit().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.changes.changed() => {}
            () = ends => {}
            () = guard_ends => {}
            () = self.lease.lost.notified() => {}
            ended = self.jobs.next_end() => self.job_ended(ended),
            Some(poll) = self.polls.recv() => {
                self.memory.polling = false;
                self.memory.peers = Some(poll);
            }
            event = self.failsafe.next() => self.failsafe_event(event),
            command = self.commands.receive() => self.command(command).await,
            signal = self.signals.next() => match signal {
                Signal::Stop => {
                    self.systemd.stopping();
                    self.memory.stopping = true;
                }
                Signal::Reload => self.reload().await,
            },
            () = tokio::time::sleep(until.since(boot_now())) => {}
        }
    }

    pub(super) fn job_ended(&mut self, ended: Ended) {
        let took = boot_now().since(ended.since);
        let outcome = match &ended.result {
            Ok(_) => JobOutcome::Done,
            Err(_) => JobOutcome::Failed,
        };
        match ended.result {
            Ok(report) => {
                if !matches!(ended.job, Job::CheckDivergence { .. }) {
                    tracing::info!("{} done in {} ms", ended.job.name(), took.as_millis());
                }
                self.take_report(report);
            }
            Err(error) => {
                let text = format!("{} failed after {} ms: {error}", ended.job.name(), took.as_millis());
                match self.memory.complaints.is_due(&text, boot_now()) {
                    true => tracing::error!("{text}"),
                    false => tracing::debug!("{text}"),
                }
            }
        }
        self.memory.last_job = Some(JobResult { job: ended.job, at: boot_now(), outcome });
    }

    async fn finish(&mut self) {
        self.jobs.cancel().await;
        // The guard lives on; a watchdog that nobody keeps alive would reset the machine.
        if self.lease.watchdog.disarm().is_ok() {
            self.lease.watchdog.settle().await;
        }
        let stopped = self.node.postmaster.is_none();
        if stopped && self.memory.reachable {
            self.register_stopped().await;
        }
        self.api.stop().await;
    }
}

enum Round {
    /// Something was changed that the next decision must see: at once.
    Again,
    Wait(Boot),
    Exit(Result<(), String>),
}
