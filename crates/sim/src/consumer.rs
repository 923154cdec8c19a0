//! A consumer of logical changes: it reads from whoever leads, from where the slot there is, and remembers what it got.
//!
//! What it gets twice it can tell. What it never gets it cannot: a slot must not be further than what the consumer has got on this very log.

use std::collections::BTreeSet;

use pgherd_ha::{Lsn, Slot, SlotKind};

use crate::world::{World, name};

#[derive(Debug, Default)]
pub struct Consumer {
    /// The numbers of the records.
    got: BTreeSet<u64>,
    /// What it will never get.
    pub missed: Option<String>,
}

/// The one permanent logical slot.
pub const SLOT: &str = "consumer";

pub fn kind() -> SlotKind {
    SlotKind::Logical { database: "app".into(), plugin: "test_decoding".into() }
}

impl World {
    /// Its slot was made on this node: what is there already is not for it.
    pub fn consumer_begins(&mut self, node: usize) {
        let log = self.nodes[node].postgres.data.directory().map(|directory| &directory.log);
        self.consumer.got.extend(log.into_iter().flatten().map(|record| record.number));
    }

    /// It reads all that there is on the node that leads, and confirms it.
    pub fn consume(&mut self, node: usize) {
        let postgres = &mut self.nodes[node].postgres;
        let serves = self.store.tree.leader() == Some(node) && postgres.lets_clients_in() && postgres.can_commit();
        let Some(directory) = postgres.data.directory_mut().filter(|_| serves) else { return };
        let consumed = |slot: &&mut Slot| slot.name == SLOT && slot.kind != SlotKind::Physical;
        let Some(slot) = directory.slots.iter_mut().find(consumed) else { return };
        let confirmed = slot.confirmed.unwrap_or(Lsn(0));
        let passed_over = directory.log.iter().take_while(|record| record.end <= confirmed);
        let missed = passed_over.filter(|record| !self.consumer.got.contains(&record.number)).count();
        if missed > 0 && !self.checks.a_disk_lied {
            let what = format!("{missed} records are before the slot of {} and were never read", name(node));
            self.consumer.missed.get_or_insert(what);
        }
        let end = directory.log.last().map_or(Lsn(0), |record| record.end);
        slot.confirmed = Some(end.max(confirmed));
        self.consumer.got.extend(directory.log.iter().map(|record| record.number));
    }
}
