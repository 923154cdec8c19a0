//! The session's identity in a file, so that a restarted agent takes up the session of its predecessor and with it the
//! member key and, if it leads, the `leader` key.
//!
//! Whoever reads the file can act as this node: mode 0600, and never in a log.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The secret of a session: whoever has it can act as its owner. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(pub Vec<u8>);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(hidden)")
    }
}

/// A session of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The session of ZooKeeper, or the lease of etcd.
    pub id: i64,
    /// Empty on etcd, where the number is the secret.
    pub password: Password,
    /// What was granted when it was created: what a restarted ZooKeeper gives it until it hears from us.
    pub created_with: Duration,
}

#[derive(Serialize, Deserialize)]
struct Content {
    /// Whose session it is: the path of the member key, so that a copied file is not taken for one's own.
    member: String,
    session: i64,
    password: Vec<u8>,
    created_with_ms: u64,
}

/// The session of `member`; `None` if there is no file, or not one of this member.
pub fn read(path: &Path, member: &str) -> Option<Identity> {
    let bytes = fs::read(path).ok()?;
    let content: Content = serde_json::from_slice(&bytes).ok()?;
    if content.member != member || content.created_with_ms == 0 {
        return None;
    }
    Some(Identity {
        id: content.session,
        password: Password(content.password),
        created_with: Duration::from_millis(content.created_with_ms),
    })
}

/// Replaces the file in one step. It is not synced: a machine that went down has no session to take up.
pub fn write(path: &Path, member: &str, identity: &Identity) -> io::Result<()> {
    let content = Content {
        member: member.to_owned(),
        session: identity.id,
        password: identity.password.0.clone(),
        created_with_ms: u64::try_from(identity.created_with.as_millis()).unwrap_or(u64::MAX),
    };
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = Path::new(&fresh);
    // A left-over of a crash may have another mode or be a link: never written through.
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh)?;
    file.write_all(&serde_json::to_vec(&content)?)?;
    fs::rename(fresh, path)
}

/// Not awaited: a slow disk must not hold up the lease. A file that was not written costs a restarted agent its session, nothing else.
/// `file`: with the member key that it is good for.
pub fn save(file: Option<&(PathBuf, String)>, identity: Identity) {
    let Some((path, member)) = file.cloned() else { return };
    tokio::task::spawn_blocking(move || {
        if let Err(error) = write(&path, &member, &identity) {
            tracing::warn!(
                "the session could not be saved in {}: {error}; a restarted agent will wait for it to expire",
                path.display()
            );
        }
    });
}

/// The session was ended. Already gone is as good; a file of an ended session costs the next process one refused request.
pub fn forget(path: Option<&Path>) {
    if let Some(path) = path {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_session_reads_back_and_belongs_to_one_member() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("session");
        let identity = Identity { id: -5, password: Password(vec![0, 255, 7]), created_with: Duration::from_secs(8) };
        assert_eq!(read(&path, "/service/c/members/a"), None);
        for _ in 0..2 {
            write(&path, "/service/c/members/a", &identity).expect("a writable directory");
        }
        assert_eq!(read(&path, "/service/c/members/a"), Some(identity));
        assert_eq!(read(&path, "/service/c/members/b"), None);
        let mode = fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, b"{").expect("a writable file");
        assert_eq!(read(&path, "/service/c/members/a"), None);
    }
}
