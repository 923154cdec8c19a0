//! Waiting for a started server, by its progress and not by a flat time-out: a long recovery is no failure.

use std::fs;
use std::pin::pin;
use std::time::Duration;

use pgherd_ha::Lsn;
use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;

use super::postmaster::PidFile;
use super::{Connection, Error, Purpose, Server, control_data};

/// An idle server is up within 100 ms: that is what the first seconds are polled for.
const FIRST_POLLS: Duration = Duration::from_millis(10);
const LATER_POLLS: Duration = Duration::from_millis(200);
const FIRST_PHASE: Duration = Duration::from_secs(3);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What a server answers to a client that knocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepting,
    /// It is there, and says why it lets nobody in: starting up, shutting down, in recovery.
    Rejecting(String),
    NoAnswer(String),
}

/// Knocks once.
pub async fn knock(server: &Server) -> Answer {
    match Connection::new(server, Purpose::Heartbeat).connect().await {
        Ok(()) => Answer::Accepting,
        Err(error) if error.sql_state() == Some(&SqlState::CANNOT_CONNECT_NOW) => Answer::Rejecting(error.full()),
        // It talks to clients; that it did not like this one is for the first query to say.
        Err(error) if error.sql_state().is_some() || is_about_credentials(&error) => Answer::Accepting,
        Err(error) => Answer::NoAnswer(error.full()),
    }
}

/// The client library gave up by itself while it logged in: no password, or a method that it does not know.
fn is_about_credentials(error: &Error) -> bool {
    let Error::Connect { source, .. } = error else { return false };
    // It keeps its kinds private; these are the texts of two of them.
    matches!(source.to_string().as_str(), "authentication error" | "invalid configuration")
}

/// How far a start has come; while any of it changes, the server is alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartProgress {
    /// `postmaster.pid`: `starting`, `ready`, ...
    pub status: Option<String>,
    /// The title of the startup process, with the WAL file that it replays.
    pub startup_process: Option<String>,
    pub redo: Lsn,
    pub min_recovery_end: Lsn,
}

/// Waits until the server accepts connections.
///
/// Ends with an error when `exited` completes (the postmaster is gone) or when nothing has moved for `patience`.
/// `on_progress` sees every change, about once a second.
pub async fn wait_ready(
    server: &Server,
    patience: Duration,
    exited: impl Future<Output = ()>,
    on_progress: impl FnMut(&StartProgress),
) -> Result<(), Error> {
    tokio::select! {
        biased;
        () = pin!(exited) => Err(Error::Refused(
            "PostgreSQL exited while it was starting: its own log says why".to_owned()
        )),
        result = poll(server, patience, on_progress) => result,
    }
}

async fn poll(server: &Server, patience: Duration, mut on_progress: impl FnMut(&StartProgress)) -> Result<(), Error> {
    let started = Instant::now();
    let mut seen = StartProgress::default();
    let mut moved = started;
    let mut next_progress = started + PROGRESS_EVERY;
    loop {
        let due = Instant::now() >= next_progress;
        let ready = PidFile::read(&server.data_dir).and_then(|file| file.status).as_deref() == Some("ready");
        // A knock costs the server a process; the file says when it is worth it.
        if (ready || due) && knock(server).await == Answer::Accepting {
            return Ok(());
        }
        if due {
            next_progress = Instant::now() + PROGRESS_EVERY;
            let now = progress(server).await;
            if now != seen {
                on_progress(&now);
                (seen, moved) = (now, Instant::now());
            } else if moved.elapsed() >= patience {
                let operation = format!("the start of PostgreSQL ({}) made no progress and", describe(&seen));
                return Err(Error::Deadline { operation, limit: patience });
            }
        }
        sleep(if started.elapsed() < FIRST_PHASE { FIRST_POLLS } else { LATER_POLLS }).await;
    }
}

fn describe(progress: &StartProgress) -> String {
    let title = progress.startup_process.as_deref().or(progress.status.as_deref()).unwrap_or("no pid file");
    format!("{title}, REDO at {}", progress.redo)
}

async fn progress(server: &Server) -> StartProgress {
    let file = PidFile::read(&server.data_dir);
    let control = control_data::read(server).await.ok();
    StartProgress {
        startup_process: file.as_ref().and_then(|file| startup_title(file.pid)),
        status: file.and_then(|file| file.status),
        redo: control.as_ref().map_or(Lsn(0), |control| control.redo),
        min_recovery_end: control.map_or(Lsn(0), |control| control.min_recovery_end),
    }
}

/// `postgres: batman: startup recovering 000000010000000000000003`
fn startup_title(postmaster: i32) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).ok()?;
    children.split_whitespace().find_map(|child| {
        let title = fs::read(format!("/proc/{child}/cmdline")).ok()?;
        let title = String::from_utf8_lossy(&title).trim_end_matches(['\0', ' ']).to_owned();
        title.contains("startup").then_some(title)
    })
}
