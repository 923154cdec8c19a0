//! From root to the user of PostgreSQL, keeping what the guard needs.
//!
//! PostgreSQL refuses to run as root, and so do we. What only root may grant is taken first: the limits that let guards run
//! at real-time priority and lock their pages, and a low standing with the out-of-memory killer. Then the process becomes
//! the other user and executes itself again, so that nothing of root is left in its memory. Whatever root itself may not
//! do (in a container, say) is logged and done without.
//!
//! Not here: using the limits (`guard`). Tested in `tests/it/privileges.rs`, the dropping itself only when run as root.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Uid, User, getgrouplist};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use rustix::thread::{set_name, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Whom PostgreSQL's packages run it as.
pub const DEFAULT_USER: &str = "postgres";

/// The real-time priority that a guard may take.
const REALTIME_PRIORITY: u64 = 10;
/// Far more than the few hundred pages that a guard locks.
const LOCKED_BYTES: u64 = 64 << 20;
/// Almost the last to be killed when memory runs out; a guard puts its PostgreSQL back to normal.
const OUT_OF_MEMORY_SCORE: &str = "-900";

#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    #[error("started as root, and there is no user `{0}` to run PostgreSQL as: install PostgreSQL or create the user")]
    NoUser(String),
    #[error("started as root, and the user `{0}` to run PostgreSQL as is root too: PostgreSQL refuses that")]
    Root(String),
    #[error("cannot look up the user `{user}`: {source}")]
    Lookup { user: String, source: io::Error },
    #[error("cannot read who owns the data directory {}: {source}", data_dir.display())]
    DataDirectory { data_dir: PathBuf, source: io::Error },
    #[error("cannot become the user `{user}`: {source}")]
    Become { user: String, source: io::Error },
    #[error("cannot run itself again as the user `{user}`: {source}; that user must be allowed to execute the program")]
    Again { user: String, source: io::Error },
}

/// As root: becomes the owner of the data directory (if that exists and is not root's), else `user`, and starts the
/// program over with the same arguments; returns only to report an error. As anyone else: does nothing. `device`: one that the other user
/// is to be able to open; a descriptor would not do, for opening a watchdog starts it.
///
/// To be called from the only thread, before the program has done anything worth keeping.
pub fn leave_root(user: &str, data_dir: Option<&Path>, device: Option<&Path>) -> Result<(), PrivilegeError> {
    if !geteuid().is_root() {
        restore_name();
        return Ok(());
    }
    let target = Target::choose(user, data_dir)?;
    for missing in [raise_limits(), lower_out_of_memory_score()].into_iter().flatten() {
        tracing::warn!("root may not {missing}: guards do without");
    }
    if let Some(Err(error)) = device.map(|device| target.give(device)) {
        tracing::warn!("{error}");
    }
    target.assume()?;
    Err(target.start_over())
}

/// Whom to become.
#[derive(Debug)]
struct Target {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    home: Option<PathBuf>,
}

impl Target {
    fn choose(user: &str, data_dir: Option<&Path>) -> Result<Target, PrivilegeError> {
        let target = match data_dir.map(owner).transpose()?.flatten() {
            Some((uid, gid)) => Target::numbered(uid, gid)?,
            None => Target::named(user)?,
        };
        if target.uid.is_root() { Err(PrivilegeError::Root(target.name)) } else { Ok(target) }
    }

    fn named(name: &str) -> Result<Target, PrivilegeError> {
        let lookup = |errno: nix::Error| PrivilegeError::Lookup { user: name.to_owned(), source: errno.into() };
        let user = User::from_name(name).map_err(lookup)?.ok_or_else(|| PrivilegeError::NoUser(name.to_owned()))?;
        Target::of(user)
    }

    /// A user without an entry is usual in containers: the numbers will do.
    fn numbered(uid: Uid, gid: Gid) -> Result<Target, PrivilegeError> {
        let lookup = |errno: nix::Error| PrivilegeError::Lookup { user: uid.to_string(), source: errno.into() };
        match User::from_uid(uid).map_err(lookup)? {
            Some(user) => Target::of(user),
            None => Ok(Target { name: uid.to_string(), uid, gid, groups: vec![gid], home: None }),
        }
    }

