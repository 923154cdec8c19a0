//! A difference as people like to read it: in colours, and page by page. For a terminal only; whoever reads it from a pipe gets the plain text.
//!
//! Tested below, and in a terminal in `tests/it/cluster/commands.rs`.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;

use super::editor::is_in_path;
use super::terminal::Terminal;

/// What is tried, in this order, where `PAGER` names none.
const USUAL: [&str; 2] = ["less", "more"];

/// Shows a unified difference.
pub fn show(difference: &str, terminal: &mut Terminal) -> anyhow::Result<()> {
    if !terminal.is_standard() || !std::io::stdout().is_terminal() {
        return Ok(terminal.print(difference)?);
    }
    let coloured = coloured(difference);
    let Some(pager) = pager() else { return Ok(terminal.print(&coloured)?) };
    let mut words = pager.split_whitespace();
    let program = words.next().unwrap_or_default();
    let mut command = std::process::Command::new(program);
    command.args(words).stdin(Stdio::piped());
    if Path::new(program).file_name().is_some_and(|name| name == "less") {
        // Colours are shown, and what fits on the screen is shown and left there.
        command.arg("-FRSX");
    }
    let started = command.spawn();
    let mut child =
        started.with_context(|| format!("the pager `{pager}` cannot be started; name another with PAGER"))?;
    if let Some(mut input) = child.stdin.take() {
        // Who has read enough ends it.
        let _ = input.write_all(coloured.as_bytes());
    }
    child.wait().with_context(|| format!("the pager `{pager}` got lost"))?;
    Ok(())
}

fn pager() -> Option<String> {
    let named = std::env::var("PAGER").ok().filter(|pager| pager.split_whitespace().next().is_some_and(is_in_path));
    named.or_else(|| USUAL.into_iter().find(|name| is_in_path(name)).map(str::to_owned))
}

fn coloured(difference: &str) -> String {
    let line = |line: &str| {
        let colour = match line.as_bytes().first() {
            _ if line.starts_with("--- ") || line.starts_with("+++ ") => "33",
            Some(b'-') => "31",
            Some(b'+') => "32",
            Some(b'@') => "36",
            _ => return format!("{line}\n"),
        };
        format!("\x1b[{colour}m{line}\x1b[0m\n")
    };
    difference.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_colour_of_what_they_say() {
        let shown = coloured("--- \n+++ \n@@ -1 +1 @@\n-ttl: 30\n+ttl: 20\n same\n");
        let expected = "\x1b[33m--- \x1b[0m\n\x1b[33m+++ \x1b[0m\n\x1b[36m@@ -1 +1 @@\x1b[0m\n\x1b[31m-ttl: 30\x1b[0m\n\x1b[32m+ttl: 20\x1b[0m\n same\n";
        assert_eq!(shown, expected);
    }
}
