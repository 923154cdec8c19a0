//! Stopping the server.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_ha::StopMode;
use rustix::process::Signal;

use super::Context;
use crate::daemon::node::Postmaster;
use crate::guard::scan;
use crate::postgres::{self, Connection, Purpose, archive, promote, rewind, stop};
use crate::user_command::UserCommand;

/// A checkpoint before a planned stop shortens the stop (`postgres-facts` 14). One that takes longer has done part of the work, and whoever
/// told the agent to stop kills it after some seconds (10 in Docker).
const CHECKPOINT_BEFORE: Duration = Duration::from_secs(5);
/// An immediate stop takes 20 to 170 ms; a postmaster that is stopped (SIGSTOP) or wedged does not hear of it at all.
const IMMEDIATE: Duration = Duration::from_secs(5);
/// A walsender whose standby does not answer within this time would hold up a fast stop (`postgres-facts` 13).
const STANDBY_ANSWERS: Duration = Duration::from_secs(1);

/// Returns when no process of the server is left, with where its slots were if it was a planned stop. Nothing to do where none runs.
pub(super) async fn stop_server(context: &Context, mode: StopMode) -> Result<Option<BTreeMap<String, u64>>, String> {
    let Some(postmaster) = &context.postmaster else { return Ok(None) };
    let slots = match mode {
        StopMode::Planned | StopMode::Demotion => prepare_stop(context).await,
        StopMode::Fast | StopMode::Immediate => None,
    };
    // As in a crash there is no time.
    if let Some(command) = server_hook(context).filter(|_| mode != StopMode::Immediate) {
        tracing::info!("running before_stop: {command}");
        tokio::select! {
            ended = command.run(&context.server.data_dir, &[], Some(context.stop_timeout)) => {
                if let Err(error) = ended {
                    tracing::warn!("stopping all the same: {error}");
                }
            }
            // Its permit was over first, say.
            () = postmaster.exit() => tracing::warn!("PostgreSQL has ended while before_stop ran, which is ended, too"),
        }
    }
    let signal = if mode == StopMode::Immediate { Signal::QUIT } else { Signal::INT };
    match postmaster {
        Postmaster::Guarded(guard) => drop(guard.signal_postmaster(signal)),
        Postmaster::Unguarded(process) => drop(process.signal(signal)),
    }
    let gone = async {
        postmaster.exit().await;
        // An error is no proof that nothing is left: the limit ends the wait.
        while !scan::processes_of(&context.server.data_dir).is_ok_and(|left| left.is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let limit = if mode == StopMode::Immediate { IMMEDIATE } else { context.stop_timeout };
    match tokio::time::timeout(limit, gone).await {
        Ok(()) => Ok(slots),
        Err(_) if mode == StopMode::Immediate => {
            tracing::warn!("PostgreSQL does not obey an immediate stop: killing it");
            let killed = scan::kill_all(&context.server.data_dir, IMMEDIATE).await;
            killed.map(|_| slots).map_err(|error| error.to_string())
        }
        Err(_) => Err(format!("PostgreSQL has not stopped within {} s", limit.as_secs())),
    }
}

pub(super) async fn archive_shutdown(context: &Context) {
    match postgres::control_data::read(&context.server).await {
        Ok(control) if control.is_shut_down() => {
            let name = rewind::segment_name(control.timeline, control.checkpoint, control.wal_segment_bytes);
            archive::archive_last(&context.server, &name).await;
        }
        Ok(_) => tracing::warn!("PostgreSQL has not stopped in order, so there is no shutdown checkpoint to archive"),
        Err(error) => tracing::warn!("where the shutdown checkpoint is cannot be read: {}", error.full()),
    }
}

/// `before_stop`, where there is a server that it is to be run for.
fn server_hook(context: &Context) -> Option<&UserCommand> {
    let runs = context.postmaster.as_ref().is_some_and(Postmaster::runs);
    context.server.hooks.before_stop.as_ref().filter(|_| runs)
}

/// What makes the stop short: little left to write, and nobody to wait for. Failures only make it longer.
async fn prepare_stop(context: &Context) -> Option<BTreeMap<String, u64>> {
    if context.seen.as_ref().is_some_and(|seen| !seen.in_recovery)
        && let Err(error) = promote::checkpoint(&context.server, CHECKPOINT_BEFORE).await
    {
        tracing::warn!("stopping without a checkpoint first: {}", error.full());
    }
    let mut connection = Connection::new(&context.server, Purpose::Heartbeat);
    if let Err(error) = stop::terminate_silent_walsenders(&mut connection, STANDBY_ANSWERS).await {
        tracing::debug!("{}", error.full());
    }
    // As late as can be: what is confirmed afterwards is sent again by the next primary.
    connection.observe().await.ok().map(|seen| seen.slot_positions())
}
