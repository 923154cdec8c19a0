//! The timeline history files in `pg_wal`, as far as they decide the number of the next timeline.
//!
//! PostgreSQL takes the first number after its own that has no history file (`findNewestTimeLine`). Whoever has not heard of a timeline
//! takes its number again (`postgres-facts` 5). A *placeholder*, a history file of nothing but a comment, makes it pass a number over.
//!
//! What else a placeholder does, as tested on real servers in `tests/it/postgres/timelines.rs`:
//! - A standby that looks for the latest timeline finds that a placeholder is no child of its own, says so in its log and goes on.
//! - A server that is *started* as a standby takes the newest file for its target. If that is a placeholder, its own checkpoint is not in
//!   that history, and it looks for one for ever and lets nobody in. And a walreceiver does not fetch a history whose file is there already.
//!   So those that no real history follows have to go before a start and before another upstream ([`remove_unused`]).
//! - Below a real history they stay for good: a standby that comes from an older timeline fetches the file of every number in between, and
//!   cannot stream from a server that lacks one.
//! - pg_basebackup copies only the current history, pg_rewind copies all of them; neither minds. (What a copied server lacks nobody can ask
//!   it for: it has no log from before the copy either.)
//! - A restore to the latest timeline probes the archive number by number, so the archive must have no hole ([`archive`]). PostgreSQL itself
//!   archives a placeholder only on a standby with `archive_mode = always` that has fetched it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pgherd_ha::{MOST_TIMELINES_AHEAD, Timeline};

use super::Error;
use super::atomic_file::{PRIVATE, read_if_present, remove_if_present};

/// All of a placeholder: PostgreSQL reads lines that begin with `#` as comments.
const PLACEHOLDER: &str =
    "# pgherd: this timeline was reserved by another promotion; the file makes PostgreSQL pass its number over\n";

/// By what a placeholder is known again, also one that another version wrote.
const MARK: &str = "# pgherd:";

/// A history that is longer is real; a placeholder is one line.
const LONGEST_PLACEHOLDER: u64 = 1024;

/// The newest timeline that PostgreSQL would find from `own` on: the number before the one that it would choose.
pub fn newest_after(data_dir: &Path, own: Timeline) -> Timeline {
    let mut newest = own;
    while let Some(next) = newest.0.checked_add(1).filter(|next| path(data_dir, *next).exists()) {
        newest = Timeline(next);
    }
    newest
}

/// Makes PostgreSQL choose `reserved` when it is promoted from `own`. Answers with the numbers that got a placeholder. Each is a promotion
/// that failed or that this server has not heard of; the decision (`ha::timeline`) takes a greater distance for damage, and so does this.
///
/// Not synced to the disk: PostgreSQL looks for names only, and syncs their directory itself when it adds its own history; a placeholder
/// that loses its line in a crash of the machine is still one ([`remove_unused`]). [`sync`] does it off the fast path.
pub fn pass_over(data_dir: &Path, own: Timeline, reserved: Timeline) -> Result<Vec<Timeline>, Error> {
    if reserved <= own || reserved.0 - own.0 > MOST_TIMELINES_AHEAD + 1 {
        return Err(Error::Refused(format!(
            "timeline {reserved} was reserved for a server that is on timeline {own}: look at the key pgherd/timelines in the store, and \
             delete it if its number makes no sense"
        )));
    }
    let mut placed = Vec::new();
    // Timeline 1 has no history.
    for number in own.0.max(1) + 1..reserved.0 {
        let path = path(data_dir, number);
        match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&path) {
            Ok(mut file) => file.write_all(PLACEHOLDER.as_bytes()).map_err(Error::file("write", &path))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(Error::file("create", path)(error)),
        }
        placed.push(Timeline(number));
    }
    Ok(placed)
}

