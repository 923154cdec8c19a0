//! The long actions, one at a time, in stages. A stage may come late, or never: the process may be stopped or killed between any two.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_ha::{
    Boot, ControlState, Divergence, Epoch, Job, Method, Permit, Slot, SlotKind, StandbyNames, StopMode, SystemId,
    Timeline, Upstream, Verdict,
};

use super::AgentEvent;
use super::observe::Held;
use super::round::News;
use crate::mutants::Mutant;
use crate::network::Place;
use crate::postgres::{Data, Directory, Phase, Start};
use crate::world::{Event, World, index};

/// As in `crates/agent/src/daemon/jobs.rs`.
const STOP: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(2);
const PROMOTE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct JobRun {
    id: u64,
    pub job: Job,
    pub since: Boot,
    /// The postmaster when it began.
    postmaster: Option<u64>,
    following: Option<Upstream>,
    /// The directory is being rewritten: cut short, it must not be started.
    rewriting: bool,
    /// Copied from another server.
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// Send the postmaster its signal.
    Signal,
    /// Another look whether it has stopped, until then.
    Stopped {
        until: Boot,
    },
    /// Begin to rewrite the directory.
    Rewrite,
    /// Start the postmaster.
    Launch {
        deadline: Boot,
    },
    /// Another look whether the receiver is gone, until then.
    Settled {
        until: Boot,
    },
    /// Another look whether the server has left recovery, until then.
    Promoted {
        until: Boot,
    },
    Finish,
}

/// What a job has changed.
#[derive(Debug, Default)]
pub struct Report {
    postmaster: Option<Option<u64>>,
    following: Option<Option<Upstream>>,
    divergence: Option<Divergence>,
    /// The timelines of the leader that was compared with.
    lineage: Vec<Timeline>,
    new_data: bool,
}

impl World {
    pub fn begin_job(&mut self, node: usize, job: Job) {
        self.interrupt_job(node);
        let (id, since) = (self.number(), self.boot(node));
        let daemon = self.daemon(node);
        let (postmaster, following) = (daemon.held.postmaster, daemon.following.clone());
        self.note(node, "job", || format!("begins: {job:?}"));
        let mut slots = Vec::new();
        let first = self.first_stage(node, &job, postmaster, &mut slots);
        let daemon = self.daemon(node);
        daemon.job = Some(JobRun { id, job, since, postmaster, following, rewriting: false, slots });
        match first {
            Ok((delay, stage)) => self.agent_after(node, delay, AgentEvent::Job(id, stage)),
            Err(error) => self.end_job(node, Err(error)),
        }
    }

    /// Cuts the job in progress off. What it has set going goes on.
    pub fn interrupt_job(&mut self, node: usize) {
        let Some(run) = self.nodes[node].agent.as_mut().and_then(|daemon| daemon.job.take()) else { return };
        if run.rewriting {
            self.nodes[node].postgres.data = Data::Incomplete;
        }
    }

    fn first_stage(
        &mut self,
        node: usize,
        job: &Job,
        postmaster: Option<u64>,
        copied: &mut Vec<Slot>,
    ) -> Result<(Duration, Stage), String> {
        let until = self.boot(node) + STOP;
        let stop = |world: &mut World, planned: bool| match postmaster {
            None => (Duration::ZERO, Stage::Stopped { until }),
            // A checkpoint first.
            Some(_) if planned => (world.rng.millis(20, 400), Stage::Signal),
            Some(_) => (Duration::from_millis(1), Stage::Signal),
        };
        Ok(match job {
            Job::Initdb => (self.rng.millis(300, 1500), Stage::Finish),
            Job::PostBootstrap { .. } if self.scenario.hooks.post_bootstrap => (self.hook_takes(), Stage::Finish),
            Job::PostBootstrap { .. } => (self.rng.millis(30, 300), Stage::Finish),
            Job::CustomBootstrap => (self.rng.millis(500, 4000), Stage::Finish),
            Job::PrePromote { .. } => (self.hook_takes(), Stage::Finish),
            Job::AbandonBootstrap => stop(self, false),
            Job::CheckDivergence { leader, .. } => {
                let answers = self.answers(node, leader);
                (if answers { self.rng.millis(5, 40) } else { self.rng.millis(200, 2000) }, Stage::Finish)
            }
            Job::Clone { .. } | Job::Rewind { .. } => stop(self, false),
            Job::CopySlots { source, slots } => {
                copied.extend(self.copied_slots(node, source, slots)?);
                stop(self, false)
            }
            Job::Stop(mode) => stop(self, matches!(mode, StopMode::Planned | StopMode::Demotion)),
            Job::Restart { epoch, .. } => stop(self, epoch.is_some()),
            Job::StartPrimary { .. } => self.launch_primary(node)?,
            Job::StartStandby { .. } => (self.rng.millis(15, 60), Stage::Launch { deadline: Boot::NEVER }),
            Job::Promote { .. } => {
                self.write_files(node, job);
                if !postmaster.is_some_and(|postmaster| self.license(node, postmaster)) {
                    return Err("the permit to have a writer is over".into());
                }
                let until = self.boot(node) + SETTLE;
                (self.rng.millis(1, 20), Stage::Settled { until })
            }
        })
    }

