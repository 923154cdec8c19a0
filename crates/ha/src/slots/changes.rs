//! What is to be done about the slots that this server has, or lacks.
//!
//! A slot that the cluster has made (for a member, or as a permanent one) and does not want any more goes as soon as nobody uses it. One that
//! nobody has asked the cluster for is a user's: a primary leaves it alone, for what its consumer has not read would be lost with it. On
//! a standby such a slot (as a rule left over from the time when this server was a primary) holds log for somebody who reads elsewhere; it
//! goes when nobody has used it for `member_slots_ttl`.

use std::collections::BTreeSet;

use super::wanted::{Wanted, retained, wanted};
use super::{Memory, Slot, SlotChange, SlotKind, slot_name};
use crate::action::Action;
use crate::agent::{Situation, Standing};
use crate::local::Running;
use crate::types::Lsn;

const UNWANTED: &str = "which nobody wants any more";
const OTHER_KIND: &str = "which is not what the configuration says";
const LOST: &str = "whose log is lost";
const UNRESERVED: &str = "which kept no log";
const HOLDS_ROWS: &str = "which held back the clean-up of rows for nobody";
const LEFT_OVER: &str = "which nobody has used here since another node leads";

/// The primary's: what is missing is made at once, since standbys cannot stream before.
pub(crate) fn on_leader(at: &Situation<'_>, memory: &mut Memory, running: &Running) -> Option<Action> {
    if memory.take_role(true) {
        let others = retained(at).filter(|slot| **slot != slot_name(at.me()));
        memory.seen = others.map(|slot| (slot.clone(), at.now.boot)).collect();
    }
    for member in at.view.members.iter().filter(|member| member.name != at.me() && !member.tag("nostream")) {
        memory.seen.insert(slot_name(&member.name), at.now.boot);
    }
    let kept = at.settings.member_slots_ttl;
    memory.seen.retain(|_, seen| *seen == at.now.boot || at.now.boot.since(*seen) < kept);
    memory.ready.are_own(at, running);
    changes(at, memory, running, true)
}

/// A standby's: moved along with the primary's.
pub(crate) fn on_standby(at: &Situation<'_>, memory: &mut Memory, running: &Running) -> Option<Action> {
    memory.take_role(false);
    changes(at, memory, running, false)
}

fn changes(at: &Situation<'_>, memory: &mut Memory, running: &Running, leads: bool) -> Option<Action> {
    if !at.settings.use_slots && memory.ours.is_empty() {
        return None;
    }
    let wanted = wanted(at, memory, leads);
    memory.ours.extend(wanted.keys().cloned());
    // Moved with each new status and not more often, as the log that is freed by it is.
    let moves = at.now.boot.since(memory.advanced) >= at.settings.loop_wait || memory.advanced == crate::Boot::ZERO;
    let mut changes = Vec::new();
    for (name, wanted) in &wanted {
        match running.slots.iter().find(|slot| slot.name == *name) {
            // A logical slot of a standby is copied.
            None if leads || wanted.kind == SlotKind::Physical => changes.push(create(name, wanted)),
            None => {}
            Some(slot) => changes.extend(
                of_wanted(at, running, leads, slot, wanted)
                    .filter(|change| moves || !matches!(change, SlotChange::Advance { .. })),
            ),
        }
    }
    changes.extend(unwanted(at, memory, running, leads, &|name| wanted.contains_key(name)));
    let changes = memory.unasked(at, changes);
    if changes.iter().any(|change| matches!(change, SlotChange::Advance { .. })) {
        memory.advanced = at.now.boot;
    }
    (!changes.is_empty()).then_some(Action::ChangeSlots { changes })
}

fn create(name: &str, wanted: &Wanted) -> SlotChange {
    SlotChange::Create { name: name.to_owned(), kind: wanted.kind.clone() }
}

/// About one that is there and wanted.
pub(super) fn of_wanted(
    at: &Situation<'_>,
    running: &Running,
    leads: bool,
    slot: &Slot,
    wanted: &Wanted,
) -> std::vec::IntoIter<SlotChange> {
    // The server looks after it by itself.
    if slot.failover {
        return Vec::new().into_iter();
    }
    let physical = slot.kind == SlotKind::Physical;
    let stale = physical && !wanted.used && slot.has_xmin && at.standing != Standing::Nobody;
    let useless = [
        (slot.kind != wanted.kind, OTHER_KIND),
        (slot.lost, LOST),
        (physical && slot.restart.is_none(), UNRESERVED),
        (stale, HOLDS_ROWS),
    ];
    if let Some((_, why)) = useless.into_iter().find(|(is_so, _)| *is_so) {
        if !slot.is_idle() || at.paused {
            return Vec::new().into_iter();
        }
        let again = (leads || wanted.kind == SlotKind::Physical).then(|| create(&slot.name, wanted));
        return Some(SlotChange::Drop { name: slot.name.clone(), why })
            .into_iter()
            .chain(again)
            .collect::<Vec<_>>()
            .into_iter();
    }
    let target = match physical {
        true => wanted.position.filter(|_| !wanted.used),
        false => super::logical::target(at, running, slot, wanted).filter(|_| !leads),
    };
    let behind = |target: &Lsn| slot.position().is_some_and(|position| position < *target);
    let advance = target
        .filter(behind)
        .filter(|_| !slot.active && !slot.has_xmin || !physical)
        .map(|to| SlotChange::Advance { name: slot.name.clone(), kind: slot.kind.clone(), to });
    advance.into_iter().collect::<Vec<_>>().into_iter()
}

/// Those that nobody wants and that are to go.
fn unwanted(
    at: &Situation<'_>,
    memory: &mut Memory,
    running: &Running,
    leads: bool,
    is_wanted: &dyn Fn(&str) -> bool,
) -> Vec<SlotChange> {
    let ignored = |slot: &Slot| at.settings.ignore_slots.iter().any(|filter| filter.matches(slot));
    let present: BTreeSet<&str> = running.slots.iter().map(|slot| slot.name.as_str()).collect();
    memory.ours.retain(|name| is_wanted(name) || present.contains(name.as_str()));
    let idle: Vec<&Slot> = running.slots.iter().filter(|slot| slot.is_idle() && !is_wanted(&slot.name)).collect();
    memory.idle(&idle.iter().map(|slot| slot.name.as_str()).collect());
    let mut changes = Vec::new();
    for slot in idle.into_iter().filter(|slot| !ignored(slot)) {
        // A server that was the primary made it; as a standby it would keep the server from copying it from the primary of now.
        let of_former_primary = slot.failover && !leads;
        let why = if slot.failover {
            of_former_primary.then_some(LEFT_OVER)
        } else if is_ours(at, memory, slot) {
            Some(UNWANTED)
        } else {
            (!leads && memory.idle_for(&slot.name, at) >= at.settings.member_slots_ttl).then_some(LEFT_OVER)
        };
        if let Some(why) = why.filter(|_| !at.paused) {
            changes.push(SlotChange::Drop { name: slot.name.clone(), why });
        }
    }
    changes
}

/// The cluster has made it: for a member, or as a permanent one. What a leader publishes is what it looks after.
pub(super) fn is_ours(at: &Situation<'_>, memory: &Memory, slot: &Slot) -> bool {
    let name = &slot.name;
    let of_member = slot.kind == SlotKind::Physical && at.view.members.iter().any(|it| slot_name(&it.name) == *name);
    memory.ours.contains(name)
        || of_member
        || at.view.status.slots.contains_key(name)
        || at.view.status.retain_slots.contains(name)
}
