//! Which slots this server is to have.

use std::collections::{BTreeMap, BTreeSet};

use super::{Memory, SlotKind, slot_name};
use crate::agent::Situation;
use crate::types::Lsn;
use crate::upstream;
use crate::view::Member;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub kind: SlotKind,
    /// Somebody is to stream through it here, so it moves by itself.
    pub used: bool,
    /// How far it has come where it is used.
    pub position: Option<Lsn>,
}

/// By name. None at all where slots are turned off.
pub(super) fn wanted(at: &Situation<'_>, memory: &Memory, leads: bool) -> BTreeMap<String, Wanted> {
    if !at.settings.use_slots {
        return BTreeMap::new();
    }
    let mut slots = of_members(at, leads);
    // One that is never promoted needs none but for those below it.
    if at.settings.nofailover && !leads {
        return slots;
    }
    let own = slot_name(at.me());
    let retained: Vec<&String> = match leads {
        _ if at.settings.member_slots_ttl.is_zero() => Vec::new(),
        true => memory.seen.keys().collect(),
        false => retained(at).collect(),
    };
    let streams_not = |slot: &str| at.view.members.iter().any(|it| it.tag("nostream") && slot_name(&it.name) == slot);
    for name in retained.into_iter().filter(|name| **name != own && !streams_not(name)) {
        let position = published(at, name);
        slots.entry(name.clone()).or_insert(Wanted { kind: SlotKind::Physical, used: leads, position });
    }
    let streams = leads || !at.settings.nostream && streams_at_all(at, at.me());
    for (name, kind) in &at.settings.permanent_slots {
        let position = published(at, name);
        let used = leads && !cascades(at, name);
        let possible = match kind {
            SlotKind::Physical => *name != own,
            // Without a stream nothing holds the rows back that it needs.
            SlotKind::Logical { .. } => streams,
        };
        if possible {
            slots.entry(name.clone()).or_insert_with(|| Wanted { kind: kind.clone(), used, position });
        }
    }
    slots
}

/// What the leader keeps for members that may be gone; and the slot of the last leader itself, which is to come back. Its own position is
/// published under the name of that slot, which others have for it while it is registered.
pub(super) fn retained<'a>(at: &Situation<'a>) -> impl Iterator<Item = &'a String> + use<'a> {
    let status = &at.view.status;
    let settings = at.settings;
    let present = at.local.running().map_or(&[][..], |running| &running.slots);
    let of_member = move |name: &String| {
        let physical = present.iter().any(|slot| slot.name == *name && slot.kind == SlotKind::Physical);
        physical && !settings.permanent_slots.contains_key(name)
    };
    let of_leader = status.slots.iter().filter(|(_, position)| **position == status.optime.0).map(|(name, _)| name);
    let of_leader = of_leader.filter(move |name| of_member(name));
    status.retain_slots.iter().chain(of_leader)
}

/// One for each other member that streams at all; only for those that stream from here where slots of members are not retained, and where this
/// node is never promoted.
fn of_members(at: &Situation<'_>, leads: bool) -> BTreeMap<String, Wanted> {
    let below = |member: &Member| member.replicatefrom() == Some(at.me());
    let all = !at.settings.member_slots_ttl.is_zero();
    let from_here: BTreeSet<&str> = upstream::followers(at).map(|member| member.name.as_str()).collect();
    let mut slots = BTreeMap::new();
    for member in at.view.members.iter().filter(|member| member.name != at.me() && !member.tag("nostream")) {
        let used = from_here.contains(member.name.as_str());
        let kept = if at.settings.nofailover && !leads { below(member) } else { all || used };
        if kept {
            let name = slot_name(&member.name);
            let position = position_of(at, member, &name);
            slots.insert(name, Wanted { kind: SlotKind::Physical, used, position });
        }
    }
    slots
}

/// The leader knows how far its own standbys are; one that streams from elsewhere says it itself.
fn position_of(at: &Situation<'_>, member: &Member, slot: &str) -> Option<Lsn> {
    let told = member.xlog_location.filter(|_| member.replicatefrom().is_some());
    published(at, slot).max(told)
}

pub(super) fn published(at: &Situation<'_>, slot: &str) -> Option<Lsn> {
    at.view.status.slots.get(slot).map(|position| Lsn(*position)).filter(|position| position.0 > 0)
}

/// The member whose slot it is streams from another member.
fn cascades(at: &Situation<'_>, slot: &str) -> bool {
    at.view.members.iter().any(|member| slot_name(&member.name) == slot && member.replicatefrom().is_some())
}

/// The member's log comes as a stream, from the leader or over others. A chain that leads back to itself is cut by its length.
fn streams_at_all(at: &Situation<'_>, name: &str) -> bool {
    let mut name = name;
    for _ in 0..at.view.members.len() {
        let Some(member) = at.view.member(name) else { return true };
        if member.tag("nostream") {
            return false;
        }
        match member.replicatefrom() {
            Some(from) if at.view.member(from).is_some() => name = from,
            _ => return true,
        }
    }
    false
}