    /// The logical slots of another server, if this one has replayed what their consumers have confirmed.
    fn copied_slots(
        &mut self,
        node: usize,
        source: &Upstream,
        wanted: &BTreeMap<String, SlotKind>,
    ) -> Result<Vec<Slot>, String> {
        let from = index(&source.name).filter(|_| self.answers(node, source));
        let from = from.map(|from| &self.nodes[from].postgres).filter(|from| from.can_commit());
        let theirs = from.and_then(|from| from.data.directory()).ok_or("the leader does not answer")?;
        let found = theirs.slots.iter().filter(|slot| wanted.get(&slot.name) == Some(&slot.kind));
        let found: Vec<Slot> = found.cloned().collect();
        let replayed = self.nodes[node].postgres.running().map(|running| running.replayed);
        let behind = found.iter().any(|slot| slot.confirmed > replayed);
        if found.is_empty() || behind {
            return Err("there is nothing to copy yet".into());
        }
        Ok(found)
    }

    fn put_slots(&mut self, node: usize) {
        let copied = std::mem::take(&mut self.run(node).slots);
        if let Some(directory) = self.nodes[node].postgres.data.directory_mut() {
            directory.slots.retain(|slot| copied.iter().all(|copied| copied.name != slot.name));
            directory.slots.extend(copied);
        }
    }

    fn launch_primary(&mut self, node: usize) -> Result<(Duration, Stage), String> {
        let boot = self.boot(node);
        let permit = self.daemon(node).lease.permit;
        let deadline = match permit {
            Permit::Until { deadline, .. } if permit.allows_writer(boot) => deadline,
            Permit::Paused { .. } => Boot::NEVER,
            _ => return Err("the permit to have a writer is over; not starting".into()),
        };
        Ok((self.rng.millis(15, 60), Stage::Launch { deadline }))
    }

    pub fn job_stage(&mut self, node: usize, id: u64, stage: Stage) {
        if self.daemon(node).job.as_ref().is_none_or(|run| run.id != id) {
            return;
        }
        if self.nodes[node].disk.stuck_since.is_some() && self.writes(node, stage) {
            let life = self.nodes[node].life;
            return self.wait_for_machine(node, Event::Agent { node, life, event: AgentEvent::Job(id, stage) });
        }
        let result = match stage {
            Stage::Signal => self.signal(node),
            Stage::Stopped { until } => self.stopped(node, until),
            Stage::Rewrite => self.rewrite(node),
            Stage::Launch { deadline } => return self.launch(node, deadline),
            Stage::Settled { until } => self.settled(node, until),
            Stage::Promoted { until } => self.wait_promoted(node, until),
            Stage::Finish => return self.finish(node),
        };
        match result {
            Ok(Some((delay, stage))) => self.agent_after(node, delay, AgentEvent::Job(id, stage)),
            Ok(None) => {}
            Err(error) => self.end_job(node, Err(error)),
        }
    }

