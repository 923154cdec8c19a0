//! Physical replication slots of the other members.
//!
//! A slot that neither this node has made nor bears a member's name is never dropped: it may be a user's, and hold log that somebody needs.

use std::collections::BTreeSet;

use crate::postgres::observation::Slot;
use crate::postgres::{Connection, Error, Observation, slots};

/// A member's name as a slot name: lower case, `-` and `.` become `_`, what else is not allowed becomes `u` and its code point,
/// cut at 63 (configuration contract, section 4).
pub fn slot_name(member: &str) -> String {
    let mut name = String::new();
    for letter in member.chars().flat_map(char::to_lowercase) {
        match letter {
            'a'..='z' | '0'..='9' | '_' => name.push(letter),
            '-' | '.' => name.push('_'),
            other => name.push_str(&format!("u{:04}", u32::from(other))),
        }
    }
    name.truncate(63);
    name
}

/// Makes the slots of `members` that are missing or whose log is lost; drops those that nobody uses or wants any more, if this node made them
/// or they are those of `known` members (of a time when this node led, before its agent was started again).
pub async fn sync(
    connection: &mut Connection,
    seen: &Observation,
    made: &mut BTreeSet<String>,
    members: &[String],
    known: &[String],
) -> Result<(), Error> {
    let wanted: BTreeSet<String> = members.iter().map(|member| slot_name(member)).collect();
    let idle = |slot: &&Slot| !slot.active && slot.slot_type == "physical";
    // The log that it should have kept is gone, and no standby can use it again.
    let lost = |slot: &&Slot| slot.wal_status.as_deref() == Some("lost");
    let is_wanted = |slot: &&Slot| wanted.contains(&slot.name);
    for slot in seen.slots.iter().filter(idle).filter(lost).filter(is_wanted) {
        drop_slot(connection, &slot.name, "whose log is lost").await?;
    }
    let usable = seen.slots.iter().filter(|slot| !(idle(slot) && lost(slot)));
    let present: BTreeSet<&str> = usable.map(|slot| slot.name.as_str()).collect();
    for name in wanted.iter().filter(|name| !present.contains(name.as_str())) {
        slots::create(connection, name).await?;
        tracing::info!("made the replication slot `{name}`");
        made.insert(name.clone());
    }
    let known: BTreeSet<String> = known.iter().map(|member| slot_name(member)).collect();
    let ours = |slot: &&Slot| made.contains(&slot.name) || known.contains(&slot.name);
    let unwanted: Vec<String> = seen
        .slots
        .iter()
        .filter(|slot| !is_wanted(slot))
        .filter(idle)
        .filter(ours)
        .map(|slot| slot.name.clone())
        .collect();
    for name in unwanted {
        drop_slot(connection, &name, "which nobody uses any more").await?;
        made.remove(&name);
    }
    Ok(())
}

async fn drop_slot(connection: &mut Connection, name: &str, why: &str) -> Result<(), Error> {
    slots::remove(connection, name).await?;
    tracing::info!("dropped the replication slot `{name}`, {why}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::slot_name;

    #[test]
    fn names_of_slots() {
        for (member, slot) in [
            ("postgresql1", "postgresql1"),
            ("PG-Master.local", "pg_master_local"),
            ("a b", "au0032b"),
            ("ä", "u0228"),
            (&"x".repeat(80), &"x".repeat(63)),
        ] {
            assert_eq!(slot_name(member), slot);
        }
    }
}
