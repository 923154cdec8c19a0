//! From standby to primary.

use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{SlotChange, StandbyNames, Timeline};

use super::start::rewrite;
use super::{Context, Report, full};
use crate::daemon::node::Postmaster;
use crate::daemon::{slots, timeline};
use crate::postgres::{Connection, Purpose, Recovery, promote};

/// A promotion takes 20 to 160 ms once the receiver is gone.
const PROMOTE: Duration = Duration::from_secs(30);
/// How long the receiver may take to go. Promotion works without, but may then sleep (`postgres-facts` 1).
const SETTLE: Duration = Duration::from_secs(2);
/// What logical slots lag behind is what was written within a `loop_wait`, which is read in milliseconds. Longer is not worth the wait: their
/// consumers get again what they have confirmed since.
const SLOTS_BEFORE: Duration = Duration::from_millis(300);

/// Its failure is the decision's to judge.
pub(super) async fn pre_promote(context: &Context) -> Result<Report, String> {
    if let Some(command) = &context.server.hooks.pre_promote {
        tracing::info!("running pre_promote: {command}");
        command.run(&context.server.data_dir, &[], None).await.map_err(|error| error.to_string())?;
    }
    Ok(Report::default())
}

/// The permit binds the server before it can write.
pub(super) async fn promote_server(
    context: &Context,
    timeline: Timeline,
    names: Option<StandbyNames>,
    slots: &[SlotChange],
) -> Result<Report, String> {
    if let Some(Postmaster::Guarded(guard)) = &context.postmaster {
        context.lease.license(guard.page()).map_err(|error| error.to_string())?;
    }
    let mut connection = Connection::new(&context.server, Purpose::Heartbeat);
    if let Some(names) = names {
        // Before it can commit: else its first commits would wait for nobody (`postgres-facts` 10).
        rewrite(&context.server, Recovery::Standby { upstream: None }, context.control.as_ref()).await?;
        promote::names_in_force(&mut connection, &names.text(), SETTLE).await.map_err(full)?;
    }
    if let Err(error) = promote::receiver_stopped(&mut connection, SETTLE).await {
        tracing::warn!("promoting all the same: {}", error.full());
    }
    slots::bring_up(&context.server, slots, SLOTS_BEFORE).await;
    let own = context.seen.as_ref().map_or(Timeline(0), |seen| seen.timeline);
    let placed = timeline::pass_over(&context.server.data_dir, own, timeline).map_err(full)?;
    // Asked again, since the receiver may have taken its time; with a guard that was asked of its page, too.
    if !context.lease.permit.load().allows_writer(boot_now()) {
        return Err("the permit to have a writer is over; not promoting".into());
    }
    promote::promote(&mut connection, PROMOTE).await.map_err(full)?;
    timeline::check(&mut connection, timeline).await;
    if !placed.is_empty() {
        let data_dir = context.server.data_dir.clone();
        timeline::keep(&mut connection, data_dir, placed, context.timeline_of_others).await;
    }
    Ok(Report { promoted: true, following: Some(None), ..Report::default() })
}
