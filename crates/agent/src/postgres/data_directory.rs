//! The data directory as a whole: what it holds, putting a complete new one in its place, moving one aside.
//!
//! Nothing is deleted before its replacement is complete. A directory that is half written carries a marker, and must
//! not be started; the marker is a FIFO, because pg_rewind deletes every *regular* file that its source has not.
//! Blocking functions.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Mode, RenameFlags, StatxAttributes, StatxFlags, Timespec, Timestamps};

use super::unfinished::Unfinished;
use super::{ControlData, Error, Server, atomic_file, control_data, outlying};

/// Names of pgherd's own in or beside a data directory begin with it; they do not make a directory "not empty".
const OWN_PREFIX: &str = ".pgherd-";

/// What a data directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataDirectory {
    /// Absent, or without anything of a server.
    Empty,
    Present(ControlData),
    /// A clone, a rewind or a swap was interrupted: never to be started, only to be replaced.
    Interrupted,
    /// Not usable, and not ours to replace: the reason, for the operator.
    Invalid(String),
}

/// Marks of an unfinished job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// The content is half written.
    Incomplete,
    /// The content is complete, but has not streamed from the leader yet: not electable, and if it does not come up,
    /// it is to be cloned.
    Unproven,
    /// Made by a method that asked no leader: what it lacks may have been acknowledged, so in synchronous mode it is not electable before it has
    /// streamed.
    FromArchive,
    /// initdb is done, the roles are not: no member may copy it yet, and if another cluster came first it is nothing.
    NewCluster,
}

impl Marker {
    fn path(self, data_dir: &Path) -> PathBuf {
        data_dir.join(match self {
            Marker::Incomplete => "pgherd.incomplete",
            Marker::Unproven => "pgherd.unproven",
            Marker::FromArchive => "pgherd.from-archive",
            Marker::NewCluster => "pgherd.new-cluster",
        })
    }

    pub fn is_set(self, data_dir: &Path) -> bool {
        self.path(data_dir).symlink_metadata().is_ok()
    }

    /// On disk when this returns.
    pub fn set(self, data_dir: &Path) -> Result<(), Error> {
        let path = self.path(data_dir);
        match rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => sync_directory(data_dir),
            Err(error) => Err(Error::File { operation: "create", path, source: error.into() }),
        }
    }

    /// When it was set, or what it was made to say of that.
    pub fn since(self, data_dir: &Path) -> Option<SystemTime> {
        self.path(data_dir).symlink_metadata().and_then(|found| found.modified()).ok()
    }

    /// Lets it say that it was set then.
    pub fn date(self, data_dir: &Path, then: SystemTime) -> Result<(), Error> {
        let path = self.path(data_dir);
        let since = then.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Timespec {
            tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: since.subsec_nanos().into(),
        };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| Error::File {
            operation: "date",
            path,
            source: error.into(),
        })
    }

    pub fn clear(self, data_dir: &Path) -> Result<(), Error> {
        match atomic_file::remove_if_present(&self.path(data_dir))? {
            true => sync_directory(data_dir),
            false => Ok(()),
        }
    }
}

/// Looks at the server's data directory; `major` is the version of the binaries.
pub async fn classify(server: &Server, major: u32) -> DataDirectory {
    match inspect(&server.data_dir, major) {
        Some(found) => found,
        None => match control_data::read(server).await {
            Ok(control) => DataDirectory::Present(control),
            Err(error) => DataDirectory::Invalid(error.full()),
        },
    }
}

