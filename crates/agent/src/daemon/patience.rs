//! The store, for a loop that has something better to do than to wait: while a permit runs out, a call takes no more than a part of what
//! is left of it, so that an orderly stop is still begun in time.
//!
//! Not for the keeper of the lease: a renewal that comes late is better than none.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgherd_dcs::{Acquired, Expect, Key, Outcome, Servers, Store, StoreError, Written, boot_now};
use pgherd_ha::{Epoch, Lease, View};
use tokio::sync::watch;

use crate::api::PermitCell;

/// A call gets at least this long: less would make a busy store look like a dead one.
const LEAST: Duration = Duration::from_millis(250);

/// A round may make several calls.
const SHARE: u32 = 4;

#[derive(Debug)]
pub struct Impatient {
    store: Arc<dyn Store>,
    permit: PermitCell,
}

impl Impatient {
    pub fn new(store: Arc<dyn Store>, permit: PermitCell) -> Impatient {
        Impatient { store, permit }
    }

    async fn within<T>(
        &self,
        operation: &str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let left = self.permit.load().remaining(boot_now());
        // Without a permit there is nothing to lose but time, and the store has a limit of its own.
        if left.is_zero() || left == Duration::MAX {
            return call.await;
        }
        let limit = (left / SHARE).max(LEAST);
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            Err(StoreError {
                store: "the store".into(),
                operation: operation.into(),
                cause: format!("no answer within {} ms, and the permit runs out", limit.as_millis()),
                outcome: Outcome::Unknown,
                retry: true,
            })
        })
    }
}

#[async_trait]
impl Store for Impatient {
    async fn ready(&self, within: Duration) -> Result<(), StoreError> {
        self.store.ready(within).await
    }

    async fn load(&self) -> Result<View, StoreError> {
        self.within("loading the cluster", self.store.load()).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.store.changes()
    }

    async fn acquire(&self) -> Result<Acquired, StoreError> {
        self.within("taking the leader key", self.store.acquire()).await
    }

    async fn renew(&self, epoch: Epoch) -> Result<Option<Lease>, StoreError> {
        self.within("proving the leader key", self.store.renew(epoch)).await
    }

    async fn release(&self, epoch: Epoch) -> Result<bool, StoreError> {
        self.within("releasing the leader key", self.store.release(epoch)).await
    }

    async fn write_member(&self, value: &[u8]) -> Result<(), StoreError> {
        self.within("writing the member key", self.store.write_member(value)).await
    }

    async fn write(&self, key: Key, value: &[u8], expect: Expect) -> Result<Written, StoreError> {
        self.within(&format!("writing the key {key:?}"), self.store.write(key, value, expect)).await
    }

    async fn delete(&self, key: Key, expect: Expect) -> Result<bool, StoreError> {
        self.within(&format!("deleting the key {key:?}"), self.store.delete(key, expect)).await
    }

    async fn delete_cluster(&self) -> Result<(), StoreError> {
        self.store.delete_cluster().await
    }

    async fn clusters(&self) -> Result<Vec<String>, StoreError> {
        self.store.clusters().await
    }

    fn reconfigure(&self, servers: &Servers) {
        self.store.reconfigure(servers);
    }

    fn set_ttl(&self, ttl: Duration) {
        self.store.set_ttl(ttl);
    }

    fn suspend(&self) {
        self.store.suspend();
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}
