//! A data directory filled by the user's own command: a new cluster (`bootstrap.method`) or a replica (`create_replica_methods`). Which arguments
//! a command gets is the interface of Patroni (configuration contract, sections 2.1 and 3; behaviour contract, section 12).
//!
//! Such a command knows the data directory's own path and wants it empty, so nothing can be made beside it, as initdb and pg_basebackup do. What
//! was there lies aside meanwhile and comes back if the command fails; that the directory is unfinished is written beside it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::data_directory::{self, Marker, holds_data};
use super::unfinished::Unfinished;
use super::{Error, Postmaster, Server, Upstream, atomic_file, config_files, conninfo};
use crate::user_command::UserCommand;

/// Files are dated by the kernel's ticks, of 10 ms at most: what a command makes is to be younger than the mark that is set before.
const TICK: Duration = Duration::from_millis(10);

/// A section of the configuration that names a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnMethod {
    pub name: String,
    pub command: UserCommand,
    /// `--KEY=VALUE` each, in the order of the file.
    pub arguments: Vec<(String, String)>,
    /// It gets the arguments of the file only.
    pub no_params: bool,
    /// It works on what is there.
    pub keep_data: bool,
    /// It needs no server to copy from.
    pub no_leader: bool,
}

/// One of `create_replica_methods`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaMethod {
    BaseBackup,
    Own(OwnMethod),
}

/// `bootstrap.method` other than initdb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomBootstrap {
    pub method: OwnMethod,
    pub recovery: RestoreRecovery,
}

/// What the server that a custom bootstrap has made recovers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreRecovery {
    /// It starts as it is.
    Nothing,
    /// As the command has set it up (`keep_existing_recovery_conf`).
    Kept,
    /// `recovery_conf`: a point in time, say.
    Settings(BTreeMap<String, String>),
}

impl OwnMethod {
    /// With the keys of its section, and with what we tell it before and after them, unless it wants none of that.
    fn call(&self, before: &[(&str, String)], after: &[(&str, String)]) -> UserCommand {
        let told = |pairs: &[(&str, String)]| -> Vec<String> {
            let wanted = pairs.iter().filter(|_| !self.no_params);
            wanted.map(|(name, value)| format!("--{name}={value}")).collect()
        };
        let section = self.arguments.iter().map(|(name, value)| format!("--{name}={value}"));
        self.command.with(told(before).into_iter().chain(section).chain(told(after)))
    }
}

impl ReplicaMethod {
    pub fn needs_no_leader(&self) -> bool {
        matches!(self, ReplicaMethod::Own(method) if method.no_leader)
    }
}

/// Makes a new cluster. What a failed command leaves is moved aside, as evidence; so is that of a command that was cut off, when the agent
/// starts again.
pub async fn bootstrap(server: &Server, custom: &CustomBootstrap) -> Result<(), Error> {
    refuse_running(server)?;
    let method = &custom.method;
    // It wants an empty directory; where the one of before could not be moved out, it lies in it.
    let directory = server.data_dir.clone();
    blocking(move || data_directory::remove_leftovers(&directory)).await?;
    Unfinished::cluster(&server.data_dir)?;
    tokio::time::sleep(TICK).await;
    let told = [("scope", server.scope.clone()), ("datadir", server.data_dir.display().to_string())];
    let command = method.call(&told, &[]);
    tracing::info!("making the new cluster by {}: {command}", method.name);
    let made = match command.run(&server.data_dir, &[], None).await {
        Ok(()) => complete(server, method),
        Err(source) => Err(Error::UserCommand { operation: format!("bootstrap.{}", method.name), source }),
    };
    let begun = Unfinished::since(&server.data_dir);
    if let Err(error) = made.and_then(|()| recovery(server, &custom.recovery)) {
        data_directory::move_failed_aside(&server.data_dir, begun)?;
        Unfinished::clear(&server.data_dir)?;
        return Err(error);
    }
    Marker::NewCluster.set(&server.data_dir)?;
    if let Some(begun) = begun {
        // It may still come to nothing, and then it must be known what is the command's.
        Marker::NewCluster.date(&server.data_dir, begun)?;
    }
    Unfinished::clear(&server.data_dir)
}

/// What the server is started with later is written then; only the signal must be there from now on, since PostgreSQL removes it at the end.
fn recovery(server: &Server, recovery: &RestoreRecovery) -> Result<(), Error> {
    let path = |name: &str| server.data_dir.join(name);
    match recovery {
        RestoreRecovery::Kept => Ok(()),
        RestoreRecovery::Nothing => {
            atomic_file::remove_if_present(&path("standby.signal"))?;
            atomic_file::remove_if_present(&path("recovery.signal")).map(drop)
        }
        RestoreRecovery::Settings(_) => {
            atomic_file::remove_if_present(&path("standby.signal"))?;
            atomic_file::replace(&path("recovery.signal"), "", atomic_file::PRIVATE).map(drop)
        }
    }
}

