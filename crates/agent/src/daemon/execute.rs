//! Carrying out the short actions of a decision. An action that needs the lease is refused when the lease is of another epoch.

use pgherd_dcs::{Acquired, Expect, Key, Written, boot_now};
use pgherd_ha::{
    Action, Callback, CallbackEvent, Epoch, FailoverKey, Job, JobOutcome, JobResult, Peer, PeerAnswer, PeerPoll,
    Permit, Reservation, Role, StandbyNames, Timeline, Verdict, slot_name,
};
use serde_json::Value;

use super::history;
use super::jobs::Context;
use super::node::Postmaster;
use super::round::Daemon;
use super::settings::Overlay;
use crate::guard::{Attached, Guard, attach, scan};
use crate::postgres::Recovery;
use std::sync::Arc;
use std::time::Duration;

/// Killing every process of a server takes 20 to 180 ms for some hundreds; more than this means that one is stuck in the kernel.
const KILL: Duration = Duration::from_secs(5);

/// A standby that has not streamed for this long is not just changing its upstream.
const STALLS: Duration = Duration::from_secs(5);

/// A decision to lead is made of positions that are this old at most when it is carried out. Between the two there is nothing to
/// wait for; a busy machine takes some 100 ms.
const STALE: Duration = Duration::from_secs(1);

impl Daemon {
    /// `Ok(true)`: the next decision must see what has changed, at once.
    pub(super) async fn execute(&mut self, action: &Action) -> Result<bool, String> {
        self.check_epoch(action)?;
        match action {
            Action::ClaimInitialize => self.claim().await?,
            Action::RemoveClaim { version } => {
                // One that has changed meanwhile is somebody's.
                self.store.delete(Key::Initialize, Expect::Version(*version)).await.map_err(text)?;
            }
            Action::WriteInitialize { system_id, .. } => {
                self.write(Key::Initialize, system_id.to_string().as_bytes(), Expect::Any).await?;
            }
            Action::WriteConfig { .. } => {
                let config = pgherd_dcs::layout::compact(&Value::Object(self.current.bootstrap_config()));
                // There after all: another has written it, or it is no configuration at all. That is the operator's to mend, and no
                // reason to leave the leader's other duties.
                if let Written::Conflict = self.store.write(Key::Config, &config, Expect::Absent).await.map_err(text)? {
                    tracing::debug!("the key `config` is there and is left as it is");
                }
            }
            Action::Acquire => return self.acquire().await,
            Action::Renew { epoch } => self.renew(*epoch).await?,
            Action::Release { epoch } => self.release(*epoch).await?,
            Action::WriteStatus { status, .. } => {
                self.write(Key::Status, &pgherd_dcs::layout::encode_status(status), Expect::Any).await?;
            }
            Action::WriteHistory { .. } => self.write_history().await?,
            Action::WriteSync { version, key, .. } => {
                let expect = version.map_or(Expect::Absent, Expect::Version);
                self.write(Key::Sync, &pgherd_dcs::layout::encode_sync(key), expect).await?;
            }
            Action::SetStandbyNames { names, .. } => {
                self.current.primary.standby_names = names.as_ref().map(StandbyNames::text);
                self.rewrite_running().await?;
            }
            Action::AdmitClients => {
                if !std::mem::replace(&mut self.current.primary.admits_clients, true) {
                    self.rewrite_running().await?;
                    // The rules are checked then.
                    self.memory.apply = true;
                }
            }
            Action::ReserveTimeline { epoch, timeline, version } => self.reserve(*epoch, *timeline, *version).await?,
            Action::WriteFailsafe { members, .. } => {
                self.write(Key::Failsafe, &pgherd_dcs::layout::encode_failsafe(members), Expect::Any).await?;
            }
            Action::AskFailsafe { epoch, ttl, members } => self.ask_failsafe(*epoch, *ttl, members)?,
            Action::ClearFailover { version } => {
                let empty = pgherd_dcs::layout::encode_failover(&FailoverKey::default());
                self.write(Key::Failover, &empty, Expect::Version(*version)).await?;
            }
            Action::PollPeers { names } => self.poll(names),
            Action::Follow { upstream } => self.follow(upstream.clone()).await?,
            Action::ChangeSlots { changes } => self.change_slots(changes).await,
            Action::AskLeaderSlots { epoch, leader, names } => self.ask_leader_slots(*epoch, leader, names),
            Action::Checkpoint => self.jobs.checkpoint(&self.node.server),
            Action::Guard => self.give_guard().await?,
            Action::ArmWatchdog { .. } => self.lease.arm_watchdog().await?,
            Action::DisarmWatchdog => {
                if let Err(error) = self.lease.watchdog.disarm() {
                    self.complain(error);
                }
            }
            Action::Fence => self.fence().await?,
            Action::Run(job) => {
                // Nothing of before may still be using a slot when the server is promoted.
                if let Job::Promote { unproven, .. } = job {
                    self.slots.cancel().await;
                    super::slots::warn_of_unproven(unproven);
                }
                self.overlay(job);
                let context = self.context(job);
                if job.starts_server() {
                    let role = self.role_of(job);
                    self.current.fallback.stage(role.as_str(), &context.server);
                }
                self.jobs.begin(job.clone(), context).await;
            }
            Action::CutOff => {
                if let Some((job, _)) = self.jobs.in_progress() {
                    let job = job.clone();
                    self.jobs.cancel().await;
                    self.memory.last_job = Some(JobResult { job, at: boot_now(), outcome: JobOutcome::Cancelled });
                }
            }
            Action::RefuseRequest { why } => self.commands.refuse(why.clone()),
            Action::Exit { failure } => {
                self.memory.exit = Some(failure.clone().map_or(Ok(()), Err));
            }
        }
        Ok(action.is_news())
    }

