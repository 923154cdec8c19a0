//! One machine: its PostgreSQL, which survives the agent, and the agent's process, which can be killed, stopped and started again.
//!
//! The process drives `pgherd_ha::Agent` in the order of the daemon (`crates/agent/src/daemon`): load, observe, decide, carry out, tell, wait;
//! beside it the keeper renews the lease. While the process is stopped (SIGSTOP) everything that comes to it waits, and its timers with
//! it; afterwards it goes on where it was, with a plan that may be stale.

mod client;
mod execute;
mod jobs;
mod keeper;
mod lease;
mod member;
mod observe;
mod peers;
mod round;

use std::collections::VecDeque;
use std::time::Duration;

use pgherd_ha::{Boot, Now, Permit, Wall};

pub use jobs::Stage;
pub use round::Daemon;

/// What an operator asks of this node, as its loop takes it.
pub fn request(request: pgherd_ha::Request) -> round::News {
    round::News::Request(request)
}

use crate::mutants::Mutant;
use crate::postgres::Postgres;
use crate::store::{SessionId, ToClient};
use crate::world::{Event, World};

#[derive(Debug)]
pub struct Node {
    pub postgres: Postgres,
    pub process: Process,
    /// Rises with each start and end of the process; what was meant for an earlier one is dropped.
    pub life: u64,
    /// What waits for a stopped process.
    inbox: VecDeque<Event>,
    pub agent: Option<Box<Daemon>>,
    /// The file with the session, on disk.
    session_file: Option<SessionId>,
    /// `CLOCK_BOOTTIME` at the beginning of the world.
    boot_offset: Duration,
    /// The wall clock, which somebody may set.
    pub wall_offset_ms: i64,
    /// What the process does the next time it has an action in hand.
    pub ambush: Option<Ambush>,
    /// A host that is down starts nothing.
    pub host_down: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    Down,
    Running,
    /// SIGSTOP.
    Stopped,
}

/// A fault at the worst moment: between the decision and its action.
#[derive(Clone, Copy, Debug)]
pub enum Ambush {
    Kill,
    Hang(Duration),
}

/// What comes to an agent's process from itself and from its machine.
#[derive(Debug)]
pub enum AgentEvent {
    /// The step of the loop that was waited for, by its number.
    Step(u64),
    /// The wake-up of the decision.
    Wake(u64),
    RequestTimeout(u64),
    Beat(u64),
    Connect(u64),
    Keeper,
    Job(u64, Stage),
    Peers(pgherd_ha::PeerPoll),
    ServerExit,
    Terminate,
}

impl Node {
    pub fn new(boot_offset: Duration) -> Node {
        Node {
            postgres: Postgres::empty(),
            process: Process::Down,
            life: 0,
            inbox: VecDeque::new(),
            agent: None,
            session_file: None,
            boot_offset,
            wall_offset_ms: 0,
            ambush: None,
            host_down: false,
        }
    }

    pub fn lose_session_file(&mut self) {
        self.session_file = None;
    }

    pub fn permit(&self) -> Permit {
        self.agent.as_ref().map_or(Permit::None, |agent| agent.lease.permit)
    }
}

impl World {
    pub fn boot(&self, node: usize) -> Boot {
        Boot(self.now + self.nodes[node].boot_offset)
    }

    /// Both clocks of the node.
    pub fn clocks(&self, node: usize) -> Now {
        let millis = i64::try_from(self.now.as_millis()).expect("a run lasts minutes");
        let wall = 1_750_000_000_000 + millis + self.nodes[node].wall_offset_ms;
        Now { boot: self.boot(node), wall: Wall::from_millisecond(wall).expect("a time of this century") }
    }

    /// The daemon of a running process.
    pub fn daemon(&mut self, node: usize) -> &mut Daemon {
        self.nodes[node].agent.as_mut().expect("events of a process come only while it lives")
    }

