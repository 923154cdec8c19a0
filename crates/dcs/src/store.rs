//! The one trait that every store implements.

use std::time::Duration;

use async_trait::async_trait;
use pgherd_ha::{Epoch, Lease, View};
use tokio::sync::watch;

use crate::{Servers, StoreError};

/// A persistent key of the cluster. `leader` and the member keys are not here: they live under the lease and have
/// methods of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Initialize,
    Config,
    Status,
    /// Legacy, written only while a member older than 2.1.0 is in the cluster.
    OptimeLeader,
    History,
    Sync,
    Failover,
    Failsafe,
    /// pgherd's own: the newest timeline that was reserved.
    Timelines,
}

/// What a write demands of the key it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Write in any case (the key is created if it is absent).
    Any,
    /// Create; somebody else's key is left alone.
    Absent,
    /// Replace exactly this version; 0 is a version like any other.
    Version(i64),
}

/// The store's verdict on a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Done; the key now has this version.
    Done { version: i64 },
    /// The key was not as expected; nothing was written.
    Conflict,
}

/// The store's verdict on an attempt to take the leader key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The key was created under our lease.
    Ours(Lease),
    /// Somebody holds it.
    Taken,
}

/// A store of the cluster's decisions, as one node uses it: one session (lease) that owns this node's member key and, when
/// it leads, the `leader` key.
///
/// Every method has a deadline of its own (`retry_timeout`) and can be dropped at any time; a request that was dropped or
/// timed out has the outcome [`Unknown`](crate::Outcome::Unknown). An implementation re-connects by itself,
/// with the same session as long as the store keeps it.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Waits for the first connection. The operations need no such wait (they fail while there is none); a command line
    /// does, and shows the error as it is.
    async fn ready(&self, within: Duration) -> Result<(), StoreError>;

    /// A load of everything under the cluster's prefix, `leader` first. On a store that is not the quorum's leader it
    /// may be behind; it proves nothing about the lease.
    async fn load(&self) -> Result<View, StoreError>;

    /// Changes whenever something under the prefix may have changed, and on every change of the connection: a hint to
    /// [`load`](Self::load) again, never a log. A load asks for the hints of what changes after it, so there are none
    /// before the first; a load that fails is to be repeated after a while. A leader gets none for `status`, which it writes.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Creates the `leader` key with this node's name under our lease, if nobody holds it. If our own session already
    /// owns the key, that is success too (an earlier attempt whose answer was lost), proven by a renewal.
    async fn acquire(&self) -> Result<Acquired, StoreError>;

    /// Proves by a write that a quorum acknowledged (to our own member key) that our session lives, and that the leader
    /// key of `epoch` is ours. `None`: the session is gone, or the key is not ours any more. The lease counts from before the
    /// request was sent. Before the first [`write_member`](Self::write_member) it repeats what stands in the member key.
    async fn renew(&self, epoch: Epoch) -> Result<Option<Lease>, StoreError>;

    /// Deletes the `leader` key of `epoch` if our live session owns it; `false` if it is not ours. Keeps the session.
    async fn release(&self, epoch: Epoch) -> Result<bool, StoreError>;

    /// Writes this node's member key under our lease, taking it over from a former session of this node.
    /// The value is also what [`renew`](Self::renew) writes from then on.
    async fn write_member(&self, value: &[u8]) -> Result<(), StoreError>;

    async fn write(&self, key: Key, value: &[u8], expect: Expect) -> Result<Written, StoreError>;

    /// `false` if there was none, or it had another version.
    async fn delete(&self, key: Key, expect: Expect) -> Result<bool, StoreError>;

    /// Deletes every key of the cluster (`pgherd remove`).
    async fn delete_cluster(&self) -> Result<(), StoreError>;

    /// The names of the clusters under the namespace (`pgherd list` without a name).
    async fn clusters(&self) -> Result<Vec<String>, StoreError>;

    /// The lease time to ask the store for from now on (`ttl` was changed). The session and its keys are kept; leases
    /// follow what the store grants, and a longer time may need a new session to count.
    fn set_ttl(&self, ttl: Duration);

    /// Takes in what may change of the section of the store while it is used: etcd's user and password.
    fn reconfigure(&self, servers: &Servers);

    /// Stops using the store and leaves the session to its time-out: the end of an agent that is to be started again, and
    /// of a clean stop, too, after which the member stays visible for that long. Every later operation fails.
    fn suspend(&self);

    /// Ends the session, and with it the keys under the lease, at once. Every later operation fails.
    async fn close(&self) -> Result<(), StoreError>;
}