    /// The key must still be ours, under the epoch that the decision saw.
    fn check_epoch(&self, action: &Action) -> Result<(), String> {
        let Some(epoch) = action.under() else { return Ok(()) };
        match self.lease.lease() {
            Some(lease) if lease.epoch == epoch && boot_now() < lease.end() => Ok(()),
            _ => Err(format!("the lease of epoch {epoch} is over: not doing what was decided under it")),
        }
    }

    async fn write(&self, key: Key, value: &[u8], expect: Expect) -> Result<(), String> {
        match self.store.write(key, value, expect).await.map_err(text)? {
            Written::Done { .. } => Ok(()),
            Written::Conflict => Err(format!("the key {key:?} was changed by another meanwhile; looking again")),
        }
    }

    async fn claim(&mut self) -> Result<(), String> {
        let written = self.store.write(Key::Initialize, b"", Expect::Absent).await.map_err(text)?;
        self.memory.claimed_initialize = matches!(written, Written::Done { .. });
        Ok(())
    }

    async fn acquire(&mut self) -> Result<bool, String> {
        let asked = boot_now();
        match self.store.acquire().await.map_err(text)? {
            // The process was stopped in between: who was ahead then says nothing about now.
            Acquired::Ours(lease) if asked.since(self.memory.decided) > STALE => {
                tracing::warn!("took the leader key by a decision that was too old; giving it back");
                self.agent.give_up(lease.epoch);
                self.store.release(lease.epoch).await.map_err(text)?;
            }
            Acquired::Ours(lease) => {
                tracing::info!(
                    "took the leader key: epoch {}, for {} ms at a time",
                    lease.epoch,
                    lease.granted.as_millis()
                );
                self.lease.hold(lease.epoch);
                self.lease.proven(lease);
            }
            Acquired::Taken => tracing::info!("another node has taken the leader key"),
        }
        Ok(true)
    }

    async fn renew(&mut self, epoch: Epoch) -> Result<(), String> {
        self.lease.hold(epoch);
        match self.store.renew(epoch).await.map_err(text)? {
            Some(lease) => self.lease.proven(lease),
            None => self.lease.let_go(),
        }
        Ok(())
    }

    /// Only once no process of the server is left, or while it is a standby that nothing is about to promote.
    async fn release(&mut self, epoch: Epoch) -> Result<(), String> {
        if let Some((job, _)) = self.jobs.in_progress().filter(|(job, _)| job.makes_writer()) {
            return Err(format!("the leader key is not released: a job ({}) is in progress", job.name()));
        }
        let left = scan::able_processes_of(&self.node.server.data_dir)
            .map_err(|error| format!("the leader key is not released: {error}"))?
            .len();
        let in_recovery = self.node.seen.as_ref().is_some_and(|seen| seen.in_recovery) && !self.node.restores;
        let standby = in_recovery && self.jobs.in_progress().is_none();
        if left > 0 && !standby {
            return Err(format!("the leader key is not released: {left} processes of PostgreSQL are left"));
        }
        self.lease.let_go();
        if self.store.release(epoch).await.map_err(text)? {
            tracing::info!("released the leader key, epoch {epoch}");
        }
        Ok(())
    }

