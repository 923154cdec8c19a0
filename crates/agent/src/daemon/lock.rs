//! One agent for one data directory: a lock beside it, held as long as the process lives.
//!
//! The registered name cannot tell two processes apart that share the file of the store's session: the second would take the
//! session, and with it the leader key, out of the hands of the first. So the lock is taken before the store is opened.
//! The kernel frees it however the process ends. Tested below and in `tests/it/cluster/strangers.rs`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Held until dropped. Children do not inherit it (close-on-exec).
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "another agent looks after {data_dir} (it holds the lock {path}): stop it first, or give this one another \
         postgresql.data_dir"
    )]
    Held { data_dir: PathBuf, path: PathBuf },
    #[error("the lock {path}, which keeps a second agent away, cannot be taken")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Takes the lock of a data directory, whose parent must exist.
pub fn lock(data_dir: &Path, path: &Path) -> Result<Lock, LockError> {
    let failed = |source| LockError::File { path: path.to_owned(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { _file: file }),
        Err(Errno::WOULDBLOCK) => Err(LockError::Held { data_dir: data_dir.to_owned(), path: path.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_until_the_first_has_gone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (data_dir, path) = (directory.path().join("data"), directory.path().join(".data.lock"));
        let first = lock(&data_dir, &path).expect("nobody holds it");
        assert!(matches!(lock(&data_dir, &path), Err(LockError::Held { .. })));
        drop(first);
        lock(&data_dir, &path).expect("nobody holds it any more");
        let nowhere = directory.path().join("none").join("lock");
        assert!(matches!(lock(&data_dir, &nowhere), Err(LockError::File { .. })));
    }
}
