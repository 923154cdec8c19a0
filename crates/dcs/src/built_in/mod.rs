//! The built-in store (`pgherd-store`) as a store: one lease, the cluster's keys, one watch.
//!
//! Versions are revisions of the store, so none is 0. A renewal is the store's own promise: a quorum has confirmed its leader after it was asked, and no
//! leader ends a lease before its time, counted from then (`pgherd_store::leases`). Tested on real processes in `tests/it/store/`.

mod keys;
mod section;
mod session;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pgherd_ha::{Epoch, Lease, View};
use pgherd_store::client::{Client as Members, ClientError};
use pgherd_store::kv::{Command, LeaseId, Revision};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

pub use self::section::{BuiltInAccess, BuiltInMember, BuiltInOptions, MemberError};
use self::session::{Keeper, Session};
use crate::home::at_home;
use crate::layout::Layout;
use crate::member_key::{MemberKey, StillRacing};
use crate::operation::{Failure, Kind, Operations};
use crate::session_cell::SessionCell;
use crate::session_file;
use crate::{Acquired, Expect, Key, Servers, Store, StoreError, StoreOptions, Written};

/// Between two questions whether the store answers.
const PAUSE: Duration = Duration::from_millis(100);

/// One node's client.
#[derive(Debug)]
pub struct BuiltIn {
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
    members: Members,
    /// Where connections live.
    home: Handle,
    session: SessionCell<Session>,
    member: MemberKey<Revision, LeaseId>,
    /// The last load showed the leader key as ours.
    leading: AtomicBool,
    changes: watch::Sender<u64>,
    /// Somebody wants to hear of changes.
    watched: Notify,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Store(#[from] ClientError),
    #[error("{0}")]
    NotSent(String),
    #[error("the store refuses it: {0}")]
    Refused(String),
    #[error("the lease is gone")]
    NoLease,
    #[error("{0}")]
    Lost(String),
}

impl From<StillRacing> for CallError {
    fn from(racing: StillRacing) -> CallError {
        CallError::Lost(racing.to_string())
    }
}

impl Failure for CallError {
    fn is_lost(&self) -> bool {
        match self {
            CallError::Store(error) => error.may_be_done,
            CallError::Lost(_) => true,
            CallError::NotSent(_) | CallError::Refused(_) | CallError::NoLease => false,
        }
    }

    fn may_pass(&self) -> bool {
        !matches!(self, CallError::Refused(_))
    }
}

impl BuiltIn {
    /// Starts to connect in the background and returns at once.
    ///
    /// Must be called on the runtime that is to keep the lease (the lease thread's), which also carries every call; the operations work from every
    /// runtime that has timers. Fails on names that can never work.
    pub fn connect(servers: &BuiltInOptions, options: &StoreOptions) -> Result<BuiltIn, StoreError> {
        let display = format!("store {}", servers.members.join(","));
        let operations = Operations::new(display, options.retry_timeout);
        let refused = |cause: String| operations.cannot_connect(cause, false);
        let layout = Layout::new(&options.namespace, &options.scope).map_err(|error| refused(error.to_string()))?;
        let member = options.name.as_deref().map(|name| layout.member(name)).transpose();
        let member = member.map_err(|error| refused(error.to_string()))?;
        let (_, tls) = servers.tls().map_err(|error| refused(error.to_string()))?;
        let client = Arc::new(Client {
            operations,
            layout,
            name: options.name.clone(),
            members: Members::new(servers.dialer(tls), &servers.members),
            home: Handle::current(),
            session: SessionCell::new(options.ttl),
            member: MemberKey::new(),
            leading: AtomicBool::new(false),
            changes: watch::Sender::new(0),
            watched: Notify::new(),
        });
        let mut tasks = vec![tokio::spawn(client.clone().watch()).abort_handle()];
        // An onlooker has nothing that would have to live and die with it.
        if let Some(member) = member {
            let file = options.session_file.clone().map(|path| (path, member));
            tasks.push(tokio::spawn(Keeper { client: client.clone(), file }.run()).abort_handle());
        }
        Ok(BuiltIn { client, tasks, session_file: options.session_file.clone() })
    }

    fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.client.operations.suspend();
    }
}

impl Drop for BuiltIn {
    /// Leaves the lease to its end.
    fn drop(&mut self) {
        self.stop();
    }
}

impl Client {
    fn hint(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// In the thread of the connections; dropped, it is given up there.
    async fn at_home<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ClientError>> + Send + 'static,
    ) -> Result<T, CallError> {
        match at_home(&self.home, work).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(CallError::Lost("the thread of the store's client has ended".into())),
        }
    }

    /// Hints to load again: whatever was missed in an outage is in the load that follows.
    async fn watch(self: Arc<Self>) {
        self.watched.notified().await;
        let prefix = format!("{}/", self.layout.base());
        let own = self.layout.key(Key::Status);
        // More than there is: the first answer tells where we are.
        let mut since = Revision(u64::MAX);
        let mut failing = false;
        loop {
            match self.members.watch(&prefix, since).await {
                Ok((revision, keys)) => {
                    since = revision;
                    let leads = self.leading.load(Ordering::SeqCst);
                    let is_news = |keys: &Vec<String>| keys.iter().any(|key| !leads || *key != own);
                    if std::mem::take(&mut failing) || keys.as_ref().is_none_or(is_news) {
                        self.hint();
                    }
                }
                Err(error) => {
                    tracing::debug!("{}: the watch has ended: {error}", self.operations.store());
                    failing = true;
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

#[async_trait]
impl Store for BuiltIn {
    async fn ready(&self, within: Duration) -> Result<(), StoreError> {
        let client = &self.client;
        let deadline = Instant::now() + within;
        let why = loop {
            let ready = async {
                client.read_leader(deadline).await?;
                if client.name.is_some() { client.session(None).await.map(|_| ()) } else { Ok(()) }
            };
            // The client says itself why there is no answer in time.
            match timeout(within + PAUSE, ready).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if Instant::now() >= deadline => break error.to_string(),
                Ok(Err(_)) => sleep(PAUSE).await,
                Err(_) => break "it accepts and does not answer".to_owned(),
            }
        };
        let cause = format!(
            "no answer within {} ms ({why}); check that a majority of the store's members run and that the section `store` names them",
            within.as_millis()
        );
        Err(client.operations.cannot_connect(cause, true))
    }

    async fn load(&self) -> Result<View, StoreError> {
        let client = &self.client;
        client.operations.run(Kind::Read, || format!("load {}", client.layout.base()), client.load_view()).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
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
            .run(Kind::Read, || format!("renew {}", client.layout.leader()), client.renew_leader(epoch))
            .await
    }

    async fn release(&self, epoch: Epoch) -> Result<bool, StoreError> {
        let client = &self.client;
        let work = client.release_leader(epoch);
        client.operations.run(Kind::Write, || format!("delete {}", client.layout.leader()), work).await
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

    fn reconfigure(&self, _: &Servers) {
        // Whoever is known to its members by a secret or a certificate stays so until the agent is started again.
    }

    fn suspend(&self) {
        self.stop();
    }

    async fn close(&self) -> Result<(), StoreError> {
        let client = &self.client;
        let end = async {
            match client.session.now() {
                Some(session) => client.command(Command::End { lease: session.id }).await.map(|_| ()),
                None => Ok(()),
            }
        };
        // Else the keeper would ask for another.
        self.tasks.iter().for_each(AbortHandle::abort);
        let closed = client.operations.run(Kind::Write, || "end the lease".into(), end).await;
        self.stop();
        if closed.is_ok() {
            session_file::forget(self.session_file.as_deref());
        }
        closed
    }
}
