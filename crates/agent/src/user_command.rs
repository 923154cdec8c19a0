//! A command of the user's (a hook, a callback, a method of making a data directory): words split as a shell splits them, run without one.
//!
//! It runs in a process group of its own, so that whatever it has started ends with it. It inherits what the agent's children inherit
//! (`children`), and its output goes where the agent's log goes. When it runs and what its failure means is not decided here.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::children;
use crate::guard::Process;
use crate::survivors::{self, Mark, Purpose};

/// Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCommand(Vec<String>);

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum UserCommandError {
    #[error("the command `{program}` cannot be run: {source}; is it there, and may the agent's user execute it?")]
    Spawn {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the command `{program}` has failed ({status}); its output is in the log above")]
    Failed { program: String, status: ExitStatus },
    #[error("the command `{program}` has not ended within {} s and was killed", limit.as_secs())]
    Deadline { program: String, limit: Duration },
}

impl UserCommand {
    /// `None`: an open quote, or no word at all.
    pub fn parse(text: &str) -> Option<UserCommand> {
        shlex::split(text).filter(|words| !words.is_empty()).map(UserCommand)
    }

    /// The same with more arguments.
    pub fn with(&self, arguments: impl IntoIterator<Item = String>) -> UserCommand {
        UserCommand(self.0.iter().cloned().chain(arguments).collect())
    }

    /// The program without its directory.
    pub fn program(&self) -> &str {
        let program = self.0.first().map_or("", String::as_str);
        Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or(program)
    }

    /// Starts it for the node of this data directory; it lives on until it ends or its [`Group`] is killed, also when this process ends (a later
    /// one finds it: `survivors`).
    pub fn start(
        &self,
        data_dir: &Path,
        purpose: Purpose,
        environment: &[(&str, OsString)],
    ) -> Result<Running, UserCommandError> {
        let (program, arguments) = self.0.split_first().expect("never empty");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).process_group(0);
        for name in children::not_inherited() {
            command.env_remove(name);
        }
        command.env(survivors::VARIABLE, Mark::new(data_dir, purpose).value());
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let failed = |source| UserCommandError::Spawn { program: self.program().to_owned(), source };
        let child = command.spawn().map_err(failed)?;
        let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        Ok(Running { child, group: Group(Arc::new(Mutex::new(group))) })
    }

    /// Runs it to its end; `limit`: how long it may take. Past that it is killed with all that it has started, and so it is when the future is
    /// dropped.
    pub async fn run(
        &self,
        data_dir: &Path,
        environment: &[(&str, OsString)],
        limit: Option<Duration>,
    ) -> Result<(), UserCommandError> {
        let mut running = KilledOnDrop(self.start(data_dir, Purpose::Awaited, environment)?);
        let status = match limit {
            None => running.0.ended().await,
            Some(limit) => match tokio::time::timeout(limit, running.0.ended()).await {
                Ok(status) => status,
                Err(_) => return Err(UserCommandError::Deadline { program: self.program().to_owned(), limit }),
            },
        };
        let program = self.program().to_owned();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(UserCommandError::Failed { program, status }),
            Err(source) => Err(UserCommandError::Spawn { program, source }),
        }
    }
}

/// As it would be typed.
impl fmt::Display for UserCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shlex::try_join(self.0.iter().map(String::as_str)).unwrap_or_default())
    }
}

/// A command that was started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    group: Group,
}

/// The processes of a command. Its number is forgotten when the command has ended: it may be another's from then on.
#[derive(Clone, Debug, Default)]
pub struct Group(Arc<Mutex<Option<Pid>>>);

impl Running {
    /// Waits for its end.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.group.forget();
        status
    }

    pub fn group(&self) -> Group {
        self.group.clone()
    }
}

impl Group {
    /// Of a command that somebody else has started.
    pub fn of(process: &Process) -> Group {
        Group(Arc::new(Mutex::new(Some(process.pid()))))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn forget(&self) {
        *self.lock() = None;
    }

    /// Ends the command with all that it has started.
    pub fn kill(&self) {
        if let Some(group) = *self.lock() {
            // Gone already: that is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

struct KilledOnDrop(Running);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        self.0.group.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> UserCommand {
        UserCommand::parse(text).expect("words")
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        let words = command(r#"/opt/my\ tools/hook --note "two words" 'a'"#);
        assert_eq!(words.0, ["/opt/my tools/hook", "--note", "two words", "a"]);
        assert_eq!(words.program(), "hook");
        assert_eq!(words.with(["x y".to_owned()]).to_string(), "'/opt/my tools/hook' --note 'two words' a 'x y'");
        for text in ["", "  ", "hook 'open", "# nothing but a comment"] {
            assert_eq!(UserCommand::parse(text), None, "{text:?}");
        }
    }

    #[tokio::test]
    async fn what_fails_says_so_and_what_hangs_is_killed_with_its_children() {
        let directory = tempfile::tempdir().expect("a directory");
        command("true").run(directory.path(), &[], None).await.expect("it succeeds");
        let error = command("false").run(directory.path(), &[], None).await.expect_err("it fails").to_string();
        assert!(error.contains("`false` has failed (exit status: 1)"), "{error}");
        let error =
            command("/nowhere/hook").run(directory.path(), &[], None).await.expect_err("no such program").to_string();
        assert!(error.contains("`hook` cannot be run"), "{error}");

        let child = directory.path().join("child");
        let hangs = command(&format!("sh -c 'sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait'", child.display()));
        let limit = Duration::from_millis(300);
        let error = hangs.run(directory.path(), &[], Some(limit)).await.expect_err("it hangs").to_string();
        assert!(error.contains("and was killed"), "{error}");
        let pid: i32 = std::fs::read_to_string(&child).expect("its child").trim().parse().expect("a number");
        let begun = std::time::Instant::now();
        while is_alive(pid) {
            assert!(begun.elapsed() < Duration::from_secs(10), "its child lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A zombie is nobody.
    fn is_alive(pid: i32) -> bool {
        let stat = rustix::process::Pid::from_raw(pid).and_then(crate::proc_stat::Stat::of);
        stat.is_some_and(|stat| !stat.has_ended())
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC*") {
            let command = UserCommand::parse(&text);
            proptest::prop_assert!(command.is_none_or(|command| !command.0.is_empty()));
        }
    }
}
