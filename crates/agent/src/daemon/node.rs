//! What this node knows of its own PostgreSQL: the postmaster that it holds, what it last answered, its data directory.
//!
//! Observing changes nothing but what is known. Not here: what to do about it (`pgherd_ha`), and doing it (`jobs`).

use std::sync::Arc;
use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{
    Boot, ConnectedStandby, ControlFile, ControlState, DataDirectory, Lsn, Running, Slot, SlotKind, SyncState, Timeline,
};

use super::complaints::Complaints;
use super::pending::PendingRestart;
use crate::guard::{Attached, Guard, GuardError, Process, attach, scan};
use crate::postgres::{
    self, ClusterState, Connection, ControlData, Error, Marker, Observation, Purpose, Server, data_directory,
    history_files, postmaster::PidFile, probe::LEAST_ROOM,
};

/// A server that does not answer its heartbeat in this time counts as silent for the round; the round must go on.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The postmaster that runs, with or without a guard.
#[derive(Clone, Debug)]
pub enum Postmaster {
    Guarded(Arc<Guard>),
    Unguarded(Arc<Process>),
}

impl Postmaster {
    pub async fn exit(&self) {
        match self {
            Postmaster::Guarded(guard) => guard.postmaster_exit().await,
            Postmaster::Unguarded(process) => process.exit().await,
        }
    }

    pub fn is_alive(&self) -> bool {
        match self {
            Postmaster::Guarded(guard) => guard.is_alive(),
            Postmaster::Unguarded(process) => process.is_alive(),
        }
    }

    /// The postmaster itself; its guard lives on until the last process of the server is gone.
    pub fn runs(&self) -> bool {
        match self {
            Postmaster::Guarded(guard) => guard.postmaster_is_alive(),
            Postmaster::Unguarded(process) => process.is_alive(),
        }
    }

    /// The guard, while it lives.
    pub fn guard(&self) -> Option<&Arc<Guard>> {
        match self {
            Postmaster::Guarded(guard) => Some(guard),
            Postmaster::Unguarded(_) => None,
        }
    }
}

/// After the server has refused the agent, it is asked again after this time, or with other settings at once: each refusal is a process and
/// two lines in PostgreSQL's own log.
const REFUSED: Duration = Duration::from_secs(5);

/// A standby whose replay an operator has paused is looked at again after this time.
const STARVATION: Duration = Duration::from_secs(5);

fn connected(walsender: &postgres::observation::Walsender) -> ConnectedStandby {
    ConnectedStandby {
        name: walsender.application_name.clone(),
        streaming: walsender.state.as_deref() == Some("streaming"),
        flushed: walsender.flush_lsn.unwrap_or_default(),
        sync_state: match walsender.sync_state.as_deref() {
            Some("sync") => SyncState::Sync,
            Some("quorum") => SyncState::Quorum,
            Some("potential") => SyncState::Potential,
            _ => SyncState::Async,
        },
        listed: walsender.sync_priority > 0,
    }
}

/// Whether it can still be moved is not in the row.
fn slot(row: &postgres::observation::Slot) -> Slot {
    let kind = match (&row.database, &row.plugin) {
        (Some(database), Some(plugin)) => SlotKind::Logical { database: database.clone(), plugin: plugin.clone() },
        _ => SlotKind::Physical,
    };
    Slot {
        name: row.name.clone(),
        kind,
        active: row.active,
        temporary: row.temporary,
        restart: row.restart_lsn,
        confirmed: row.confirmed_flush_lsn,
        has_xmin: row.has_xmin,
        catalog_xmin: row.catalog_xmin,
        lost: row.wal_status.as_deref() == Some("lost"),
        failover: row.failover,
        synced: row.synced,
        broken: false,
    }
}

