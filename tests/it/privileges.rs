//! Started as root, the agent becomes the user of PostgreSQL. Only root can try the way down; others check that nothing
//! happens to them.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use pgherd_agent::privileges::{DEFAULT_USER, leave_root};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::harness::{binary, notes};

/// Set in the processes that this test starts: they leave root and say who they are. Its value: the data directory.
const CHILD: &str = "PGHERD_IT_LEAVE_ROOT";

/// A device that the user shall be able to open.
const DEVICE: &str = "PGHERD_IT_DEVICE";

#[test]
fn child_who_leaves_root() {
    let Some(data_dir) = std::env::var_os(CHILD) else { return };
    let device = std::env::var_os(DEVICE);
    leave_root(DEFAULT_USER, Some(Path::new(&data_dir)), device.as_deref().map(Path::new))
        .expect("not root any more, or never been");
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let fields = ["Name:", "Uid:", "Gid:", "Groups:", "CapEff:"];
    for line in status.lines().filter(|line| fields.iter().any(|field| line.starts_with(field))) {
        println!("{}", line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    println!("HOME {:?} USER {:?}", std::env::var_os("HOME"), std::env::var_os("USER"));
}

fn leave_root_in_a_child(data_dir: &Path) -> Output {
    Command::new(binary::OWN)
        .args(["privileges::child_who_leaves_root", "--exact", "--nocapture"])
        .env(CHILD, data_dir)
        .output()
        .expect("run this test again")
}

#[test]
fn root_gives_a_device_away_and_nothing_else() {
    if !rustix::process::geteuid().is_root() {
        return notes::skip("only root can give something away");
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (device, file) = (directory.path().join("device"), directory.path().join("file"));
    // As /dev/null is: it starts nothing.
    let null = rustix::fs::makedev(1, 3);
    if mknodat(CWD, &device, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, null).is_err() {
        return notes::skip("root may make no devices here");
    }
    std::fs::write(&file, "").expect("written");
    for (path, owner) in [(&device, id("-u")), (&file, "0".to_owned())] {
        let output = Command::new(binary::OWN)
            .args(["privileges::child_who_leaves_root", "--exact", "--nocapture"])
            .env(CHILD, directory.path())
            .env(DEVICE, path)
            .output()
            .expect("run this test again");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(path.metadata().expect("it is there").uid().to_string(), owner, "{}", path.display());
    }
}

fn id(flag: &str) -> String {
    let output = Command::new("id").args([flag, DEFAULT_USER]).output().expect("run id");
    String::from_utf8(output.stdout).expect("numbers").trim().to_owned()
}

#[test]
fn root_becomes_the_user_of_postgresql_and_nobody_else_changes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = leave_root_in_a_child(&directory.path().join("not yet there"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let uid = match rustix::process::geteuid() {
        user if user.is_root() => id("-u"),
        user => user.as_raw().to_string(),
    };
    assert!(text.contains(&format!("Uid: {uid} {uid} {uid} {uid}\n")), "{text}");
    if rustix::process::geteuid().is_root() {
        assert!(text.contains("CapEff: 0000000000000000\n"), "{text}");
        assert!(text.contains("USER Some(\"postgres\")"), "{text}");
        assert!(text.contains("HOME Some(\"/var/lib/postgresql\")"), "{text}");
        let groups = text.lines().find_map(|line| line.strip_prefix("Groups:")).expect("the groups");
        let mut found: Vec<&str> = groups.split_whitespace().collect();
        let expected = id("-G");
        let mut expected: Vec<&str> = expected.split_whitespace().collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}

#[test]
fn an_existing_data_directory_says_whom_to_become() {
    if !rustix::process::geteuid().is_root() {
        return notes::skip("only root can become somebody else");
    }
    // A number without an entry, as in a container.
    let (uid, gid) = (54_321, 54_322);
    let directory = tempfile::tempdir().expect("a temporary directory");
    chown(directory.path(), Some(uid), Some(gid)).expect("root may");
    let output = leave_root_in_a_child(directory.path());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("Uid: {uid} {uid} {uid} {uid}\n")), "{text}");
    assert!(text.contains(&format!("Gid: {gid} {gid} {gid} {gid}\n")), "{text}");
    assert!(text.contains("HOME None"), "{text}");
}
