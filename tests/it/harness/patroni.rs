//! A plain Patroni, the real one, in the place of an agent.
//!
//! Started by root it runs as PostgreSQL's user, who may not be allowed to enter the directory that it is installed in. So the test has a copy beside the
//! cluster's nodes.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::user;
use crate::ctl::patronictl;

/// The system's, which every user may run. Where patronictl's is another, modules that were compiled for that have a stand-in in Python.
const PYTHON: &str = "/usr/bin/python3";
/// What is not needed to run it, and large.
const LEFT_OUT: [&str; 2] = ["pip", "setuptools"];

/// Program and arguments that start it with this file.
pub fn launch(cluster: &Cluster, config: &Path) -> (Value, Value) {
    let modules = cluster.directory().join("patroni-modules");
    if !modules.exists() {
        copy(&installed(), &modules);
    }
    let mut words = vec!["/usr/bin/env".to_owned(), format!("PYTHONPATH={}", modules.display())];
    words.extend([PYTHON, "-m", "patroni"].map(str::to_owned));
    words.push(config.display().to_string());
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = user::postgres();
        let changes = [format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()];
        words.splice(0..0, ["/usr/bin/setpriv".to_owned()].into_iter().chain(changes));
    }
    (json!(words[0]), json!(words[1..]))
}

/// The directory of the modules that patronictl is made of.
fn installed() -> PathBuf {
    let python = patronictl().with_file_name("python3");
    let find = "import os, patroni; print(os.path.dirname(os.path.dirname(patroni.__file__)))";
    let output = Command::new(python).args(["-c", find]).output().expect("its Python runs");
    assert!(output.status.success(), "{output:?}");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a new directory");
    for entry in std::fs::read_dir(from).expect("listed").flatten() {
        if !LEFT_OUT.iter().any(|name| entry.file_name() == **name) {
            let status = Command::new("cp").arg("-a").arg(entry.path()).arg(to).status().expect("cp runs");
            assert!(status.success(), "{}", entry.path().display());
        }
    }
}
