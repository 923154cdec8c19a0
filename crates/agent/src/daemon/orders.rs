//! What comes to the loop between two rounds: commands, a changed configuration, the reports of jobs.

use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{Callback, CallbackEvent, Job, Permit, Role};

use super::fallback::RefusedLines;
use super::jobs::Report;
use super::round::Daemon;
use super::settings::Overlay;
use crate::api::{self, Command};
use crate::config::{Config, SynchronousMode};
use crate::postgres::{Recovery, access};

/// Asking a running server what it thinks of its access rules takes milliseconds; the round must go on.
const ACCESS_CHECK: Duration = Duration::from_secs(1);

/// How long a name to listen on may take to be resolved; the round must go on.
const RESOLVE: Duration = Duration::from_secs(1);

/// The view of `pg_ident.conf` came with 15.
const SAYS_ERRORS_OF_MAPPINGS: u32 = 150_000;

fn not_used(key: &str, trouble: &str, lines: &[String], before: Vec<String>) -> RefusedLines {
    let said =
        format!("postgresql.{key} is not used: {trouble}; the lines of before stay in force until it is corrected");
    tracing::warn!("{said}");
    RefusedLines { refused: lines.to_vec(), before, said }
}

impl Daemon {
    pub(super) async fn command(&mut self, command: Command) {
        // A comparison of histories touches nothing and is cut off by whatever comes.
        let busy = self.jobs.in_progress().map(|(job, _)| job.clone());
        let busy = busy.filter(|job| !matches!(job, Job::CheckDivergence { .. }));
        match command {
            Command::Restart { filter, reply } => {
                self.commands.restart(filter, Some(reply), &self.node, busy.as_ref());
            }
            Command::ScheduleRestart { restart, reply } => {
                let accepted = self.commands.schedule(restart, &self.node);
                // Whoever asked may be gone.
                let _ = reply.send(accepted);
            }
            Command::DeleteScheduledRestart { reply } => {
                let deleted = self.commands.unschedule();
                let _ = reply.send(deleted);
            }
            Command::Reload => self.reload().await,
            Command::Reinitialize { force, from_leader, reply } => {
                let leads = self.lease.lease().is_some();
                if force && !leads && busy.is_some() {
                    self.jobs.cancel().await;
                }
                self.commands.reinitialize(force, from_leader, reply, busy.as_ref());
            }
            Command::Observe { reply } => self.memory.observers.push(reply),
            Command::Wake => {}
        }
    }

    /// A restart whose time has come, unless the cluster is paused.
    pub(super) fn scheduled_restart(&mut self) {
        self.commands.drop_outdated(self.node.seen.as_ref());
        if self.memory.view.as_ref().is_some_and(|view| view.is_paused()) {
            return;
        }
        if let Some(restart) = self.commands.due(pgherd_ha::Wall::now()) {
            let busy = self.jobs.in_progress().map(|(job, _)| job.clone());
            self.commands.restart(restart.filter, None, &self.node, busy.as_ref());
        }
    }

    /// Reads the file again; a broken one changes nothing.
    pub(super) async fn reload(&mut self) {
        self.systemd.reloading();
        self.read_again().await;
        self.systemd.ready();
    }

    async fn read_again(&mut self) {
        match Config::load(self.path.as_deref(), &self.environment) {
            Ok(mut config) => {
                let fixed = self.current.config.fixed_differences(&config);
                if !fixed.is_empty() {
                    let keys = fixed.join("`, `");
                    tracing::error!(
                        "the configuration stays as it was: `{keys}` cannot change while the agent runs; restart it for that"
                    );
                    return;
                }
                if config.log != self.current.config.log {
                    crate::log::apply(&config.log);
                }
                for warning in &config.warnings.0 {
                    tracing::warn!("{warning}");
                }
                for key in self.current.config.later_differences(&config) {
                    tracing::warn!("`{key}` has changed: that is in force when the agent is started again");
                }
                self.move_api(&mut config).await;
                self.current.replace(config);
                self.memory.apply = true;
                self.store.reconfigure(&self.current.config.store.servers());
                self.publisher.reconfigure(&self.current.config).await;
                match super::peer_client(&self.current) {
                    Ok(peers) => self.peers.replace(&peers),
                    Err(error) => tracing::error!("other members are asked as before: {error:#}"),
                }
                tracing::info!("the configuration was read again");
            }
            Err(error) => tracing::error!("the configuration stays as it was: {error}"),
        }
    }