/// Brings placeholders to the disk, so that standbys find them also after a crash of the machine.
pub fn sync(data_dir: &Path, placed: &[Timeline]) -> Result<(), Error> {
    placed.iter().try_for_each(|timeline| {
        let path = path(data_dir, timeline.0);
        File::open(&path).and_then(|file| file.sync_all()).map_err(Error::file("sync", &path))
    })
}

/// Hands placeholders to PostgreSQL's archiver. For a server whose `archive_mode` is not off, once it is promoted.
pub fn archive(data_dir: &Path, placed: &[Timeline]) -> Result<(), Error> {
    placed.iter().try_for_each(|timeline| {
        let ready = data_dir.join(format!("pg_wal/archive_status/{:08X}.history.ready", timeline.0));
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(PRIVATE).open(&ready);
        file.map(drop).map_err(Error::file("create", &ready))
    })
}

/// Removes the placeholders that no real history follows without a gap; answers with their numbers.
pub fn remove_unused(data_dir: &Path) -> Result<Vec<Timeline>, Error> {
    let files = histories(data_dir)?;
    let mut removed = Vec::new();
    // From the newest down: a placeholder is of use if the file after it stays.
    let mut stays_after = None;
    for (number, is_placeholder) in files.into_iter().rev() {
        if is_placeholder && stays_after != number.checked_add(1) {
            remove_if_present(&path(data_dir, number))?;
            removed.push(Timeline(number));
        } else {
            stays_after = Some(number);
        }
    }
    removed.reverse();
    Ok(removed)
}

/// Removes the histories of timelines that are no part of the leader's (`lineage`: its own and all before), above the directory's own one. A
/// standby takes the newest file for its target, and refuses to start (`requested timeline does not contain minimum recovery point`) if that
/// timeline left its own before what it has, though the leader may have gone on from all of it. Answers with their numbers.
pub fn remove_dead_ends(data_dir: &Path, own: Timeline, lineage: &[Timeline]) -> Result<Vec<Timeline>, Error> {
    let files = histories(data_dir)?.into_iter().filter(|(_, is_placeholder)| !is_placeholder);
    let ends = files.map(|(number, _)| Timeline(number)).filter(|it| *it > own && !lineage.contains(it));
    let removed: Vec<Timeline> = ends.collect();
    for timeline in &removed {
        remove_if_present(&path(data_dir, timeline.0))?;
    }
    Ok(removed)
}

/// The numbers that have a history file, and whether it is a placeholder.
/// The text of a timeline's own history, as far as it is there.
pub fn read(data_dir: &Path, timeline: Timeline) -> Option<String> {
    read_if_present(&path(data_dir, timeline.0)).ok().flatten()
}

fn histories(data_dir: &Path) -> Result<BTreeMap<u32, bool>, Error> {
    let directory = data_dir.join("pg_wal");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(Error::file("list", directory)(error)),
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("list", &directory))?;
        if let Some(number) = entry.file_name().to_str().and_then(number_of) {
            found.insert(number, is_placeholder(&entry.path())?);
        }
    }
    Ok(found)
}

