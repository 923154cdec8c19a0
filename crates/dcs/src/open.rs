//! Which store it is, and who uses it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{BuiltIn, BuiltInOptions, Etcd, EtcdOptions, Store, StoreError, ZooKeeper, ZooKeeperOptions};

/// Where the store is, whose keys are wanted, and by whom.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub servers: Servers,
    /// `service` by default in the interface.
    pub namespace: String,
    pub scope: String,
    /// The name of this node. `None` for an onlooker (the command line), which has no member key and never leads.
    pub name: Option<String>,
    /// The time of the session or lease to ask for. ZooKeeper grants between 2 and 20 of its ticks, etcd whole seconds from about
    /// two on.
    pub ttl: Duration,
    /// The deadline of each operation.
    pub retry_timeout: Duration,
    /// Keeps the session's identity (mode 0600) for the next process of this node.
    pub session_file: Option<PathBuf>,
}

/// The kinds of store, with what each needs.
#[derive(Clone, Debug)]
pub enum Servers {
    ZooKeeper(ZooKeeperOptions),
    Etcd(EtcdOptions),
    BuiltIn(BuiltInOptions),
}

/// Starts to connect in the background and returns at once; only options that can never work are an error.
///
/// Must be called on the tokio runtime that is to keep the session; see [`ZooKeeper::connect`].
pub fn open(options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    match &options.servers {
        Servers::ZooKeeper(servers) => Ok(Arc::new(ZooKeeper::connect(servers, options)?)),
        Servers::Etcd(servers) => Ok(Arc::new(Etcd::connect(servers, options)?)),
        Servers::BuiltIn(servers) => Ok(Arc::new(BuiltIn::connect(servers, options)?)),
    }
}
