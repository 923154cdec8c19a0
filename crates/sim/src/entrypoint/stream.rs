//! The stream of lines from one agent: opened, listened to, lost and opened again.

use std::time::Duration;

use pgherd_ha::{Boot, RouteMessage};

use super::{EntryEvent, Entrypoint};
use crate::network::Place;
use crate::node::{AgentEvent, Process};
use crate::world::{Event, World};

/// Agents send a line every second; three missed ones are a lost stream.
const SILENCE: Duration = Duration::from_secs(3);

/// A request that waited longer for its first line makes every permit on the stream look shorter by as much: it is opened anew.
const LATE: Duration = Duration::from_millis(250);

/// A stream is opened anew this often, since two clocks run apart.
const REOPEN: Duration = Duration::from_secs(60);

/// Before a lost stream is tried again: the proxy's first pause.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub struct Stream {
    /// Never used twice; 0: none is open.
    number: u64,
    /// Before the agent was asked.
    requested: Boot,
    heard: Boot,
    /// A line has come.
    begun: bool,
}

impl World {
    pub(super) fn open_stream(&mut self, entry: usize, node: usize) {
        let (stream, boot) = (self.number(), self.entry_boot(entry));
        self.entrypoints[entry].streams[node] = Stream { number: stream, requested: boot, heard: boot, begun: false };
        let at = &self.nodes[node];
        let life = at.life;
        let reachable = self.network.connects(Place::Entry(entry), Place::Node(node)) && !at.host_down;
        if reachable && at.process == Process::Down {
            // Nobody listens on the port.
            return self.stream_lost(entry, node, stream);
        }
        let event = Event::Agent { node, life, event: AgentEvent::Listen { entry, stream } };
        self.send(Place::Entry(entry), Place::Node(node), event);
        self.entry_after(entry, SILENCE, EntryEvent::Silence { node, stream });
    }

    pub(super) fn line_arrives(&mut self, entry: usize, node: usize, stream: u64, message: &RouteMessage) {
        let boot = self.entry_boot(entry);
        let Entrypoint { streams, routes, .. } = &mut self.entrypoints[entry];
        let at = &mut streams[node];
        if at.number != stream {
            return;
        }
        at.heard = boot;
        let late = !std::mem::replace(&mut at.begun, true) && boot.since(at.requested) > LATE;
        routes.on_line(node, message, at.requested, boot);
        if late {
            self.entry_after(entry, AGAIN, EntryEvent::Open(node));
        }
    }

    pub(super) fn stream_lost(&mut self, entry: usize, node: usize, stream: u64) {
        let at = &mut self.entrypoints[entry];
        if at.streams[node].number == stream {
            at.streams[node] = Stream::default();
            at.routes.on_lost(node);
            self.entry_after(entry, AGAIN, EntryEvent::Open(node));
        }
    }

    pub(super) fn look_for_silence(&mut self, entry: usize, node: usize, stream: u64) {
        let boot = self.entry_boot(entry);
        let at = &self.entrypoints[entry].streams[node];
        if at.number != stream {
            return;
        }
        let silent = boot.since(at.heard);
        let old = boot.since(at.requested) >= REOPEN;
        if old && silent < SILENCE {
            self.open_stream(entry, node);
        } else if silent >= SILENCE {
            self.stream_lost(entry, node, stream);
        } else {
            self.entry_after(entry, SILENCE - silent, EntryEvent::Silence { node, stream });
        }
    }
}