/// Everything that can be said without the control file; `None`: it looks like a data directory.
fn inspect(data_dir: &Path, major: u32) -> Option<DataDirectory> {
    let invalid = |reason: String| Some(DataDirectory::Invalid(format!("{}: {reason}", data_dir.display())));
    let metadata = match fs::metadata(data_dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Some(DataDirectory::Empty),
        Err(error) => return invalid(error.to_string()),
    };
    let me = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() {
        return invalid("it is not a directory".into());
    }
    if metadata.uid() != me {
        return invalid(format!(
            "it belongs to {} and pgherd runs as {}: give it to that user (chown -R), or run the agent as its owner",
            user_name(metadata.uid()),
            user_name(me)
        ));
    }
    if Marker::Incomplete.is_set(data_dir) || Unfinished::is_set(data_dir) {
        return Some(DataDirectory::Interrupted);
    }
    match content(data_dir) {
        Ok(content) if content.is_empty() => return Some(DataDirectory::Empty),
        Ok(_) => {}
        Err(error) => return invalid(error.full()),
    }
    match fs::read_to_string(data_dir.join("PG_VERSION")) {
        Ok(version) if version.trim() == major.to_string() => match metadata.permissions().mode() & 0o777 {
            mode if mode & 0o027 != 0 => {
                invalid(format!("its mode is {mode:04o} and PostgreSQL wants 0700 or 0750: chmod it"))
            }
            _ => None,
        },
        Ok(version) => {
            let made = version.trim().escape_debug();
            invalid(format!(
                "it was made by PostgreSQL {made}, the programs are of {major}: let postgresql.bin_dir name the programs of {made}, or \
                 upgrade the data with pg_upgrade"
            ))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            invalid("it is not empty and has no PG_VERSION: empty it, or set postgresql.data_dir".into())
        }
        Err(error) => invalid(format!("PG_VERSION: {error}")),
    }
}

/// As people know it, with the number for where there is no name.
fn user_name(uid: u32) -> String {
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => format!("user {} ({uid})", user.name),
        Ok(None) | Err(_) => format!("user {uid}"),
    }
}

/// A place for a new data directory on the same mount, from where it can replace the old one.
#[derive(Debug)]
pub struct Staging {
    data_dir: PathBuf,
    /// Where the new directory is to be made; it does not exist yet.
    path: PathBuf,
    placement: Placement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// Beside the data directory: one rename swaps them.
    Beside,
    /// The data directory is a mount of its own, or its parent is not ours: inside of it.
    Inside,
}

impl Staging {
    /// Removes what an interrupted attempt left, and makes sure that the parent exists.
    pub fn prepare(server: &Server) -> Result<Staging, Error> {
        Staging::at(&server.data_dir)
    }

