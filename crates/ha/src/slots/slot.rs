//! A slot as it is seen, and what can be done about one: plain values.

use std::collections::BTreeMap;

use crate::types::{Boot, Epoch, Lsn, Xid};

/// What a slot is for: two of one name that differ in this are different slots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotKind {
    Physical,
    Logical { database: String, plugin: String },
}

/// A slot of the running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub name: String,
    pub kind: SlotKind,
    /// Somebody streams through it now.
    pub active: bool,
    /// It goes with the session that made it.
    pub temporary: bool,
    /// From where on log is kept; `None`: none is kept yet.
    pub restart: Option<Lsn>,
    /// How far its consumer has confirmed; logical ones only.
    pub confirmed: Option<Lsn>,
    /// It holds back the clean-up of rows (a logical one always does).
    pub has_xmin: bool,
    /// From this transaction on rows of the catalogs are kept for it.
    pub catalog_xmin: Option<Xid>,
    /// The log that it should have kept is gone.
    pub lost: bool,
    /// PostgreSQL 17 and later: the server itself carries it over a failover.
    pub failover: bool,
    /// And has made it here.
    pub synced: bool,
    /// It cannot be moved any more and must be copied anew: the last attempt has shown it.
    pub broken: bool,
}

/// What a leader said of its slots: how far back it keeps rows of its catalogs for each. One that keeps none is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderSlots {
    pub epoch: Epoch,
    /// Before it was asked.
    pub asked: Boot,
    pub catalog_xmins: BTreeMap<String, Xid>,
}

/// Slots that are never touched (an entry of `ignore_slots`): all that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotFilter {
    pub name: Option<String>,
    /// `physical` or `logical`
    pub slot_type: Option<String>,
    pub database: Option<String>,
    pub plugin: Option<String>,
}

/// Something to do about a slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotChange {
    /// Log is kept for it from now on.
    Create { name: String, kind: SlotKind },
    /// Unless somebody uses it. The text ends the sentence "dropped the replication slot".
    Drop { name: String, why: &'static str },
    /// Its log up to there is not needed any more.
    Advance { name: String, kind: SlotKind, to: Lsn },
}

impl Slot {
    /// What is published of it, and what it is moved by.
    pub(crate) fn position(&self) -> Option<Lsn> {
        match self.kind {
            SlotKind::Physical => self.restart,
            SlotKind::Logical { .. } => self.confirmed,
        }
    }

    /// Nobody would notice at once if it were dropped, and the server itself does not look after it.
    pub(crate) fn is_idle(&self) -> bool {
        !self.active && !self.temporary && !self.synced
    }
}

impl SlotFilter {
    pub(crate) fn matches(&self, slot: &Slot) -> bool {
        let (slot_type, database, plugin) = match &slot.kind {
            SlotKind::Physical => ("physical", None, None),
            SlotKind::Logical { database, plugin } => ("logical", Some(database), Some(plugin)),
        };
        let is = |wanted: &Option<String>, found: Option<&String>| wanted.is_none() || wanted.as_ref() == found;
        is(&self.name, Some(&slot.name))
            && self.slot_type.as_deref().is_none_or(|wanted| wanted == slot_type)
            && is(&self.database, database)
            && is(&self.plugin, plugin)
    }
}

impl SlotChange {
    pub fn name(&self) -> &str {
        match self {
            SlotChange::Create { name, .. } | SlotChange::Drop { name, .. } | SlotChange::Advance { name, .. } => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_a_filter_names_must_match() {
        let logical =
            |database: &str, plugin: &str| SlotKind::Logical { database: database.into(), plugin: plugin.into() };
        let slot = |kind| Slot {
            name: "a".into(),
            kind,
            active: false,
            temporary: false,
            restart: None,
            confirmed: None,
            has_xmin: false,
            catalog_xmin: None,
            lost: false,
            failover: false,
            synced: false,
            broken: false,
        };
        let filter = |name: &str, slot_type: &str, database: &str, plugin: &str| {
            let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            SlotFilter {
                name: given(name),
                slot_type: given(slot_type),
                database: given(database),
                plugin: given(plugin),
            }
        };
        for (filter, kind, expected) in [
            (filter("a", "", "", ""), SlotKind::Physical, true),
            (filter("b", "", "", ""), SlotKind::Physical, false),
            (filter("", "logical", "", ""), SlotKind::Physical, false),
            (filter("a", "logical", "d", "p"), logical("d", "p"), true),
            (filter("a", "logical", "d", "p"), logical("d", "q"), false),
            (filter("", "", "d", ""), logical("d", "q"), true),
            (filter("", "", "d", ""), SlotKind::Physical, false),
        ] {
            assert_eq!(filter.matches(&slot(kind.clone())), expected, "{filter:?} {kind:?}");
        }
    }
}
