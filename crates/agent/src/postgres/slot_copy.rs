//! Logical slots of the leader, brought to a standby: a slot is a file, which a server reads when it starts.
//!
//! Only a state that the standby has the log for is copied: what the slot still needs must be there, and what its consumer has confirmed
//! must be replayed. Else a standby that is promoted at once would skip what its consumer never got. Tested in `tests/it/cluster/slots.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use pgherd_ha::{Lsn, SlotKind};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::connection::query_remote;
use super::sql::literal;
use super::{Connection, Error, Server, Upstream};

/// Between two looks at how far the standby is.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A slot's state has 200 bytes; more than this is none.
const MOST_BYTES: usize = 64 << 10;

/// A logical slot of another server.
#[derive(Clone, Debug, Deserialize)]
pub struct ForeignSlot {
    pub name: String,
    database: String,
    plugin: String,
    pub restart_lsn: Lsn,
    pub confirmed_flush_lsn: Lsn,
    /// In hexadecimal digits.
    state: String,
}

impl ForeignSlot {
    fn kind(&self) -> SlotKind {
        SlotKind::Logical { database: self.database.clone(), plugin: self.plugin.clone() }
    }
}

/// Those of `wanted` that the leader has just so. None of a server that is a standby itself, or that carries them over by itself (17 and later).
pub async fn read(
    server: &Server,
    leader: &Upstream,
    wanted: &BTreeMap<String, SlotKind>,
) -> Result<Vec<ForeignSlot>, Error> {
    let names = wanted.keys().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT coalesce(json_agg(row_to_json(x)), '[]')::text FROM (SELECT s.slot_name AS name, d.datname AS database, s.plugin, \
         s.restart_lsn - '0/0' AS restart_lsn, s.confirmed_flush_lsn - '0/0' AS confirmed_flush_lsn, \
         encode(pg_read_binary_file('pg_replslot/' || s.slot_name || '/state'), 'hex') AS state \
         FROM pg_get_replication_slots() s JOIN pg_database d ON d.oid = s.datoid \
         WHERE NOT pg_is_in_recovery() AND s.slot_name IN ({names}) AND s.slot_type = 'logical' AND NOT s.temporary \
         AND s.restart_lsn IS NOT NULL AND s.confirmed_flush_lsn IS NOT NULL \
         AND NOT coalesce((to_jsonb(s) ->> 'failover')::boolean, false)) x"
    );
    let text = query_remote(server, leader, "reading the leader's logical slots", &sql).await?.unwrap_or_default();
    let slots: Vec<ForeignSlot> = serde_json::from_str(&text)
        .map_err(|error| Error::answer("the leader", format!("{error} for its logical slots")))?;
    Ok(slots.into_iter().filter(|slot| wanted.get(&slot.name) == Some(&slot.kind())).collect())
}

/// Waits until the standby has replayed all up to there.
pub async fn replayed(connection: &mut Connection, to: Lsn, limit: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + limit;
    let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{to}'");
    let what = "waiting until the standby has replayed what consumers have confirmed";
    while connection.query_text(what, &sql).await?.as_deref() != Some("t") {
        if Instant::now() >= deadline {
            return Err(Error::Deadline { operation: what.to_owned(), limit });
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// The log is here from there on, of whatever timeline.
pub fn has_log(data_dir: &Path, from: Lsn, segment_bytes: u64) -> bool {
    if segment_bytes == 0 {
        return false;
    }
    let per_file = 0x1_0000_0000 / segment_bytes;
    let number = from.0 / segment_bytes;
    let suffix = format!("{:08X}{:08X}", number / per_file.max(1), number % per_file.max(1));
    let entries = fs::read_dir(data_dir.join("pg_wal")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| {
        let name = name.to_string_lossy();
        name.len() == 24 && name.ends_with(&suffix)
    })
}

/// Puts the slot into the directory of a server that does not run; one of this name is replaced, whole or not at all.
pub fn write(data_dir: &Path, slot: &ForeignSlot) -> Result<(), Error> {
    let broken = || Error::answer("the leader", format!("no state of the slot {}", slot.name));
    let state = decode_hex(&slot.state).filter(|state| (1..=MOST_BYTES).contains(&state.len())).ok_or_else(broken)?;
    let slots = data_dir.join("pg_replslot");
    // As its neighbours: a cluster that was made with group access has another mode.
    let mode = fs::metadata(&slots).map_err(Error::file("read", &slots))?.permissions().mode() & 0o777;
    let (target, temporary) = (slots.join(&slot.name), slots.join(format!("{}.tmp", slot.name)));
    // PostgreSQL removes what ends in `.tmp` when it starts, too.
    remove_directory(&temporary)?;
    fs::DirBuilder::new().mode(mode).create(&temporary).map_err(Error::file("create", &temporary))?;
    let path = temporary.join("state");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode & 0o666)
        .open(&path)
        .map_err(Error::file("create", &path))?;
    file.write_all(&state).and_then(|()| file.sync_all()).map_err(Error::file("write", &path))?;
    sync_directory(&temporary)?;
    remove_directory(&target)?;
    fs::rename(&temporary, &target).map_err(Error::file("replace", &target))?;
    sync_directory(&slots)
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { operation: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::file("sync", path))
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_segment_is_needed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("pg_wal")).expect("a directory");
        fs::write(directory.path().join("pg_wal/000000020000000100000003"), "").expect("a file");
        for (at, size, there) in [
            (Lsn(0x1_0300_0010), 16 << 20, true),
            (Lsn(0x1_03ff_ffff), 16 << 20, true),
            (Lsn(0x1_0400_0000), 16 << 20, false),
            (Lsn(0x1_00c0_0000), 4 << 20, true),
            (Lsn(0x300_0000), 16 << 20, false),
            (Lsn(1), 0, false),
        ] {
            assert_eq!(has_log(directory.path(), at, size), there, "{at} of {size}");
        }
    }

    #[test]
    fn a_slot_is_written_whole_over_what_is_there() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(directory.path().join("pg_replslot/s.tmp/left")).expect("a directory");
        let slot = |state: &str| ForeignSlot {
            name: "s".into(),
            database: "d".into(),
            plugin: "p".into(),
            restart_lsn: Lsn(1),
            confirmed_flush_lsn: Lsn(2),
            state: state.into(),
        };
        write(directory.path(), &slot("00ff10")).expect("it can be written");
        write(directory.path(), &slot("0a")).expect("and replaced");
        for broken in ["", "0", "zz", "ä0"] {
            write(directory.path(), &slot(broken)).expect_err("this is no state");
        }
        assert_eq!(fs::read(directory.path().join("pg_replslot/s/state")).expect("a file"), [10]);
        assert!(!directory.path().join("pg_replslot/s.tmp").exists());
    }
}
