//! The long actions, one at a time, in stages. A stage may come late, or never: the process may be stopped or killed between any two.

use std::time::Duration;

use pgherd_ha::{Boot, ControlState, Divergence, Epoch, Job, Permit, StopMode, SystemId, Upstream, Verdict};

use super::AgentEvent;
use super::observe::Held;
use super::round::News;
use crate::network::Place;
use crate::postgres::{Data, Directory, Phase, Start};
use crate::world::{World, index};

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
    new_data: bool,
}

impl World {
    pub fn begin_job(&mut self, node: usize, job: Job) {
        self.interrupt_job(node);
        let (id, since) = (self.number(), self.boot(node));
        let daemon = self.daemon(node);
        let (postmaster, following) = (daemon.held.postmaster, daemon.following.clone());
        self.note(node, "job", || format!("begins: {job:?}"));
        let first = self.first_stage(node, &job, postmaster);
        let daemon = self.daemon(node);
        daemon.job = Some(JobRun { id, job, since, postmaster, following, rewriting: false });
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

    fn first_stage(&mut self, node: usize, job: &Job, postmaster: Option<u64>) -> Result<(Duration, Stage), String> {
        let until = self.boot(node) + STOP;
        let stop = |world: &mut World, planned: bool| match postmaster {
            None => (Duration::ZERO, Stage::Stopped { until }),
            // A checkpoint first.
            Some(_) if planned => (world.rng.millis(20, 400), Stage::Signal),
            Some(_) => (Duration::from_millis(1), Stage::Signal),
        };
        Ok(match job {
            Job::Initdb => (self.rng.millis(300, 1500), Stage::Finish),
            Job::PostBootstrap { .. } => (self.rng.millis(30, 300), Stage::Finish),
            Job::CheckDivergence { leader, .. } => {
                let answers = self.answers(node, leader);
                (if answers { self.rng.millis(5, 40) } else { self.rng.millis(200, 2000) }, Stage::Finish)
            }
            Job::Clone { .. } | Job::Rewind { .. } => stop(self, false),
            Job::Stop(mode) => stop(self, *mode == StopMode::Planned),
            Job::Restart { epoch } => stop(self, epoch.is_some()),
            Job::StartPrimary { .. } => self.launch_primary(node)?,
            Job::StartStandby { .. } => (self.rng.millis(15, 60), Stage::Launch { deadline: Boot::NEVER }),
            Job::Promote { .. } => {
                if !postmaster.is_some_and(|postmaster| self.license(node, postmaster)) {
                    return Err("the permit to have a writer is over".into());
                }
                let until = self.boot(node) + SETTLE;
                (self.rng.millis(1, 20), Stage::Settled { until })
            }
        })
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

    fn run(&mut self, node: usize) -> &mut JobRun {
        self.daemon(node).job.as_mut().expect("the caller has checked that it is in progress")
    }

    fn signal(&mut self, node: usize) -> Result<Option<(Duration, Stage)>, String> {
        let until = self.boot(node) + STOP;
        let run = self.run(node);
        let mode = if let Job::Stop(mode) = run.job { mode } else { StopMode::Fast };
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
            Job::Clone { source } => self.reachable_source(node, &source, 800, 4000),
            Job::Rewind { source } => {
                let crashed = self.nodes[node].postgres.data.directory().is_some_and(|directory| {
                    matches!(directory.state, ControlState::InProduction | ControlState::InCrashRecovery)
                });
                let stage = self.reachable_source(node, &source, 100, if crashed { 2500 } else { 300 })?;
                Ok(stage.map(|(delay, _)| (delay, Stage::Rewrite)))
            }
            Job::Restart { epoch: Some(_) } => self.launch_primary(node).map(Some),
            Job::Restart { epoch: None } => {
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
            Job::Restart { epoch: None } => following,
            _ => None,
        };
        let primary = matches!(job, Job::StartPrimary { .. } | Job::Restart { epoch: Some(_) });
        let from = upstream.as_ref().and_then(|upstream| index(&upstream.name));
        let guarded = !self.rng.chance(self.scenario.unguarded);
        let start = if primary { Start::Primary { deadline } } else { Start::Standby { upstream: from, guarded } };
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

    fn run_id(&self, node: usize) -> Option<u64> {
        self.nodes[node].agent.as_ref().and_then(|daemon| daemon.job.as_ref()).map(|run| run.id)
    }

    fn settled(&mut self, node: usize, until: Boot) -> Result<Option<(Duration, Stage)>, String> {
        let settled = self.nodes[node].postgres.running().is_some_and(|running| running.settled);
        if !settled && self.boot(node) < until {
            return Ok(Some((Duration::from_millis(10), Stage::Settled { until })));
        }
        if self.ambushed(node) {
            if let Some(id) = self.run_id(node) {
                self.agent_after(node, Duration::ZERO, AgentEvent::Job(id, Stage::Settled { until }));
            }
            return Ok(None);
        }
        if !self.promote_server(node) {
            return Err("PostgreSQL does not let itself be promoted".into());
        }
        let until = self.boot(node) + PROMOTE;
        Ok(Some((Duration::from_millis(10), Stage::Promoted { until })))
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
        let result = match job {
            Job::CheckDivergence { epoch, leader } => Ok(self.compare(node, epoch, &leader)),
            _ if fails => Err("it was to fail".into()),
            Job::Initdb => {
                let (number, id) = (self.number(), SystemId(7_000_000_000_000_000_000 + self.number()));
                self.nodes[node].postgres.data = Data::Present(Directory::initdb(id, number));
                Ok(Report { new_data: true, ..Report::default() })
            }
            Job::PostBootstrap { .. } => {
                if let Some(directory) = self.nodes[node].postgres.data.directory_mut() {
                    directory.bootstrap_pending = false;
                }
                Ok(Report::default())
            }
            Job::Clone { source } | Job::Rewind { source } => self.copy(node, &source),
            _ => Ok(Report::default()),
        };
        self.end_job(node, result);
    }

    /// The directory becomes a standby's copy of the source's.
    fn copy(&mut self, node: usize, source: &Upstream) -> Result<Report, String> {
        let from = index(&source.name).filter(|_| self.answers(node, source));
        let theirs = from.and_then(|from| self.nodes[from].postgres.data.directory()).cloned();
        let Some(theirs) = theirs else { return Err(format!("{} does not answer any more", source.name)) };
        self.nodes[node].postgres.data = Data::Present(Directory {
            state: ControlState::InArchiveRecovery,
            standby_signal: true,
            upstream: None,
            bootstrap_pending: false,
            ..theirs
        });
        self.run(node).rewriting = false;
        Ok(Report { postmaster: Some(None), new_data: true, following: Some(None), ..Report::default() })
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
                    // The same timeline from the same point: pg_rewind would see nothing to do.
                    Verdict::OnlyCopy
                } else {
                    Verdict::Diverged
                }
            }
            _ => Verdict::Unknown,
        };
        Report { divergence: Some(Divergence { epoch, verdict, at }), ..Report::default() }
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
        self.news(node, News::Job(job, result));
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
        }
        if report.new_data {
            daemon.divergence = None;
        }
    }
}