    /// The step writes to the data directory.
    fn writes(&mut self, node: usize, stage: Stage) -> bool {
        match stage {
            Stage::Rewrite | Stage::Launch { .. } => true,
            Stage::Finish => !matches!(self.run(node).job, Job::CheckDivergence { .. }),
            Stage::Signal | Stage::Stopped { .. } | Stage::Settled { .. } | Stage::Promoted { .. } => false,
        }
    }

    fn run(&mut self, node: usize) -> &mut JobRun {
        self.daemon(node).job.as_mut().expect("the caller has checked that it is in progress")
    }

    fn signal(&mut self, node: usize) -> Result<Option<(Duration, Stage)>, String> {
        let until = self.boot(node) + STOP;
        let run = self.run(node);
        let mode = match run.job {
            Job::Stop(mode) => mode,
            Job::AbandonBootstrap => StopMode::Immediate,
            _ => StopMode::Fast,
        };
        let postmaster = run.postmaster;
        if self.nodes[node].postgres.server.as_ref().map(|server| server.id) == postmaster {
            self.stop_server(node, mode);
        }
        Ok(Some((Duration::from_millis(5), Stage::Stopped { until })))
    }

    fn stopped(&mut self, node: usize, until: Boot) -> Result<Option<(Duration, Stage)>, String> {
        if self.nodes[node].postgres.server.is_some() && self.run(node).postmaster.is_some() {
            if self.boot(node) >= until {
                return Err("PostgreSQL has not stopped within 60 s".into());
            }
            return Ok(Some((Duration::from_millis(10), Stage::Stopped { until })));
        }
        match self.run(node).job.clone() {
            Job::Clone { source: Some(source), .. } => self.reachable_source(node, &source, 800, 4000),
            Job::Clone { source: None, .. } => Ok(Some((self.rng.millis(800, 4000), Stage::Finish))),
            Job::AbandonBootstrap => {
                self.move_aside(node);
                self.end_job(node, Ok(Report { postmaster: Some(None), new_data: true, ..Report::default() }));
                Ok(None)
            }
            Job::Rewind { source } => {
                let crashed = self.nodes[node].postgres.data.directory().is_some_and(|directory| {
                    matches!(directory.state, ControlState::InProduction | ControlState::InCrashRecovery)
                });
                let stage = self.reachable_source(node, &source, 100, if crashed { 2500 } else { 300 })?;
                Ok(stage.map(|(delay, _)| (delay, Stage::Rewrite)))
            }
            Job::Restart { epoch: Some(_), .. } => self.launch_primary(node).map(Some),
            Job::Restart { epoch: None, .. } | Job::CopySlots { .. } => {
                self.put_slots(node);
                Ok(Some((Duration::from_millis(20), Stage::Launch { deadline: Boot::NEVER })))
            }
            _ => {
                self.end_job(node, Ok(Report { postmaster: Some(None), ..Report::default() }));
                Ok(None)
            }
        }
    }

    fn reachable_source(
        &mut self,
        node: usize,
        source: &Upstream,
        from: u64,
        to: u64,
    ) -> Result<Option<(Duration, Stage)>, String> {
        if self.answers(node, source) {
            Ok(Some((self.rng.millis(from, to), Stage::Finish)))
        } else {
            Err(format!("{} does not answer", source.name))
        }
    }

    /// A server that takes connections and can be reached.
    fn answers(&self, node: usize, source: &Upstream) -> bool {
        if source.remote.is_some() {
            return true;
        }
        let Some(from) = index(&source.name) else { return false };
        let up = self.nodes[from].postgres.server.as_ref().is_some_and(|server| server.answers(self.now));
        up && self.network.connects(Place::Node(node), Place::Node(from))
    }

    fn rewrite(&mut self, node: usize) -> Result<Option<(Duration, Stage)>, String> {
        self.run(node).rewriting = true;
        Ok(Some((self.rng.millis(100, 1200), Stage::Finish)))
    }

