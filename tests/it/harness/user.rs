//! PostgreSQL refuses to run as root: a test started by root runs itself again as user postgres.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// `true`: the test has just run in a child process as user postgres, and passed; return.
/// Not as root, `false`: go on.
#[must_use]
pub fn passed_as_postgres(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let id = |flag: &str| -> u32 {
        let output = Command::new("id").args([flag, "postgres"]).output().expect("run id");
        let text = String::from_utf8(output.stdout).expect("a number");
        text.trim().parse().expect("a user named postgres: install the package postgresql")
    };
    let own = std::env::current_exe().expect("the path of this test");
    let status = Command::new(own)
        .args([test, "--exact", "--nocapture"])
        .uid(id("-u"))
        .gid(id("-g"))
        .current_dir("/")
        .env_remove("HOME")
        .status()
        .expect("run this test again");
    assert!(status.success(), "{test} failed as user postgres ({status}); its output is above");
    true
}
