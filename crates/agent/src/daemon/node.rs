//! What this node knows of its own PostgreSQL: the postmaster that it holds, what it last answered, its data directory.
//!
//! Observing changes nothing but what is known. Not here: what to do about it (`pgherd_ha`), and doing it (`jobs`).

use std::sync::Arc;
use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, ControlFile, ControlState, DataDirectory, Lsn, Running, Timeline};

use super::complaints::Complaints;
use crate::guard::{Attached, Guard, GuardError, Process, attach, scan};
use crate::postgres::{
    self, ClusterState, Connection, ControlData, Error, Marker, Observation, Purpose, Server, data_directory,
    postmaster::PidFile, probe::LEAST_ROOM,
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
    /// The data is complete but has not streamed yet, after a rewind.
    pub unproven: bool,
    /// It keeps out of races for now: it can have no guard, or a promotion of it has just failed.
    pub barred: bool,
    pub checkpointed: bool,
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
            unproven: false,
            barred: false,
            checkpointed: true,
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
            timeline: seen.timeline,
            position: seen.position().unwrap_or(Lsn(0)),
            streaming: seen.replication_state() == Some("streaming"),
            settled: seen.standby.as_ref().is_some_and(postgres::observation::Standby::is_at_end_of_wal),
            checkpointed: seen.in_recovery || self.checkpointed,
        }
    }

    /// A rewound standby that streams is proven good.
    fn prove(&mut self, seen: &Observation) {
        let streams = seen.replication_state() == Some("streaming") || !seen.in_recovery;
        if self.unproven && streams {
            match Marker::Unproven.clear(&self.server.data_dir) {
                Ok(()) => self.unproven = false,
                Err(error) => tracing::warn!("the mark of an unproven rewind stays: {}", error.full()),
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
        let found = data_directory::classify(&self.server, self.major).await;
        self.control = match &found {
            postgres::DataDirectory::Present(control) => Some(control.clone()),
            _ => None,
        };
        self.data = match found {
            postgres::DataDirectory::Empty => DataDirectory::Empty,
            postgres::DataDirectory::Interrupted => DataDirectory::Incomplete,
            postgres::DataDirectory::Invalid(reason) => DataDirectory::Unusable(reason),
            postgres::DataDirectory::Present(control) => DataDirectory::Present(self.control_file(&control)),
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

    /// The timeline that the member key shows.
    pub fn timeline(&self) -> Option<Timeline> {
        self.seen.as_ref().map(|seen| seen.timeline).filter(|timeline| timeline.0 > 0)
    }
}
