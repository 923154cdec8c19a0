//! What the agent pushes to the entrypoints: `crates/agent/src/api/route_stream.rs`, a line at each change and at least every second.

use std::time::Duration;

use pgherd_ha::{Boot, Epoch, NodeRoute, Permit, RouteMessage};

use super::AgentEvent;
use crate::entrypoint::EntryEvent;
use crate::network::Place;
use crate::world::{Event, World};

/// At least this often a line goes out, and at most that often while a permit runs out that nobody renews.
const HEARTBEAT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(100));

/// Those who listen, and what they were told last.
#[derive(Debug, Default)]
pub struct Listeners {
    streams: Vec<Listener>,
    published: Option<Published>,
}

#[derive(Clone, Copy, Debug)]
struct Listener {
    entry: usize,
    stream: u64,
    received: Boot,
}

/// The node at the end of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Published {
    in_recovery: Option<bool>,
    epoch: Option<Epoch>,
    paused: bool,
}

impl World {
    /// The end of a round: what is news goes out at once.
    pub fn publish(&mut self, node: usize) {
        let now = self.now;
        let server = self.nodes[node].postgres.server.as_ref().filter(|server| server.answers(now));
        let in_recovery = server.map(|server| server.in_recovery);
        let permit = self.nodes[node].permit();
        let admits = self.daemon(node).admits;
        let epoch = permit.epoch().filter(|_| admits && in_recovery == Some(false));
        let news = Published { in_recovery, epoch, paused: matches!(permit, Permit::Paused { .. }) };
        if self.daemon(node).listeners.published.replace(news) != Some(news) {
            self.push_route(node);
        }
    }

    pub fn listen(&mut self, node: usize, entry: usize, stream: u64) {
        let received = self.boot(node);
        let listeners = &mut self.daemon(node).listeners;
        listeners.streams.retain(|listener| listener.entry != entry);
        listeners.streams.push(Listener { entry, stream, received });
        self.push_route(node);
    }

    pub fn route_heartbeat(&mut self, node: usize) {
        self.push_route(node);
        let left = self.nodes[node].permit().remaining(self.boot(node));
        let (longest, shortest) = HEARTBEAT;
        let next = if left.is_zero() { longest } else { (left / 4).clamp(shortest, longest) };
        self.agent_after(node, next, AgentEvent::RouteHeartbeat);
    }

    /// The process has ended: its connections are closed.
    pub fn close_streams(&mut self, node: usize) {
        let Some(daemon) = &mut self.nodes[node].agent else { return };
        for Listener { entry, stream, .. } in std::mem::take(&mut daemon.listeners.streams) {
            let event = EntryEvent::Lost { node, stream };
            self.send(Place::Node(node), Place::Entry(entry), Event::Entry { entry, event });
        }
    }

    fn push_route(&mut self, node: usize) {
        let boot = self.boot(node);
        let permit = self.nodes[node].permit();
        let listeners = &self.daemon(node).listeners;
        let Some(published) = listeners.published else { return };
        for Listener { entry, stream, received } in listeners.streams.clone() {
            let message = Box::new(line(published, permit, received, boot));
            let event = EntryEvent::Line { node, stream, message };
            self.send(Place::Node(node), Place::Entry(entry), Event::Entry { entry, event });
        }
    }
}

/// An epoch without a permit for it is not passed on.
fn line(published: Published, permit: Permit, received: Boot, now: Boot) -> RouteMessage {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let Published { in_recovery, epoch, .. } = published;
    let paused = matches!(permit, Permit::Paused { .. });
    let epoch = epoch.filter(|epoch| permit.allows_writer(now) && permit.epoch() == Some(*epoch));
    let node = NodeRoute {
        // What is only shown to people is left empty.
        name: String::new(),
        scope: String::new(),
        address: String::new(),
        state: String::new(),
        running: in_recovery.is_some(),
        in_recovery,
        epoch,
        stopping_ms: None,
        permit_ms: epoch.filter(|_| !paused).map(|_| millis(permit.remaining(now))),
        paused,
        timeline: None,
        lsn: None,
        lag: None,
        noloadbalance: false,
        standby_leader: false,
    };
    RouteMessage { elapsed_ms: millis(now.since(received)), node }
}
