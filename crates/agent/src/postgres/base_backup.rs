//! A copy of another server: pg_basebackup into a new directory, put in place when complete.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::sleep;

use super::data_directory::{self, Marker, Staging};
use super::initdb::refuse_forbidden;
use super::outlying::{self, Outlying, Place};
use super::program::Limit;
use super::{Error, Postmaster, Server, Upstream, config_files, conninfo, installation, program};

/// What is set by us or would break the copy.
pub const FORBIDDEN: [&str; 11] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
];

/// As the contract has it: a source that restarts meanwhile gets a second chance, and no more.
const TRIES: u32 = 2;
const BETWEEN_TRIES: Duration = Duration::from_secs(5);

/// How much is copied, in bytes, as pg_basebackup estimates it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    pub done: u64,
    pub total: u64,
}

/// Copies `source` and puts the copy in place of the data directory, whose old content is deleted only then, or, with `make_room`, before
/// where there is no room for both. No server may run in it. `patience`: how long the copy may stand still.
///
/// Afterwards the directory is marked [`Marker::Unproven`] and needs its configuration written. Dropping the future
/// kills pg_basebackup and leaves the data directory as it was, unless it has made room: then it is marked [`Marker::Incomplete`].
pub async fn base_backup(
    server: &Server,
    source: &Upstream,
    patience: Duration,
    make_room: bool,
    progress: &watch::Sender<CopyProgress>,
) -> Result<(), Error> {
    refuse_options(server)?;
    if let Some(running) = Postmaster::find(&server.data_dir) {
        return Err(Error::Refused(format!("PostgreSQL (process {}) still runs in the data directory", running.pid())));
    }
    config_files::write_password_file(server, &[source])?;
    let places = outlying::places(server, source).await;
    let (mut tries, mut emptied) = (1, false);
    let target = loop {
        let target = prepared(server, places.clone()).await?;
        match copy(server, source, &target, patience, progress).await {
            Ok(()) => break target,
            Err(error) if error.is_no_room() && make_room && !emptied => {
                removed(target.paths()).await?;
                tracing::warn!(
                    "{}; removing the old data, as was consented to, before it is copied anew",
                    error.full()
                );
                let data_dir = server.data_dir.clone();
                blocking(move || data_directory::empty(&data_dir)).await?;
                emptied = true;
            }
            Err(error) if tries < TRIES && !matches!(error, Error::Refused(_) | Error::NoRoom { .. }) => {
                // Said when it is given up: then it is known not to pass by itself.
                tracing::debug!("{}; trying again in {BETWEEN_TRIES:?}", error.full());
                tries += 1;
                sleep(BETWEEN_TRIES).await;
            }
            Err(error) => {
                removed(target.paths()).await?;
                return Err(error);
            }
        }
    };
    data_directory::remove_copied_socket_locks(target.staging.path())?;
    Marker::Unproven.set(target.staging.path())?;
    let mut old = outlying::install(&server.data_dir, target.staging.path(), target.outlying)?;
    old.extend(target.staging.install()?);
    if let Err(error) = removed(old).await {
        tracing::warn!("the old data directory is still there: {}", error.full());
    }
    config_files::restore_backups(server)
}

/// Where the copy goes before it is complete.
struct Target {
    staging: Staging,
    outlying: Vec<Outlying>,
}

impl Target {
    fn paths(&self) -> Vec<PathBuf> {
        let outlying = self.outlying.iter().map(|outlying| outlying.path().to_owned());
        outlying.chain([self.staging.path().to_owned()]).collect()
    }

    /// On all the disks that it is spread over; how it is spread is not known before.
    fn free_bytes(&self) -> Result<u64, Error> {
        let mut disks = BTreeMap::new();
        for path in self.paths() {
            disks.insert(data_directory::device(&path)?, data_directory::free_bytes(&path)?);
        }
        Ok(disks.into_values().fold(0, u64::saturating_add))
    }
}

/// A place for the copy. What an interrupted attempt left there is removed, which takes seconds where it is large.
async fn prepared(server: &Server, places: Vec<Place>) -> Result<Target, Error> {
    let server = server.clone();
    let prepare =
        move || Ok(Target { staging: Staging::prepare(&server)?, outlying: outlying::prepare(&server, places)? });
    blocking(prepare).await
}

