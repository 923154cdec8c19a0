//! That a user's own command is at work on the data directory, written beside it: inside, the file would be in its way.
//!
//! The mark outlives the process. Where it is found and nobody is at work, the directory is not what it seems: [`recover`] puts back what was
//! there before a replica was begun, and moves half a cluster aside.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Error;
use super::atomic_file::{PRIVATE, read_if_present, remove_if_present, replace};
use super::data_directory::{move_failed_aside, remove_tree, sibling_of};

const CLUSTER: &str = "a new cluster is being made here\n";
const REPLICA: &str = "a replica is being made here; what was here before lies aside\n";
const KEPT: &str = "a replica is being made here from what was here\n";

#[derive(Debug)]
pub struct Unfinished;

impl Unfinished {
    fn path(data_dir: &Path) -> PathBuf {
        sibling_of(data_dir, "pgherd-unfinished")
    }

    /// Where the content of before lies.
    fn aside(data_dir: &Path) -> PathBuf {
        sibling_of(data_dir, "pgherd-before")
    }

    pub fn is_set(data_dir: &Path) -> bool {
        Unfinished::path(data_dir).exists()
    }

    /// When the work was begun.
    pub fn since(data_dir: &Path) -> Option<SystemTime> {
        fs::metadata(Unfinished::path(data_dir)).and_then(|found| found.modified()).ok()
    }

    pub fn cluster(data_dir: &Path) -> Result<(), Error> {
        replace(&Unfinished::path(data_dir), CLUSTER, PRIVATE).map(drop)
    }

    /// What is there is changed in place.
    pub fn kept(data_dir: &Path) -> Result<(), Error> {
        replace(&Unfinished::path(data_dir), KEPT, PRIVATE).map(drop)
    }

    /// What is there is moved aside; an empty directory of the same mode takes its place.
    pub fn replica(data_dir: &Path) -> Result<(), Error> {
        let aside = Unfinished::aside(data_dir);
        remove_tree(&aside)?;
        replace(&Unfinished::path(data_dir), REPLICA, PRIVATE)?;
        match fs::rename(data_dir, &aside) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("move aside", data_dir)(error)),
        }
        fs::create_dir(data_dir).map_err(Error::file("create", data_dir))?;
        super::data_directory::set_private(data_dir)
    }

    /// The work is done; what lay aside goes.
    pub fn clear(data_dir: &Path) -> Result<(), Error> {
        remove_if_present(&Unfinished::path(data_dir))?;
        remove_tree(&Unfinished::aside(data_dir))
    }
}

/// Nobody is at work any more: brings the directory back to what it was, as far as that is known. Only while no server runs in it.
pub fn recover(data_dir: &Path) -> Result<(), Error> {
    let Some(what) = read_if_present(&Unfinished::path(data_dir))? else { return Ok(()) };
    match what.as_str() {
        CLUSTER => {
            if let Some(failed) = move_failed_aside(data_dir, Unfinished::since(data_dir))? {
                tracing::warn!(
                    "the making of a new cluster was cut off: what there is of it lies in {}",
                    failed.display()
                );
            }
        }
        REPLICA if Unfinished::aside(data_dir).exists() => {
            let half = sibling_of(data_dir, "pgherd-new");
            remove_tree(&half)?;
            fs::rename(data_dir, &half).map_err(Error::file("move aside", data_dir))?;
            fs::rename(Unfinished::aside(data_dir), data_dir).map_err(Error::file("put back", data_dir))?;
            remove_tree(&half)?;
        }
        // It was not moved yet, or there was nothing.
        REPLICA if !Path::new(data_dir).exists() => {}
        // Neither what it was nor what it was to be: the next copy replaces it.
        _ => return Ok(()),
    }
    remove_if_present(&Unfinished::path(data_dir)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_data(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data");
        fs::create_dir(&data).expect("made");
        fs::write(data.join("PG_VERSION"), text).expect("written");
        (directory, data)
    }

    fn version(data: &Path) -> Option<String> {
        fs::read_to_string(data.join("PG_VERSION")).ok()
    }

    #[test]
    fn what_was_there_comes_back_unless_the_work_is_done() {
        let (directory, data) = with_data("before");
        Unfinished::replica(&data).expect("moved aside");
        assert!(Unfinished::is_set(&data) && version(&data).is_none());
        fs::write(data.join("PG_VERSION"), "half").expect("written");
        recover(&data).expect("put back");
        assert_eq!(version(&data).as_deref(), Some("before"));
        assert!(!Unfinished::is_set(&data));

        Unfinished::replica(&data).expect("moved aside");
        fs::write(data.join("PG_VERSION"), "after").expect("written");
        Unfinished::clear(&data).expect("done");
        recover(&data).expect("nothing to do");
        assert_eq!(version(&data).as_deref(), Some("after"));
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1, "nothing lies about");
    }

    #[test]
    fn half_a_cluster_is_moved_aside_and_half_a_change_stays_marked() {
        let (directory, data) = with_data("half");
        Unfinished::cluster(&data).expect("marked");
        recover(&data).expect("moved aside");
        assert!(!data.exists() && !Unfinished::is_set(&data));
        let aside = fs::read_dir(directory.path()).expect("listed").flatten().next().expect("one");
        assert!(aside.file_name().to_string_lossy().starts_with("data.failed-"));

        let (_directory, data) = with_data("changed");
        Unfinished::kept(&data).expect("marked");
        recover(&data).expect("nothing can be done");
        assert!(Unfinished::is_set(&data));
    }
}