    fn of(user: User) -> Result<Target, PrivilegeError> {
        let lookup = |source| PrivilegeError::Lookup { user: user.name.clone(), source };
        let name = CString::new(user.name.as_str()).map_err(|error| lookup(error.into()))?;
        // With all groups: the key of a TLS certificate is often readable by one of them only.
        let groups = getgrouplist(&name, user.gid).map_err(|errno| lookup(errno.into()))?;
        Ok(Target { name: user.name, uid: user.uid, gid: user.gid, groups, home: Some(user.dir) })
    }

    /// Makes the user the owner of a device, as `chown` would until the next start of the machine. What is no device stays as it is.
    fn give(&self, device: &Path) -> Result<(), String> {
        let owner = Some(self.uid.as_raw());
        let is_device = device.metadata().is_ok_and(|found| found.file_type().is_char_device());
        // Absent, or no device at all: said when it is needed, with what to do.
        if !is_device {
            return Ok(());
        }
        std::os::unix::fs::chown(device, owner, None)
            .map_err(|error| format!("root may not give {} to the user `{}` ({error})", device.display(), self.name))
    }

    fn assume(&self) -> Result<(), PrivilegeError> {
        let failed =
            |errno: rustix::io::Errno| PrivilegeError::Become { user: self.name.clone(), source: errno.into() };
        let groups: Vec<_> = self.groups.iter().map(|group| rustix::fs::Gid::from_raw(group.as_raw())).collect();
        let (uid, gid) = (rustix::fs::Uid::from_raw(self.uid.as_raw()), rustix::fs::Gid::from_raw(self.gid.as_raw()));
        // Groups while it is still allowed; the user last, for that is what allows it.
        set_thread_groups(&groups).map_err(failed)?;
        set_thread_res_gid(gid, gid, gid).map_err(failed)?;
        set_thread_res_uid(uid, uid, uid).map_err(failed)
    }

    /// Does not loop: the new start is not root's any more.
    fn start_over(&self) -> PrivilegeError {
        let mut args = std::env::args_os();
        let mut command = Command::new("/proc/self/exe");
        command.arg0(args.next().unwrap_or_else(|| OsString::from("pgherd"))).args(args);
        command.env("USER", &self.name).env("LOGNAME", &self.name);
        match &self.home {
            Some(home) => command.env("HOME", home),
            None => command.env_remove("HOME"),
        };
        PrivilegeError::Again { user: self.name.clone(), source: command.exec() }
    }
}

/// Who owns the directory; `None` if there is none yet, or it is root's.
fn owner(data_dir: &Path) -> Result<Option<(Uid, Gid)>, PrivilegeError> {
    match data_dir.metadata() {
        Ok(found) if found.uid() != 0 => Ok(Some((Uid::from_raw(found.uid()), Gid::from_raw(found.gid())))),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PrivilegeError::DataDirectory { data_dir: data_dir.to_owned(), source }),
    }
}

/// Limits are inherited by every process that the agent starts, the guards among them. What is refused is said.
fn raise_limits() -> Option<String> {
    let wanted = [(Resource::Rtprio, REALTIME_PRIORITY), (Resource::Memlock, LOCKED_BYTES)];
    let refused: Vec<String> = wanted
        .into_iter()
        .filter_map(|(resource, amount)| {
            let limit = getrlimit(resource);
            // `None` is "no limit".
            let raised = Rlimit {
                current: limit.current.map(|now| now.max(amount)),
                maximum: limit.maximum.map(|now| now.max(amount)),
            };
            setrlimit(resource, raised).err().map(|errno| format!("raise the limit {resource:?} to {amount} ({errno})"))
        })
        .collect();
    (!refused.is_empty()).then(|| refused.join(", "))
}

fn lower_out_of_memory_score() -> Option<String> {
    let written = std::fs::write("/proc/self/oom_score_adj", OUT_OF_MEMORY_SCORE);
    written.err().map(|error| format!("lower its standing with the out-of-memory killer ({error})"))
}

/// Started through `/proc/self/exe`, the program would be listed by the name of that link.
pub fn restore_name() {
    let own = rustix::thread::name().is_ok_and(|name| name.as_c_str() == c"exe");
    if own {
        // A name is for people; without one we go on.
        let _ = set_name(c"pgherd");
    }
}
