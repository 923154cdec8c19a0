//! The name of a member's replication slot.

use std::collections::BTreeMap;

use crate::view::View;

/// Lower case, `-` and `.` as `_`, what else a slot cannot have as its code, at most 63 letters; as Patroni names them.
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

/// Members of different names that would have the same slot, with its name: only one of them can stream through it at a time.
pub fn clashes(view: &View) -> BTreeMap<String, Vec<String>> {
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for member in view.members.iter().filter(|member| !member.tag("nostream")) {
        members.entry(slot_name(&member.name)).or_default().push(member.name.clone());
    }
    members.retain(|_, names| names.len() > 1);
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_named_as_patroni_names_them() {
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