/// Makes a replica of `source`, or of what the command finds by itself. Dropping the future ends the command and puts back what was there.
pub async fn make_replica(
    server: &Server,
    method: &OwnMethod,
    source: Option<&Upstream>,
    make_room: bool,
) -> Result<(), Error> {
    refuse_running(server)?;
    if let Some(source) = source {
        config_files::write_password_file(server, &[source])?;
    }
    let begun = Begun::new(server, method, make_room).await?;
    let connstring =
        source.map_or_else(String::new, |it| conninfo::tool_conninfo(server, &server.replication, it, None));
    let told = [
        ("scope", server.scope.clone()),
        ("role", "replica".to_owned()),
        ("datadir", server.data_dir.display().to_string()),
        ("connstring", connstring),
    ];
    let command = method.call(&[], &told);
    tracing::info!("making a replica by {}: {command}", method.name);
    let environment = [("PGPASSFILE", OsString::from(&server.pgpass))];
    let failed = |source| Error::UserCommand { operation: format!("postgresql.{}", method.name), source };
    command.run(&server.data_dir, &environment, None).await.map_err(failed)?;
    complete(server, method)?;
    // A backup's control file says that it was a primary.
    atomic_file::remove_if_present(&server.data_dir.join("recovery.signal"))?;
    atomic_file::replace(&server.data_dir.join("standby.signal"), "", atomic_file::PRIVATE)?;
    let marker = if source.is_some() { Marker::Unproven } else { Marker::FromArchive };
    marker.set(&server.data_dir)?;
    config_files::restore_backups(server)?;
    begun.done().await
}

fn refuse_running(server: &Server) -> Result<(), Error> {
    match Postmaster::find(&server.data_dir) {
        Some(running) => {
            Err(Error::Refused(format!("PostgreSQL (process {}) still runs in the data directory", running.pid())))
        }
        None => Ok(()),
    }
}

/// The command says that it has succeeded: is there a server?
fn complete(server: &Server, method: &OwnMethod) -> Result<(), Error> {
    let data_dir = &server.data_dir;
    for part in ["PG_VERSION", "global/pg_control"] {
        if !data_dir.join(part).exists() {
            return Err(Error::Refused(format!(
                "the command of {} has succeeded and there is no {part} in {}: does it write to that directory?",
                method.name,
                data_dir.display()
            )));
        }
    }
    if let Some(running) = Postmaster::find(data_dir) {
        return Err(Error::Refused(format!(
            "the command of {} has left a server running (process {}): it must end it",
            method.name,
            running.pid()
        )));
    }
    for marker in [Marker::NewCluster, Marker::Unproven, Marker::FromArchive, Marker::Incomplete] {
        marker.clear(data_dir)?;
    }
    data_directory::set_private(data_dir)?;
    data_directory::remove_copied_socket_locks(data_dir)
}

/// A large directory is not removed in a moment, and the loop must go on.
async fn blocking(work: impl FnOnce() -> Result<(), Error> + Send + 'static) -> Result<(), Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Refused(format!("the data directory could not be cleared: {error}"))),
    }
}

/// The directory while the command works on it.
struct Begun<'a> {
    data_dir: &'a Path,
    keeps: bool,
    done: bool,
}

impl<'a> Begun<'a> {
    async fn new(server: &'a Server, method: &OwnMethod, make_room: bool) -> Result<Begun<'a>, Error> {
        let data_dir = server.data_dir.as_path();
        let keeps = method.keep_data && holds_data(data_dir);
        if keeps {
            Unfinished::kept(data_dir)?;
        } else {
            match data_directory::can_move_aside(data_dir)? {
                true => Unfinished::replica(data_dir)?,
                // Nothing of what is there is wanted, or nothing is there.
                false if make_room || !holds_data(data_dir) => {
                    let directory = data_dir.to_owned();
                    blocking(move || {
                        data_directory::empty(&directory)?;
                        data_directory::remove_leftovers(&directory)
                    })
                    .await?;
                    Unfinished::kept(data_dir)?;
                    Marker::Incomplete.clear(data_dir)?;
                }
                false => {
                    return Err(Error::Refused(format!(
                        "the method {} wants an empty directory, and {} is a mount of its own (or its parent is not this user's), so what is \
                         there could only be deleted before it is replaced: say that it may be (`pgherd reinit --force`, or \
                         `remove_data_directory_on_diverged_timelines`), or set `keep_data` for a method that can work on what is there",
                        method.name,
                        data_dir.display()
                    )));
                }
            }
        }
        Ok(Begun { data_dir, keeps, done: false })
    }

    async fn done(mut self) -> Result<(), Error> {
        self.done = true;
        let directory = self.data_dir.to_owned();
        blocking(move || Unfinished::clear(&directory)).await
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        // What was changed in place is not what it was.
        if self.done || self.keeps {
            return;
        }
        if let Err(error) = super::unfinished::recover(self.data_dir) {
            tracing::error!("the old data could not be put back: {}", error.full());
        }
    }
}
