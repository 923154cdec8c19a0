//! The world: virtual time, the queue of what is to happen, and everything that it happens to.
//!
//! One thread, one queue, one generator: a seed decides everything. After each event the [checkers](crate::checkers) look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgherd_ha::Rule;

use crate::checkers::{Checks, Violation};
use crate::clients::Clients;
use crate::clock::Clock;
use crate::consumer::Consumer;
use crate::disk::Disk;
use crate::entrypoint::{ENTRYPOINTS, EntryEvent, Entrypoint};
use crate::faults::{FaultEvent, Planned, storm};
use crate::mutants::Mutant;
use crate::network::{GIVE_UP, Network, Place, RETRANSMIT};
use crate::node::{AgentEvent, Node};
use crate::postgres::PostgresEvent;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::store::{Ensemble, StoreEvent, ToClient, ToServer};
use crate::trace::Trace;

/// As many as the lab has.
pub const NODES: usize = 3;

/// Bounds a run that does not come to its end; a usual one has some ten thousand.
const MOST_EVENTS: u64 = 5_000_000;

pub struct World {
    /// Since the world began.
    pub now: Duration,
    pub rng: Rng,
    pub scenario: Scenario,
    /// Nothing but orderly hand-overs happens in this run.
    pub orderly: bool,
    pub mutant: Option<Mutant>,
    pub network: Network,
    pub store: Ensemble,
    pub nodes: Vec<Node>,
    pub entrypoints: [Entrypoint; ENTRYPOINTS],
    pub clients: Clients,
    pub consumer: Consumer,
    pub checks: Checks,
    pub trace: Trace,
    /// The rules that decided something.
    pub rules: BTreeSet<Rule>,
    /// The storm is over.
    pub calm: bool,
    /// How late an overloaded machine lets an agent do something.
    pub overload: Duration,
    pub events: u64,
    pub faults: u64,
    /// What the storm consists of.
    pub storm: Vec<Planned>,
    /// `max_connections` as configured; a server takes it when it starts.
    pub limit: u64,
    queue: BTreeMap<(Duration, u64), Event>,
    number: u64,
}

#[derive(Debug)]
pub enum Event {
    /// A message on its way; it may meet a partition.
    Arrive {
        from: Place,
        to: Place,
        since: Duration,
        event: Box<Event>,
    },
    ToServer {
        server: usize,
        message: ToServer,
    },
    ToClient {
        node: usize,
        life: u64,
        message: ToClient,
    },
    Store(StoreEvent),
    Agent {
        node: usize,
        life: u64,
        event: AgentEvent,
    },
    /// From another agent, to the process that runs when it arrives.
    ToAgent {
        node: usize,
        event: AgentEvent,
    },
    Postgres {
        node: usize,
        postmaster: u64,
        event: PostgresEvent,
    },
    DirectClient(usize),
    Entry {
        entry: usize,
        event: EntryEvent,
    },
    /// A client's write, on its way to the postmaster that its entrypoint has chosen.
    Query {
        node: usize,
        postmaster: u64,
        entry: usize,
        write: u64,
    },
    Fault(FaultEvent),
}

/// The members' names, as the store and the agents use them.
pub fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

pub fn index(name: &str) -> Option<usize> {
    let number: usize = name.strip_prefix('n')?.parse().ok()?;
    number.checked_sub(1).filter(|node| *node < NODES)
}