    /// The same for any directory that is to be replaced as a whole.
    pub fn at(directory: &Path) -> Result<Staging, Error> {
        let (data_dir, placement) = place(directory)?;
        let path = sibling(&data_dir, placement, "new");
        remove_tree(&path)?;
        Ok(Staging { data_dir, path, placement })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the new directory in place; returns where the old content is now, for the caller to remove, if there was
    /// any.
    pub fn install(self) -> Result<Option<PathBuf>, Error> {
        match self.placement {
            Placement::Beside => self.swap_directories(),
            Placement::Inside => self.swap_contents(),
        }
    }

    fn swap_directories(self) -> Result<Option<PathBuf>, Error> {
        let parent = self.data_dir.parent().unwrap_or(Path::new("/"));
        let failed = Error::file("put the new data directory in place of", &self.data_dir);
        if !self.data_dir.exists() {
            fs::rename(&self.path, &self.data_dir).map_err(failed)?;
            sync_directory(parent)?;
            return Ok(None);
        }
        match rustix::fs::renameat_with(CWD, &self.path, CWD, &self.data_dir, RenameFlags::EXCHANGE) {
            Ok(()) => {
                sync_directory(parent)?;
                Ok(Some(self.path))
            }
            // A file system that cannot exchange: between two renames there is no data directory, and a crash there
            // means another clone.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                let old = move_aside_to(&self.data_dir, self.placement, "old")?;
                fs::rename(&self.path, &self.data_dir).map_err(failed)?;
                sync_directory(parent)?;
                Ok(Some(old))
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    fn swap_contents(self) -> Result<Option<PathBuf>, Error> {
        Marker::Incomplete.set(&self.data_dir)?;
        let old = move_aside_to(&self.data_dir, self.placement, "old")?;
        move_entries(&self.path, &self.data_dir)?;
        fs::remove_dir(&self.path).map_err(Error::file("remove", &self.path))?;
        set_private(&self.data_dir)?;
        sync_directory(&self.data_dir)?;
        Marker::Incomplete.clear(&self.data_dir)?;
        Ok(Some(old))
    }
}

/// Removes what is in a data directory, and in the directories elsewhere that it uses. It is marked first, so that whatever is left of it when
/// this is interrupted is never started.
pub fn empty(data_dir: &Path) -> Result<(), Error> {
    if !data_dir.exists() {
        return Ok(());
    }
    Marker::Incomplete.set(data_dir)?;
    let elsewhere = outlying::used_by(data_dir)?;
    for directory in elsewhere.iter().map(PathBuf::as_path).filter(|path| path.is_dir()).chain([data_dir]) {
        for name in content(directory)? {
            let path = directory.join(name);
            let removed = match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&path),
                Ok(_) => fs::remove_file(&path),
                Err(error) => Err(error),
            };
            removed.map_err(Error::file("remove", &path))?;
        }
        sync_directory(directory)?;
    }
    Ok(())
}

/// Removes from a mount what of former attempts could not be moved out of it, and what else is ours: the next one wants an empty directory.
pub fn remove_leftovers(data_dir: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries.collect::<std::io::Result<Vec<_>>>().map_err(Error::file("list", data_dir))?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("list", data_dir)(error)),
    };
    for entry in entries.iter().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(OWN_PREFIX.as_bytes()))
    {
        let path = entry.path();
        if path.is_dir() {
            tracing::warn!("{} is in the way of the next attempt and is removed", path.display());
            remove_tree(&path)?;
        } else {
            atomic_file::remove_if_present(&path)?;
        }
    }
    Ok(())
}

/// Moves a directory that did not become a cluster out of the way, for people to look at, and so what it uses elsewhere, where that was made
/// since `begun` (unknown: nothing is ours then); answers with where it is now, if there was anything.
pub fn move_failed_aside(data_dir: &Path, begun: Option<SystemTime>) -> Result<Option<PathBuf>, Error> {
    if !holds_data(data_dir) {
        return Ok(None);
    }
    let (data_dir, placement) = place(data_dir)?;
    if let Err(error) = outlying::move_failed_aside(&data_dir, begun) {
        tracing::warn!(
            "what the new cluster has elsewhere stays where it is, and the next attempt may find it in its way: {}",
            error.full()
        );
    }
    move_aside_to(&data_dir, placement, "failed").map(Some)
}

/// Whether the directory can be renamed; else only its content could be moved, into itself.
pub fn can_move_aside(data_dir: &Path) -> Result<bool, Error> {
    place(data_dir).map(|(_, placement)| placement == Placement::Beside)
}

/// A path beside the data directory.
pub(super) fn sibling_of(data_dir: &Path, name: &str) -> PathBuf {
    let data_dir = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let mut file_name = data_dir.file_name().unwrap_or_default().to_owned();
    file_name.push(format!(".{name}"));
    data_dir.with_file_name(file_name)
}

/// Nobody but the owner may enter, or PostgreSQL does not start.
pub(super) fn set_private(data_dir: &Path) -> Result<(), Error> {
    fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700)).map_err(Error::file("chmod", data_dir))
}

/// Something of a server is there, be it half of it.
pub fn holds_data(data_dir: &Path) -> bool {
    content(data_dir).is_ok_and(|content| !content.is_empty())
}

/// Removes a directory that was moved aside, or never became one; no error if there is none.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::File { operation: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Removes what was an empty data directory a moment ago. Whatever has come into it since is somebody's, and stays.
pub fn remove_if_empty(path: &Path) -> Result<(), Error> {
    if path.is_dir() && !content(path)?.is_empty() {
        tracing::warn!("{} was empty and is not any more; it is left for you to look at", path.display());
        return Ok(());
    }
    remove_tree(path)
}

