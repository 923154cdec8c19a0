//! What comes to the loop between two rounds: commands, a changed configuration, the reports of jobs.

use pgherd_dcs::boot_now;
use pgherd_ha::{Job, Permit, Role};

use super::jobs::Report;
use super::round::Daemon;
use crate::api::Command;
use crate::config::Config;
use crate::postgres::Recovery;

impl Daemon {
    pub(super) async fn command(&mut self, command: Command) {
        // A comparison of histories touches nothing and is cut off by whatever comes.
        let busy = self.jobs.in_progress().map(|(job, _)| job.clone());
        let busy = busy.filter(|job| !matches!(job, Job::CheckDivergence { .. }));
        match command {
            Command::Restart { filter, reply } => {
                self.commands.restart(filter, Some(reply), self.node.seen.as_ref(), busy.as_ref());
            }
            Command::ScheduleRestart { restart, reply } => {
                let accepted = self.commands.schedule(restart);
                // Whoever asked may be gone.
                let _ = reply.send(accepted);
            }
            Command::DeleteScheduledRestart { reply } => {
                let deleted = self.commands.unschedule();
                let _ = reply.send(deleted);
            }
            Command::Reload => self.reload().await,
            Command::Reinitialize { force, from_leader: _, reply } => {
                let leads = self.lease.lease().is_some();
                if force && !leads && busy.is_some() {
                    self.jobs.cancel().await;
                }
                self.commands.reinitialize(force, reply, busy.as_ref());
            }
            Command::Observe { reply } => self.memory.observers.push(reply),
            Command::Wake => {}
        }
    }

    /// A restart whose time has come, unless the cluster is paused.
    pub(super) fn scheduled_restart(&mut self) {
        if self.memory.view.as_ref().is_some_and(|view| view.is_paused()) {
            return;
        }
        if let Some(restart) = self.commands.due(pgherd_ha::Wall::now()) {
            let busy = self.jobs.in_progress().map(|(job, _)| job.clone());
            self.commands.restart(restart.filter, None, self.node.seen.as_ref(), busy.as_ref());
        }
    }

    /// Reads the file again; a broken one changes nothing.
    pub(super) async fn reload(&mut self) {
        match Config::load(self.path.as_deref(), &self.environment) {
            Ok(config) => {
                let fixed = self.current.config.fixed_differences(&config);
                if !fixed.is_empty() {
                    let keys = fixed.join("`, `");
                    tracing::error!(
                        "the configuration stays as it was: `{keys}` cannot change while the agent runs; restart it for that"
                    );
                    return;
                }
                for warning in &config.warnings.0 {
                    tracing::warn!("{warning}");
                }
                for key in self.current.config.later_differences(&config) {
                    tracing::warn!("`{key}` has changed: that is in force when the agent is started again");
                }
                self.current.replace(config);
                self.memory.apply = true;
                self.publisher.reconfigure(&self.current.config).await;
                tracing::info!("the configuration was read again");
            }
            Err(error) => tracing::error!("the configuration stays as it was: {error}"),
        }
    }

    /// Brings what has changed in the configuration into force: the times of the lease, and the files of the server.
    pub(super) async fn apply_configuration(&mut self) {
        if let Some(view) = self.memory.view.clone().filter(|_| self.memory.reachable) {
            self.memory.apply |= self.current.update(&view);
        }
        if !std::mem::take(&mut self.memory.apply) {
            return;
        }
        let timing = self.current.dynamic.timing;
        self.lease.set_times(timing.ttl, timing.loop_wait);
        self.store.set_ttl(timing.ttl);
        self.node.set_server(self.current.server(Role::Replica));
        if self.node.postmaster.is_none() {
            return;
        }
        // It may be about to change what the server is.
        if self.jobs.in_progress().is_some() {
            self.memory.apply = true;
            return;
        }
        // Before the first answer it is not known what the server is, and a wrong recovery section could stop it from streaming.
        let Some(seen) = &self.node.seen else {
            self.memory.apply = true;
            return;
        };
        let upstream = self.upstream(self.memory.following.as_ref());
        let (role, recovery) = match seen.in_recovery {
            false => (Role::Primary, Recovery::RunningPrimary),
            true => (Role::Replica, Recovery::Standby { upstream }),
        };
        let server = self.current.server(role);
        if let Err(error) = super::jobs::rewrite(&server, recovery, self.node.control.as_ref()).await {
            tracing::warn!("the server's settings could not be brought up to date: {error}");
        }
    }

    pub(super) fn take_report(&mut self, report: Report) {
        if let Some(postmaster) = report.postmaster {
            self.node.hold(postmaster);
        }
        if let Some(following) = report.following {
            self.memory.following = following;
        }
        if let Some(divergence) = report.divergence {
            self.memory.divergence = Some(divergence);
        }
        if let Some(complaint) = report.complaint {
            self.complain(complaint);
        }
        if report.new_data {
            self.memory.divergence = None;
        }
        if report.promoted {
            self.node.checkpointed = false;
            // What was seen of it was a standby. Settings that only a primary has are written once it has answered as one.
            self.node.seen = None;
            self.memory.apply = true;
        }
        if let Permit::None = **self.lease.permit.load() {
            self.lease.watch.disk_answered(boot_now());
        }
    }
}
