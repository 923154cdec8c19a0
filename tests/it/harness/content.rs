//! What lies in a directory, to prove that nobody has touched it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Path, size and time of every file.
pub fn content(directory: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut all = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).expect("readable").flatten() {
            let about = entry.metadata().expect("readable");
            if about.is_dir() {
                open.push(entry.path());
            }
            all.insert(entry.path(), (about.len(), about.modified().expect("a time")));
        }
    }
    all
}