/// The server, as last seen.
#[derive(Debug)]
pub struct Node {
    pub server: Arc<Server>,
    /// Major version of the binaries.
    pub major: u32,
    pub postmaster: Option<Postmaster>,
    connection: Connection,
    /// Since when the postmaster has let nobody in.
    starting_since: Option<Boot>,
    silent_since: Option<Boot>,
    /// Since when it cannot be seen whether processes of the server are left.
    unknown_since: Option<Boot>,
    /// The highest timeline that this postmaster was seen on.
    timeline_reached: Timeline,
    /// Since when a standby has not streamed.
    pub not_streaming_since: Option<Boot>,
    /// When the server refused the agent, as long as it does.
    refused_at: Option<Boot>,
    complaints: Complaints,
    /// The newest answer of this postmaster.
    pub seen: Option<Observation>,
    pub seen_at: Boot,
    /// Read while the server is down; while it runs only what cannot change.
    data: DataDirectory,
    pub control: Option<ControlData>,
    /// The server in this directory leaves recovery by itself: a restored backup that becomes a new cluster.
    pub restores: bool,
    /// The data is complete but has not streamed yet, after a rewind.
    pub unproven: bool,
    /// The data was made without a leader and has not streamed yet.
    from_archive: bool,
    /// It keeps out of races for now: it can have no guard, or a promotion of it has just failed.
    pub barred: bool,
    /// It is about to stop, and commits should not wait for it any more.
    pub leaves_sync: bool,
    pub checkpointed: bool,
    /// While replay is paused: when the control file was looked at, and whether that is because it needs more than the server has.
    starvation: Option<(Boot, bool)>,
    /// What a restart of the running server would change.
    pub pending: PendingRestart,
    /// The server has ended by itself before it let anybody in; to be taken.
    pub failed_start: bool,
    /// It is to stream from nobody.
    pub lives_by_archive: bool,
}

impl Node {
    pub fn new(server: Arc<Server>, major: u32) -> Node {
        Node {
            connection: Connection::new(&server, Purpose::Heartbeat),
            server,
            major,
            postmaster: None,
            starting_since: None,
            silent_since: None,
            unknown_since: None,
            timeline_reached: Timeline(0),
            not_streaming_since: None,
            refused_at: None,
            complaints: Complaints::default(),
            seen: None,
            seen_at: Boot::ZERO,
            data: DataDirectory::Empty,
            control: None,
            restores: false,
            unproven: false,
            from_archive: false,
            barred: false,
            leaves_sync: false,
            checkpointed: true,
            starvation: None,
            pending: PendingRestart::default(),
            failed_start: false,
            lives_by_archive: false,
        }
    }

    /// Finds a server that runs already, as after a restart of the agent.
    pub fn find(&mut self) -> Result<(), GuardError> {
        self.hold(match attach(&self.server.data_dir)? {
            Attached::None => None,
            Attached::Guarded(guard) => Some(Postmaster::Guarded(Arc::new(guard))),
            Attached::Unguarded(process) => Some(Postmaster::Unguarded(Arc::new(process))),
        });
        Ok(())
    }

    /// From now on this is the postmaster.
    pub fn hold(&mut self, postmaster: Option<Postmaster>) {
        self.starting_since = postmaster.is_some().then(boot_now);
        self.postmaster = postmaster;
        self.silent_since = None;
        self.not_streaming_since = None;
        self.timeline_reached = Timeline(0);
        self.seen = None;
        self.starvation = None;
        self.connection.close();
    }

    /// The same postmaster got a guard.
    pub fn guarded(&mut self, guard: Arc<Guard>) {
        self.postmaster = Some(Postmaster::Guarded(guard));
    }

    /// The settings, where they have changed.
    pub fn set_server(&mut self, server: Arc<Server>) {
        if self.server == server {
            return;
        }
        self.connection = Connection::new(&server, Purpose::Heartbeat);
        self.server = server;
        self.refused_at = None;
    }

    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Looks at the processes, asks the server, reads the directory.
    pub async fn observe(&mut self) -> (pgherd_ha::Postgres, DataDirectory) {
        if let Some(postmaster) = self.postmaster.take_if(|postmaster| !postmaster.is_alive()) {
            self.say_fate(&postmaster);
            self.hold(None);
        }
        let postgres = match &self.postmaster {
            Some(_) => self.ask().await,
            None => self.without_postmaster(),
        };
        let data = self.read_data(&postgres).await;
        (postgres, data)
    }

