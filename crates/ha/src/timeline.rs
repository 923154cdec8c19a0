//! Which timeline a promotion begins: one that nobody has begun before.
//!
//! PostgreSQL takes the first number that it knows no history of. Two servers that are promoted apart from each other so take the same one,
//! and nothing can tell their logs apart afterwards (`postgres-facts` 5). Therefore the holder of the leader key first reserves a number in the
//! store, by compare-and-set, and the server is made to take that one. A number is reserved at most once; one whose promotion did not
//! happen is passed over for good. A plain Patroni that leads meanwhile reserves nothing: what its timeline was is seen in the keys
//! that it does write, and in the histories that this server has.

use crate::action::{Action, Job};
use crate::agent::Situation;
use crate::local::Running;
use crate::types::{Epoch, Timeline};
use crate::{slots, sync};

/// A number that is further than this ahead of a server's own timeline is damage and counts for nothing: so many promotions in a row that
/// come to nothing, or that one standby misses, do not happen, and each number in between costs a file.
pub const MOST_AHEAD: u32 = 1000;

/// Promotes the standby, which this node's key allows: cut the upstream, reserve, promote. All in one round, for it is the fast path; a
/// reservation that is refused or whose outcome is unknown ends the round, and the next one looks at what the store has.
pub(crate) fn promotion(at: &Situation<'_>, epoch: Epoch, running: &Running, memory: &slots::Memory) -> Vec<Action> {
    let mut actions = Vec::new();
    if at.local.following.is_some() {
        actions.push(Action::Follow { upstream: None });
    }
    let timeline = reserved(at, epoch, running).unwrap_or_else(|| {
        let timeline = next(at, running);
        actions.push(reserve(at, epoch, timeline));
        timeline
    });
    // Before anything is written that is not what the former leader's consumers have confirmed.
    actions.extend(slots::capped_status(at, running).map(|status| Action::WriteStatus { epoch, status }));
    let slots = slots::advances_before_promotion(at, running);
    let unproven = slots::unproven(at, memory, running);
    actions.push(Action::Run(Job::Promote { epoch, timeline, names: sync::names_at_start(at), slots, unproven }));
    actions
}

/// The primary is on a timeline that nobody has reserved (a plain Patroni or an operator has promoted it): the record is corrected.
pub(crate) fn correction(at: &Situation<'_>, epoch: Epoch, running: &Running) -> Option<Action> {
    let recorded = at.view.reservation.as_ref().map_or(Timeline(0), |key| key.value.timeline);
    (running.timeline > recorded.max(Timeline(1))).then(|| reserve(at, epoch, running.timeline))
}

fn reserve(at: &Situation<'_>, epoch: Epoch, timeline: Timeline) -> Action {
    Action::ReserveTimeline { epoch, timeline, version: at.view.reservation.as_ref().map(|key| key.version) }
}

/// What this leadership has reserved before, in a promotion that is to be repeated. Not if the server has begun that timeline since.
fn reserved(at: &Situation<'_>, epoch: Epoch, running: &Running) -> Option<Timeline> {
    let key = at.view.reservation.as_ref().filter(|key| key.value.epoch == epoch)?;
    Some(key.value.timeline).filter(|timeline| *timeline > known_here(running) && is_sane(*timeline, running))
}

/// Greater than every timeline that was ever reserved, begun or heard of, as far as this node can see.
fn next(at: &Situation<'_>, running: &Running) -> Timeline {
    let recorded = at.view.reservation.as_ref().map(|key| key.value.timeline);
    let elsewhere = recorded.into_iter().chain([at.view.newest_timeline()]).filter(|it| is_sane(*it, running));
    let newest = elsewhere.fold(known_here(running), Timeline::max);
    Timeline(newest.0.saturating_add(1))
}

fn known_here(running: &Running) -> Timeline {
    running.timeline.max(running.newest_history)
}

fn is_sane(timeline: Timeline, running: &Running) -> bool {
    timeline.0 <= running.timeline.0.saturating_add(MOST_AHEAD)
}