    fn launch(&mut self, node: usize, deadline: Boot) {
        let (job, following) = (self.run(node).job.clone(), self.run(node).following.clone());
        if matches!(job, Job::StartPrimary { .. }) && self.ambushed(node) {
            let id = self.run_id(node);
            if let Some(id) = id {
                self.agent_after(node, Duration::ZERO, AgentEvent::Job(id, Stage::Launch { deadline }));
            }
            return;
        }
        let upstream = match &job {
            Job::StartStandby { upstream } => upstream.clone(),
            Job::Restart { epoch: None, .. } | Job::CopySlots { .. } => following,
            _ => None,
        };
        let primary = matches!(job, Job::StartPrimary { .. } | Job::Restart { epoch: Some(_), .. });
        self.write_files(node, &job);
        let from = upstream.as_ref().and_then(|upstream| index(&upstream.name));
        let guarded = !self.rng.chance(self.scenario.unguarded);
        let start = if primary { Start::Primary { deadline } } else { Start::Standby { upstream: from, guarded } };
        let lineage = self.lineage(node);
        if let Some(directory) = self.nodes[node].postgres.data.directory_mut().filter(|_| !primary) {
            directory.histories.remove_unused();
            if let Some(lineage) = lineage {
                directory.histories.remove_dead_ends(directory.timeline, &lineage);
            }
        }
        let result = if !primary && self.rng.chance(self.scenario.job_failures / 4) {
            None
        } else {
            self.start_server(node, start)
        };
        let result = match result {
            None => Err("PostgreSQL cannot be started".into()),
            Some(id) if primary && !self.license(node, id) => Err("the permit to have a writer is over".into()),
            Some(id) => Ok(Report { postmaster: Some(Some(id)), following: Some(upstream), ..Report::default() }),
        };
        self.end_job(node, result);
    }

    /// The timelines of the leader of now, if they are known.
    fn lineage(&mut self, node: usize) -> Option<Vec<Timeline>> {
        let daemon = self.daemon(node);
        let leads = daemon.view.as_ref()?.leader.as_ref()?.epoch;
        daemon.divergence.filter(|known| known.epoch == leads && known.verdict == Verdict::Same)?;
        Some(daemon.lineage.clone())
    }

    /// The names of the synchronous standbys, and whether clients are let in, as the job's server is to have them.
    fn write_files(&mut self, node: usize, job: &Job) {
        let names = match job {
            Job::StartPrimary { names, .. } | Job::Promote { names, .. } | Job::Restart { names, .. } => names.clone(),
            _ => None,
        };
        let forgets = match (job, self.mutant) {
            (Job::Promote { .. }, mutant) => mutant == Some(Mutant::PromotedWithoutNames),
            (Job::StartPrimary { .. }, mutant) => mutant == Some(Mutant::RestartedWithoutNames),
            (_, mutant) => mutant == Some(Mutant::StandbyWithoutNames),
        };
        let admits = names.is_none() || self.mutant == Some(Mutant::AdmitAtOnce);
        if let Some(directory) = self.nodes[node].postgres.data.directory_mut() {
            directory.admits_clients = admits;
        }
        // A standby's commits, should it ever make any, wait for nobody that there is: that they wait at all must not be news to it when it is
        // promoted.
        let standby = self.scenario.synchronous.map(|_| StandbyNames::nobody_at_all(Method::First));
        let names = names.or(standby).filter(|_| !forgets);
        self.set_standby_names(node, names.unwrap_or_default());
    }

    /// A hook that hangs comes back.
    pub fn hook_comes_back(&mut self, node: usize) {
        let run = self.nodes[node].agent.as_ref().and_then(|daemon| daemon.job.as_ref());
        let is_hook = |run: &&JobRun| matches!(run.job, Job::PrePromote { .. } | Job::PostBootstrap { .. });
        if let Some(id) = run.filter(is_hook).map(|run| run.id) {
            self.agent_after(node, Duration::ZERO, AgentEvent::Job(id, Stage::Finish));
        }
    }

    fn run_id(&self, node: usize) -> Option<u64> {
        self.nodes[node].agent.as_ref().and_then(|daemon| daemon.job.as_ref()).map(|run| run.id)
    }

