//! Entrypoints: each listens to what the agents push, and brings its clients' writes to the server that the newest permit names.
//!
//! As `crates/proxy` does it, with its times. It shares no clock with anybody. It can be frozen with a client's write in hand: what comes to it
//! waits, and when it wakes up it goes on where it was, with a route that may be long over.

mod routes;
mod session;
mod stream;

use std::time::Duration;

use pgherd_ha::{Boot, RouteMessage};

use crate::clients::Routed;
use crate::clock::Clock;
use crate::rng::Rng;
use crate::world::{Event, NODES, World};

use routes::Routes;
use stream::Stream;

/// Two see things at different times.
pub const ENTRYPOINTS: usize = 2;

#[derive(Debug)]
pub struct Entrypoint {
    clock: Clock,
    frozen: bool,
    /// What has come while it was frozen.
    waiting: Vec<Event>,
    streams: [Stream; NODES],
    routes: Routes,
    /// The write that its client waits for, by its number.
    session: Option<u64>,
    /// When a client was last told that its row is written.
    pub served: Duration,
}

#[derive(Debug)]
pub enum EntryEvent {
    /// Ask the agent of this node for its route.
    Open(usize),
    /// A line of that stream.
    Line { node: usize, stream: u64, message: Box<RouteMessage> },
    /// The connection of that stream has ended.
    Lost { node: usize, stream: u64 },
    /// Has anything come on that stream lately?
    Silence { node: usize, stream: u64 },
    /// The client has a row to write.
    Write,
    /// The server's answer to that write. `committed`: the row, and how it was written; `None`: it was refused.
    Answered { write: u64, node: usize, committed: Option<(u64, Routed)> },
    /// The client does not wait for that write any longer.
    GiveUp(u64),
}

impl Entrypoint {
    pub fn new(rng: &mut Rng) -> Entrypoint {
        Entrypoint {
            clock: Clock::new(rng),
            frozen: false,
            waiting: Vec::new(),
            streams: Default::default(),
            routes: Routes::default(),
            session: None,
            served: Duration::ZERO,
        }
    }
}

impl World {
    pub fn begin_entrypoints(&mut self) {
        for entry in 0..ENTRYPOINTS {
            for node in 0..NODES {
                let first = self.rng.millis(0, 500);
                self.entry_after(entry, first, EntryEvent::Open(node));
            }
            self.entry_after(entry, Duration::from_secs(1), EntryEvent::Write);
        }
    }

    pub fn entry_event(&mut self, entry: usize, event: EntryEvent) {
        if self.entrypoints[entry].frozen {
            return self.entrypoints[entry].waiting.push(Event::Entry { entry, event });
        }
        match event {
            EntryEvent::Open(node) => self.open_stream(entry, node),
            EntryEvent::Line { node, stream, message } => self.line_arrives(entry, node, stream, &message),
            EntryEvent::Lost { node, stream } => self.stream_lost(entry, node, stream),
            EntryEvent::Silence { node, stream } => self.look_for_silence(entry, node, stream),
            EntryEvent::Write => self.client_writes(entry),
            EntryEvent::Answered { write, node, committed } => self.server_answers(entry, write, node, committed),
            EntryEvent::GiveUp(write) => self.client_gives_up(entry, write),
        }
    }

    fn entry_boot(&self, entry: usize) -> Boot {
        self.entrypoints[entry].clock.boot(self.now)
    }

    pub fn entry_after(&mut self, entry: usize, delay: Duration, event: EntryEvent) {
        let takes = self.entrypoints[entry].clock.takes(delay);
        self.after(takes, Event::Entry { entry, event });
    }

    pub fn freeze_entrypoint(&mut self, entry: usize) {
        self.note_entry(entry, || "is stopped".into());
        self.entrypoints[entry].frozen = true;
    }

    pub fn wake_entrypoint(&mut self, entry: usize) {
        if std::mem::replace(&mut self.entrypoints[entry].frozen, false) {
            self.note_entry(entry, || "goes on".into());
            for event in std::mem::take(&mut self.entrypoints[entry].waiting) {
                self.after(Duration::ZERO, event);
            }
        }
    }

    /// Every entrypoint has brought a row to a server within the last second.
    pub fn entrypoints_serve(&self) -> bool {
        self.entrypoints.iter().all(|entry| self.now < entry.served + Duration::from_secs(1))
    }

    fn note_entry(&mut self, entry: usize, text: impl FnOnce() -> String) {
        self.note_who(&format!("entry{}", entry + 1), text);
    }
}
