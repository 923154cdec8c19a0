//! Which logical slots of a standby may be used after a promotion: those whose rows of the catalogs are known to be here still.
//!
//! A copied slot says from which transaction on it needs them, and until the standby's feedback has come to the leader nothing keeps them:
//! the leader's own slot moves on, and what it has passed is vacuumed away, there and then here. So a slot is ready once the leader's
//! slot for this node holds rows back (1), not from later on than this node's slot needs them (2), and from no earlier on than the leader's
//! slot did when (1) was first seen (3). That is Patroni's rule. A slot that is not ready is promoted all the same, for it may do, and it
//! would be gone otherwise; the log says so.

use std::collections::{BTreeMap, BTreeSet};

use super::{Memory, Slot, SlotKind, slot_name};
use crate::action::{Action, Upstream};
use crate::agent::{Situation, Standing};
use crate::local::Running;
use crate::types::{Boot, Epoch, Xid};
use crate::upstream;

/// What is known of the slots here, under one leadership.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ready {
    epoch: Option<Epoch>,
    slots: BTreeMap<String, Proof>,
    asked: Boot,
}

#[derive(Clone, Debug)]
struct Proof {
    /// An answer that was asked for earlier says nothing of this slot.
    seen: Boot,
    /// Where the leader's slot was when the leader was first seen to keep rows for this node.
    floor: Option<Xid>,
    ready: bool,
}

impl Ready {
    /// A primary's own slots have always kept their rows; they still have when it becomes a standby and is promoted with no leader in between.
    pub fn are_own(&mut self, at: &Situation<'_>, running: &Running) {
        let Standing::Mine(epoch) = at.standing else { return };
        self.epoch = Some(epoch);
        let seen = at.now.boot;
        let own = logical(at, running).map(|slot| (slot.name.clone(), Proof { seen, floor: None, ready: true }));
        self.slots = own.collect();
    }

    /// Copies that are known to be ready.
    pub fn names(&self) -> BTreeSet<String> {
        let ready = self.slots.iter().filter(|(_, proof)| proof.ready && proof.floor.is_some());
        ready.map(|(name, _)| name.clone()).collect()
    }

    fn update(&mut self, at: &Situation<'_>, running: &Running, epoch: Epoch) {
        if self.epoch != Some(epoch) {
            *self = Ready { epoch: Some(epoch), ..Ready::default() };
        }
        // One that went and came again is another.
        self.slots.retain(|name, _| logical(at, running).any(|slot| slot.name == *name));
        let answer = at.local.leader_slots.as_ref().filter(|answer| answer.epoch == epoch);
        let kept = answer.and_then(|answer| answer.catalog_xmins.get(&slot_on_leader(at)).copied());
        for slot in logical(at, running) {
            let new = Proof { seen: at.now.boot, floor: None, ready: false };
            let proof = self.slots.entry(slot.name.clone()).or_insert(new);
            let Some((answer, kept)) = answer.zip(kept).filter(|(answer, _)| answer.asked >= proof.seen) else {
                continue;
            };
            proof.floor = proof.floor.or_else(|| answer.catalog_xmins.get(&slot.name).copied());
            let reached = proof.floor.is_some_and(|floor| !kept.precedes(floor));
            proof.ready |= reached && slot.catalog_xmin.is_some_and(|here| !here.precedes(kept));
        }
    }
}

/// The permanent ones that are here and that the server does not carry over by itself.
fn logical<'a>(at: &Situation<'_>, running: &'a Running) -> impl Iterator<Item = &'a Slot> {
    let permanent = &at.settings.permanent_slots;
    let ours = move |slot: &&Slot| {
        let logical = matches!(slot.kind, SlotKind::Logical { .. });
        logical && !slot.failover && !slot.temporary && !slot.lost && permanent.get(&slot.name) == Some(&slot.kind)
    };
    running.slots.iter().filter(ours)
}

/// Through which this node's feedback comes to the leader, perhaps over others.
fn slot_on_leader(at: &Situation<'_>) -> String {
    slot_name(upstream::next_to_leader(at))
}

/// While slots are not known to be ready the leader is asked, as often as it could have anything new to say.
pub(crate) fn ask_leader(
    at: &Situation<'_>,
    memory: &mut Memory,
    running: &Running,
    leader: &Upstream,
) -> Option<Action> {
    let Standing::Other(epoch) = at.standing else { return None };
    let ready = &mut memory.ready;
    ready.update(at, running, epoch);
    let mut names: Vec<String> = ready.slots.iter().filter(|(_, it)| !it.ready).map(|(name, _)| name.clone()).collect();
    let due = ready.asked == Boot::ZERO || at.now.boot.since(ready.asked) >= at.settings.loop_wait;
    if names.is_empty() || !due || !running.streaming || at.paused {
        return None;
    }
    ready.asked = at.now.boot;
    names.push(slot_on_leader(at));
    Some(Action::AskLeaderSlots { epoch, leader: leader.clone(), names })
}

/// Of the slots of a standby that is about to be promoted, those that may not do.
pub(crate) fn unproven(at: &Situation<'_>, memory: &Memory, running: &Running) -> Vec<String> {
    let ready = |slot: &Slot| memory.ready.slots.get(&slot.name).is_some_and(|proof| proof.ready);
    logical(at, running).filter(|slot| !ready(slot)).map(|slot| slot.name.clone()).collect()
}
