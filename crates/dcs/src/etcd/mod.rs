//! etcd (version 3) as a store: one lease, the cluster's keys, one watch, through etcd's JSON gateway as Patroni uses it.
//!
//! Versions are revisions of the store, so none is 0. What proves a lease is in `lease`. Tested on real servers in
//! `tests/it/store/`.

mod gateway;
mod keys;
mod lease;
mod load;
mod servers;
mod session;
mod srv;
mod verdict;
mod watch;
pub(crate) mod wire;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pgherd_ha::{Epoch, Lease, View};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use self::gateway::{Again, Gateway};
use self::lease::Place;
pub use self::servers::EtcdOptions;
use self::session::{Keeper, Session};
pub use self::srv::EtcdSrv;
use self::verdict::CallError;
use self::wire::Header;
use crate::layout::Layout;
use crate::member_key::MemberKey;
use crate::operation::{Failure, Kind, Operations};
use crate::session_cell::SessionCell;
use crate::session_file;
use crate::{Acquired, Expect, Key, Servers, Store, StoreError, StoreOptions, Written};

/// Between two questions whether a server answers.
const PAUSE: Duration = Duration::from_millis(100);

/// One node's client.
#[derive(Debug)]
pub struct Etcd {
    client: Arc<Client>,
    tasks: Vec<AbortHandle>,
    session_file: Option<PathBuf>,
}

/// What the operations and the tasks share.
#[derive(Debug)]
struct Client {
    operations: Operations,
    layout: Layout,
    name: Option<String>,
    gateway: Arc<Gateway>,
    session: SessionCell<Session>,
    /// The lease time that was last asked for, in seconds.
    asked_for: AtomicU64,
    member: MemberKey<i64, i64>,
    /// Where the newest linearizable answer came from.
    seen: Mutex<Option<Place>>,
    /// The last load showed the leader key as ours.
    leading: AtomicBool,
    changes: tokio::sync::watch::Sender<u64>,
    /// Somebody wants to hear of changes.
    watched: Notify,
}

impl Etcd {
    /// Starts to connect in the background and returns at once.
    ///
    /// Must be called on the runtime that is to keep the lease (the lease thread's), which also carries every call; the operations
    /// work from every runtime that has timers. Fails on servers, names and TLS files that can never work.
    pub fn connect(servers: &EtcdOptions, options: &StoreOptions) -> Result<Etcd, StoreError> {
        let named = servers.srv.iter().map(|srv| format!("srv {}", srv.domain)).chain(servers.urls.iter().cloned());
        let display = format!("etcd {}", named.collect::<Vec<_>>().join(","));
        let operations = Operations::new(display, options.retry_timeout);
        let refused = |cause: String| operations.cannot_connect(cause, false);
        let gateway = Arc::new(Gateway::new(servers, options.retry_timeout).map_err(&refused)?);
        let layout = Layout::new(&options.namespace, &options.scope).map_err(|error| refused(error.to_string()))?;
        let member = options.name.as_deref().map(|name| layout.member(name)).transpose();
        let member = member.map_err(|error| refused(error.to_string()))?;
        let client = Arc::new(Client {
            operations,
            layout,
            name: options.name.clone(),
            gateway,
            session: SessionCell::new(options.ttl),
            asked_for: AtomicU64::new(0),
            member: MemberKey::new(),
            seen: Mutex::new(None),
            leading: AtomicBool::new(false),
            changes: tokio::sync::watch::Sender::new(0),
            watched: Notify::new(),
        });
        let mut tasks = vec![tokio::spawn(watch::run(client.clone())).abort_handle()];
        // An onlooker has nothing that would have to live and die with it.
        if let Some(member) = member {
            let file = options.session_file.clone().map(|path| (path, member));
            let keeper = Keeper { client: client.clone(), file, learns: !servers.proxies };
            tasks.push(tokio::spawn(keeper.run()).abort_handle());
        }
        Ok(Etcd { client, tasks, session_file: options.session_file.clone() })
    }

    fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.client.operations.suspend();
    }
}

impl Drop for Etcd {
    /// Leaves the lease to its end.
    fn drop(&mut self) {
        self.stop();
    }
}

