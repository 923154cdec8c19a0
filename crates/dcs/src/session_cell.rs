//! The lease that a client has now, or why it has none: what the task that keeps it and the operations that need it share. Of etcd and the built-in store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How long an operation waits for a lease before it fails: about what moving to another server takes.
const RECONNECT: Duration = Duration::from_millis(500);

type State<S> = Result<S, Arc<str>>;

#[derive(Debug)]
pub struct SessionCell<S> {
    state: watch::Sender<State<S>>,
    /// The time that is to be asked for.
    pub ttl: watch::Sender<Duration>,
    /// Somebody has found the lease gone.
    pub check: Notify,
}

/// There is no lease to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// But that which is known to be gone.
    Stale,
    Because(Arc<str>),
}

impl<S: Copy> SessionCell<S> {
    pub fn new(ttl: Duration) -> SessionCell<S> {
        SessionCell {
            state: watch::Sender::new(Err("no server has been reached yet".into())),
            ttl: watch::Sender::new(ttl),
            check: Notify::new(),
        }
    }

    pub fn set(&self, state: State<S>) {
        self.state.send_modify(|now| *now = state);
    }

    pub fn set_ttl(&self, ttl: Duration) {
        self.ttl.send_if_modified(|now| std::mem::replace(now, ttl) != ttl);
    }

    pub fn now(&self) -> Option<S> {
        self.state.borrow().as_ref().ok().copied()
    }

    /// The lease that new keys go under, waited for only as long as getting one takes. `stale`: those that are known to be gone.
    pub async fn get(&self, stale: impl Fn(&S) -> bool) -> Result<S, Missing> {
        let mut state = self.state.subscribe();
        let good = |state: &State<S>| state.as_ref().is_ok_and(|session| !stale(session));
        let _ = timeout(RECONNECT, state.wait_for(good)).await;
        match &*state.borrow() {
            Ok(session) if !stale(session) => Ok(*session),
            Ok(_) => Err(Missing::Stale),
            Err(why) => Err(Missing::Because(why.clone())),
        }
    }
}
