//! The `pgherd` binary under test.

use std::path::PathBuf;

/// Cargo's `target` directory: the programs that were built, and what `scripts/test-venv.sh` prepares.
pub fn target() -> PathBuf {
    let profile = pgherd().parent().map(PathBuf::from);
    profile.and_then(|profile| profile.parent().map(PathBuf::from)).expect("target/PROFILE/pgherd has both")
}

/// `target/PROFILE/pgherd`, two levels above this test's own executable in `target/PROFILE/deps`.
pub fn pgherd() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this test");
    let path =
        own.parent().and_then(|deps| deps.parent()).expect("an executable in target/PROFILE/deps").join("pgherd");
    assert!(path.exists(), "{} is missing: run `cargo build -p pgherd` first", path.display());
    path
}
