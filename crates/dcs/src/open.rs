//! Which store it is.

use std::sync::Arc;

use crate::{Store, StoreError, ZooKeeper, ZooKeeperOptions};

/// The kinds of store, with what each needs.
#[derive(Clone, Debug)]
pub enum StoreOptions {
    ZooKeeper(ZooKeeperOptions),
}

/// Starts to connect in the background and returns at once; only options that can never work are an error.
///
/// Must be called on the tokio runtime that is to keep the session; see [`ZooKeeper::connect`].
pub fn open(options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    match options {
        StoreOptions::ZooKeeper(options) => Ok(Arc::new(ZooKeeper::connect(options)?)),
    }
}
