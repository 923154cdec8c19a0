//! Keeps one lease alive, and asks for a new one when it is gone. Runs as one task on the lease's thread. That a lease is kept alive here proves
//! nothing of the leader key (`keys`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgherd_store::kv::{Answer, Command, LeaseId};
use pgherd_store::wire::Renewal;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{CallError, Client};
use crate::session_cell::Missing;
use crate::session_file::{self, Identity, Password};

/// Between two tries while the store does not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest time between two signs of life; a lease has at least four of them.
const QUIET: Duration = Duration::from_secs(2);

/// The lease that our keys are under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: LeaseId,
    pub granted: Duration,
}

/// The task's own state.
#[derive(Debug)]
pub struct Keeper {
    pub client: Arc<Client>,
    /// The file for the lease, and the member key that it is good for.
    pub file: Option<(PathBuf, String)>,
}

impl Keeper {
    /// Runs until it is aborted.
    pub async fn run(self) {
        let cell = &self.client.session;
        let mut ttl = cell.ttl.subscribe();
        self.take_up().await;
        loop {
            let wanted = *ttl.borrow_and_update();
            let pause = match self.round(wanted).await {
                Ok(session) => (session.granted / 4).min(QUIET),
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
        let id = LeaseId(identity.id.cast_unsigned());
        loop {
            match self.client.renew_lease(id, None).await {
                Ok(Renewal::Done { ttl_ms, .. }) => {
                    return self.publish(Session { id, granted: Duration::from_millis(ttl_ms) });
                }
                Ok(Renewal::NoLease) => return info!("store: the lease of this node's former process has expired"),
                Err(error) => {
                    self.client.session.set(Err(error.to_string().into()));
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Sees to it that there is a lease, of the wanted time, and that it lives.
    async fn round(&self, wanted: Duration) -> Result<Session, CallError> {
        let cell = &self.client.session;
        let Some(session) = cell.now() else { return self.grant(LeaseId(random()?), wanted).await };
        match self.client.renew_lease(session.id, None).await? {
            Renewal::Done { ttl_ms, .. } if Duration::from_millis(ttl_ms) == wanted => Ok(session),
            Renewal::Done { .. } => self.grant(session.id, wanted).await,
            Renewal::NoLease => {
                warn!("store: the lease has expired; asking for a new one");
                cell.set(Err("the lease has expired".into()));
                self.client.hint();
                self.grant(LeaseId(random()?), wanted).await
            }
        }
    }

    async fn grant(&self, id: LeaseId, wanted: Duration) -> Result<Session, CallError> {
        let ttl_ms = u64::try_from(wanted.as_millis()).unwrap_or(u64::MAX);
        match self.client.command(Command::Grant { lease: id, ttl_ms }).await? {
            Answer::Done { .. } => {}
            other => return Err(CallError::Lost(format!("the store granted no lease: {other:?}"))),
        }
        let session = Session { id, granted: Duration::from_millis(ttl_ms) };
        info!("store: a lease of {ttl_ms} ms");
        self.publish(session);
        Ok(session)
    }

    fn publish(&self, session: Session) {
        self.client.session.set(Ok(session));
        self.client.hint();
        self.save(session);
    }

    fn save(&self, session: Session) {
        let id = session.id.0.cast_signed();
        let identity = Identity { id, password: Password::default(), created_with: session.granted };
        session_file::save(self.file.as_ref(), identity);
    }
}

fn random() -> Result<u64, CallError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| CallError::NotSent(format!("no random number: {error}")))?;
    Ok(u64::from_be_bytes(bytes))
}

impl Client {
    /// The lease that new keys go under. `stale`: one that is known to be gone.
    pub(super) async fn session(&self, stale: Option<LeaseId>) -> Result<Session, CallError> {
        if stale.is_some() {
            self.session.check.notify_one();
        }
        self.session.get(|session| Some(session.id) == stale).await.map_err(|missing| match missing {
            Missing::Stale => CallError::NoLease,
            Missing::Because(why) => CallError::NotSent(format!("there is no lease ({why})")),
        })
    }
}