    async fn write_history(&mut self) -> Result<(), String> {
        let Some(timeline) = self.node.timeline() else { return Ok(()) };
        let known = self.memory.view.as_ref().map(|view| view.history.clone()).unwrap_or_default();
        let lines = if timeline.0 <= 1 {
            Vec::new()
        } else {
            let (file, ended) = history::read(&self.node.server.data_dir, timeline)
                .map_err(|error| format!("the history file of timeline {timeline} cannot be read: {error}"))?;
            history::merge(
                &file,
                timeline,
                &known,
                &self.current.identity.name,
                ended,
                self.current.dynamic.max_timelines_history,
            )
        };
        self.write(Key::History, &pgherd_dcs::layout::encode_history(&lines), Expect::Any).await
    }

    /// One whose outcome is unknown fails as one that is refused does: what the store has is seen in the next round.
    async fn reserve(&mut self, epoch: Epoch, timeline: Timeline, version: Option<i64>) -> Result<(), String> {
        let leader = self.current.identity.name.clone();
        let reservation = pgherd_dcs::layout::encode_reservation(&Reservation { timeline, epoch, leader });
        let begun = boot_now();
        self.write(Key::Timelines, &reservation, version.map_or(Expect::Absent, Expect::Version)).await?;
        tracing::info!("reserved timeline {timeline} in {} ms", boot_now().since(begun).as_millis());
        Ok(())
    }

    /// One poll at a time; its answers come as an event.
    fn poll(&mut self, names: &[String]) {
        if std::mem::replace(&mut self.memory.polling, true) {
            return;
        }
        let members = self.memory.view.iter().flat_map(|view| &view.members);
        let (names, urls): (Vec<String>, Vec<String>) =
            members.filter(|member| names.contains(&member.name)).map(|m| (m.name.clone(), m.api_url.clone())).unzip();
        let (client, events) = (self.peers.clone(), self.events.clone());
        // A third of a call's time-out: a peer that needs longer is not fit to lead, and a dead host must not hold up the race.
        let patience = self.current.dynamic.timing.retry_timeout / 3;
        tokio::spawn(async move {
            let asked = boot_now();
            let answers = client.poll(&urls, patience).await;
            let peers = names
                .into_iter()
                .zip(answers)
                .map(|(name, answer)| Peer { name, answer: answer.status().map(PeerAnswer::from) })
                .collect();
            // The daemon has ended: nobody is there to be told.
            let _ = events.send(PeerPoll { asked, peers }).await;
        });
    }

    async fn follow(&mut self, upstream: Option<pgherd_ha::Upstream>) -> Result<(), String> {
        let recovery = Recovery::Standby { upstream: self.upstream(upstream.as_ref()) };
        let server = self.current.server(self.standby_role());
        super::jobs::rewrite(&server, recovery, self.node.control.as_ref()).await?;
        self.call_back(Callback { event: CallbackEvent::Reload, role: self.standby_role() });
        match &upstream {
            Some(upstream) => tracing::info!("following {} ({})", upstream.name, super::jobs::server_of(upstream)),
            None if self.lives_by_archive() => tracing::info!("following nobody: the log comes from the archive"),
            None => tracing::info!("the upstream is cut: what is received so far is all there will be"),
        }
        self.memory.following = upstream;
        Ok(())
    }

    async fn give_guard(&mut self) -> Result<(), String> {
        let data_dir = &self.node.server.data_dir;
        let process = match attach(data_dir).map_err(|error| error.to_string())? {
            Attached::Guarded(guard) => {
                self.node.guarded(Arc::new(guard));
                return Ok(());
            }
            // It has just ended; the loop sees that.
            Attached::None if !self.node.postmaster.as_ref().is_some_and(Postmaster::runs) => return Ok(()),
            Attached::None => {
                return Err(format!(
                    "PostgreSQL cannot be guarded and will not lead: no process that runs a program named `postgres` with the working \
                     directory {} is visible to this agent (a wrapper in bin_dir, or a /proc that hides processes?)",
                    data_dir.display()
                ));
            }
            Attached::Unguarded(process) => process,
        };
        let exe = std::path::Path::new("/proc/self/exe");
        let standby = self.node.seen.as_ref().is_some_and(|seen| seen.in_recovery);
        // Should this agent end before it has told the new guard of its permit, a primary must not be left without an end.
        let deadline = match **self.lease.permit.load() {
            _ if standby => pgherd_ha::Boot::NEVER,
            Permit::Paused { .. } => pgherd_ha::Boot::NEVER,
            Permit::Until { deadline, .. } => deadline,
            Permit::None => boot_now() + self.current.dynamic.timing.ttl,
        };
        let guard = Guard::adopt(data_dir, process.pid(), deadline, exe).await;
        let guard = guard.map_err(|error| format!("PostgreSQL cannot be given a guard and will not lead: {error}"))?;
        tracing::info!("gave the running PostgreSQL a guard (process {})", guard.pid().as_raw_pid());
        self.node.guarded(Arc::new(guard));
        Ok(())
    }