impl Client {
    fn hint(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn asked_for(&self) -> u64 {
        self.asked_for.load(Ordering::SeqCst)
    }

    fn set_asked_for(&self, seconds: u64) {
        self.asked_for.store(seconds, Ordering::SeqCst);
    }

    fn leads(&self) -> bool {
        self.leading.load(Ordering::SeqCst)
    }

    fn set_leading(&self, leading: bool) {
        self.leading.store(leading, Ordering::SeqCst);
    }

    /// A linearizable answer has come.
    fn saw(&self, header: Header) {
        *self.seen.lock().expect("nobody panics while holding this lock") = Some(header.into());
    }

    fn last_seen(&self) -> Option<Place> {
        *self.seen.lock().expect("nobody panics while holding this lock")
    }

    /// The path of this node's own member key.
    fn own_member(&self) -> Result<String, CallError> {
        let name = self.name.as_deref().ok_or_else(|| CallError::NotSent("this client has no node name".into()))?;
        self.layout.member(name).map_err(|error| CallError::NotSent(error.to_string()))
    }

    /// Whether the store answers and, for a node, has granted its lease.
    async fn is_ready(&self) -> Result<(), CallError> {
        self.read_leader().await?;
        if self.name.is_some() { self.session(None).await.map(|_| ()) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Etcd {
    async fn ready(&self, within: Duration) -> Result<(), StoreError> {
        let deadline = Instant::now() + within;
        let (why, retry) = loop {
            match timeout(within, self.client.is_ready()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if !error.may_pass() => break (error.to_string(), false),
                Ok(Err(error)) if Instant::now() >= deadline => break (error.to_string(), true),
                Ok(Err(_)) => sleep(PAUSE).await,
                Err(_) => break ("it accepts and does not answer".to_owned(), true),
            }
        };
        let cause = match retry {
            false => why,
            true => format!(
                "no server answered within {} ms ({why}); check that etcd runs and that the section `etcd3` names it",
                within.as_millis()
            ),
        };
        Err(self.client.operations.cannot_connect(cause, retry))
    }

    async fn load(&self) -> Result<View, StoreError> {
        let client = &self.client;
        client.operations.run(Kind::Read, || format!("load {}", client.layout.base()), client.load_view()).await
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.client.watched.notify_one();
        self.client.changes.subscribe()
    }

    async fn acquire(&self) -> Result<Acquired, StoreError> {
        let client = &self.client;
        client
            .operations
            .run(Kind::Write, || format!("create {}", client.layout.leader()), client.acquire_leader())
            .await
    }

    async fn renew(&self, epoch: Epoch) -> Result<Option<Lease>, StoreError> {
        let client = &self.client;
        client
            .operations
            .run(Kind::Write, || format!("renew {}", client.layout.leader()), client.renew_leader(epoch))
            .await
    }

    async fn release(&self, epoch: Epoch) -> Result<bool, StoreError> {
        let client = &self.client;
        client
            .operations
            .run(Kind::Write, || format!("delete {}", client.layout.leader()), client.release_leader(epoch))
            .await
    }

    async fn write_member(&self, value: &[u8]) -> Result<(), StoreError> {
        let client = &self.client;
        let name = || format!("write {}/{}", client.layout.members(), client.name.as_deref().unwrap_or_default());
        client.operations.run(Kind::Write, name, client.write_own_member(value)).await
    }

    async fn write(&self, key: Key, value: &[u8], expect: Expect) -> Result<Written, StoreError> {
        let client = &self.client;
        let path = client.layout.key(key);
        client.operations.run(Kind::Write, || format!("write {path}"), client.write_key(&path, value, expect)).await
    }

    async fn delete(&self, key: Key, expect: Expect) -> Result<bool, StoreError> {
        let client = &self.client;
        let path = client.layout.key(key);
        client.operations.run(Kind::Write, || format!("delete {path}"), client.delete_key(&path, expect)).await
    }

    async fn delete_cluster(&self) -> Result<(), StoreError> {
        let client = &self.client;
        client.operations.run(Kind::Write, || format!("delete {}", client.layout.base()), client.delete_tree()).await
    }

    async fn clusters(&self) -> Result<Vec<String>, StoreError> {
        let client = &self.client;
        client
            .operations
            .run(Kind::Read, || format!("list {}", client.layout.namespace()), client.list_clusters())
            .await
    }

    fn set_ttl(&self, ttl: Duration) {
        self.client.session.set_ttl(ttl);
    }

    fn reconfigure(&self, servers: &Servers) {
        if let Servers::Etcd(options) = servers {
            self.client.gateway.set_credentials(options);
        }
    }

    fn suspend(&self) {
        self.stop();
    }

    async fn close(&self) -> Result<(), StoreError> {
        let client = &self.client;
        let revoke = async {
            let Some(session) = client.session.now() else { return Ok(()) };
            for lease in [Some(session.id), session.former].into_iter().flatten() {
                let revoked =
                    client.gateway.call::<Value>("lease/revoke", json!({"ID": lease.to_string()}), Again::Yes);
                match revoked.await {
                    // Gone already is as good.
                    Ok(_) | Err(CallError::NoLease) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        // Else the keeper would ask for another.
        self.tasks.iter().for_each(AbortHandle::abort);
        let closed = client.operations.run(Kind::Write, || "end the lease".into(), revoke).await;
        self.stop();
        if closed.is_ok() {
            session_file::forget(self.session_file.as_deref());
        }
        closed
    }
}
