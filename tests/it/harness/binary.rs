//! The `pgherd` binary under test.

use std::path::PathBuf;

/// This test's own program, also for a user who may not enter its directory.
pub const OWN: &str = "/proc/self/exe";
/// Set where the program cannot be reached by its path (`user.rs`): another way to it.
pub const PGHERD: &str = "PGHERD_IT_PROGRAM";

/// Cargo's `target` directory: the programs that were built, and what `scripts/test-venv.sh` prepares.
pub fn target() -> PathBuf {
    let profile = pgherd().parent().map(PathBuf::from);
    profile.and_then(|profile| profile.parent().map(PathBuf::from)).expect("target/PROFILE/pgherd has both")
}

/// `target/PROFILE/pgherd`, two levels above this test's own executable in `target/PROFILE/deps`.
pub fn pgherd() -> PathBuf {
    if let Some(path) = std::env::var_os(PGHERD) {
        return path.into();
    }
    let own = std::env::current_exe().expect("the path of this test");
    let path =
        own.parent().and_then(|deps| deps.parent()).expect("an executable in target/PROFILE/deps").join("pgherd");
    assert!(path.exists(), "{} is missing: run `cargo build -p pgherd` first", path.display());
    path
}
