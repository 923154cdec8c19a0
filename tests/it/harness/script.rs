//! Commands of the user's, as tests write them: shell scripts that tell in a file how they were called.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A script that the agents' user may run, and the file in which its calls stand, a line each.
#[derive(Debug)]
pub struct Script {
    pub path: PathBuf,
    calls: PathBuf,
}

impl Script {
    /// `body` is run with the file as `$CALLS`.
    pub fn write(directory: &Path, name: &str, body: &str) -> Script {
        let (path, calls) = (directory.join(name), directory.join(format!("{name}.calls")));
        std::fs::write(&calls, "").expect("the test's own directory");
        // The agents run as user postgres, the test perhaps as root.
        std::fs::set_permissions(&calls, PermissionsExt::from_mode(0o666)).expect("its mode can be set");
        std::fs::write(&path, format!("#!/bin/sh\nCALLS={}\n{body}\n", calls.display()))
            .expect("the test's own directory");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its mode can be set");
        Script { path, calls }
    }

    pub fn calls(&self) -> Vec<String> {
        std::fs::read_to_string(&self.calls).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    pub fn forget_calls(&self) {
        std::fs::write(&self.calls, "").expect("the test's own file");
    }
}
