//! Running one of PostgreSQL's programs as a child: C locale, no terminal, output bounded, killed when dropped.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::Error;
use crate::children;

/// The end of stderr that is kept for the message: what a program says last is why it failed.
const KEPT_STDERR: usize = 8 * 1024;
/// pg_controldata writes 3 kB, `postgres -C` and pg_waldump a few lines; more means something else answered.
const KEPT_STDOUT: usize = 1024 * 1024;

/// How long a program may take.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// From start to end.
    Total(Duration),
    /// Without a line on stderr and without input or output: for jobs that may rightly take hours.
    Standstill(Duration),
}

/// What a program that succeeded wrote to stdout.
pub(super) type Stdout = String;

/// A command of `program` with the environment that its output can be parsed in.
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for name in children::not_for_programs() {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs `command` to its end; `on_line` sees each line of stderr (also those ended by a carriage return) as it comes.
///
/// Past the limit the child is killed. Dropping the future kills it too.
pub(super) async fn run(mut command: Command, limit: Limit, mut on_line: impl FnMut(&str)) -> Result<Stdout, Error> {
    let program = name_of(&command);
    let mut child = command.spawn().map_err(|source| Error::Spawn { program: program.clone(), source })?;
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let heard = watch::Sender::new(Instant::now());
    let pid = child.id();
    let mut listen = |line: &str| {
        heard.send_replace(Instant::now());
        on_line(line);
    };
    let everything = async {
        let (stdout, stderr, status) =
            tokio::join!(read_bounded(stdout), read_lines(stderr, &mut listen), child.wait());
        status.map(|status| (status, stdout, stderr))
    };
    let ended = tokio::select! {
        biased;
        ended = everything => ended,
        limit = passed(limit, &heard, pid) => {
            return Err(match limit {
                Limit::Total(limit) => Error::Deadline { operation: program, limit },
                Limit::Standstill(limit) => Error::Standstill { operation: program, limit },
            });
        }
    };
    let (status, stdout, stderr): (ExitStatus, _, _) =
        ended.map_err(|source| Error::Spawn { program: program.clone(), source })?;
    match status.success() {
        true => Ok(stdout),
        // On one line: a log is searched by lines.
        false => {
            let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let mut output = lines.join("; ");
            keep_end(&mut output);
            Err(Error::ProgramFailed { program, status, output })
        }
    }
}

/// Completes when the limit is over, with it.
async fn passed(limit: Limit, heard: &watch::Sender<Instant>, pid: Option<u32>) -> Limit {
    match limit {
        Limit::Total(total) => sleep(total).await,
        Limit::Standstill(patience) => {
            let mut moved = None;
            loop {
                let due = *heard.borrow() + patience;
                if Instant::now() >= due {
                    break;
                }
                sleep_until(due.min(Instant::now() + patience / LOOKS)).await;
                let now = pid.and_then(bytes_moved);
                if now.is_some() && now != moved {
                    moved = now;
                    heard.send_replace(Instant::now());
                }
            }
        }
    }
    limit
}

/// How often a program is looked at within its patience.
const LOOKS: u32 = 10;

/// The kernel's account of a process's input and output.
fn bytes_moved(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/io")).ok()
}

fn name_of(command: &Command) -> String {
    let path = Path::new(command.as_std().get_program());
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Reads to the end and keeps the first `KEPT_STDOUT` bytes; a reading error ends the text there.
async fn read_bounded(source: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    if let Some(mut source) = source {
        while let Ok(count @ 1..) = source.read(&mut chunk).await {
            let room = KEPT_STDOUT.saturating_sub(kept.len());
            kept.extend_from_slice(&chunk[..count.min(room)]);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Reads to the end, hands over each line, and returns the last `KEPT_STDERR` bytes.
async fn read_lines(source: Option<impl AsyncRead + Unpin>, on_line: &mut impl FnMut(&str)) -> String {
    let mut kept = String::new();
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    let Some(mut source) = source else { return kept };
    loop {
        let count = source.read(&mut chunk).await.unwrap_or(0);
        for &byte in &chunk[..count] {
            // A line longer than what is kept is cut into several.
            match byte == b'\n' || byte == b'\r' || line.len() >= KEPT_STDERR {
                true => finish_line(&mut line, &mut kept, on_line),
                false => line.push(byte),
            }
        }
        if count == 0 {
            finish_line(&mut line, &mut kept, on_line);
            return kept;
        }
    }
}

fn finish_line(line: &mut Vec<u8>, kept: &mut String, on_line: &mut impl FnMut(&str)) {
    if line.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(line).into_owned();
    line.clear();
    on_line(&text);
    kept.push_str(&text);
    kept.push('\n');
    keep_end(kept);
}

/// What a program says last is why it failed.
fn keep_end(text: &mut String) {
    let from = text.ceil_char_boundary(text.len().saturating_sub(KEPT_STDERR));
    text.drain(..from);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Limit = Limit::Total(Duration::from_secs(20));

    fn shell(script: &str) -> Command {
        let mut shell = command(Path::new("/bin/sh"));
        shell.arg("-c").arg(script);
        shell
    }

    #[tokio::test]
    async fn output_lines_and_failures_are_told_apart() {
        let mut lines = Vec::new();
        let output = run(shell("echo out; printf 'a\\rb\\n' >&2"), SOON, |line| lines.push(line.to_owned())).await;
        assert_eq!(output.expect("success"), "out\n");
        assert_eq!(lines, ["a", "b"]);
        let error = run(shell("echo broken >&2; exit 3"), SOON, |_| ()).await.expect_err("exit status 3");
        assert_eq!(error.to_string(), "sh failed (exit status: 3): broken");
        let missing = run(command(Path::new("/nonexistent/postgres")), SOON, |_| ()).await;
        assert!(matches!(missing, Err(Error::Spawn { .. })));
    }

    #[tokio::test]
    async fn a_late_child_is_killed() {
        let short = Duration::from_millis(50);
        let asleep = || shell("echo begun >&2; exec sleep 60");
        let error = run(asleep(), Limit::Total(short), |_| ()).await.expect_err("too late");
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
        let error = run(asleep(), Limit::Standstill(short), |_| ()).await.expect_err("too late");
        assert!(matches!(error, Error::Standstill { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_silent_child_that_moves_bytes_is_not_at_a_standstill() {
        let busy = shell("for i in $(seq 60); do read -r _ </proc/self/stat; sleep 0.01; done");
        run(busy, Limit::Standstill(Duration::from_millis(200)), |_| ()).await.expect("it goes on for 600 ms");
    }

    #[tokio::test]
    async fn only_the_end_of_a_long_stderr_is_kept() {
        let error = run(shell("yes 'same line' | head -c 100000 >&2; echo last >&2; exit 1"), SOON, |_| ()).await;
        let Err(Error::ProgramFailed { output, .. }) = error else { panic!("{error:?}") };
        assert!(output.len() <= KEPT_STDERR && output.ends_with("last"));
    }
}
