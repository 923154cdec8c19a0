//! Where each key of a cluster lives, and the JSON of each value: the interface that is shared with Patroni.
//!
//! Pure: bytes in, values of `pgherd_ha` out, and back. Nothing that stands in a store can make a decoder panic: what
//! cannot be read counts as absent. Tested by examples of the interface and by random bytes in `tests.rs`.

mod json;
pub(crate) mod keys;
pub(crate) mod member;
#[cfg(test)]
mod tests;
pub(crate) mod timelines;

pub use json::{compact, same_value};
pub use keys::{
    decode_config, decode_failover, decode_failsafe, decode_history, decode_status, decode_sync, encode_failover,
    encode_failsafe, encode_history, encode_status, encode_sync,
};
pub use member::{decode_member, encode_member};
pub use timelines::{decode_reservation, encode_reservation};

use crate::Key;

/// The paths of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `/service/my_cluster`, without a slash at the end.
    base: String,
    /// `/service`; `/` if the namespace is empty.
    namespace: String,
}

/// A name that cannot be part of a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{name}` cannot be a key in the store: use a name that is not empty and has no `/`")]
pub struct NameError {
    what: &'static str,
    name: String,
}

impl Layout {
    /// `namespace` may be written with or without slashes around it; runs of slashes count as one.
    pub fn new(namespace: &str, scope: &str) -> Result<Layout, NameError> {
        let namespace: String =
            namespace.split('/').filter(|part| !part.is_empty()).map(|part| format!("/{part}")).collect();
        for part in namespace.split('/').skip(1) {
            check_name("the namespace", part)?;
        }
        // A scope with slashes is legal in the interface and makes deeper paths.
        let scope: String = scope.split('/').filter(|part| !part.is_empty()).map(|part| format!("/{part}")).collect();
        if scope.is_empty() {
            return Err(NameError { what: "the scope", name: scope });
        }
        for part in scope.split('/').skip(1) {
            check_name("the scope", part)?;
        }
        let base = format!("{namespace}{scope}");
        Ok(Layout { base, namespace: if namespace.is_empty() { "/".into() } else { namespace } })
    }

    /// The path of everything of the cluster.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The path under which the clusters are.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn leader(&self) -> String {
        format!("{}/leader", self.base)
    }

    pub fn members(&self) -> String {
        format!("{}/members", self.base)
    }

    /// The key of a member; its name is used raw.
    pub fn member(&self, name: &str) -> Result<String, NameError> {
        check_name("the name of the member", name)?;
        Ok(format!("{}/members/{name}", self.base))
    }

    pub fn key(&self, key: Key) -> String {
        let name = match key {
            Key::Initialize => "initialize",
            Key::Config => "config",
            Key::Status => "status",
            Key::OptimeLeader => "optime/leader",
            Key::History => "history",
            Key::Sync => "sync",
            Key::Failover => "failover",
            Key::Failsafe => "failsafe",
            Key::Timelines => "pgherd/timelines",
        };
        format!("{}/{name}", self.base)
    }
}

/// What no store accepts as one step of a path (ZooKeeper: also no relative steps and no control characters).
fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    let bad = name.is_empty() || name == "." || name == ".." || name.chars().any(|c| c == '/' || c.is_control());
    if bad { Err(NameError { what, name: name.into() }) } else { Ok(()) }
}
