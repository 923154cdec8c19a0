//! One machine: its PostgreSQL, which survives the agent, and the agent's process, which can be killed, stopped and started again.
//!
//! The process drives `pgherd_ha::Agent` in the order of the daemon (`crates/agent/src/daemon`): load, observe, decide, carry out, tell, wait;
//! beside it the keeper renews the lease. While the process is stopped (SIGSTOP) everything that comes to it waits, and its timers with
//! it; afterwards it goes on where it was, with a plan that may be stale.

mod client;
mod execute;
mod failsafe;
mod jobs;
mod keeper;
mod lease;
mod member;
mod observe;
mod peers;
mod round;
mod route;

use std::collections::VecDeque;
use std::time::Duration;

use pgherd_ha::{Boot, Now, Permit};

pub use jobs::Stage;
pub use round::Daemon;

/// What an operator asks of this node, as its loop takes it.
pub fn request(request: pgherd_ha::Request) -> round::News {
    round::News::Request(request)
}

use crate::clock::Clock;
use crate::disk::Disk;
use crate::mutants::Mutant;
use crate::postgres::Postgres;
use crate::store::{SessionId, ToClient};
use crate::watchdog::Device;
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
    pub clock: Clock,
    pub disk: Disk,
    pub watchdog: Device,
    /// Somebody has made the directory unreadable.
    pub directory_unreadable: bool,
    /// The machine is suspended: its clock goes on, and nothing else.
    pub suspended: bool,
    /// The kernel does not run the guard until then, or has not long enough to kill.
    pub unwatched_until: Duration,
    /// What waits for the machine to wake up, or for its disk to answer.
    waiting: Vec<Event>,
    /// What the process does the next time it has an action in hand.
    pub ambush: Option<Ambush>,
    /// A host that is down starts nothing.
    pub host_down: bool,
    /// What the user's callbacks were last told.
    pub told: Option<pgherd_ha::Callback>,
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
    FailsafeAsked(failsafe::Question),
    FailsafeAnswered {
        round: u64,
        by: usize,
        accepted: bool,
    },
    FailsafeOver(u64),
    ServerExit,
    Terminate,
    /// An entrypoint asks for the route.
    Listen {
        entry: usize,
        stream: u64,
    },
    RouteHeartbeat,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("a fault lasts seconds")
}

impl Node {
    pub fn new(clock: Clock, disk: Disk) -> Node {
        Node {
            postgres: Postgres::empty(),
            process: Process::Down,
            life: 0,
            inbox: VecDeque::new(),
            agent: None,
            session_file: None,
            clock,
            disk,
            watchdog: Device::default(),
            directory_unreadable: false,
            suspended: false,
            unwatched_until: Duration::ZERO,
            waiting: Vec::new(),
            ambush: None,
            host_down: false,
            told: None,
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
        self.nodes[node].clock.boot(self.now)
    }

    /// Both clocks of the node.
    pub fn clocks(&self, node: usize) -> Now {
        self.nodes[node].clock.read(self.now)
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
        let session = at.session_file.filter(|_| self.mutant != Some(Mutant::SessionForgotten));
        let server = self.rng.index(self.store.servers.len());
        let daemon = Daemon::new(self.scenario.settings(node), session, server);
        self.nodes[node].agent = Some(Box::new(daemon));
        self.note(node, "agent", || "starts".into());
        let now = self.boot(node);
        self.daemon(node).lease.round_done = now;
        self.daemon(node).lease.disk_answered = now;
        self.connect(node);
        self.agent_after(node, Duration::from_millis(500), AgentEvent::Keeper);
        self.agent_after(node, Duration::from_secs(1), AgentEvent::RouteHeartbeat);
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
        self.close_streams(node);
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
        if at.suspended {
            return at.waiting.push(event);
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
        let (life, overload) = (self.nodes[node].life, self.overload);
        let late = if overload.is_zero() { overload } else { self.rng.micros(0, micros(overload)) };
        let takes = self.nodes[node].clock.takes(delay) + late;
        self.after(takes, Event::Agent { node, life, event });
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
            AgentEvent::FailsafeAsked(question) => self.failsafe_asked(node, question),
            AgentEvent::FailsafeAnswered { round, by, accepted } => self.failsafe_answered(node, round, by, accepted),
            AgentEvent::FailsafeOver(round) => self.failsafe_over(node, round),
            AgentEvent::ServerExit => self.news(node, round::News::ServerExit),
            AgentEvent::Terminate => self.news(node, round::News::Terminate),
            AgentEvent::Listen { entry, stream } => self.listen(node, entry, stream),
            AgentEvent::RouteHeartbeat => self.route_heartbeat(node),
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

    /// It is done when the machine wakes up, or the disk answers.
    pub fn wait_for_machine(&mut self, node: usize, event: Event) {
        self.nodes[node].waiting.push(event);
    }

    /// What has waited goes on, in its order. What must still wait does so again.
    pub fn machine_goes_on(&mut self, node: usize) {
        for event in std::mem::take(&mut self.nodes[node].waiting) {
            self.after(Duration::ZERO, event);
        }
    }

    /// A mutant's start: the key with our name goes, whoever holds it.
    fn deletes_foreign_key(&self) -> bool {
        self.mutant == Some(Mutant::DeleteForeignKey)
    }
}
