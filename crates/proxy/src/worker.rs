//! A worker thread: its own event loop, its own sockets on every listener's address, the sessions that the kernel gave it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinSet};

use crate::control::Event;
use crate::entry::Entry;
use crate::net;
use crate::session::Client;

/// After an accept that failed for want of memory or files, so that others can end first.
const PAUSE: Duration = Duration::from_millis(100);

/// What all workers share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Client connections in all.
    pub slots: Arc<Semaphore>,
    pub events: mpsc::Sender<Event>,
    pub stop: watch::Receiver<bool>,
}

/// Serves until told to stop; then every session of this thread ends.
pub fn run(listeners: Vec<(usize, Arc<Entry>, std::net::TcpListener)>, mut shared: Shared) -> io::Result<()> {
    let runtime = runtime()?;
    let served = runtime.block_on(async {
        let mut accepting = JoinSet::new();
        for (index, entry, listener) in listeners {
            let listener = TcpListener::from_std(listener)?;
            accepting.spawn(accept(index, entry, listener, shared.clone()));
        }
        tokio::select! {
            // An error means that the other end is gone, which is the same word.
            _ = shared.stop.wait_for(|stop| *stop) => Ok(()),
            Some(accepted) = accepting.join_next() => Err(unasked("an accepting task", accepted)),
        }
    });
    // Without waiting for names that are looked up.
    runtime.shutdown_background();
    served
}

/// A task that should last as long as its thread has ended.
pub fn unasked(task: &str, ended: Result<(), JoinError>) -> io::Error {
    match ended {
        Ok(()) => io::Error::other(format!("{task} ended")),
        Err(error) => io::Error::other(format!("{task} ended: {error}")),
    }
}

/// An event loop of one thread.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(net::LOOKUPS)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
}

async fn accept(index: usize, entry: Arc<Entry>, listener: TcpListener, shared: Shared) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(listener = entry.config.name, %error, "a client could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // As HAProxy: above `maxconn` clients stay in the kernel's queue until another leaves, but for this one a socket, which
        // takes its places after it has come: a socket where nobody comes holds none. The listener's own place first, so that
        // a full listener holds none of the others'.
        let local = Arc::clone(&entry.slots).acquire_owned().await;
        let global = Arc::clone(&shared.slots).acquire_owned().await;
        let (Ok(local), Ok(global)) = (local, global) else { return };
        let client = Client { stream, listener: index, entry: Arc::clone(&entry), events: shared.events.clone() };
        tokio::spawn(serve(client, [global, local]));
    }
}

async fn serve(client: Client, places: [OwnedSemaphorePermit; 2]) {
    let entry = Arc::clone(&client.entry);
    let now = entry.clients.fetch_add(1, Relaxed) + 1;
    entry.most_clients.fetch_max(now, Relaxed);
    entry.total_clients.fetch_add(1, Relaxed);
    net::tune(&client.stream);
    client.serve().await;
    entry.clients.fetch_sub(1, Relaxed);
    drop(places);
}
