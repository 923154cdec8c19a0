//! Small files that are replaced whole: a reader sees the old text or the new one, never half of it.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Error;

/// Private to the owner: some of the files hold passwords, and PostgreSQL wants nothing else in its directory.
pub(super) const PRIVATE: u32 = 0o600;

/// Writes `text` to `path` unless that is its content already; `true` if it was written.
///
/// Synced to disk before the rename: after a crash of the machine an empty `postgresql.conf` would keep the server
/// from starting.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> Result<bool, Error> {
    if matches!(fs::read(path), Ok(old) if old == text.as_bytes()) {
        return Ok(false);
    }
    let temporary = temporary_name(path);
    // A leftover of an agent that was killed here, or a trap in a shared directory: never written through.
    remove_if_present(&temporary)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(Error::file("create", &temporary))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::file("write", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::file("replace", path))?;
    Ok(true)
}

/// A private file beside the data directory.
pub fn keep(path: &Path, text: &str) -> Result<(), Error> {
    replace(path, text, PRIVATE).map(drop)
}

/// What was kept; `None` also if it cannot be read.
pub fn kept(path: &Path) -> Option<String> {
    read_if_present(path).ok().flatten()
}

/// `true` if there was one.
pub(super) fn remove_if_present(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::File { operation: "remove", path: path.to_owned(), source }),
    }
}

/// The text of a file, `None` if there is none.
pub(super) fn read_if_present(path: &Path) -> Result<Option<String>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { operation: "read", path: path.to_owned(), source }),
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".pgherd-tmp");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn written_once_privately_and_never_through_a_link() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        std::os::unix::fs::symlink("/nonexistent/trap", temporary_name(&path)).expect("a link");
        assert!(replace(&path, "a", PRIVATE).expect("written"));
        assert!(!replace(&path, "a", PRIVATE).expect("unchanged"));
        assert!(replace(&path, "b", PRIVATE).expect("written again"));
        assert_eq!(fs::read_to_string(&path).expect("the file"), "b");
        assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
        assert!(remove_if_present(&path).expect("removed") && !remove_if_present(&path).expect("gone"));
        assert_eq!(read_if_present(&path).expect("nothing"), None);
    }
}
