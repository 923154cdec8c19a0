//! Settings that wait for a restart: what they are, and what they will be.
//!
//! PostgreSQL flags a setting whose file says something else, and forgets to take some flags back; so each flagged one is asked of the
//! program that would be started (`postgres -C`), as the value that it would have, and counts only if that is another one. Tested on
//! real servers in `tests/it/cluster/settings.rs`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use serde::Deserialize;

use super::parameters::{BINDING, start_settings};
use super::{Error, Server, installation, observation::Observation, program, start};

/// The program reads the configuration and ends, which takes some 10 ms.
const LIMIT: Duration = Duration::from_secs(2);

/// A change of more settings than this is told of these only.
const ASKED: usize = 32;

/// A row of `pg_settings` that is flagged.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Flagged {
    pub name: String,
    /// As `SHOW` has it, with a unit.
    pub shown: String,
    /// In `unit`s, without.
    pub setting: String,
    pub unit: Option<String>,
}

/// Both as people write them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub old: String,
    pub new: String,
}

impl Change {
    /// Both, where they are plain numbers.
    pub fn numbers(&self) -> Option<(u64, u64)> {
        self.old.parse().ok().zip(self.new.parse().ok())
    }
}

pub type Changes = BTreeMap<String, Change>;

/// What a restart of the server would change. `server`: as configured, in the role that it has.
pub async fn changes(server: &Server, seen: &Observation) -> Changes {
    let settings = start_settings(server, None);
    let arguments = start::arguments(server, &settings);
    let mut changes = Changes::new();
    for flagged in seen.pending_restart.iter().take(ASKED) {
        let new = match value_at_start(server, &arguments, &flagged.name).await {
            Ok(value) if value == flagged.setting => continue,
            Ok(value) => with_unit(&value, flagged.unit.as_deref()),
            Err(error) => {
                tracing::debug!("what {} will be is unknown: {}", flagged.name, error.full());
                "?".to_owned()
            }
        };
        changes.insert(flagged.name.clone(), Change { old: flagged.shown.clone(), new });
    }
    // A standby that was started with more than is configured, for the log's sake: its file says the same, so PostgreSQL flags nothing.
    for name in BINDING {
        let configured = settings.file.get(name).and_then(|value| value.parse::<u64>().ok());
        if let (Some(new), Some(old)) = (configured, seen.binding.get(name))
            && new != *old
        {
            changes.insert(name.to_owned(), Change { old: old.to_string(), new: new.to_string() });
        }
    }
    changes
}

async fn value_at_start(server: &Server, arguments: &[OsString], name: &str) -> Result<String, Error> {
    let mut command = installation::command(server, "postgres")?;
    command.args(arguments).arg("-C").arg(name);
    let output = program::run(command, program::Limit::Total(LIMIT), |_| ()).await?;
    Ok(output.strip_suffix('\n').unwrap_or(&output).to_owned())
}

/// The greatest unit that shows the number as a whole one, as `SHOW` does it.
fn with_unit(value: &str, unit: Option<&str>) -> String {
    const SIZES: [(&str, u64); 5] = [("B", 1), ("kB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1 << 40)];
    const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let scaled = || {
        let (number, unit) = (value.parse::<u64>().ok().filter(|number| *number > 0)?, unit?);
        let digits = unit.find(|c: char| !c.is_ascii_digit())?;
        let times = if digits == 0 { 1 } else { unit[..digits].parse::<u64>().ok()? };
        let table = [SIZES, TIMES].into_iter().find(|table| table.iter().any(|(name, _)| *name == &unit[digits..]))?;
        let factor = table.iter().find(|(name, _)| *name == &unit[digits..])?.1;
        let total = number.checked_mul(times)?.checked_mul(factor)?;
        let (name, size) = table.iter().rev().find(|(_, size)| total.is_multiple_of(*size))?;
        Some(format!("{}{name}", total / size))
    };
    scaled().unwrap_or_else(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_units_that_show_has() {
        for (value, unit, expected) in [
            ("16384", Some("8kB"), "128MB"),
            ("16385", Some("8kB"), "131080kB"),
            ("1024", Some("kB"), "1MB"),
            ("2", Some("16MB"), "32MB"),
            ("60", Some("s"), "1min"),
            ("90", Some("s"), "90s"),
            ("86400000", Some("ms"), "1d"),
            ("0", Some("8kB"), "0"),
            ("-1", Some("8kB"), "-1"),
            ("on", None, "on"),
            ("200", None, "200"),
            ("7", Some("parsecs"), "7"),
            ("18446744073709551615", Some("TB"), "18446744073709551615"),
        ] {
            assert_eq!(with_unit(value, unit), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_unit_is_survived(value in "\\PC*|[0-9]{1,20}", unit in "\\PC*|[0-9]{0,20}[a-zA-Z]{0,3}") {
            with_unit(&value, Some(&unit));
        }
    }
}