    /// Kills every process of the server, now.
    async fn fence(&mut self) -> Result<(), String> {
        self.jobs.cancel().await;
        if let Some(Postmaster::Guarded(guard)) = &self.node.postmaster {
            guard.page().kill_now();
        }
        let killed = scan::kill_all(&self.node.server.data_dir, KILL).await;
        tracing::warn!("killed every process of PostgreSQL");
        self.node.hold(None);
        self.lease.forget_page();
        killed.map(drop).map_err(|error| error.to_string())
    }

    pub(super) fn upstream(&self, upstream: Option<&pgherd_ha::Upstream>) -> Option<crate::postgres::Upstream> {
        upstream.map(|upstream| super::jobs::streaming(upstream, self.own_slot().as_ref()))
    }

    /// The name of this node's slot on other members, where slots are used.
    fn own_slot(&self) -> Option<String> {
        self.current.dynamic.postgresql.use_slots.then(|| slot_name(&self.current.identity.name))
    }

    /// The role of a server in recovery.
    pub(super) fn standby_role(&self) -> Role {
        if self.memory.standby_leader { Role::StandbyLeader } else { Role::Replica }
    }

    /// What the server is that comes out of it, as far as its settings go.
    fn role_of(&self, job: &Job) -> Role {
        match job {
            Job::StartPrimary { .. } | Job::Restart { epoch: Some(_), .. } | Job::PostBootstrap { .. } => Role::Primary,
            _ => self.standby_role(),
        }
    }

    /// This node is to stream from nobody.
    pub(super) fn lives_by_archive(&self) -> bool {
        let settings = &self.agent.settings;
        let remote = settings.standby_cluster.as_ref().map(|standby| standby.upstream.is_some());
        settings.nostream || (self.memory.standby_leader && remote == Some(false))
    }

    /// What the files of the server hold that a job starts or promotes. In synchronous mode its clients wait until it is safe.
    fn overlay(&mut self, job: &Job) {
        self.current.primary = match job {
            Job::StartPrimary { names, .. } | Job::Promote { names, .. } | Job::Restart { epoch: Some(_), names } => {
                Overlay { standby_names: names.as_ref().map(StandbyNames::text), admits_clients: !job.holds_clients() }
            }
            Job::StartStandby { .. }
            | Job::CopySlots { .. }
            | Job::Restart { epoch: None, .. }
            | Job::Clone { .. }
            | Job::Rewind { .. } => Overlay::default(),
            Job::Initdb
            | Job::CustomBootstrap
            | Job::PostBootstrap { .. }
            | Job::AbandonBootstrap
            | Job::CheckDivergence { .. }
            | Job::PrePromote { .. }
            | Job::Stop(_) => return,
        };
    }

    /// The timelines of the leader of now, if they are known.
    fn lineage(&self) -> Option<Vec<Timeline>> {
        let leads = self.memory.view.as_ref()?.leader.as_ref()?.epoch;
        self.memory.divergence.filter(|known| known.epoch == leads && known.verdict == Verdict::Same)?;
        Some(self.memory.lineage.clone())
    }

    fn context(&self, job: &Job) -> Context {
        let server = self.current.server(self.role_of(job));
        let server = match job {
            Job::Promote { .. } => Arc::new(self.current.overlaid((*server).clone())),
            _ => server,
        };
        Context {
            server,
            lease: self.lease.clone(),
            guard: self.current.guard,
            stop_timeout: self.current.dynamic.postgresql.pg_ctl_timeout,
            slot: self.own_slot(),
            standby_cluster: self.current.dynamic.standby_cluster.is_some(),
            postmaster: self.node.postmaster.clone(),
            control: self.node.control.clone(),
            seen: self.node.seen.clone(),
            following: self.memory.following.clone(),
            lineage: self.lineage(),
            timeline_of_others: self.memory.view.as_ref().map_or(Timeline(0), |view| view.newest_timeline()),
            stalls: self.node.not_streaming_since.is_some_and(|since| boot_now().since(since) >= STALLS),
        }
    }
}

fn text(error: pgherd_dcs::StoreError) -> String {
    error.to_string()
}
