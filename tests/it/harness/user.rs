//! PostgreSQL refuses to run as root: a test started by root runs itself again as user postgres.
//!
//! That user may not be allowed to enter the directory of the programs, as in a checkout below /root. So they are executed
//! by what the kernel keeps of them: the test by `/proc/self/exe`, `pgherd` by a descriptor that the test inherits.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags};

use super::binary;

/// Number and group of the user that PostgreSQL's packages bring.
pub fn postgres() -> (u32, u32) {
    let id = |flag: &str| -> u32 {
        let output = Command::new("id").args([flag, "postgres"]).output().expect("run id");
        let text = String::from_utf8(output.stdout).expect("a number");
        text.trim().parse().expect("a user named postgres: install the package postgresql")
    };
    (id("-u"), id("-g"))
}

/// `true`: the test has just run in a child process as user postgres, and passed; return.
/// Not as root, `false`: go on.
#[must_use]
pub fn passed_as_postgres(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let (uid, gid) = postgres();
    // Without CLOEXEC: it is there in the test and in whatever that starts.
    let pgherd = rustix::fs::open(binary::pgherd(), OFlags::PATH, Mode::empty()).expect("it is built");
    let status = Command::new(binary::OWN)
        .args([test, "--exact", "--nocapture"])
        .uid(uid)
        .gid(gid)
        .current_dir("/")
        .env_remove("HOME")
        .env(binary::PGHERD, format!("/proc/self/fd/{}", pgherd.as_raw_fd()))
        .status()
        .expect("run this test again");
    assert!(status.success(), "{test} failed as user postgres ({status}); its output is above");
    true
}

/// Whose it is: user and group.
pub fn owner(path: &Path) -> (u32, u32) {
    let found = std::fs::metadata(path).expect("it is there");
    (found.uid(), found.gid())
}

/// Gives a file or a directory to the user that the servers run as, where that is another.
pub fn give_to_servers(path: &Path) {
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = postgres();
        give(path, uid, gid);
    }
}

/// A directory of the servers' user.
pub fn servers_directory(path: &Path) {
    std::fs::create_dir(path).expect("a new directory");
    give_to_servers(path);
}

/// Gives a whole directory to somebody.
pub fn give(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("its owner can be set");
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).expect("listed").flatten() {
            give(&entry.path(), uid, gid);
        }
    }
}
