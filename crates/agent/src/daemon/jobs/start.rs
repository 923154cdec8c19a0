//! Starting the server, with the files that it starts with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, Epoch, Permit, SlotKind, StopMode};

use super::stop::stop_server;
use super::{Context, Report, full, server_of, streaming};
use crate::children;
use crate::daemon::node::Postmaster;
use crate::guard::{Guard, GuardError, GuardMode, Spawn, scan, start_unguarded};
use crate::postgres::{
    self, Connection, ControlData, Purpose, Recovery, Server, config_files, history_files, installation, parameters,
    slot_copy, start,
};

/// A standby that streams has replayed within milliseconds what a consumer has confirmed.
const REPLAYED: Duration = Duration::from_secs(10);

pub(super) async fn start_primary(context: &Context) -> Result<Report, String> {
    let permit = **context.lease.permit.load();
    let deadline = match permit {
        Permit::Until { deadline, .. } if permit.allows_writer(boot_now()) => deadline,
        Permit::Paused { .. } => Boot::NEVER,
        _ => return Err("the permit to have a writer is over; not starting".into()),
    };
    let recovery = match &context.server.custom_bootstrap {
        Some(custom) if context.server.bootstraps => Recovery::Restore(custom.recovery.clone()),
        _ => Recovery::Primary,
    };
    let postmaster = launch(context, &recovery, deadline).await?;
    match &postmaster {
        Postmaster::Guarded(guard) => context.lease.license(guard.page()).map_err(|error| error.to_string())?,
        Postmaster::Unguarded(_) => {}
    }
    Ok(Report { postmaster: Some(Some(postmaster)), following: Some(None), ..Report::default() })
}

pub(super) async fn start_standby(context: &Context, upstream: Option<pgherd_ha::Upstream>) -> Result<Report, String> {
    let source = upstream.as_ref().map(|upstream| streaming(upstream, context.slot.as_ref()));
    let postmaster = launch(context, &Recovery::Standby { upstream: source }, Boot::NEVER).await?;
    Ok(Report { postmaster: Some(Some(postmaster)), following: Some(upstream), ..Report::default() })
}

/// The standby is stopped only once all is there that its slots are to be made of.
pub(super) async fn copy_slots(
    context: &Context,
    source: &pgherd_ha::Upstream,
    wanted: &BTreeMap<String, SlotKind>,
) -> Result<Report, String> {
    let mut found = slot_copy::read(&context.server, &server_of(source), wanted).await.map_err(full)?;
    let segment_bytes = context.control.as_ref().map_or(0, |control| control.wal_segment_bytes);
    found.retain(|slot| {
        let there = slot_copy::has_log(&context.server.data_dir, slot.restart_lsn, segment_bytes);
        if !there {
            tracing::warn!(
                "the logical slot `{}` is not copied from {} yet: it needs log from {} on, which is not here; it is tried again when its \
                 consumer has read on",
                slot.name,
                source.name,
                slot.restart_lsn
            );
        }
        there
    });
    let Some(confirmed) = found.iter().map(|slot| slot.confirmed_flush_lsn).max() else { return Ok(Report::default()) };
    let mut connection = Connection::new(&context.server, Purpose::Heartbeat);
    slot_copy::replayed(&mut connection, confirmed, REPLAYED).await.map_err(full)?;
    stop_server(context, StopMode::Fast).await?;
    for slot in &found {
        slot_copy::write(&context.server.data_dir, slot).map_err(full)?;
        tracing::info!("copied the logical slot `{}` from {}", slot.name, source.name);
    }
    start_standby(context, context.following.clone()).await
}

/// Writes the configuration and starts the postmaster under a guard; returns long before it takes connections.
async fn launch(context: &Context, recovery: &Recovery, deadline: Boot) -> Result<Postmaster, String> {
    let server = &context.server;
    let left = scan::processes_of(&server.data_dir).map_err(|error| error.to_string())?;
    if !left.is_empty() {
        return Err(format!("{} processes of PostgreSQL still work in {}", left.len(), server.data_dir.display()));
    }
    let standby = matches!(recovery, Recovery::Standby { .. });
    let settings = parameters::start_settings(server, context.control.as_ref().filter(|_| standby));
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    if standby {
        history_files::remove_unused(&server.data_dir).map_err(full)?;
        forget_dead_ends(context)?;
    }
    config_files::write(server, &settings.file, recovery).map_err(full)?;
    config_files::save_backups(server).map_err(full)?;
    postgres::data_directory::remove_copied_socket_locks(&server.data_dir).map_err(full)?;
    start::addresses_are_free(server).await.map_err(full)?;
    let program = installation::locate(server, "postgres").map_err(full)?;
    let mut spawn = Spawn::new(program, start::arguments(server, &settings), server.data_dir.clone());
    spawn.deadline = deadline;
    spawn.env_remove = children::not_inherited();
    match context.guard {
        GuardMode::Off => Ok(Postmaster::Unguarded(Arc::new(start_unguarded(&spawn).await.map_err(text)?))),
        GuardMode::Required => Ok(Postmaster::Guarded(Arc::new(Guard::start(&spawn).await.map_err(text)?))),
        GuardMode::Automatic => match Guard::start(&spawn).await {
            Ok(guard) => Ok(Postmaster::Guarded(Arc::new(guard))),
            Err(error) if standby => {
                tracing::warn!("PostgreSQL is started without a guard and will not lead: {error}");
                Ok(Postmaster::Unguarded(Arc::new(start_unguarded(&spawn).await.map_err(text)?)))
            }
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Of timelines that the leader does not come from a standby must not know.
fn forget_dead_ends(context: &Context) -> Result<(), String> {
    let Some((lineage, control)) = context.lineage.as_ref().zip(context.control.as_ref()) else { return Ok(()) };
    let own = control.timeline.max(control.min_recovery_end_timeline);
    let removed = history_files::remove_dead_ends(&context.server.data_dir, own, lineage).map_err(full)?;
    for timeline in removed {
        tracing::info!("the leader does not come from timeline {timeline}: its history file is removed");
    }
    Ok(())
}

pub(super) async fn restart(context: &Context, epoch: Option<Epoch>) -> Result<Report, String> {
    stop_server(context, if epoch.is_some() { StopMode::Planned } else { StopMode::Fast }).await?;
    if epoch.is_some() {
        return start_primary(context).await;
    }
    // What the log needs may have changed since the server was started.
    let control = postgres::control_data::read(&context.server).await.map_err(full)?;
    let context = Context { control: Some(control), ..context.clone() };
    start_standby(&context, context.following.clone()).await
}

/// Brings the files of the running server up to date, and tells it.
pub async fn rewrite(server: &Arc<Server>, recovery: Recovery, control: Option<&ControlData>) -> Result<(), String> {
    let (server, control) = (server.clone(), control.cloned());
    let write = move || {
        let standby = matches!(recovery, Recovery::Standby { .. });
        if let Recovery::Standby { upstream: Some(_) } = &recovery {
            history_files::remove_unused(&server.data_dir).map_err(full)?;
        }
        let settings = parameters::start_settings(&server, control.as_ref().filter(|_| standby));
        config_files::write(&server, &settings.file, &recovery).map_err(full)?;
        // Also when nothing has changed: a server that was just being started has perhaps read the files before they were written, and
        // could not be told then.
        match postgres::Postmaster::find(&server.data_dir) {
            Some(postmaster) => postmaster.reload().map_err(full),
            None => Err("PostgreSQL cannot be told yet of its new settings; trying again".into()),
        }
    };
    tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?
}

fn text(error: GuardError) -> String {
    error.to_string()
}