    /// A server that ended although nobody had told it to: how, and where its own reason stands.
    fn say_fate(&mut self, postmaster: &Postmaster) {
        let fate = postmaster.guard().and_then(|guard| guard.page().fate());
        let status = fate.as_ref().and_then(|fate| fate.status);
        let how = status.map_or_else(String::new, |status| format!(" ({status})"));
        let directory = self.server.data_dir.display();
        let failed = status.is_some_and(|status| !status.success());
        let left = data_directory::free_bytes(&self.server.data_dir).ok().filter(|left| failed && *left < LEAST_ROOM);
        // Why one without a guard has ended is unknown. A full disk is reason enough.
        let ended_at_start = status.map_or(postmaster.guard().is_none(), |status| status.code() == Some(1));
        self.failed_start |= self.seen.is_none() && ended_at_start && left.is_none();
        let text = match left {
            Some(left) => format!(
                "PostgreSQL in {directory} has ended{how} and its disk is full ({} kB are left): free some space there; it is started \
                 again by itself",
                left >> 10
            ),
            None if failed && self.seen.is_none() => format!(
                "PostgreSQL in {directory} has ended{how} before it let anybody in; its own log says why: a setting that it does not \
                 accept, a port or a memory segment that it cannot have, damaged files"
            ),
            None => return tracing::info!("PostgreSQL in {directory} has ended{how}"),
        };
        if self.complaints.is_due(&text, boot_now()) {
            tracing::error!("{text}");
        }
    }

    fn without_postmaster(&mut self) -> pgherd_ha::Postgres {
        match scan::processes_of(&self.server.data_dir) {
            Ok(left) if left.is_empty() => {
                self.unknown_since = None;
                pgherd_ha::Postgres::Stopped
            }
            Ok(_) => {
                self.unknown_since = None;
                // Somebody else may have started a server meanwhile; it is found rather than killed.
                if let Ok(()) = self.find()
                    && self.postmaster.is_some()
                {
                    return pgherd_ha::Postgres::Starting { since: boot_now() };
                }
                pgherd_ha::Postgres::Orphans
            }
            // Nothing is known, so nothing may be started or given away.
            Err(error) => {
                if self.unknown_since.is_none() {
                    tracing::error!("whether PostgreSQL runs is unknown, and nothing is done: {error}");
                }
                pgherd_ha::Postgres::Starting { since: *self.unknown_since.get_or_insert_with(boot_now) }
            }
        }
    }

    async fn ask(&mut self) -> pgherd_ha::Postgres {
        let asked = boot_now();
        if self.seen.is_none() && self.lets_nobody_in() {
            return pgherd_ha::Postgres::Starting { since: self.starting_since.unwrap_or(asked) };
        }
        if self.refused_at.is_some_and(|at| asked.since(at) < REFUSED) {
            return self.unanswered(asked);
        }
        let answer = tokio::time::timeout(HEARTBEAT, self.connection.observe()).await;
        match answer {
            Ok(Ok(mut seen)) => {
                // A server never goes back to an earlier timeline; a standby without a receiver only knows less of it.
                seen.timeline = seen.timeline.max(self.timeline_reached);
                self.timeline_reached = seen.timeline;
                self.seen_at = asked;
                self.starting_since = None;
                self.silent_since = None;
                self.refused_at = None;
                self.prove(&seen);
                self.look_for_starvation(&seen, asked).await;
                let running = self.running(&seen);
                let stalls = running.in_recovery && !running.streaming;
                self.not_streaming_since = stalls.then(|| self.not_streaming_since.unwrap_or(asked));
                self.seen = Some(seen);
                pgherd_ha::Postgres::Running(running)
            }
            Ok(Err(error)) => self.no_answer(asked, &error),
            Err(_) => {
                self.connection.close();
                self.no_answer(asked, &Error::Deadline { operation: "the heartbeat query".into(), limit: HEARTBEAT })
            }
        }
    }

