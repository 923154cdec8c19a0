//! What is kept of slots from one decision to the next: since when, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::SlotChange;
use super::ready::Ready;
use crate::agent::Situation;
use crate::types::{Boot, Epoch};

/// The same change is not asked for again within this time: one that fails (no free slot, no such plugin) fails again.
const ASK_AGAIN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// On a leader: when the member of each slot was last registered.
    pub seen: BTreeMap<String, Boot>,
    /// Slots that this cluster has wanted, as far as this process knows.
    pub ours: BTreeSet<String>,
    /// Since when a slot that nobody has asked for is not used.
    idle_since: BTreeMap<String, Boot>,
    /// What was asked for and is not seen to be done.
    asked: BTreeMap<SlotChange, Boot>,
    pub leads: bool,
    /// When slots were last moved along.
    pub advanced: Boot,
    /// When logical slots were last copied, and from which leadership.
    pub copied: Option<(Epoch, Boot)>,
    pub ready: Ready,
}

impl Memory {
    /// What a former leader has done and kept in mind means nothing for a standby, and the reverse.
    pub fn take_role(&mut self, leads: bool) -> bool {
        let new = self.leads != leads;
        if new {
            self.leads = leads;
            self.asked.clear();
            self.idle_since.clear();
            self.seen.clear();
        }
        new
    }

    /// Those that have not been asked for just now.
    pub fn unasked(&mut self, at: &Situation<'_>, changes: Vec<SlotChange>) -> Vec<SlotChange> {
        let now = at.now.boot;
        self.asked.retain(|change, _| changes.contains(change));
        let due = |asked: Option<&Boot>| asked.is_none_or(|asked| now.since(*asked) >= ASK_AGAIN);
        let due: Vec<SlotChange> = changes.into_iter().filter(|change| due(self.asked.get(change))).collect();
        self.asked.extend(due.iter().map(|change| (change.clone(), now)));
        due
    }

    /// How long it has not been used, as far as is known.
    pub fn idle_for(&mut self, name: &str, at: &Situation<'_>) -> Duration {
        let since = *self.idle_since.entry(name.to_owned()).or_insert(at.now.boot);
        at.now.boot.since(since)
    }

    /// These alone are idle.
    pub fn idle(&mut self, names: &BTreeSet<&str>) {
        self.idle_since.retain(|name, _| names.contains(name.as_str()));
    }
}
