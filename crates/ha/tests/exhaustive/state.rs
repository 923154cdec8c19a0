//! A state of the small world: as little as tells situations apart.

use pgherd_ha::Job;

pub const NODES: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub leader: Option<Leader>,
    pub initialize: Initialize,
    pub request: Option<Request>,
    pub paused: bool,
    pub nodes: [Node; NODES],
    pub logs: Logs,
    /// How many things may still go wrong.
    pub faults_left: u8,
}

/// The leader key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leader {
    pub node: usize,
    /// The agent has the session that the key hangs on; else it is a former one's.
    pub mine: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Initialize {
    Absent,
    Claimed,
    Written,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Away from the leader of that time, to whoever is ready.
    Switchover { from: usize },
    /// To this node, whatever it may lack.
    Failover { to: usize },
}

/// How the two logs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Logs {
    Equal,
    /// This node's begins with the other's.
    Ahead(usize),
    /// Each has what the other lacks; this node was promoted last.
    Diverged {
        newer: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub agent: Process,
    /// The store does not answer this node.
    pub cut: bool,
    /// The store still keeps this node's session, and with it its member key.
    pub session: bool,
    pub data: Data,
    pub server: Server,
    pub lease: Lease,
    /// The other node is its upstream.
    pub following: bool,
    pub job: Option<Running>,
    /// The newest job, if it has failed.
    pub failed: Option<Work>,
    /// Decided, and not yet done.
    pub plan: Option<Plan>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    Down,
    Up { claimed: bool, stopping: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Data {
    Empty,
    Incomplete,
    /// After initdb, before its roles are made.
    New,
    Standby,
    /// Of a primary that runs or has crashed.
    Primary,
    /// Of a primary that was stopped in order.
    StoppedPrimary,
    /// Of a cluster that was made and never announced, before this one was.
    Foreign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    Down,
    Standby,
    Primary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lease {
    None,
    /// The agent has a proof of it, and the guard its deadline.
    Proven,
    /// Of a former life of the agent: only the guard knows of it.
    Guard,
    /// It has ended, and the guard has killed.
    Over,
}

/// A job in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Running {
    pub work: Work,
    /// The leadership that it was begun under is over.
    pub stale: bool,
}

/// The jobs, without what the small world has only one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    Initdb,
    PostBootstrap,
    Clone,
    Rewind,
    StartPrimary,
    StartStandby { following: bool },
    Promote,
    Stop { in_order: bool },
}

/// What a decision asks for and the others can notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    pub step: Step,
    /// The leadership that it was decided under is over.
    pub stale: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Claim,
    RemoveClaim,
    WriteInitialize,
    Acquire,
    Renew,
    Release,
    ClearRequest,
    Fence,
    Run(Work),
    Exit,
}

impl State {
    pub fn first(faults: u8) -> State {
        let node = Node {
            agent: Process::Down,
            cut: false,
            session: false,
            data: Data::Empty,
            server: Server::Down,
            lease: Lease::None,
            following: false,
            job: None,
            failed: None,
            plan: None,
        };
        State {
            leader: None,
            initialize: Initialize::Absent,
            request: None,
            paused: false,
            nodes: [node; NODES],
            logs: Logs::Equal,
            faults_left: faults,
        }
    }

    /// One primary, which holds the key, and the other node follows it.
    pub fn is_good(&self) -> bool {
        let Some(Leader { node, mine: true }) = self.leader else { return false };
        let idle = |node: &Node| {
            let up = matches!(node.agent, Process::Up { stopping: false, .. });
            up && !node.cut && node.job.is_none() && node.plan.is_none()
        };
        let (primary, standby) = (&self.nodes[node], &self.nodes[other(node)]);
        let calm = !self.paused && self.request.is_none() && self.initialize == Initialize::Written;
        // What is of another cluster is never touched, and its agent ends again and again.
        let follows = idle(standby) && standby.server == Server::Standby && self.streams(other(node));
        calm && idle(primary)
            && (primary.server, primary.lease) == (Server::Primary, Lease::Proven)
            && (follows || standby.data == Data::Foreign)
    }

    /// This standby receives what the other node's primary writes.
    pub fn streams(&self, node: usize) -> bool {
        let (at, from) = (&self.nodes[node], &self.nodes[other(node)]);
        let fits = matches!(self.logs, Logs::Equal) || self.logs == Logs::Ahead(other(node));
        at.server == Server::Standby && at.following && from.server == Server::Primary && fits
    }

    /// Two writers, or one without the key.
    pub fn unsafe_writer(&self) -> Option<String> {
        let writes = |node: &usize| self.nodes[*node].server == Server::Primary;
        let stray = (0..NODES).filter(writes).find(|node| self.leader.is_none_or(|leader| leader.node != *node))?;
        Some(format!("node {stray} is a primary without the leader key"))
    }
}

pub fn other(node: usize) -> usize {
    1 - node
}

impl Work {
    pub fn of(job: &Job) -> Work {
        match job {
            Job::Initdb => Work::Initdb,
            Job::PostBootstrap { .. } => Work::PostBootstrap,
            Job::Clone { .. } => Work::Clone,
            Job::Rewind { .. } => Work::Rewind,
            Job::StartPrimary { .. } => Work::StartPrimary,
            Job::StartStandby { upstream } => Work::StartStandby { following: upstream.is_some() },
            Job::Promote { .. } => Work::Promote,
            Job::Stop(mode) => Work::Stop { in_order: *mode != pgherd_ha::StopMode::Immediate },
            Job::Restart { .. }
            | Job::CheckDivergence { .. }
            | Job::CustomBootstrap
            | Job::AbandonBootstrap
            | Job::CopySlots { .. }
            | Job::PrePromote { .. } => unreachable!("{job:?} is not asked for here as a job"),
        }
    }

    pub fn needs_lease(self) -> bool {
        matches!(self, Work::StartPrimary | Work::Promote | Work::PostBootstrap)
    }
}