    /// The server says so itself in its pid file; knocking would cost it a process and a line in its log each time.
    fn lets_nobody_in(&self) -> bool {
        let status = PidFile::read(&self.server.data_dir).and_then(|file| file.status);
        matches!(status.as_deref(), Some("starting" | "standby"))
    }

    fn no_answer(&mut self, asked: Boot, error: &Error) -> pgherd_ha::Postgres {
        if error.is_refusal() {
            self.refused_at = Some(asked);
            self.say_refusal(error);
        } else if self.seen.is_some() && self.silent_since.is_none() {
            tracing::warn!("PostgreSQL does not answer its heartbeat: {}", error.full());
        }
        self.unanswered(asked)
    }

    /// The server runs and does not let the agent in, which is not a matter of waiting.
    fn say_refusal(&mut self, error: &Error) {
        let text = error.full();
        if self.complaints.is_due(&text, boot_now()) {
            tracing::error!(
                "PostgreSQL runs and does not let this agent in as user {}: {text}; look at postgresql.authentication.superuser (or \
                 PATRONI_SUPERUSER_USERNAME and _PASSWORD) of this node, and at the server's pg_hba.conf. Until then the agent \
                 cannot see what the server does, and leaves it as it is",
                self.server.superuser.username
            );
        }
    }

    fn unanswered(&mut self, asked: Boot) -> pgherd_ha::Postgres {
        match (&self.seen, self.starting_since) {
            (None, since) => pgherd_ha::Postgres::Starting { since: since.unwrap_or(asked) },
            (Some(seen), _) => {
                let since = *self.silent_since.get_or_insert(asked);
                pgherd_ha::Postgres::Silent { since, in_recovery: seen.in_recovery }
            }
        }
    }

    fn running(&self, seen: &Observation) -> Running {
        Running {
            in_recovery: seen.in_recovery,
            restores: seen.in_recovery && self.restores,
            timeline: seen.timeline,
            newest_history: match seen.in_recovery {
                true => history_files::newest_after(&self.server.data_dir, seen.timeline),
                false => seen.timeline,
            },
            position: seen.position().unwrap_or(Lsn(0)),
            streaming: seen.replication_state() == Some("streaming"),
            settled: seen.standby.as_ref().is_some_and(postgres::observation::Standby::is_at_end_of_wal),
            checkpointed: seen.in_recovery || self.checkpointed,
            synchronous_standby_names: seen.synchronous_standby_names.clone(),
            starved: self.starvation.is_some_and(|(_, starved)| starved),
            checkpointer_listens: seen.checkpointer_listens(),
            standbys: seen.walsenders.iter().map(connected).collect(),
            replayed: match &seen.standby {
                Some(standby) => standby.replay_lsn.unwrap_or_default(),
                None => seen.flush_lsn.unwrap_or_default(),
            },
            slots: seen.slots.iter().map(slot).collect(),
        }
    }

    /// Why replay is paused: an operator may have done it, or PostgreSQL itself, since the log needs more than this standby was started
    /// with. That it would need more it has written into its control file before.
    async fn look_for_starvation(&mut self, seen: &Observation, asked: Boot) {
        if !seen.standby.as_ref().is_some_and(|standby| standby.replay_paused) {
            self.starvation = None;
        } else if self.starvation.is_none_or(|(looked, starved)| !starved && asked.since(looked) >= STARVATION) {
            let control = tokio::time::timeout(HEARTBEAT, postgres::control_data::read(&self.server)).await;
            let needs = control.ok().and_then(Result::ok).map(|control| control.required.by_name());
            let starved = needs
                .into_iter()
                .flatten()
                .any(|(name, needed)| seen.binding.get(name).is_some_and(|has| *has < u64::from(needed)));
            self.starvation = Some((asked, starved));
        }
    }