async fn removed(paths: Vec<PathBuf>) -> Result<(), Error> {
    blocking(move || paths.iter().try_for_each(|path| data_directory::remove_tree(path))).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let refused =
        |error: tokio::task::JoinError| Error::Refused(format!("the work on the directory broke off: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(refused)?
}

async fn copy(
    server: &Server,
    source: &Upstream,
    target: &Target,
    patience: Duration,
    progress: &watch::Sender<CopyProgress>,
) -> Result<(), Error> {
    let free = target.free_bytes()?;
    let beside = data_directory::holds_data(&server.data_dir);
    let mut command = installation::command(server, "pg_basebackup")?;
    command.arg(format!("--pgdata={}", target.staging.path().display()));
    arguments(server, source, &target.outlying, &mut command);
    progress.send_replace(CopyProgress::default());
    let mut moved = progress.subscribe();
    let on_line = |line: &str| match parse_progress(line) {
        Some(now) => {
            progress.send_if_modified(|last| std::mem::replace(last, now) != now);
        }
        // The failure quotes them.
        None if line.contains("error: ") || line.starts_with("password retrieved from") => {}
        None => tracing::info!("pg_basebackup: {}", line.trim_start_matches("pg_basebackup: ")),
    };
    tokio::select! {
        result = program::run(command, Limit::Standstill(patience), on_line) => result.map(drop),
        error = too_large(&mut moved, free, beside) => Err(error),
    }
}

/// Completes when the copy turns out not to fit.
async fn too_large(progress: &mut watch::Receiver<CopyProgress>, free: u64, beside: bool) -> Error {
    loop {
        let total = progress.borrow_and_update().total;
        if total > free {
            return Error::NoRoom { needed: total, left: free, beside };
        }
        if progress.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn arguments(server: &Server, source: &Upstream, outlying: &[Outlying], command: &mut Command) {
    let options = &server.basebackup_options;
    command.arg("--wal-method=stream").arg("--progress").arg("--no-password");
    if !options.iter().any(|option| matches!(option.name.as_str(), "checkpoint" | "c")) {
        command.arg("--checkpoint=fast");
    }
    command.arg(format!("--dbname={}", conninfo::tool_conninfo(server, &server.replication, source, None)));
    let replaced = |option: &&super::ToolOption| outlying.iter().any(|outlying| outlying.replaces(option));
    command.args(options.iter().filter(|option| !replaced(option)).map(super::ToolOption::argument));
    command.args(outlying.iter().map(|outlying| outlying.option().argument()));
    command.env("PGPASSFILE", &server.pgpass);
}

fn refuse_options(server: &Server) -> Result<(), Error> {
    let options = &server.basebackup_options;
    refuse_forbidden("pg_basebackup", options, &FORBIDDEN)?;
    let compress = |option: &&super::ToolOption| option.name == "compress";
    match options.iter().find(compress).map(|option| option.value.as_deref().unwrap_or("")) {
        Some(value) if !value.starts_with("server-") => Err(Error::Refused(format!(
            "compress: {value} of pg_basebackup would not make a data directory: use server-gzip or another server-*"
        ))),
        _ => Ok(()),
    }
}

/// `  23054/ 23060 kB (99%), 0/1 tablespace`
pub(super) fn parse_progress(line: &str) -> Option<CopyProgress> {
    let (numbers, _) = line.split_once(" kB (")?;
    let (done, total) = numbers.split_once('/')?;
    let bytes = |text: &str| text.trim().parse::<u64>().ok()?.checked_mul(1024);
    Some(CopyProgress { done: bytes(done)?, total: bytes(total)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{Credentials, ToolOption};

    #[test]
    fn progress_lines() {
        for (line, expected) in [
            ("  1024/ 23060 kB (4%), 0/1 tablespace", Some((1024 << 10, 23060 << 10))),
            ("0/1 kB (0%), 0/1 tablespace (...base/1/1259)", Some((0, 1024))),
            ("pg_basebackup: initiating base backup", None),
            ("99999999999999999999/1 kB (", None),
        ] {
            assert_eq!(parse_progress(line).map(|it| (it.done, it.total)), expected, "{line}");
        }
    }

    #[test]
    fn the_users_options_are_added_or_refused() {
        let mut server = Server::new("n", "c", "/data", Credentials::new("postgres", Some("secret")));
        let source = Upstream::at("h", 1);
        let with = |server: &Server| {
            let mut command = Command::new("pg_basebackup");
            arguments(server, &source, &[], &mut command);
            command.as_std().get_args().map(|it| it.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert!(with(&server).contains("--checkpoint=fast") && !with(&server).contains("secret"));
        server.basebackup_options = vec![ToolOption::with_value("checkpoint", "spread"), ToolOption::flag("verbose")];
        assert!(with(&server).ends_with("--checkpoint=spread --verbose") && !with(&server).contains("fast"));
        assert!(refuse_options(&server).is_ok());
        for option in [ToolOption::with_value("compress", "gzip"), ToolOption::with_value("format", "t")] {
            server.basebackup_options = vec![option];
            assert!(matches!(refuse_options(&server), Err(Error::Refused(_))));
        }
        server.basebackup_options = vec![ToolOption::with_value("compress", "server-gzip")];
        assert!(refuse_options(&server).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_survived(line in "\\PC*", done in "\\PC*", total in "[0-9]*") {
            parse_progress(&line);
            parse_progress(&format!("{done}/{total} kB ("));
        }
    }
}
