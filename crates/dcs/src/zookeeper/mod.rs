//! ZooKeeper as a store: one session, the cluster's znodes, one-shot watches.
//!
//! The client is our own, small files of which three know the protocol (`wire`, `handshake`, `connection`), because a lease
//! cannot be built on less: the session's identity must outlive the process, a request must never be applied after its
//! connection has ended, and all of it must run on the lease's thread. The library that was tried (zookeeper-client
//! 0.11) hides the session's password, sends queued requests after a reconnect, does its I/O on a thread of its own and
//! backs off for longer than a session lasts.
//!
//! Tested on real servers in `tests/it/store/`.

mod connection;
mod handshake;
mod lease;
mod link;
mod load;
mod options;
mod sasl;
mod session;
pub(crate) mod wire;
mod write;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pgherd_ha::{Epoch, Lease, View};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use self::handshake::Way;
use self::link::{CallError, Link};
use self::options::with_port;
pub use self::options::{ZooKeeperAuth, ZooKeeperOptions, ZooKeeperSasl, ZooKeeperTls};
use self::session::{Keeper, Shared};
pub use self::wire::Acl as ZooKeeperAcl;
use crate::error::error_chain;
use crate::layout::Layout;
use crate::operation::{Kind, Operations};
use crate::session_file;
use crate::{Acquired, Expect, Key, Servers, Store, StoreError, StoreOptions, Written};

/// How long an operation waits for a connection before it fails: about what moving to another server of the ensemble takes.
const RECONNECT: Duration = Duration::from_millis(200);

/// One node's client.
#[derive(Debug)]
pub struct ZooKeeper {
    operations: Operations,
    layout: Layout,
    name: Option<String>,
    session_file: Option<PathBuf>,
    shared: Arc<Shared>,
    keeper: AbortHandle,
    /// What the member key is to hold. The lock is held for as long as it takes to put a request in a queue, never across
    /// an await: so the newest value is also the last that is sent.
    member_value: Mutex<Option<Bytes>>,
}

impl ZooKeeper {
    /// Starts to connect in the background and returns at once.
    ///
    /// Must be called on the runtime that is to keep the session (the lease thread's); the operations work from every
    /// runtime that has timers. Fails on hosts, names and files of TLS that can never work.
    pub fn connect(servers: &ZooKeeperOptions, options: &StoreOptions) -> Result<ZooKeeper, StoreError> {
        let display = format!("zookeeper {}{}", servers.hosts.join(","), servers.chroot.as_deref().unwrap_or_default());
        let operations = Operations::new(display, options.retry_timeout);
        let refused = |cause: String| operations.cannot_connect(cause, false);
        let hosts: Result<Vec<String>, String> = servers.hosts.iter().map(|host| with_port(host)).collect();
        let hosts = hosts.map_err(&refused)?;
        if hosts.is_empty() {
            return Err(refused("no host is configured; name at least one in `zookeeper.hosts`".into()));
        }
        let tls = servers.tls.as_ref().map(ZooKeeperTls::read).transpose();
        let tls = tls.map_err(|error| refused(format!("the section `zookeeper`: {}", error_chain(&error))))?;
        // Below the chroot everything is as at the root: the parents of a key are created with it.
        let namespace = format!("{}/{}", servers.chroot.as_deref().unwrap_or_default(), options.namespace);
        let layout = Layout::new(&namespace, &options.scope).map_err(|error| refused(error.to_string()))?;
        let member = options.name.as_deref().map(|name| layout.member(name)).transpose();
        let member = member.map_err(|error| refused(error.to_string()))?;
        let file = options.session_file.clone().zip(member);
        let shared = Shared::new(options.ttl);
        let keeper = Keeper {
            shared: shared.clone(),
            hosts,
            way: Way { tls: tls.map(Arc::new), auth: servers.auth.clone(), sasl: servers.sasl.clone() },
            tls: servers.tls.clone(),
            unread: None,
            acl: servers.acl.clone().into(),
            identity: file.as_ref().and_then(|(path, member)| session_file::read(path, member)),
            file,
            last_zxid: 0,
            turned_away: None,
        };
        Ok(ZooKeeper {
            operations,
            layout,
            name: options.name.clone(),
            session_file: options.session_file.clone(),
            shared,
            keeper: tokio::spawn(keeper.run()).abort_handle(),
            member_value: Mutex::new(None),
        })
    }

