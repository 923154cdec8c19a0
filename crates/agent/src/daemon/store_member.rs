//! This node's member of the built-in store: on a thread of its own, so that nothing else of the agent delays it, and it delays nothing.

use std::thread::JoinHandle;

use anyhow::Context as _;
use pgherd_store::member::{MemberOptions, serve};
use tokio::sync::oneshot;

#[derive(Debug)]
pub struct StoreMember {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StoreMember {
    /// Returns when it runs, which does not mean that the store has a quorum.
    pub async fn start(options: MemberOptions) -> anyhow::Result<StoreMember> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (report, reported) = oneshot::channel::<anyhow::Result<()>>();
        let run = move || {
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
        let thread = std::thread::Builder::new().name("store".into()).spawn(run).context("a thread for the store")?;
        reported.await.context("the thread of the store has ended")??;
        Ok(StoreMember { stop: Some(stop), thread: Some(thread) })
    }

    /// In order, and returns when it is done: what is on its way to the disk gets there.
    pub fn stop(mut self) {
        drop(self.stop.take());
        // A panic there was logged there.
        drop(self.thread.take().map(JoinHandle::join));
    }
}
