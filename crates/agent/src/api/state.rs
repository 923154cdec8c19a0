//! What every request has at hand. Cheap to clone; a clone a connection.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use pgherd_dcs::Store;
use pgherd_ha::View;
use tokio::sync::{mpsc, oneshot};

use super::access::Access;
use super::command::{Command, QUEUE};
use super::failsafe::FailsafeQuestion;
use super::peer::PeerClient;
use super::reply;
use super::route_stream::RouteSource;
use super::snapshot::{PATRONI_VERSION, PermitCell, Snapshot};
use crate::config::ServerTokens;

/// The longest order is a restart of a server in crash recovery; after an hour nobody waits for the answer any more.
const LONGEST_ORDER: Duration = Duration::from_secs(3_600);

/// A round takes some milliseconds; one that waits for a server or a store that hangs must not keep a racing peer.
const OBSERVE: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
pub struct ApiState {
    /// Replaced whole by the daemon after each round.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Stored by the thread that renews the lease.
    pub permit: PermitCell,
    pub route: RouteSource,
    /// To the daemon; [`QUEUE`](super::QUEUE) of them may wait.
    pub commands: mpsc::Sender<Command>,
    /// To the loop: questions of a primary that has lost the store.
    pub failsafe: mpsc::Sender<FailsafeQuestion>,
    pub store: Arc<dyn Store>,
    pub peers: PeerClient,
    /// Replaced whole by the daemon when the configuration is reloaded.
    pub settings: Arc<ArcSwap<Settings>>,
}

/// The section `restapi` of the configuration, without `listen`.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub access: Access,
    pub server_tokens: ServerTokens,
    /// `http_extra_headers`
    pub extra_headers: Vec<(HeaderName, HeaderValue)>,
    /// `certfile` and what belongs to it; `None`: plain HTTP. Read for every connection anew.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Settings {
    /// The header `Server`.
    pub(super) fn server(&self) -> HeaderValue {
        match self.server_tokens {
            ServerTokens::Original => HeaderValue::from_static(concat!("pgherd/", env!("CARGO_PKG_VERSION"))),
            ServerTokens::Minimal => HeaderValue::try_from(format!("Patroni/{PATRONI_VERSION}"))
                .expect("the version is made of visible ASCII"),
            ServerTokens::ProductOnly => HeaderValue::from_static("Patroni"),
        }
    }
}

impl ApiState {
    /// Gives the daemon an order and waits for its answer; `Err` is the answer to give when it takes none.
    pub(super) async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Response> {
        let refused = |text| reply::text(StatusCode::SERVICE_UNAVAILABLE, text);
        let (sender, receiver) = oneshot::channel();
        if self.commands.try_send(order(sender)).is_err() {
            return Err(refused("pgherd takes no orders now: it is stopping, or too many wait already"));
        }
        match tokio::time::timeout(LONGEST_ORDER, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(refused("pgherd dropped the order: it is stopping")),
            Err(_) => Err(refused("the order takes longer than an hour; see the log of pgherd")),
        }
    }

    /// What the daemon sees now; what it last saw, if it is busy. A member that races or hands over decides on the
    /// answer.
    pub(super) async fn observed(&self) -> Arc<Snapshot> {
        let (sender, receiver) = oneshot::channel();
        // Everybody may ask, so half of the places are kept for orders, which need permission.
        let places_left = self.commands.capacity() > QUEUE / 2;
        if places_left && self.commands.try_send(Command::Observe { reply: sender }).is_ok() {
            // Late or dropped: the last snapshot says how old it is.
            let _ = tokio::time::timeout(OBSERVE, receiver).await;
        }
        self.snapshot.load_full()
    }

    /// Tells the daemon something that needs no answer. A full queue means that it is about to run a round anyway.
    pub(super) fn tell(&self, command: Command) {
        if let Err(error) = self.commands.try_send(command) {
            tracing::debug!(%error, "the daemon was not told");
        }
    }

    /// The cluster as the store shows it now, or as the daemon last saw it.
    pub(super) async fn view(&self) -> Option<Arc<View>> {
        match self.store.load().await {
            Ok(view) => Some(Arc::new(view)),
            Err(error) => {
                tracing::debug!(%error, "answering from the last load of the store");
                self.snapshot.load().view.as_ref().map(|view| view.view.clone())
            }
        }
    }
}
