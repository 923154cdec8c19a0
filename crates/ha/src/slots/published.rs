//! What the leader tells the others of its slots, in the `status` key.

use super::changes::is_ours;
use super::{Memory, SlotKind, slot_name};
use crate::agent::Situation;
use crate::local::Running;
use crate::view::Status;

/// The positions of all slots that the cluster looks after, and of this server itself under the name that its own slot has elsewhere; with
/// the slots of members, which are kept for a while when the member goes.
pub(crate) fn status(at: &Situation<'_>, memory: &Memory, running: &Running) -> Status {
    let own = slot_name(at.me());
    let permanent = |name: &str| at.settings.permanent_slots.get(name);
    let looked_after = running.slots.iter().filter(|slot| !slot.temporary && !slot.failover && slot.name != own);
    let ours = looked_after.filter(|slot| is_ours(at, memory, slot));
    let told = ours.filter(|slot| !at.settings.member_slots_ttl.is_zero() || permanent(&slot.name).is_some());
    let mut slots: std::collections::BTreeMap<String, u64> =
        told.filter_map(|slot| Some((slot.name.clone(), slot.position()?.0))).collect();
    slots.insert(own, running.position.0);
    let present = |name: &&String| running.slots.iter().any(|slot| slot.name == **name);
    let retained = memory.seen.keys().filter(present).filter(|name| permanent(name) != Some(&SlotKind::Physical));
    Status { optime: running.position, slots, retain_slots: retained.cloned().collect() }
}

/// Whether it says anything that the key does not. This server's own position says nothing that `optime` does not.
pub(crate) fn is_news(at: &Situation<'_>, status: &Status) -> bool {
    let own = slot_name(at.me());
    let others = |status: &Status| {
        let slots = status.slots.iter().filter(|(name, _)| **name != own);
        slots.map(|(name, position)| (name.clone(), *position)).collect::<Vec<_>>()
    };
    let known = &at.view.status;
    known.optime != status.optime || known.retain_slots != status.retain_slots || others(known) != others(status)
}
