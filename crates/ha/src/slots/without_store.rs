//! Slots of a standby that has agreed to a primary without the store (failsafe mode). That primary says where its slots are with each question,
//! and those here are moved along, or they would keep log for as long as the outage lasts. Nothing is made or dropped meanwhile.

use super::changes::of_wanted;
use super::wanted::wanted;
use super::{Memory, SlotChange};
use crate::action::Action;
use crate::agent::Situation;
use crate::failsafe::Failsafe;
use crate::rule::Rule;
use crate::types::Boot;
use crate::view::{Leader, LeaderOwner, View};

pub(crate) fn move_along(at: &Situation<'_>, memory: &mut Memory, failsafe: &Failsafe, rule: Rule) -> Option<Action> {
    let (primary, positions) = failsafe.agreed_to()?;
    // What streams is on the timeline of who sends it: a position means the same on both.
    let running = at.local.running().filter(|running| running.in_recovery && running.streaming && !running.restores)?;
    let follows = matches!(rule, Rule::StoreUnreachable | Rule::FailsafeFollow);
    let due = at.now.boot.since(memory.advanced) >= at.settings.loop_wait || memory.advanced == Boot::ZERO;
    if !follows || !due || positions.is_empty() {
        return None;
    }
    memory.take_role(false);
    // As if the store showed what the primary says.
    let epoch = at.view.leader.as_ref().map_or_else(Default::default, |leader| leader.epoch);
    let leader = Leader { name: primary.to_owned(), epoch, owner: LeaderOwner::Other };
    let mut view = View { leader: Some(leader), ..at.view.clone() };
    view.status.slots.extend(positions.iter().map(|(name, position)| (name.clone(), *position)));
    let at = Situation { view: &view, ..*at };
    let wanted = wanted(&at, memory, false);
    let pairs = running.slots.iter().filter_map(|slot| Some((slot, wanted.get(&slot.name)?)));
    let moves = pairs.flat_map(|(slot, wanted)| of_wanted(&at, running, false, slot, wanted));
    let moves = moves.filter(|change| matches!(change, SlotChange::Advance { .. })).collect();
    let changes = memory.unasked(&at, moves);
    if changes.is_empty() {
        return None;
    }
    memory.advanced = at.now.boot;
    Some(Action::ChangeSlots { changes })
}
