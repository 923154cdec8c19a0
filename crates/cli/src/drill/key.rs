//! When the store itself freed the old leader's key: what of an outage is the store's lease, and what is pgherd's.
//!
//! An onlooker of the drill's own: it looks whenever the store says that something changed, and some times a second besides.

use std::sync::Arc;
use std::time::Duration;

use pgherd_dcs::{Store, StoreOptions, ZooKeeperOptions};
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
    pub async fn start(store_port: u16, scope: &str) -> Option<KeyWatch> {
        let options = StoreOptions::ZooKeeper(ZooKeeperOptions {
            hosts: vec![format!("127.0.0.1:{store_port}")],
            namespace: "service".into(),
            scope: scope.to_owned(),
            name: None,
            ttl: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(3),
            session_file: None,
        });
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
