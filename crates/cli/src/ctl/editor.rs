//! A text in the operator's editor.
//!
//! Tested in `tests/it/ctl.rs` with a script in the editor's place.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// What is tried, in this order, where `EDITOR` names none.
const USUAL: [&str; 2] = ["editor", "vi"];

/// What the operator has made of `text`. The session with the store goes on meanwhile.
pub async fn edit(text: &str, cluster: &str) -> anyhow::Result<String> {
    let prefix = format!("{}-config-", cluster.replace('/', "-"));
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".yaml")
        .tempfile()
        .context("there is no temporary file for the editor")?;
    file.write_all(text.as_bytes()).context("the editor's file cannot be written")?;
    let editor = editor()?;
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or_default();
    let status = Command::new(program).args(words).arg(file.path()).status().await;
    let status =
        status.with_context(|| format!("the editor `{editor}` cannot be started; name another with EDITOR"))?;
    // As a shell counts: ended by a signal is 128 and the signal's number.
    let code = status.code().unwrap_or(128);
    ensure!(code == 0, "Editor exited with return code {code}");
    // Some editors put a new file in the place of the old one.
    std::fs::read_to_string(file.path()).context("what the editor has left cannot be read")
}

/// The program, perhaps with arguments.
fn editor() -> anyhow::Result<String> {
    let named = std::env::var("EDITOR").ok().filter(|editor| !editor.trim().is_empty());
    let found = || USUAL.into_iter().find(|name| is_in_path(name)).map(str::to_owned);
    named.or_else(found).context("EDITOR environment variable is not set. editor or vi are not available")
}

/// A name, or a path.
pub fn is_in_path(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory: std::path::PathBuf| Path::new(&directory).join(program).is_file())
}