    pub fn start_agent(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        if at.process != Process::Down || at.host_down {
            return;
        }
        at.life += 1;
        at.process = Process::Running;
        at.inbox.clear();
        let session = at.session_file;
        let server = self.rng.index(self.store.servers.len());
        let daemon = Daemon::new(self.scenario.settings(node), session, server);
        self.nodes[node].agent = Some(Box::new(daemon));
        self.note(node, "agent", || "starts".into());
        let now = self.boot(node);
        self.daemon(node).lease.round_done = now;
        self.connect(node);
        self.agent_after(node, Duration::from_millis(500), AgentEvent::Keeper);
        self.find_server(node);
        self.begin_round(node);
    }

    pub fn kill_agent(&mut self, node: usize) {
        if self.nodes[node].process == Process::Down {
            return;
        }
        self.note(node, "agent", || "is killed".into());
        self.end_agent(node);
    }

    /// The process is gone; whoever watches over it starts it again.
    pub fn end_agent(&mut self, node: usize) {
        self.interrupt_job(node);
        let at = &mut self.nodes[node];
        at.process = Process::Down;
        at.life += 1;
        at.agent = None;
        at.inbox.clear();
        at.ambush = None;
    }

    pub fn hang_agent(&mut self, node: usize) {
        if self.nodes[node].process == Process::Running {
            self.note(node, "agent", || "is stopped".into());
            self.nodes[node].process = Process::Stopped;
        }
    }

    /// Goes on, with everything that has come meanwhile.
    pub fn resume_agent(&mut self, node: usize) {
        if self.nodes[node].process != Process::Stopped {
            return;
        }
        self.note(node, "agent", || "goes on".into());
        self.nodes[node].process = Process::Running;
        let waiting = std::mem::take(&mut self.nodes[node].inbox);
        for event in waiting {
            self.after(Duration::ZERO, event);
        }
    }

    /// An event of a process that may be gone, or stopped.
    pub fn post_to(&mut self, node: usize, life: u64, event: Event) {
        let at = &mut self.nodes[node];
        if at.life != life {
            return;
        }
        match at.process {
            Process::Down => {}
            Process::Stopped => at.inbox.push_back(event),
            Process::Running => match event {
                Event::Agent { event, .. } => self.agent_event(node, event),
                Event::ToClient { message, .. } => self.client_receives(node, message),
                _ => {}
            },
        }
    }

    pub fn agent_after(&mut self, node: usize, delay: Duration, event: AgentEvent) {
        let life = self.nodes[node].life;
        self.after(delay, Event::Agent { node, life, event });
    }

    fn agent_event(&mut self, node: usize, event: AgentEvent) {
        match event {
            AgentEvent::Step(step) => self.step(node, step),
            AgentEvent::Wake(step) => self.wake(node, step),
            AgentEvent::RequestTimeout(request) => self.request_failed(node, request),
            AgentEvent::Beat(connection) => self.beat(node, connection),
            AgentEvent::Connect(connection) => self.connect_timer(node, connection),
            AgentEvent::Keeper => self.keeper_timer(node),
            AgentEvent::Job(job, stage) => self.job_stage(node, job, stage),
            AgentEvent::Peers(poll) => self.news(node, round::News::Peers(poll)),
            AgentEvent::ServerExit => self.news(node, round::News::ServerExit),
            AgentEvent::Terminate => self.news(node, round::News::Terminate),
        }
    }

    /// The pidfd of postmaster or guard.
    pub fn tell_agent_of_exit(&mut self, node: usize) {
        if self.nodes[node].agent.is_some() {
            self.agent_after(node, Duration::from_millis(1), AgentEvent::ServerExit);
        }
    }

    fn client_receives(&mut self, node: usize, message: ToClient) {
        self.hear_server(node, message);
    }

    /// A mutant's start: the key with our name goes, whoever holds it.
    fn deletes_foreign_key(&self) -> bool {
        self.mutant == Some(Mutant::DeleteForeignKey)
    }
}
