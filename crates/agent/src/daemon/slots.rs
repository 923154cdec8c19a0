//! Physical replication slots of the other members.
//!
//! A slot that this node did not make is never dropped: it may be a user's, and hold log that somebody needs.

use std::collections::BTreeSet;

use crate::postgres::{Connection, Error, Observation};

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

/// Makes the slots of `members` that are missing; drops those that this node made and nobody uses or wants any more.
pub async fn sync(
    connection: &mut Connection,
    seen: &Observation,
    made: &mut BTreeSet<String>,
    members: &[String],
) -> Result<(), Error> {
    let wanted: BTreeSet<String> = members.iter().map(|member| slot_name(member)).collect();
    let present: BTreeSet<&str> = seen.slots.iter().map(|slot| slot.name.as_str()).collect();
    for name in wanted.iter().filter(|name| !present.contains(name.as_str())) {
        // The name has only letters, digits and underscores.
        let sql = format!("SELECT pg_create_physical_replication_slot('{name}', true)");
        connection.execute("making a replication slot", &sql).await?;
        tracing::info!("made the replication slot `{name}`");
        made.insert(name.clone());
    }
    let idle =
        |name: &str| seen.slots.iter().any(|slot| slot.name == name && !slot.active && slot.slot_type == "physical");
    let unwanted: Vec<String> = made.iter().filter(|name| !wanted.contains(*name) && idle(name)).cloned().collect();
    for name in unwanted {
        connection
            .execute("dropping a replication slot", &format!("SELECT pg_drop_replication_slot('{name}')"))
            .await?;
        tracing::info!("dropped the replication slot `{name}`, whose member has been gone for long");
        made.remove(&name);
    }
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
