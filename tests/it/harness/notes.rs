//! What a passing test has to say all the same: that it could not run here, and figures that it measured.
//!
//! The output of a test that passes is shown by nobody. `scripts/test.sh` names a file and prints it when all tests are over;
//! run by hand, a test writes to standard error.

use std::io::Write;

/// The file to which notes are appended.
const FILE: &str = "PGHERD_TEST_NOTES";
/// Set by `.ci/run`: there everything is to be had, so a skip is a mistake.
const NO_SKIP: &str = "PGHERD_TEST_NO_SKIP";

/// The calling test cannot run here: it takes note of why, and returns.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os(NO_SKIP).is_none(), "{test} would be skipped, which {NO_SKIP} forbids: {why}");
    note(&format!("skipped: {test}: {why}\n"));
}

/// Whole lines.
pub fn note(text: &str) {
    let file = std::env::var_os(FILE).and_then(|path| std::fs::File::options().append(true).open(path).ok());
    match file {
        // One write: lines of parallel tests do not mix.
        Some(mut file) => file.write_all(text.as_bytes()).expect("the file of notes can be written"),
        None => eprint!("{text}"),
    }
}
