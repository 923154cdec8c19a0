//! Replication slots: part of the directory. Those of members follow whoever streams; a logical one follows its [consumer](crate::consumer).
//!
//! Not modelled: the log and the rows that a slot holds back, and that a position is on the disk only after a checkpoint.

use std::collections::BTreeMap;

use pgherd_ha::{ConnectedStandby, Slot, SlotChange, SlotKind, slot_name};

use super::Directory;
use crate::mutants::Mutant;
use crate::world::World;

/// One that nobody uses yet.
fn new_slot(name: &str, kind: &SlotKind, directory: &Directory) -> Slot {
    let logical = *kind != SlotKind::Physical;
    Slot {
        name: name.to_owned(),
        kind: kind.clone(),
        active: false,
        temporary: false,
        restart: Some(directory.end()),
        confirmed: logical.then(|| directory.end()),
        has_xmin: logical,
        catalog_xmin: None,
        lost: false,
        failover: false,
        synced: false,
        broken: false,
    }
}

impl World {
    /// As they are seen now, with those who stream.
    pub fn slots(&mut self, node: usize, standbys: &[ConnectedStandby]) -> Vec<Slot> {
        let Some(directory) = self.nodes[node].postgres.data.directory_mut() else { return Vec::new() };
        for slot in directory.slots.iter_mut().filter(|slot| slot.kind == SlotKind::Physical) {
            let user = standbys.iter().find(|standby| slot_name(&standby.name) == slot.name);
            slot.active = user.is_some();
            slot.restart = user.map(|user| user.flushed).or(slot.restart);
        }
        directory.slots.clone()
    }

    /// As the primary tells them in failsafe mode: how far logical ones are confirmed.
    pub fn slot_positions(&self, node: usize) -> BTreeMap<String, u64> {
        let slots =
            self.nodes[node].postgres.data.directory().map(|directory| &directory.slots[..]).unwrap_or_default();
        slots.iter().filter_map(|slot| Some((slot.name.clone(), slot.confirmed.or(slot.restart)?.0))).collect()
    }

    pub fn change_slots(&mut self, node: usize, changes: &[SlotChange]) {
        let primary = self.nodes[node].postgres.server.as_ref().is_some_and(|server| !server.in_recovery);
        let to_the_end = self.mutant == Some(Mutant::SlotsMovedToTheEnd);
        for change in changes {
            let Some(directory) = self.nodes[node].postgres.data.directory_mut() else { return };
            let end = directory.end();
            let known = directory.slots.iter_mut().find(|slot| slot.name == change.name());
            match (change, known) {
                (SlotChange::Create { name, kind }, None) if primary || *kind == SlotKind::Physical => {
                    let slot = new_slot(name, kind, directory);
                    directory.slots.push(slot);
                    if *kind != SlotKind::Physical {
                        self.consumer_begins(node);
                    }
                }
                (SlotChange::Drop { name, .. }, Some(slot)) if !slot.active => {
                    directory.slots.retain(|slot| slot.name != *name);
                }
                (SlotChange::Advance { .. }, Some(slot)) if slot.confirmed.is_some() && to_the_end => {
                    slot.confirmed = Some(end)
                }
                (SlotChange::Advance { to, .. }, Some(slot)) => match slot.confirmed {
                    Some(confirmed) => slot.confirmed = Some(confirmed.max(*to)),
                    None => slot.restart = slot.restart.max(Some(*to)),
                },
                _ => {}
            }
        }
    }
}
