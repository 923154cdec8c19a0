//! `GET /pgherd/route`: what this node is to an entrypoint, as a stream of JSON lines, pushed the moment it changes.
//!
//! What is left of the permit is computed when a line is made, from the permit that the lease's thread last stored. Not
//! here: the meaning of a line (`pgherd_ha::RouteMessage`). Tested below.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures::stream;
use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, NodeRoute, Permit, RouteMessage};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::snapshot::PermitCell;
use super::{ApiState, reply};

/// How many entrypoints may listen. A stream costs some ten kilobytes; a cluster has an entrypoint or two, and an
/// application host with one of its own is still one stream. Half of the server's connections stay for everybody else.
pub const MAX_STREAMS: usize = 64;

/// At least this often a line goes out.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// And at most this often while a permit runs out that nobody renews.
const SHORTEST: Duration = Duration::from_millis(100);

/// Where the route comes from, and how many may still listen.
#[derive(Clone, Debug)]
pub struct RouteSource {
    pub(super) node: watch::Receiver<Arc<NodeRoute>>,
    pub(super) free: Arc<Semaphore>,
}

impl RouteSource {
    /// `node` is set by the daemon, for the first time after its first round; its `epoch`, its times and `paused` are checked against the
    /// permit at each line.
    pub fn new(node: watch::Receiver<Arc<NodeRoute>>) -> RouteSource {
        RouteSource { node, free: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }
}

pub fn stream_route(api: &ApiState, received: Boot) -> Response {
    let Ok(slot) = api.route.free.clone().try_acquire_owned() else {
        let text = format!("{MAX_STREAMS} entrypoints listen already; ask GET / instead");
        // Not 503, which a plain Patroni answers to any path that it does not know.
        return reply::text(StatusCode::TOO_MANY_REQUESTS, text);
    };
    let lines = Lines { node: api.route.node.clone(), permit: api.permit.clone(), received, first: true, _slot: slot };
    let body = Body::from_stream(stream::unfold(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((Ok::<_, Infallible>(line), lines))
    }));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// One listener. It waits for the daemon (or the clock), and ends when the daemon or the client goes away.
struct Lines {
    node: watch::Receiver<Arc<NodeRoute>>,
    permit: PermitCell,
    received: Boot,
    first: bool,
    _slot: OwnedSemaphorePermit,
}

impl Lines {
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::replace(&mut self.first, false) {
            // What stands there before the daemon's first round is not so; an entrypoint would end the sessions of a primary for it.
            self.node.changed().await.ok()?;
        } else {
            let wait = heartbeat(&self.permit.load(), boot_now());
            if let Ok(Err(_)) = tokio::time::timeout(wait, self.node.changed()).await {
                return None;
            }
        }
        let node = self.node.borrow_and_update().clone();
        let message = message(&node, &self.permit.load(), self.received, boot_now());
        let mut line = serde_json::to_vec(&message).ok()?;
        line.push(b'\n');
        Some(line.into())
    }
}

/// Short leases are renewed often, and the listener must hear of it well before it would give the node up.
fn heartbeat(permit: &Permit, now: Boot) -> Duration {
    match permit.remaining(now) {
        Duration::ZERO => HEARTBEAT,
        left => (left / 4).clamp(SHORTEST, HEARTBEAT),
    }
}

/// The line for this moment. An epoch without a permit for it is not passed on: nobody may write under it.
fn message(node: &NodeRoute, permit: &Permit, received: Boot, now: Boot) -> RouteMessage {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let paused = matches!(permit, Permit::Paused { .. });
    let epoch = node.epoch.filter(|epoch| permit.allows_writer(now) && permit.epoch() == Some(*epoch));
    // In pause it has no end, and what has none is not passed on as a time.
    let left = permit.allows_writer(now).then(|| millis(permit.remaining(now))).filter(|_| !paused);
    RouteMessage {
        elapsed_ms: millis(now.since(received)),
        node: NodeRoute {
            epoch,
            permit_ms: left.filter(|_| epoch.is_some()),
            stopping_ms: left.filter(|_| node.stopping_ms.is_some()),
            paused,
            ..node.clone()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgherd_ha::Epoch;

    #[test]
    fn a_line_carries_what_is_left_of_the_permit_and_no_epoch_without_one() {
        let at = Boot::from_millis;
        let until = |epoch, deadline| Permit::Until { epoch: Epoch(epoch), deadline: at(deadline) };
        let paused = |epoch: Option<u64>| Permit::Paused { epoch: epoch.map(Epoch) };
        // (epoch of the daemon, permit, at 1,500) -> (epoch, permit_ms, paused)
        let cases = [
            (Some(7), until(7, 4_000), (Some(7), Some(2_500), false)),
            (Some(7), until(7, 1_500), (None, None, false)),
            (Some(6), until(7, 4_000), (None, None, false)),
            (None, until(7, 4_000), (None, None, false)),
            (Some(7), Permit::None, (None, None, false)),
            (Some(7), paused(Some(7)), (Some(7), None, true)),
            (Some(7), paused(None), (None, None, true)),
        ];
        for (epoch, permit, expected) in cases {
            let node = NodeRoute { epoch: epoch.map(Epoch), ..super::super::fixture::node_route() };
            let line = message(&node, &permit, at(1_000), at(1_500));
            assert_eq!(line.elapsed_ms, 500);
            let seen = (line.node.epoch.map(|epoch| epoch.0), line.node.permit_ms, line.node.paused);
            assert_eq!(seen, expected, "{permit:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_goes_out_at_once_then_on_every_change_and_at_least_every_second() {
        let (daemon, mut node) = watch::channel(Arc::new(super::super::fixture::node_route()));
        node.mark_changed();
        let source = RouteSource::new(node);
        let permit = PermitCell::default();
        let slot = source.free.clone().try_acquire_owned().expect("a free place");
        let mut lines = Lines { node: source.node, permit, received: boot_now(), first: true, _slot: slot };
        let started = tokio::time::Instant::now();
        let mut line = async || {
            let line = lines.next().await.expect("a line");
            let message: RouteMessage = serde_json::from_slice(&line).expect("a message");
            (message.node.state, started.elapsed().as_millis())
        };
        assert_eq!(line().await, ("running".into(), 0));
        let stopping = Arc::new(NodeRoute { state: "stopping".into(), ..super::super::fixture::node_route() });
        daemon.send_replace(stopping.clone());
        assert_eq!(line().await, ("stopping".into(), 0));
        // A change that the daemon does not announce, such as a position, goes along with the next line.
        daemon.send_if_modified(|node| {
            *node = Arc::new(NodeRoute { state: "stopped".into(), ..NodeRoute::clone(&stopping) });
            false
        });
        assert_eq!(line().await, ("stopped".into(), 1_000));
        drop(daemon);
        assert_eq!(lines.next().await, None);
    }

    #[test]
    fn the_heartbeat_is_well_within_a_short_permit() {
        for (left, expected) in [(6_500, 1_000), (2_000, 500), (200, 100), (0, 1_000)] {
            let permit = Permit::Until { epoch: Epoch(1), deadline: Boot::from_millis(left) };
            assert_eq!(heartbeat(&permit, Boot::ZERO), Duration::from_millis(expected), "{left} ms left");
        }
        assert_eq!(heartbeat(&Permit::Paused { epoch: None }, Boot::ZERO), HEARTBEAT);
    }
}