fn is_placeholder(path: &Path) -> Result<bool, Error> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() == 0 => Ok(true),
        Ok(metadata) if metadata.len() > LONGEST_PLACEHOLDER => Ok(false),
        Ok(_) => Ok(fs::read(path).map_err(Error::file("read", path))?.starts_with(MARK.as_bytes())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

fn path(data_dir: &Path, number: u32) -> PathBuf {
    data_dir.join(format!("pg_wal/{number:08X}.history"))
}

/// `0000000A.history` is 10's.
fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".history")?;
    let valid = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'A'..=b'F'));
    valid.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data directory with real histories of these timelines.
    fn with_real(timelines: &[u32]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(directory.path().join("pg_wal/archive_status")).expect("made");
        for number in timelines {
            real(directory.path(), *number);
        }
        directory
    }

    fn real(data_dir: &Path, number: u32) {
        fs::write(path(data_dir, number), "1\t0/3000148\tno recovery target specified\n").expect("written");
    }

    fn present(data_dir: &Path) -> Vec<u32> {
        histories(data_dir).expect("listed").into_keys().collect()
    }

    fn numbers(timelines: &[Timeline]) -> Vec<u32> {
        timelines.iter().map(|timeline| timeline.0).collect()
    }

    #[test]
    fn the_numbers_up_to_the_reserved_one_are_passed_over() {
        let directory = with_real(&[3]);
        let data = directory.path();
        assert_eq!(newest_after(data, Timeline(1)), Timeline(1), "there is a gap before 3");
        assert_eq!(numbers(&pass_over(data, Timeline(1), Timeline(6)).expect("placed")), [2, 4, 5]);
        assert_eq!(newest_after(data, Timeline(1)), Timeline(5));
        assert_eq!(pass_over(data, Timeline(1), Timeline(6)).expect("placed"), [], "once more is the same");
        assert_eq!(pass_over(data, Timeline(5), Timeline(6)).expect("placed"), [], "the usual case writes nothing");
        sync(data, &[Timeline(2), Timeline(4)]).expect("synced");
        archive(data, &[Timeline(10)]).expect("marked");
        assert!(data.join("pg_wal/archive_status/0000000A.history.ready").exists());
    }

    #[test]
    fn a_number_that_makes_no_sense_is_refused() {
        let directory = with_real(&[]);
        for (own, reserved) in [(5, 5), (5, 4), (5, 5 + MOST_TIMELINES_AHEAD + 2), (0, u32::MAX)] {
            let refused = pass_over(directory.path(), Timeline(own), Timeline(reserved)).expect_err("nonsense");
            assert!(refused.to_string().contains("pgherd/timelines"), "{refused}");
        }
        assert!(present(directory.path()).is_empty());
        assert_eq!(newest_after(directory.path(), Timeline(u32::MAX)), Timeline(u32::MAX));
    }

    #[test]
    fn a_placeholder_stays_only_where_a_real_history_follows() {
        // (real, placeholders up to this reserved number, what stays)
        for (before, reserved, stays) in [
            (&[][..], 4, &[][..]),
            (&[4], 4, &[2, 3, 4]),
            (&[2], 5, &[2]),
            (&[6], 4, &[6]),
            // Nothing leads from 4 to 6.
            (&[3, 6], 5, &[2, 3, 6]),
        ] {
            let directory = with_real(before);
            let data = directory.path();
            pass_over(data, Timeline(1), Timeline(reserved)).expect("placed");
            let (all, removed) = (present(data), numbers(&remove_unused(data).expect("removed")));
            assert_eq!(present(data), stays, "{before:?} {reserved}");
            assert_eq!(removed.len() + stays.len(), all.len());
        }
    }

    #[test]
    fn timelines_that_the_leader_does_not_come_from_are_forgotten() {
        let directory = with_real(&[2, 3, 5]);
        let data = directory.path();
        let lineage = [1, 3, 4].map(Timeline);
        assert_eq!(numbers(&remove_dead_ends(data, Timeline(1), &lineage).expect("removed")), [2, 5]);
        assert_eq!(present(data), [3]);
        assert_eq!(remove_dead_ends(data, Timeline(3), &[Timeline(9)]).expect("removed"), [], "nothing above its own");
    }

    #[test]
    fn a_file_that_lost_its_line_in_a_crash_is_a_placeholder_and_nothing_else_is() {
        let directory = with_real(&[]);
        let data = directory.path();
        fs::write(path(data, 2), "").expect("written");
        fs::write(path(data, 4), "# somebody's own comment\n").expect("written");
        for name in ["0000000a.history", "002.history", "000000010000000000000001", "00000005.history.backup"] {
            fs::write(data.join("pg_wal").join(name), "").expect("written");
        }
        assert_eq!(numbers(&remove_unused(data).expect("removed")), [2]);
        assert_eq!(present(data), [4]);
        assert_eq!(remove_unused(&data.join("nowhere")).expect("nothing there"), []);
    }
}
