//! Comparing this server's history with the leader's, and rewinding to it.

use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{Divergence, Epoch, StopMode, Timeline, Verdict};

use super::advice::with_advice;
use super::stop::stop_server;
use super::{CHECKPOINT, Context, Report, STANDSTILL, full, server_of};
use crate::postgres::lineage::{
    LeaderLineage, LocalKind, LocalPosition, RewindVerdict, needs_rewind, other_beginning, parse_history,
};
use crate::postgres::{self, ControlData, archive, history_files, parameters, rewind};

/// Crash recovery of a former primary before it is rewound: it replays all since its last checkpoint and syncs the whole directory. Cut
/// off, all that remains is a copy, which takes longer still.
const CRASH_RECOVERY: Duration = Duration::from_secs(3600);

/// Asks the leader; one that does not answer is an unknown verdict and no failure.
pub(super) async fn check_divergence(
    context: &Context,
    epoch: Epoch,
    leader: &pgherd_ha::Upstream,
) -> Result<Report, String> {
    let (verdict, lineage) = compare(context, leader).await;
    let may_stream = context.stalls && matches!(verdict, Verdict::Same | Verdict::Unknown);
    let complaint = match context.following.as_ref().filter(|_| may_stream) {
        Some(followed) => {
            let (name, upstream) = (&followed.name, server_of(followed));
            let reason = rewind::why_not_streaming(&context.server, &upstream).await;
            let reason = with_advice(&context.server, reason);
            Some(format!("this standby does not stream from {name} ({upstream}): {reason}"))
        }
        None => None,
    };
    let divergence = Some(Divergence { epoch, verdict, at: boot_now() });
    Ok(Report { divergence, lineage, complaint, ..Report::default() })
}

async fn compare(context: &Context, leader: &pgherd_ha::Upstream) -> (Verdict, Vec<Timeline>) {
    let name = &leader.name;
    let unknown = (Verdict::Unknown, Vec::new());
    let Some(control) = &context.control else { return unknown };
    let local = match context.seen.as_ref().map(|seen| (seen, &seen.standby)) {
        Some((seen, Some(standby))) => {
            let lsn = standby.replay_lsn.unwrap_or_default();
            LocalPosition { timeline: seen.timeline, lsn, kind: LocalKind::Standby }
        }
        Some((_, None)) => return unknown,
        None => rewind::local_position(&context.server, control).await,
    };
    // In a cluster that follows another one every server is a standby, and in the other one those that were named may be.
    let may_be_standby = context.standby_cluster || leader.remote.is_some();
    match rewind::leader_lineage(&context.server, &server_of(leader)).await {
        // It has won the key and is not yet promoted: its history is not written yet.
        Ok(lineage) if lineage.in_recovery && !may_be_standby => unknown,
        Ok(lineage) => {
            let verdict = match judged(context, &local, control, &lineage) {
                RewindVerdict::NotNeeded => Verdict::Same,
                RewindVerdict::Needed(why) => diverged(name, &why, Verdict::Diverged),
                RewindVerdict::OnlyCopy(why) => diverged(name, &why, Verdict::OnlyCopy),
            };
            (verdict, lineage.timelines())
        }
        Err(error) => {
            tracing::debug!("{name} could not be asked for its history: {}", error.full());
            unknown
        }
    }
}

fn judged(context: &Context, local: &LocalPosition, control: &ControlData, leader: &LeaderLineage) -> RewindVerdict {
    let history = history_files::read(&context.server.data_dir, local.timeline).unwrap_or_default();
    let apart = other_beginning(local.timeline, &parse_history(&history), leader);
    let same_system = control.system_id == leader.system_id;
    apart.filter(|_| same_system).unwrap_or_else(|| needs_rewind(local, control.system_id, leader))
}

fn diverged(leader: &str, why: &postgres::lineage::Divergence, verdict: Verdict) -> Verdict {
    tracing::warn!("this node cannot follow {leader} as it is: {why}");
    verdict
}

pub(super) async fn rewind_to(context: &Context, source: &pgherd_ha::Upstream) -> Result<Report, String> {
    stop_server(context, StopMode::Fast).await?;
    let upstream = server_of(source);
    // pg_rewind wants a server that was stopped in order.
    let control = postgres::control_data::read(&context.server).await.map_err(full)?;
    if control.state.is_crashed_primary() {
        rewind::recover_crashed_primary(&context.server, CRASH_RECOVERY).await.map_err(full)?;
    }
    archive::archive_ready(&context.server).await;
    if source.remote.is_some() {
        rewind::wait_for_checkpoint(&context.server, &upstream, CHECKPOINT).await.map_err(full)?;
    }
    let settings = parameters::start_settings(&context.server, Some(&control));
    let rewound = rewind::rewind(&context.server, &upstream, &settings.file, STANDSTILL).await;
    rewound.map_err(|error| with_advice(&context.server, error.full()))?;
    Ok(Report { postmaster: Some(None), new_data: true, following: Some(None), ..Report::default() })
}
