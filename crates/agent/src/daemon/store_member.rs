//! This node's member of the built-in store: on a thread of its own, so that nothing else of the agent delays it, and it delays nothing.

use std::time::Duration;

use anyhow::Context as _;
use pgherd_store::member::{MemberOptions, serve};
use tokio::sync::oneshot;

#[derive(Debug)]
pub struct StoreMember {
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

/// How long its end may take.
const STOP: Duration = Duration::from_secs(5);

impl StoreMember {
    /// Returns when it runs, which does not mean that the store has a quorum.
    pub async fn start(options: MemberOptions) -> anyhow::Result<StoreMember> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (report, reported) = oneshot::channel::<anyhow::Result<()>>();
        let (ends, ended) = oneshot::channel::<()>();
        let run = move || {
            let _ends = ends;
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(report.send(Err(error.into()))),
            };
            let mut report = Some(report);
            let stopped = async {
                // Told, or whoever could tell is gone.
                let _ = stopped.await;
            };
            let started = || drop(report.take().map(|report| report.send(Ok(()))));
            if let Err(error) = runtime.block_on(serve(options, stopped, started)) {
                drop(report.take().map(|report| report.send(Err(error.into()))));
            }
        };
        std::thread::Builder::new().name("store".into()).spawn(run).context("a thread for the store")?;
        reported.await.context("the thread of the store has ended")??;
        Ok(StoreMember { stop: Some(stop), ended })
    }

    /// In order: what is on its way to the disk gets there, unless the disk hangs.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if tokio::time::timeout(STOP, self.ended).await.is_err() {
            tracing::warn!("the store's member has not ended within {} s; its disk may hang", STOP.as_secs());
        }
    }
}
