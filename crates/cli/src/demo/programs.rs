//! The installed programs that a demo needs, PostgreSQL and a store, and the `apt` line for the missing ones.

use std::io;
use std::path::{Path, PathBuf};

use super::launch::User;
use super::store::StoreKind;

/// Where the programs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// The directory of `postgres`, `initdb` and their kind.
    pub postgres: PathBuf,
    pub store: StoreProgram,
}

/// What runs the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreProgram {
    ZooKeeper {
        java: PathBuf,
        jar: PathBuf,
    },
    Etcd(PathBuf),
    /// pgherd's own.
    BuiltIn,
}

impl StoreProgram {
    pub fn kind(&self) -> StoreKind {
        match self {
            StoreProgram::ZooKeeper { .. } => StoreKind::ZooKeeper,
            StoreProgram::Etcd(_) => StoreKind::Etcd,
            StoreProgram::BuiltIn => StoreKind::BuiltIn,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    #[error(
        "the demo needs packages that are not installed: {0}\n  \
         as root:     apt-get install --no-install-recommends {0}\n  \
         or, from the source directory: make up (it installs, builds and starts the demo)"
    )]
    Missing(String),
    #[error("started by root, the demo runs its servers as user postgres, but reading /etc/passwd failed")]
    Users(#[source] io::Error),
}

const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";
const ZOOKEEPER: &str = "/usr/share/java/zookeeper.jar";

/// Looks for the newest PostgreSQL and for the store's programs.
pub fn find(store: StoreKind) -> Result<Programs, ProgramsError> {
    let postgres = newest_postgres(Path::new(POSTGRES_VERSIONS)).or_else(pg_config);
    let (store, missing) = match store {
        StoreKind::ZooKeeper => {
            let java = in_path("java");
            let jar = Path::new(ZOOKEEPER).is_file().then(|| PathBuf::from(ZOOKEEPER));
            let missing = [(java.is_none(), "default-jre-headless"), (jar.is_none(), "libzookeeper-java")];
            (java.zip(jar).map(|(java, jar)| StoreProgram::ZooKeeper { java, jar }), missing)
        }
        StoreKind::Etcd => {
            let etcd = in_path("etcd");
            let missing = [(etcd.is_none(), "etcd-server"), (false, "")];
            (etcd.map(StoreProgram::Etcd), missing)
        }
        StoreKind::BuiltIn => (Some(StoreProgram::BuiltIn), [(false, ""), (false, "")]),
    };
    let missing = [(postgres.is_none(), "postgresql")].into_iter().chain(missing);
    let missing: Vec<&str> = missing.filter(|(missing, _)| *missing).map(|(_, name)| name).collect();
    let found = postgres.zip(store).map(|(postgres, store)| Programs { postgres, store });
    found.ok_or_else(|| ProgramsError::Missing(missing.join(" ")))
}

/// Debian keeps each major version in a directory of its own.
fn newest_postgres(versions: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(versions).ok()?.flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let found = versions.map(|entry| entry.path()).filter(|path| is_server(&path.join("bin")));
    found.filter_map(|path| Some((number(&path)?, path))).max().map(|(_, path)| path.join("bin"))
}

fn pg_config() -> Option<PathBuf> {
    let output = std::process::Command::new("pg_config").arg("--bindir").output().ok()?;
    let directory = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    is_server(&directory).then_some(directory)
}

fn is_server(directory: &Path) -> bool {
    ["postgres", "initdb", "pg_basebackup"].iter().all(|name| directory.join(name).is_file())
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The user that the servers run as: `postgres` if root started the demo, else (`None`) the caller.
pub fn server_user() -> Result<Option<User>, ProgramsError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").map_err(ProgramsError::Users)?;
    user_in(&users, "postgres").map(Some).ok_or_else(|| ProgramsError::Missing("postgresql".to_owned()))
}

fn user_in(users: &str, name: &str) -> Option<User> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2);
    Some(User { uid: numbers.next()?.parse().ok()?, gid: numbers.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_has_a_server_is_taken() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for version in ["9", "15", "17", "18", "common"] {
            let bin = directory.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).expect("a directory");
            let programs: &[&str] = if version == "18" { &["psql"] } else { &["postgres", "initdb", "pg_basebackup"] };
            for program in programs {
                std::fs::write(bin.join(program), "").expect("a file");
            }
        }
        assert_eq!(newest_postgres(directory.path()), Some(directory.path().join("17/bin")));
        assert_eq!(newest_postgres(&directory.path().join("absent")), None);
    }

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8::/:/x\npostgres:x:101:104:,,,:/var:/bin/bash\nbad:x\n";
        for (name, expected) in
            [("postgres", Some(User { uid: 101, gid: 104 })), ("post", None), ("bad", None), ("", None)]
        {
            assert_eq!(user_in(users, name), expected, "{name:?}");
        }
    }
}