    fn settled(&mut self, node: usize, until: Boot) -> Result<Option<(Duration, Stage)>, String> {
        let postgres = &self.nodes[node].postgres;
        let settled = postgres.running().is_some_and(|running| running.settled);
        let told = postgres.server.as_ref().zip(postgres.data.directory());
        let told = told.is_none_or(|(server, directory)| server.commits.names == directory.names);
        if (!settled && self.boot(node) < until) || !told {
            return Ok(Some((Duration::from_millis(10), Stage::Settled { until })));
        }
        if self.ambushed(node) {
            if let Some(id) = self.run_id(node) {
                self.agent_after(node, Duration::ZERO, AgentEvent::Job(id, Stage::Settled { until }));
            }
            return Ok(None);
        }
        self.pass_over(node);
        if let Job::Promote { slots, .. } = self.run(node).job.clone() {
            self.change_slots(node, &slots);
        }
        if !self.promote_server(node) {
            return Err("PostgreSQL does not let itself be promoted".into());
        }
        let until = self.boot(node) + PROMOTE;
        Ok(Some((Duration::from_millis(10), Stage::Promoted { until })))
    }

    /// Makes the server take the timeline that is reserved for it.
    fn pass_over(&mut self, node: usize) {
        let Job::Promote { timeline: reserved, .. } = self.run(node).job else { return };
        let unreserved = self.mutant == Some(Mutant::PromoteUnreserved);
        if let Some(directory) = self.nodes[node].postgres.data.directory_mut().filter(|_| !unreserved) {
            directory.histories.pass_over(directory.timeline, reserved);
        }
    }

    fn wait_promoted(&mut self, node: usize, until: Boot) -> Result<Option<(Duration, Stage)>, String> {
        let postmaster = self.run(node).postmaster;
        match &self.nodes[node].postgres.server {
            Some(server) if Some(server.id) == postmaster && server.phase == Phase::Up => {
                if !server.in_recovery {
                    self.end_job(node, Ok(Report { following: Some(None), ..Report::default() }));
                    return Ok(None);
                }
            }
            _ => return Err("PostgreSQL is gone".into()),
        }
        if self.boot(node) >= until {
            return Err("PostgreSQL has not left recovery within 30 s".into());
        }
        Ok(Some((Duration::from_millis(10), Stage::Promoted { until })))
    }

    fn finish(&mut self, node: usize) {
        let failures = self.scenario.job_failures;
        let fails = self.rng.chance(failures);
        let job = self.run(node).job.clone();
        let result = match job.clone() {
            Job::CheckDivergence { epoch, leader } => Ok(self.compare(node, epoch, &leader)),
            _ if fails || self.hook_fails(&job) => Err("it was to fail".into()),
            _ if self.nodes[node].disk.full => Err("no space left on device".into()),
            Job::Initdb => {
                let (number, id) = (self.number(), SystemId(7_000_000_000_000_000_000 + self.number()));
                self.nodes[node].postgres.data = Data::Present(Directory::initdb(id, number));
                Ok(Report { new_data: true, ..Report::default() })
            }
            Job::CustomBootstrap => {
                let (number, id) = (self.number(), SystemId(7_000_000_000_000_000_000 + self.number()));
                let restored = Directory { restores: true, ..Directory::initdb(id, number) };
                self.nodes[node].postgres.data = Data::Present(restored);
                Ok(Report { new_data: true, ..Report::default() })
            }
            Job::Clone { source: None, .. } => match self.restored_from_archive() {
                Some(directory) => {
                    self.nodes[node].postgres.data = Data::Present(directory);
                    Ok(Report { postmaster: Some(None), new_data: true, following: Some(None), ..Report::default() })
                }
                None => Err("there is no archive".into()),
            },
            Job::PostBootstrap { .. } => {
                if let Some(directory) = self.nodes[node].postgres.data.directory_mut() {
                    directory.bootstrap_pending = false;
                }
                Ok(Report::default())
            }
            Job::Rewind { source } if self.looks_unpromoted(&source) => self.rewind_in_vain(node),
            Job::Clone { source: Some(source), .. } | Job::Rewind { source } => self.copy(node, &source),
            _ => Ok(Report::default()),
        };
        self.end_job(node, result);
    }

    /// pg_rewind reads the timeline of a source from its control file, where it is the old one until the checkpoint after a promotion.
    fn looks_unpromoted(&self, source: &Upstream) -> bool {
        let server = index(&source.name).and_then(|from| self.nodes[from].postgres.server.as_ref());
        server.is_some_and(|server| !server.checkpointed)
    }