impl World {
    pub fn new(seed: u64, mutant: Option<Mutant>, print: bool) -> World {
        let mut rng = Rng::new(seed);
        let scenario = Scenario::new(&mut rng.fork());
        let planned = storm(&scenario, &mut rng.fork());
        let store = Ensemble::new(&mut rng, scenario.tick, scenario.longest_session);
        let lies = scenario.lying_disks;
        let disk = |rng: &mut Rng| Disk { lies: rng.chance(lies), ..Disk::default() };
        let nodes = (0..NODES).map(|_| Node::new(Clock::new(&mut rng), disk(&mut rng))).collect();
        let entrypoints = std::array::from_fn(|_| Entrypoint::new(&mut rng));
        let mut world = World {
            now: Duration::ZERO,
            orderly: scenario.orderly(),
            scenario,
            mutant,
            network: Network::default(),
            store,
            nodes,
            entrypoints,
            clients: Clients::default(),
            consumer: Consumer::default(),
            checks: Checks::default(),
            trace: Trace::new(print),
            rules: BTreeSet::new(),
            calm: false,
            overload: Duration::ZERO,
            events: 0,
            faults: 0,
            storm: planned,
            queue: BTreeMap::new(),
            limit: 100,
            number: 0,
            rng,
        };
        let begins = format!("{:?}", world.scenario);
        world.note_who("world", || begins);
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.after(Duration::from_millis(3), Event::Store(StoreEvent::Sweep));
        self.after(Duration::from_millis(1), Event::Store(StoreEvent::Expire));
        for node in 0..NODES {
            let starts = self.rng.millis(0, 800);
            self.after(starts, Event::Fault(FaultEvent::StartAgent(node)));
            self.after(starts, Event::DirectClient(node));
        }
        self.begin_entrypoints();
        if let Some(standby) = &self.scenario.born_following {
            let (copied, alone) = (standby.upstream.is_none(), self.rng.millis(15_000, 40_000));
            if copied {
                self.after(Duration::from_secs(10), Event::Fault(FaultEvent::NameOtherCluster));
            }
            self.after(alone, Event::Fault(FaultEvent::StandAlone));
        }
    }

    /// Runs until `until`, or until a checker objects.
    pub fn run_until(&mut self, until: Duration, mut done: impl FnMut(&World) -> bool) -> Result<(), Violation> {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if at > until || self.events >= MOST_EVENTS {
                // Not lost: the next call goes on with it.
                let key = (at, self.number());
                self.queue.insert(key, event);
                break;
            }
            self.now = at;
            self.events += 1;
            self.dispatch(event);
            if let Some(violation) = self.check() {
                self.note_who("check", || violation.to_string());
                return Err(violation);
            }
            if done(self) {
                return Ok(());
            }
        }
        self.now = self.now.max(until);
        Ok(())
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Arrive { from, to, since, event } => self.arrive(from, to, since, event),
            Event::ToServer { server, message } => self.store_receives(server, message),
            Event::Store(event) => self.store_event(event),
            Event::ToClient { node, life, .. } | Event::Agent { node, life, .. } => self.post_to(node, life, event),
            Event::ToAgent { node, event } => self.post_to_whoever_runs(node, event),
            Event::Postgres { node, postmaster, event } => self.postgres_event(node, postmaster, event),
            Event::DirectClient(node) => self.direct_write(node),
            Event::Entry { entry, event } => self.entry_event(entry, event),
            Event::Query { node, postmaster, entry, write } => self.query_arrives(node, postmaster, entry, write),
            Event::Fault(event) => self.fault_event(event),
        }
    }

    pub fn after(&mut self, delay: Duration, event: Event) {
        let key = (self.now + delay, self.number());
        self.queue.insert(key, event);
    }

    /// A number that nothing else has.
    pub fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub fn send(&mut self, from: Place, to: Place, event: Event) {
        self.send_late(from, to, event, Duration::ZERO);
    }

    pub fn send_late(&mut self, from: Place, to: Place, event: Event, late: Duration) {
        let delay = self.network.delay(&mut self.rng) + late;
        let since = self.now;
        self.after(delay, Event::Arrive { from, to, since, event: Box::new(event) });
    }

    fn arrive(&mut self, from: Place, to: Place, since: Duration, event: Box<Event>) {
        if self.network.passes(from, to) {
            self.dispatch(*event);
        } else if self.now < since + GIVE_UP {
            let step = RETRANSMIT.as_micros();
            let next = (self.now.as_micros() / step + 1) * step - self.now.as_micros();
            let next = Duration::from_micros(u64::try_from(next).expect("at most a step"));
            self.after(next, Event::Arrive { from, to, since, event });
        }
    }

    pub fn note(&mut self, node: usize, what: &str, text: impl FnOnce() -> String) {
        self.trace.line(self.now, &name(node), &format!("{what:<6} {}", text()));
    }

    pub fn note_store(&mut self, server: usize, text: impl FnOnce() -> String) {
        self.trace.line(self.now, &format!("zk{}", server + 1), &text());
    }

    pub fn note_who(&mut self, who: &str, text: impl FnOnce() -> String) {
        self.trace.line(self.now, who, &text());
    }
}
