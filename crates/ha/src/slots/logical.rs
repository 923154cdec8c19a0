//! Logical slots of standbys: copied from the leader once, then moved along, never past what the consumer has confirmed.
//!
//! A position means something only on the timeline that it was confirmed on. A consumer of a primary that has crashed may have confirmed more
//! than its successor has; the successor writes other records there. So positions are taken from a leader of this server's own timeline
//! only, and a new primary corrects what its predecessor has published before it writes anything ([`capped_status`]).

use std::collections::BTreeMap;
use std::time::Duration;

use super::wanted::{Wanted, published, wanted};
use super::{Memory, Slot, SlotChange, SlotKind};
use crate::agent::{Situation, Standing};
use crate::local::{Running, Settings};
use crate::types::{Lsn, Timeline};
use crate::view::{Status, View};

/// A copy stops the standby for a moment. One that has not brought the slot (its log is not here yet) is not repeated before this time.
const COPY_AGAIN: Duration = Duration::from_secs(30);

/// Those that are missing here or cannot be moved any more, and that the leader has.
pub(crate) fn copies(at: &Situation<'_>, memory: &Memory, running: &Running) -> BTreeMap<String, SlotKind> {
    let Standing::Other(epoch) = at.standing else { return BTreeMap::new() };
    let just_copied = memory.copied.is_some_and(|(of, when)| of == epoch && at.now.boot.since(when) < COPY_AGAIN);
    if just_copied || !running.streaming || at.paused {
        return BTreeMap::new();
    }
    let missing = |name: &str| match running.slots.iter().find(|slot| slot.name == name) {
        None => true,
        Some(slot) => slot.broken && !slot.failover && slot.is_idle(),
    };
    let logical = |wanted: &Wanted| matches!(wanted.kind, SlotKind::Logical { .. }) && wanted.position.is_some();
    let wanted = wanted(at, memory, false).into_iter();
    wanted.filter(|(name, it)| logical(it) && missing(name)).map(|(name, it)| (name, it.kind)).collect()
}

/// How far a standby's slot may go now.
pub(super) fn target(at: &Situation<'_>, running: &Running, slot: &Slot, wanted: &Wanted) -> Option<Lsn> {
    let leader = at.view.leader_member()?;
    let same = leader.timeline == Some(running.timeline) && !slot.broken;
    wanted.position.filter(|_| same).map(|position| position.min(running.replayed))
}

/// The slots of a standby that is about to be promoted are brought to where their consumers were: nobody can use them before.
pub(crate) fn advances_before_promotion(at: &Situation<'_>, running: &Running) -> Vec<SlotChange> {
    // Another may have been promoted meanwhile, and its consumers may have confirmed what is not here.
    let reserved = at.view.reservation.as_ref().map_or(Timeline(0), |key| key.value.timeline);
    if at.view.newest_timeline().max(reserved) > running.timeline {
        return Vec::new();
    }
    let logical = running.slots.iter().filter(|slot| {
        slot.is_idle()
            && !slot.failover
            && !slot.broken
            && at.settings.permanent_slots.get(&slot.name) == Some(&slot.kind)
    });
    let advance = |slot: &Slot| {
        let to = published(at, &slot.name)?.min(running.position);
        let behind = matches!(slot.kind, SlotKind::Logical { .. }) && slot.confirmed? < to;
        behind.then(|| SlotChange::Advance { name: slot.name.clone(), kind: slot.kind.clone(), to })
    };
    logical.filter_map(advance).collect()
}

/// The published status without positions that this server, which is about to be promoted, does not have. `None`: there are none.
pub(crate) fn capped_status(at: &Situation<'_>, running: &Running) -> Option<Status> {
    let logical = |name: &String| matches!(at.settings.permanent_slots.get(name), Some(SlotKind::Logical { .. }));
    let mut status = at.view.status.clone();
    let ahead = status.slots.iter_mut().filter(|(name, position)| logical(name) && **position > running.position.0);
    let capped = ahead.map(|(_, position)| *position = running.position.0).count();
    (capped > 0).then_some(status)
}

/// `hot_standby_feedback` must be on: this node has logical slots of its own as a standby, or hands on the feedback of one that has.
pub fn needs_feedback(view: &View, settings: &Settings) -> bool {
    let logical = settings.permanent_slots.values().any(|kind| matches!(kind, SlotKind::Logical { .. }));
    logical && settings.use_slots && hands_on(view, settings)
}

fn hands_on(view: &View, settings: &Settings) -> bool {
    let me = view.member(&settings.name);
    if me.is_some_and(|me| me.tag("nostream")) {
        return false;
    }
    !settings.nofailover || view.members.iter().any(|member| member.replicatefrom() == Some(&settings.name))
}