    /// It finds nothing to do, and says that all is well.
    fn rewind_in_vain(&mut self, node: usize) -> Result<Report, String> {
        self.run(node).rewriting = false;
        if let Some(directory) = self.nodes[node].postgres.data.directory_mut() {
            directory.state = ControlState::ShutDown;
            directory.standby_signal = true;
        }
        Ok(Report { postmaster: Some(None), new_data: true, following: Some(None), ..Report::default() })
    }

    /// The directory becomes a standby's copy of the source's.
    fn copy(&mut self, node: usize, source: &Upstream) -> Result<Report, String> {
        if source.remote.is_some() {
            return Ok(self.copy_other_cluster(node));
        }
        let from = index(&source.name).filter(|_| self.answers(node, source));
        let theirs = from.and_then(|from| self.nodes[from].postgres.data.directory()).cloned();
        let Some(theirs) = theirs else { return Err(format!("{} does not answer any more", source.name)) };
        self.nodes[node].postgres.data = Data::Present(Directory {
            state: ControlState::InArchiveRecovery,
            standby_signal: true,
            upstream: None,
            bootstrap_pending: false,
            restores: false,
            from_archive: false,
            names: Default::default(),
            admits_clients: true,
            slots: Vec::new(),
            ..theirs
        });
        self.run(node).rewriting = false;
        Ok(Report { postmaster: Some(None), new_data: true, following: Some(None), ..Report::default() })
    }

    /// The same copy for everybody.
    fn copy_other_cluster(&mut self, node: usize) -> Report {
        self.nodes[node].postgres.data = Data::Present(Directory {
            state: ControlState::InArchiveRecovery,
            standby_signal: true,
            bootstrap_pending: false,
            ..Directory::initdb(SystemId(6_000_000_000_000_000_000), u64::MAX)
        });
        self.run(node).rewriting = false;
        Report { postmaster: Some(None), new_data: true, following: Some(None), ..Report::default() }
    }

    fn compare(&mut self, node: usize, epoch: Epoch, leader: &Upstream) -> Report {
        let at = self.boot(node);
        let own = self.nodes[node].postgres.data.directory();
        let from = index(&leader.name).filter(|_| self.answers(node, leader)).map(|from| &self.nodes[from].postgres);
        let verdict = match (own, from) {
            (Some(own), Some(from)) if from.server.as_ref().is_some_and(|server| !server.in_recovery) => {
                let theirs = from.data.directory().expect("a server runs in it");
                if own.is_prefix_of(theirs) {
                    Verdict::Same
                } else if own.log[own.common(theirs)..].first().map(|record| record.timeline)
                    == theirs.log.get(own.common(theirs)).map(|record| record.timeline)
                {
                    // The same timeline from the same point: pg_rewind would see nothing to do, and whoever is not ahead looks like
                    // a beginning of the leader's log.
                    if own.end() > theirs.end() { Verdict::OnlyCopy } else { Verdict::Same }
                } else {
                    Verdict::Diverged
                }
            }
            _ => Verdict::Unknown,
        };
        let lineage = from.and_then(|from| from.data.directory()).map(Directory::lineage).unwrap_or_default();
        Report { divergence: Some(Divergence { epoch, verdict, at }), lineage, ..Report::default() }
    }

    /// A job's end waits for the loop like all its news.
    fn end_job(&mut self, node: usize, result: Result<Report, String>) {
        let run = self.run(node);
        if std::mem::take(&mut run.rewriting) {
            self.nodes[node].postgres.data = Data::Incomplete;
        }
        let run = self.run(node);
        run.id = 0;
        let job = run.job.clone();
        self.news(node, News::Job(job, Box::new(result)));
    }

    pub fn take_report(&mut self, node: usize, report: Report) {
        let boot = self.boot(node);
        let daemon = self.daemon(node);
        if let Some(postmaster) = report.postmaster {
            daemon.held = Held::new(postmaster, boot);
        }
        if let Some(following) = report.following {
            daemon.following = following;
        }
        if let Some(divergence) = report.divergence {
            daemon.divergence = Some(divergence);
            daemon.lineage = report.lineage;
        }
        if report.new_data {
            daemon.divergence = None;
        }
    }
}