    /// A rewound standby that streams is proven good; one that never will, as soon as it lets anybody in, for then it has replayed all that makes
    /// its data whole.
    fn prove(&mut self, seen: &Observation) {
        let streams = seen.replication_state() == Some("streaming") || !seen.in_recovery || self.lives_by_archive;
        for (marker, is_set) in [(Marker::Unproven, &mut self.unproven), (Marker::FromArchive, &mut self.from_archive)]
        {
            if !*is_set || !streams {
                continue;
            }
            match marker.clear(&self.server.data_dir) {
                Ok(()) => *is_set = false,
                Err(error) => tracing::warn!("the mark of a copy that is not proven stays: {}", error.full()),
            }
        }
    }

    /// The control file changes while the server runs, so it is read while the server is down, and once for a server that was found
    /// running.
    async fn read_data(&mut self, postgres: &pgherd_ha::Postgres) -> DataDirectory {
        let down = *postgres == pgherd_ha::Postgres::Stopped;
        if !down && let DataDirectory::Present(control) = &mut self.data {
            control.bootstrap_pending = Marker::NewCluster.is_set(&self.server.data_dir);
            return self.data.clone();
        }
        self.unproven = Marker::Unproven.is_set(&self.server.data_dir);
        self.from_archive = Marker::FromArchive.is_set(&self.server.data_dir);
        let found = data_directory::classify(&self.server, self.major).await;
        self.control = match &found {
            postgres::DataDirectory::Present(control) => Some(control.clone()),
            _ => None,
        };
        self.data = match found {
            postgres::DataDirectory::Empty => DataDirectory::Empty,
            postgres::DataDirectory::Interrupted => DataDirectory::Incomplete,
            postgres::DataDirectory::Invalid(reason) => DataDirectory::Unusable(reason),
            postgres::DataDirectory::Present(control) => {
                let control = self.control_file(&control);
                // What cannot be read stays what it was.
                self.restores = control.bootstrap_pending && self.server.data_dir.join("recovery.signal").exists();
                DataDirectory::Present(control)
            }
        };
        self.data.clone()
    }

    fn control_file(&self, control: &ControlData) -> ControlFile {
        let directory = &self.server.data_dir;
        let signal = |name: &str| directory.join(name).exists();
        ControlFile {
            system_id: control.system_id,
            state: match control.state {
                ClusterState::StartingUp => ControlState::StartingUp,
                ClusterState::ShutDown => ControlState::ShutDown,
                ClusterState::ShutDownInRecovery => ControlState::ShutDownInRecovery,
                ClusterState::ShuttingDown => ControlState::ShuttingDown,
                ClusterState::InCrashRecovery => ControlState::InCrashRecovery,
                ClusterState::InArchiveRecovery => ControlState::InArchiveRecovery,
                // A state of a later version: as if it had crashed, which is the careful reading.
                ClusterState::InProduction | ClusterState::Other(_) => ControlState::InProduction,
            },
            timeline: control.timeline,
            checkpoint: control.checkpoint,
            standby_signal: signal("standby.signal") || signal("recovery.signal"),
            bootstrap_pending: Marker::NewCluster.is_set(directory),
            rewindable: control.allows_rewind(),
        }
    }

    /// Whether the server's roles are not made yet, where that can be seen.
    pub fn new_cluster(&self) -> Option<bool> {
        match &self.data {
            DataDirectory::Present(control) => Some(control.bootstrap_pending),
            DataDirectory::Empty => Some(false),
            DataDirectory::Incomplete | DataDirectory::Unusable(_) => None,
        }
    }

    /// It must not lead before it has streamed.
    pub fn lacks_proof(&self, synchronous: bool) -> bool {
        self.unproven || self.from_archive && synchronous
    }

    /// The timeline that the member key shows.
    pub fn timeline(&self) -> Option<Timeline> {
        self.seen.as_ref().map(|seen| seen.timeline).filter(|timeline| timeline.0 > 0)
    }
}