/// Bytes that this user can still write on the file system of `path`, or of its nearest parent that exists.
pub fn free_bytes(path: &Path) -> Result<u64, Error> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let space = rustix::fs::statvfs(existing).map_err(|error| Error::File {
        operation: "ask for free space at",
        path: path.to_owned(),
        source: error.into(),
    })?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// The file system of `path`, or of its nearest parent that exists, by its number.
pub fn device(path: &Path) -> Result<u64, Error> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    fs::metadata(existing).map(|found| found.dev()).map_err(Error::file("look at", existing))
}

/// Removes socket lock files that came with a copy: they name a process of another machine or directory, and a number
/// that happens to be alive here would keep the server from starting. Only while no server runs in `data_dir`.
pub fn remove_copied_socket_locks(data_dir: &Path) -> Result<(), Error> {
    for name in content(data_dir)? {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b".s.PGSQL.") && bytes.ends_with(b".lock") {
            atomic_file::remove_if_present(&data_dir.join(name))?;
        }
    }
    Ok(())
}

/// The real path of the data directory, and where its replacement can be made.
pub(super) fn place(data_dir: &Path) -> Result<(PathBuf, Placement), Error> {
    let data_dir = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let parent = data_dir.parent().unwrap_or(Path::new("/")).to_owned();
    fs::create_dir_all(&parent).map_err(Error::file("create", &parent))?;
    let writable = rustix::fs::access(&parent, rustix::fs::Access::WRITE_OK).is_ok();
    let beside = writable && !is_mount(&data_dir);
    Ok((data_dir, if beside { Placement::Beside } else { Placement::Inside }))
}

/// The root of a mount, bind mounts included (Linux 5.8; before, only another device is noticed).
fn is_mount(path: &Path) -> bool {
    let root = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .is_ok_and(|status| status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let parent = path.parent().unwrap_or(Path::new("/"));
    root || device(path).is_some_and(|own| device(parent).is_some_and(|parents| parents != own))
}

fn sibling(data_dir: &Path, placement: Placement, name: &str) -> PathBuf {
    match placement {
        Placement::Inside => data_dir.join(format!("{OWN_PREFIX}{name}")),
        Placement::Beside => {
            let mut file_name = data_dir.file_name().unwrap_or_default().to_owned();
            // `data.failed-TIME` as users know it; what is ours alone cannot be mistaken for theirs.
            file_name.push(if name == "new" { ".pgherd-new".to_owned() } else { format!(".{name}") });
            data_dir.with_file_name(file_name)
        }
    }
}

pub(super) fn move_aside_to(data_dir: &Path, placement: Placement, reason: &str) -> Result<PathBuf, Error> {
    let time = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S%.3f").to_string();
    let target = sibling(data_dir, placement, &format!("{reason}-{time}"));
    match placement {
        Placement::Beside => fs::rename(data_dir, &target).map_err(Error::file("move aside", data_dir))?,
        Placement::Inside => {
            fs::create_dir(&target).map_err(Error::file("create", &target))?;
            move_entries(data_dir, &target)?;
        }
    }
    Ok(target)
}

fn move_entries(from: &Path, to: &Path) -> Result<(), Error> {
    for name in content(from)? {
        fs::rename(from.join(&name), to.join(&name)).map_err(Error::file("move aside", from.join(&name)))?;
    }
    sync_directory(to)
}

/// The names in a directory that are a server's: without pgherd's own, the marker and what file systems put there.
pub(super) fn content(directory: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    let own = |name: &std::ffi::OsStr| {
        let name = name.as_encoded_bytes();
        name.starts_with(OWN_PREFIX.as_bytes()) || name == b"lost+found" || name == b"pgherd.incomplete"
    };
    let entries = fs::read_dir(directory).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<std::io::Result<Vec<_>>>()
    });
    let names = entries.map_err(Error::file("list", directory))?;
    Ok(names.into_iter().filter(|name| !own(name)).collect())
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::file("sync", path))
}

#[cfg(test)]
#[path = "data_directory_tests.rs"]
mod tests;
