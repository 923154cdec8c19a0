//! When the store itself freed the old leader's key: what of an outage is the store's lease, and what is pgherd's.
//!
//! An onlooker of the drill's own: it looks whenever the store says that something changed, and some times a second besides.

use std::sync::Arc;
use std::time::Duration;

use pgherd_dcs::{Servers, Store, StoreOptions};
use pgherd_ha::Epoch;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// A change that no watch announced is seen this late at most.
const LOOK: Duration = Duration::from_millis(50);

/// Looks at the leader key until it is dropped.
#[derive(Debug)]
pub struct KeyWatch {
    freed: watch::Receiver<Option<Instant>>,
    task: JoinHandle<()>,
}

impl KeyWatch {
    /// Notes the leader's epoch and begins to look; `None` if the store shows no leader.
    pub async fn start(servers: Servers, scope: &str) -> Option<KeyWatch> {
        let options = StoreOptions {
            servers,
            namespace: "service".into(),
            scope: scope.to_owned(),
            name: None,
            ttl: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(3),
            session_file: None,
        };
        let store = pgherd_dcs::open(&options).ok()?;
        let epoch = store.load().await.ok()?.leader?.epoch;
        let (sender, freed) = watch::channel(None);
        Some(KeyWatch { freed, task: tokio::spawn(look(store, epoch, sender)) })
    }

    /// How long after `since` the key was gone, if it went.
    pub fn freed_after(&self, since: Instant) -> Option<Duration> {
        self.freed.borrow().map(|freed| freed.saturating_duration_since(since))
    }
}

impl Drop for KeyWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Under which epoch the primary served, as it says itself: a leader key that was taken anew has another one.
#[derive(Clone, Copy, Debug)]
pub struct Epochs {
    pub before: Option<u64>,
    pub after: Option<u64>,
}

impl Epochs {
    /// An epoch that could not be read says nothing here; see [`unknown`](Self::unknown).
    pub fn differ(self) -> bool {
        self.before.zip(self.after).is_some_and(|(before, after)| before != after)
    }

    /// What could hide another leader, in sentences.
    pub fn unknown(self) -> impl Iterator<Item = String> {
        let unknown = [("before", self.before), ("after", self.after)].into_iter().filter(|(_, epoch)| epoch.is_none());
        unknown.map(|(when, _)| {
            format!("the primary did not say its epoch {when} the fault, so another leader may have gone unseen")
        })
    }
}

async fn look(store: Arc<dyn Store>, epoch: Epoch, freed: watch::Sender<Option<Instant>>) {
    let mut changes = store.changes();
    loop {
        changes.mark_unchanged();
        // A store that does not answer shows nothing; the next look does.
        if let Ok(view) = store.load().await
            && view.leader.is_none_or(|leader| leader.epoch != epoch)
        {
            freed.send_replace(Some(Instant::now()));
            return;
        }
        // Whichever comes first; a store whose client has ended announces nothing more.
        let _ = timeout(LOOK, changes.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_could_not_be_read_is_no_proof_of_the_same_leader() {
        for (before, after, differ, unknown) in [
            (Some(7), Some(7), false, 0),
            (Some(7), Some(8), true, 0),
            (None, Some(7), false, 1),
            (Some(7), None, false, 1),
            (None, None, false, 2),
        ] {
            let epochs = Epochs { before, after };
            assert_eq!((epochs.differ(), epochs.unknown().count()), (differ, unknown), "{epochs:?}");
        }
    }
}
