//! Keeps one lease alive: asks for it, says every now and then that we live, and asks for a new one when it is gone or its time is
//! to be another. Runs as one task on the lease's thread. That a lease is kept alive here proves nothing (`lease`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::Client;
use super::gateway::Again;
use super::verdict::CallError;
use super::wire::{GrantAnswer, KeepAlive, KeepAliveAnswer};
use crate::session_cell::Missing;
use crate::session_file::{self, Identity, Password};

/// Between two tries while the store does not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest time between two signs of life; a lease has at least four of them.
const QUIET: Duration = Duration::from_secs(2);

/// Between two questions for the servers of the cluster, which hardly ever change.
const LEARN: Duration = Duration::from_secs(60);

/// The lease that our keys are under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: i64,
    /// What the store granted.
    pub granted: Duration,
    /// The lease before it, of another time, as long as keys may still be under it.
    pub former: Option<i64>,
}

impl Session {
    pub fn owns(&self, lease: i64) -> bool {
        lease != 0 && (lease == self.id || Some(lease) == self.former)
    }
}

/// The task's own state.
#[derive(Debug)]
pub struct Keeper {
    pub client: Arc<Client>,
    /// The file for the lease, and the member key that it is good for.
    pub file: Option<(PathBuf, String)>,
    /// Whether the cluster is asked for its servers.
    pub learns: bool,
}

impl Keeper {
    /// Runs until it is aborted.
    pub async fn run(self) {
        let cell = &self.client.session;
        let mut ttl = cell.ttl.subscribe();
        self.take_up().await;
        let mut learned: Option<Instant> = None;
        let mut warned = false;
        loop {
            let wanted = *ttl.borrow_and_update();
            let pause = match self.round(wanted).await {
                Ok(session) => {
                    if !std::mem::replace(&mut warned, true)
                        && let Some(version) = self.client.gateway.unsafe_version()
                    {
                        warn!(
                            "etcd {version}: a leader of this version that was frozen may end leases when it is not the leader any \
                             more, before their time: a standby could be promoted beside a primary that has not noticed yet; \
                             update etcd to 3.4.31, 3.5.13 or later"
                        );
                    }
                    if self.learns && learned.is_none_or(|at| at.elapsed() > LEARN) {
                        learned = Some(Instant::now());
                        // The configured ones will do.
                        let _ = self.client.gateway.learn().await;
                    }
                    (session.granted / 4).min(if session.former.is_some() { PAUSE } else { QUIET })
                }
                Err(error) => {
                    // A lease that was not heard of may well live.
                    if cell.now().is_none() {
                        cell.set(Err(error.to_string().into()));
                    }
                    PAUSE
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = cell.check.notified() => {}
                _ = ttl.changed() => {}
            }
        }
    }

    /// The lease of this node's former process, if it lives.
    async fn take_up(&self) {
        let Some(identity) = self.file.as_ref().and_then(|(path, member)| session_file::read(path, member)) else {
            return;
        };
        loop {
            match self.client.keep_alive(identity.id).await {
                Ok(Some(answer)) => {
                    let granted = Duration::from_secs(answer.ttl.into());
                    return self.publish(Session { id: identity.id, granted, former: None });
                }
                Ok(None) => {
                    return info!("etcd: the lease {:x} of this node's former process has expired", identity.id);
                }
                Err(CallError::NoLease) => return,
                // Refused credentials, too, may be mended under way, and then the lease may still live.
                Err(error) => {
                    self.client.session.set(Err(error.to_string().into()));
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Sees to it that there is a lease, of the wanted time, and that it lives.
    async fn round(&self, wanted: Duration) -> Result<Session, CallError> {
        let client = &self.client;
        let Some(session) = client.session.now() else { return self.grant(wanted, None).await };
        if client.keep_alive(session.id).await?.is_none() {
            warn!("etcd: the lease {:x} has expired; asking for a new one", session.id);
            client.session.set(Err("the lease has expired".into()));
            client.hint();
            return self.grant(wanted, None).await;
        }
        if let Some(former) = session.former {
            client.keep_alive(former).await?;
            client.move_keys(session.id, former).await?;
            let moved = Session { former: None, ..session };
            self.publish(moved);
            return Ok(moved);
        }
        // What is granted may differ from what is asked for; so compare what was asked.
        if client.asked_for() != seconds(wanted) { self.grant(wanted, Some(session.id)).await } else { Ok(session) }
    }

    async fn grant(&self, wanted: Duration, former: Option<i64>) -> Result<Session, CallError> {
        let asked = seconds(wanted);
        let answer: GrantAnswer =
            self.client.gateway.call("lease/grant", json!({"TTL": asked.to_string()}), Again::Yes).await?;
        if answer.id == 0 || answer.ttl == 0 {
            return Err(CallError::Lost("the store granted no lease".into()));
        }
        self.client.set_asked_for(asked);
        let session = Session { id: answer.id, granted: Duration::from_secs(answer.ttl.into()), former };
        info!("etcd: lease {:x} of {} s", session.id, answer.ttl);
        self.publish(session);
        Ok(session)
    }

    fn publish(&self, session: Session) {
        self.client.session.set(Ok(session));
        self.client.hint();
        // Until the keys have moved the file keeps the former lease, which they are under.
        if session.former.is_none() {
            self.save(session);
        }
    }

    fn save(&self, session: Session) {
        let identity = Identity { id: session.id, password: Password::default(), created_with: session.granted };
        session_file::save(self.file.as_ref(), identity);
    }
}

/// etcd counts whole seconds: never less than what is asked for.
fn seconds(ttl: Duration) -> u64 {
    ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)
}

impl Client {
    /// `None`: there is no such lease.
    pub(super) async fn keep_alive(&self, lease: i64) -> Result<Option<KeepAlive>, CallError> {
        let body = json!({"ID": lease.to_string()});
        let answer: KeepAliveAnswer = self.gateway.call("lease/keepalive", body, Again::Yes).await?;
        let answer = answer.result.ok_or_else(|| CallError::Lost("the answer on the lease is empty".into()))?;
        Ok((answer.ttl != 0).then_some(answer))
    }

    /// The lease that new keys go under. `stale`: one that is known to be gone.
    pub(super) async fn session(&self, stale: Option<i64>) -> Result<Session, CallError> {
        if stale.is_some() {
            self.session.check.notify_one();
        }
        self.session.get(|session| Some(session.id) == stale).await.map_err(|missing| match missing {
            Missing::Stale => CallError::NoLease,
            Missing::Because(why) => CallError::NotSent(format!("there is no lease ({why})")),
        })
    }
}