    /// The path of this node's own member key.
    fn own_member(&self) -> Result<String, CallError> {
        let name = self.name.as_deref().ok_or_else(|| CallError::NotSent("this client has no node name".into()))?;
        self.layout.member(name).map_err(|error| CallError::NotSent(error.to_string()))
    }

    /// The connection, waited for only as long as a change of servers takes.
    async fn link(&self) -> Result<Arc<Link>, CallError> {
        let mut state = self.shared.link.subscribe();
        let _ = timeout(RECONNECT, state.wait_for(Result::is_ok)).await;
        let state = state.borrow();
        state.clone().map_err(|why| CallError::NotSent(format!("there is no connection ({why})")))
    }
}

impl Drop for ZooKeeper {
    /// Ends the connection and leaves the session to its time-out.
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

#[async_trait]
impl Store for ZooKeeper {
    async fn ready(&self, within: Duration) -> Result<(), StoreError> {
        let mut state = self.shared.link.subscribe();
        if matches!(timeout(within, state.wait_for(Result::is_ok)).await, Ok(Ok(_))) {
            return Ok(());
        }
        let why = state.borrow().as_ref().err().map_or_else(String::new, |why| format!(" ({why})"));
        let cause = format!(
            "no server answered within {} ms{why}; check that ZooKeeper runs and that `zookeeper.hosts` names it",
            within.as_millis()
        );
        Err(self.operations.cannot_connect(cause, true))
    }

    async fn load(&self) -> Result<View, StoreError> {
        self.operations.run(Kind::Read, || format!("load {}", self.layout.base()), self.load_view()).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    async fn acquire(&self) -> Result<Acquired, StoreError> {
        self.operations.run(Kind::Write, || format!("create {}", self.layout.leader()), self.acquire_leader()).await
    }

    async fn renew(&self, epoch: Epoch) -> Result<Option<Lease>, StoreError> {
        self.operations.run(Kind::Write, || format!("renew {}", self.layout.leader()), self.renew_leader(epoch)).await
    }

    async fn release(&self, epoch: Epoch) -> Result<bool, StoreError> {
        self.operations
            .run(Kind::Write, || format!("delete {}", self.layout.leader()), self.release_leader(epoch))
            .await
    }

    async fn write_member(&self, value: &[u8]) -> Result<(), StoreError> {
        let name = || format!("write {}/{}", self.layout.members(), self.name.as_deref().unwrap_or_default());
        self.operations.run(Kind::Write, name, self.write_own_member(value)).await
    }

    async fn write(&self, key: Key, value: &[u8], expect: Expect) -> Result<Written, StoreError> {
        let path = self.layout.key(key);
        self.operations.run(Kind::Write, || format!("write {path}"), self.write_key(&path, value, expect)).await
    }

    async fn delete(&self, key: Key, expect: Expect) -> Result<bool, StoreError> {
        let path = self.layout.key(key);
        self.operations.run(Kind::Write, || format!("delete {path}"), self.delete_key(&path, expect)).await
    }

    async fn delete_cluster(&self) -> Result<(), StoreError> {
        self.operations.run(Kind::Write, || format!("delete {}", self.layout.base()), self.delete_tree()).await
    }

    async fn clusters(&self) -> Result<Vec<String>, StoreError> {
        self.operations.run(Kind::Read, || format!("list {}", self.layout.namespace()), self.list_clusters()).await
    }

    fn set_ttl(&self, ttl: Duration) {
        self.shared.ttl.send_if_modified(|now| std::mem::replace(now, ttl) != ttl);
    }

    /// Who we are is fixed: nothing of it is worth a new session.
    fn reconfigure(&self, _: &Servers) {}

    fn suspend(&self) {
        self.keeper.abort();
        self.shared.down("this client was suspended");
    }

    async fn close(&self) -> Result<(), StoreError> {
        let closed = self
            .operations
            .run(Kind::Write, || "close the session".into(), async { self.link().await?.close_session().get().await })
            .await;
        self.suspend();
        if closed.is_ok() {
            session_file::forget(self.session_file.as_deref());
        }
        closed
    }
}