    /// To where `restapi.listen` says. Where it cannot listen there, it stays where it is, and so does what members are told of it.
    async fn move_api(&mut self, config: &mut Config) {
        let now = &self.current.config.restapi;
        if now.listen == config.restapi.listen && !self.api.addresses().is_empty() {
            return;
        }
        let listen = config.restapi.listen.to_string();
        let error = match tokio::time::timeout(RESOLVE, api::resolve_listen(&listen)).await {
            // Not to be cut off in the middle.
            Ok(Ok(addresses)) => match self.api.listen_on(&addresses).await {
                Ok(()) => return tracing::info!("the REST API listens on {listen} now"),
                Err(error) => anyhow::Error::from(error),
            },
            Ok(Err(error)) => anyhow::Error::from(error),
            Err(_) => anyhow::anyhow!("{listen} was not resolved in time"),
        };
        match self.api.addresses().is_empty() {
            true => tracing::error!("the REST API listens nowhere, until the file is read again: {error:#}"),
            false => tracing::error!("the REST API listens on {} as before: {error:#}", now.listen),
        }
        config.restapi.listen = now.listen.clone();
        config.restapi.connect_address = now.connect_address.clone();
    }

    /// Brings what has changed in the configuration into force: the times of the lease, and the files of the server.
    pub(super) async fn apply_configuration(&mut self) {
        if let Some(view) = self.memory.view.clone().filter(|_| self.memory.reachable) {
            self.memory.apply |= self.current.update(&view);
        }
        if !std::mem::take(&mut self.memory.apply) {
            return;
        }
        let accepted = self.current.ask_for_acceptance().await;
        self.memory.apply |= !accepted;
        let timing = self.current.dynamic.timing;
        self.lease.set_times(timing.ttl, timing.loop_wait);
        self.lease.watchdog.configure(self.current.watchdog());
        self.store.set_ttl(timing.ttl);
        let server = self.current.server(Role::Replica);
        self.node.set_server(server.clone());
        // A restore is on its way to where it was told to go; what is written now would lead it elsewhere.
        if self.node.postmaster.is_none() || server.bootstraps {
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
        // Found running: what a former agent has set stays. Empty names would let every commit through that waits.
        if !seen.in_recovery && self.current.primary.standby_names.is_none() {
            // Without a word from the store the mode may be on although the file does not know of it.
            let unknown = self.memory.view.is_none() && !seen.synchronous_standby_names.is_empty();
            let synchronous = self.current.dynamic.synchronous_mode != SynchronousMode::Off || unknown;
            let narrowed = access::is_narrowed(&self.node.server);
            self.current.primary = Overlay {
                standby_names: synchronous.then(|| seen.synchronous_standby_names.clone()),
                admits_clients: !narrowed.unwrap_or_else(|error| {
                    tracing::warn!("whether pg_hba.conf keeps clients out is unknown: {}", error.full());
                    false
                }),
            };
        }
        let rules = access::lines_in_force(&self.node.server);
        let mappings = access::mappings_in_force(&self.node.server);
        match self.rewrite_running().await {
            Ok(()) => {
                self.check_access_rules(rules).await;
                self.check_mappings(mappings).await;
            }
            Err(error) => {
                self.complain(format!("the server's settings could not be brought up to date: {error}"));
                self.memory.apply = true;
            }
        }
    }

    /// The server goes on with the rules of before where it cannot read the new ones; but it would not start with these. So those of before
    /// are put back.
    async fn check_access_rules(&mut self, before: Option<Vec<String>>) {
        let Some(role) = self.running_role() else { return };
        let server = self.current.server(role);
        if server.pg_hba.is_empty() || !server.admits_clients || server.parameters.contains_key("hba_file") {
            return;
        }
        let before = self.current.fallback.access.before(&server.pg_hba, before);
        let trouble = match tokio::time::timeout(ACCESS_CHECK, access::trouble(self.node.connection(), &server)).await {
            Ok(Ok(Some(trouble))) => trouble,
            Ok(Ok(None)) => {
                self.current.fallback.access.read(&server.pg_hba);
                return;
            }
            Ok(Err(error)) => return tracing::debug!("the access rules could not be checked: {}", error.full()),
            Err(_) => {
                self.memory.apply = true;
                return tracing::debug!("the access rules could not be checked in time");
            }
        };
        match before {
            Some(before) => {
                let refused = not_used("pg_hba", &trouble, &server.pg_hba, before);
                self.current.fallback.access.refuse(refused);
                self.memory.apply = true;
            }
            None => self.complain(format!(
                "postgresql.pg_hba cannot be used: {trouble}; correct it, or the server will not start again"
            )),
        }
    }

    /// The server goes on with the mappings of before, too; but started anew it would have none, and let nobody in who needs one.
    async fn check_mappings(&mut self, before: Option<Vec<String>>) {
        let Some(role) = self.running_role() else { return };
        let server = self.current.server(role);
        let says = self.node.seen.as_ref().is_some_and(|seen| seen.server_version >= SAYS_ERRORS_OF_MAPPINGS);
        if !says || server.pg_ident.is_empty() || server.parameters.contains_key("ident_file") {
            return;
        }
        let before = self.current.fallback.mappings.before(&server.pg_ident, before);
        let asked = access::trouble_of_mappings(self.node.connection());
        let trouble = match tokio::time::timeout(ACCESS_CHECK, asked).await {
            Ok(Ok(Some(trouble))) => trouble,
            Ok(Ok(None)) => {
                self.current.fallback.mappings.read(&server.pg_ident);
                return;
            }
            Ok(Err(error)) => return tracing::debug!("the mappings could not be checked: {}", error.full()),
            Err(_) => {
                self.memory.apply = true;
                return tracing::debug!("the mappings could not be checked in time");
            }
        };
        match before {
            Some(before) => {
                let refused = not_used("pg_ident", &trouble, &server.pg_ident, before);
                self.current.fallback.mappings.refuse(refused);
                self.memory.apply = true;
            }
            None => self.complain(format!(
                "postgresql.pg_ident cannot be used: {trouble}; correct it, or the server will have no mapping when it starts again"
            )),
        }
    }

    /// What the server runs as; `None` before its first answer.
    pub(super) fn running_role(&self) -> Option<Role> {
        self.node.seen.as_ref().map(|seen| if seen.in_recovery { self.standby_role() } else { Role::Primary })
    }

    /// The files of the running server, as they are to be now.
    pub(super) async fn rewrite_running(&mut self) -> Result<(), String> {
        let Some(role) = self.running_role() else {
            return Err("PostgreSQL has not answered yet, so its files are left as they are".into());
        };
        let recovery = match role {
            Role::Primary => Recovery::RunningPrimary,
            _ => Recovery::Standby { upstream: self.upstream(self.memory.following.as_ref()) },
        };
        let server = self.current.server(role);
        super::jobs::rewrite(&server, recovery, self.node.control.as_ref()).await?;
        self.call_back(Callback { event: CallbackEvent::Reload, role });
        Ok(())
    }

    pub(super) fn take_report(&mut self, report: Report) {
        if let Some(postmaster) = report.postmaster {
            if postmaster.is_some() {
                self.current.fallback.started();
            }
            self.node.hold(postmaster);
        }
        if let Some(following) = report.following {
            self.memory.following = following;
        }
        if let Some(slots) = report.slots {
            self.memory.last_slots = slots;
        }
        if let Some(divergence) = report.divergence {
            self.memory.divergence = Some(divergence);
            self.memory.lineage = report.lineage;
        }
        if let Some(complaint) = report.complaint {
            self.complain(complaint);
        }
        if report.new_data {
            self.memory.divergence = None;
            // How its server is reached may depend on how it was made.
            self.memory.apply = true;
        }
        if report.bootstrapped {
            // Access rules and connections are those of the configuration from now on.
            self.current.new_cluster = false;
            self.memory.apply = true;
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
