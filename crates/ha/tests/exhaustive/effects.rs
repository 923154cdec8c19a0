//! What can happen next in a state, and what comes of it.

use crate::state::{
    Data, Initialize, Leader, Lease, Logs, NODES, Node, Plan, Process, Request, Running, Server, State, Step, Work,
    other,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The agent carries out what it has decided.
    Execute(usize),
    JobEnds(usize),
    /// Whoever watches over the agent starts it.
    Start(usize),
    /// The store answers this node again.
    Heal(usize),
    /// The node's lease ends, and the guard kills.
    LeaseEnds(usize),
    /// The store ends the node's session.
    Expire(usize),
    Stream(usize),
    Resume,
    // Faults, and what people do.
    /// What was decided does not happen.
    Lose(usize),
    /// The agent dies right after what it has decided is done.
    ExecuteAndCrash(usize),
    Crash {
        node: usize,
        forgets_session: bool,
    },
    JobFails(usize),
    ServerDies(usize),
    Cut(usize),
    Stop(usize),
    Ask(Request),
    Pause,
}

impl Event {
    pub fn all(pauses: bool) -> Vec<Event> {
        let each = |node: usize| {
            [
                Event::Execute(node),
                Event::JobEnds(node),
                Event::Start(node),
                Event::Heal(node),
                Event::LeaseEnds(node),
                Event::Expire(node),
                Event::Stream(node),
                Event::Lose(node),
                Event::ExecuteAndCrash(node),
                Event::Crash { node, forgets_session: false },
                Event::Crash { node, forgets_session: true },
                Event::JobFails(node),
                Event::ServerDies(node),
                Event::Cut(node),
                Event::Stop(node),
                Event::Ask(Request::Switchover { from: node }),
                Event::Ask(Request::Failover { to: node }),
            ]
        };
        let both = pauses.then_some([Event::Pause, Event::Resume]);
        (0..NODES).flat_map(each).chain(both.into_iter().flatten()).collect()
    }

    pub fn is_fault(self) -> bool {
        !matches!(
            self,
            Event::Execute(_)
                | Event::JobEnds(_)
                | Event::Start(_)
                | Event::Heal(_)
                | Event::LeaseEnds(_)
                | Event::Expire(_)
                | Event::Stream(_)
                | Event::Resume
        )
    }
}

/// `None`: it cannot happen here.
pub fn apply(state: &State, event: Event) -> Option<State> {
    let mut next = *state;
    if event.is_fault() {
        next.faults_left = next.faults_left.checked_sub(1)?;
    }
    let done = match event {
        Event::Execute(node) => execute(&mut next, node),
        Event::JobEnds(node) => job_ends(&mut next, node),
        Event::Start(node) => start(&mut next, node),
        Event::Heal(node) => heal(&mut next.nodes[node]),
        Event::LeaseEnds(node) => lease_ends(&mut next, node),
        Event::Expire(node) => expire(&mut next, node),
        Event::Stream(node) => stream(&mut next, node),
        Event::Resume => std::mem::replace(&mut next.paused, false),
        Event::Lose(node) => next.nodes[node].plan.take().is_some(),
        Event::ExecuteAndCrash(node) => execute(&mut next, node) && crash(&mut next, node, false),
        Event::Crash { node, forgets_session } => crash(&mut next, node, forgets_session),
        Event::JobFails(node) => job_fails(&mut next, node),
        Event::ServerDies(node) => server_dies(&mut next, node),
        Event::Cut(node) => !std::mem::replace(&mut next.nodes[node].cut, true),
        Event::Stop(node) => stop(&mut next, node),
        Event::Ask(request) => ask(&mut next, request),
        Event::Pause => next.initialize == Initialize::Written && !std::mem::replace(&mut next.paused, true),
    };
    (done && next != *state).then_some(next)
}

fn mine(state: &State, node: usize) -> bool {
    state.leader == Some(Leader { node, mine: true })
}

/// The executor's own look at the lease, right before it acts.
fn licensed(state: &State, node: usize, stale: bool) -> bool {
    (state.nodes[node].lease == Lease::Proven && !stale) || state.paused
}

fn execute(state: &mut State, node: usize) -> bool {
    let Some(Plan { step, stale }) = state.nodes[node].plan.take() else { return false };
    let answers = !state.nodes[node].cut;
    match step {
        Step::Claim if answers && state.initialize == Initialize::Absent => {
            state.initialize = Initialize::Claimed;
            state.nodes[node].agent = Process::Up { claimed: true, stopping: false };
        }
        Step::RemoveClaim if answers && state.initialize == Initialize::Claimed => {
            state.initialize = Initialize::Absent
        }
        Step::WriteInitialize if answers && mine(state, node) && licensed(state, node, stale) => announce(state, node),
        Step::Acquire if answers && state.leader.is_none() => {
            state.leader = Some(Leader { node, mine: true });
            state.nodes[node].lease = Lease::Proven;
        }
        Step::Renew if answers && mine(state, node) && !stale => state.nodes[node].lease = Lease::Proven,
        Step::Release if answers && mine(state, node) && !stale => release(state, node),
        Step::ClearRequest if answers => state.request = None,
        Step::Fence => fence(&mut state.nodes[node]),
        Step::Run(work) if !work.needs_lease() || licensed(state, node, stale) => {
            interrupt(&mut state.nodes[node]);
            state.nodes[node].job = Some(Running { work, stale: false });
        }
        Step::Exit => {
            crash(state, node, false);
        }
        // Refused, or it does not get through.
        _ => {}
    }
    true
}

/// Data of an older attempt to make the cluster is another cluster's from now on.
fn announce(state: &mut State, node: usize) {
    let theirs = &mut state.nodes[other(node)];
    if state.initialize != Initialize::Written
        && matches!(theirs.data, Data::Primary | Data::StoppedPrimary | Data::Standby)
    {
        theirs.data = Data::Foreign;
    }
    state.initialize = Initialize::Written;
}

fn release(state: &mut State, node: usize) {
    let at = &state.nodes[node];
    if at.server != Server::Primary && at.job.is_none() {
        state.nodes[node].lease = Lease::None;
        lose_key(state);
    }
}

/// The key is gone: what its holder has in hand is of a leadership that is over.
fn lose_key(state: &mut State) {
    let Some(Leader { node, .. }) = state.leader.take() else { return };
    let at = &mut state.nodes[node];
    if let Some(plan) = &mut at.plan {
        plan.stale = true;
    }
    if let Some(job) = &mut at.job {
        job.stale = true;
    }
}

fn fence(node: &mut Node) {
    interrupt(node);
    node.server = Server::Down;
}

fn interrupt(node: &mut Node) {
    if node.job.take().is_some_and(|job| job.work == Work::Rewind) {
        node.data = Data::Incomplete;
        node.server = Server::Down;
    }
}

fn job_ends(state: &mut State, node: usize) -> bool {
    let Some(Running { work, stale }) = state.nodes[node].job.take() else { return false };
    let licensed = licensed(state, node, stale);
    let streams = state.streams(other(node));
    let source = state.nodes[other(node)].server == Server::Primary;
    let at = &mut state.nodes[node];
    let complete = !matches!(at.data, Data::Empty | Data::Incomplete | Data::New);
    let done = match work {
        Work::Initdb if at.data == Data::Empty => {
            at.data = Data::New;
            true
        }
        Work::PostBootstrap if at.server == Server::Primary => {
            at.data = Data::Primary;
            true
        }
        Work::Clone | Work::Rewind => {
            at.server = Server::Down;
            if source {
                (at.data, at.following) = (Data::Standby, false);
                state.logs = Logs::Equal;
            }
            source
        }
        Work::StartPrimary | Work::Promote => licensed && becomes_primary(state, node, work),
        Work::StartStandby { following } if complete && at.server == Server::Down => {
            at.server = Server::Standby;
            at.following = following;
            if at.data != Data::Foreign {
                at.data = Data::Standby;
            }
            true
        }
        Work::Stop { in_order } => {
            if in_order && at.server == Server::Primary && at.data == Data::Primary {
                at.data = Data::StoppedPrimary;
            }
            at.server = Server::Down;
            if in_order && streams {
                state.logs = Logs::Equal;
            }
            true
        }
        Work::Initdb | Work::PostBootstrap | Work::StartStandby { .. } => false,
    };
    state.nodes[node].failed = (!done).then_some(work);
    true
}

fn becomes_primary(state: &mut State, node: usize, work: Work) -> bool {
    let at = &mut state.nodes[node];
    let from = if work == Work::Promote { Server::Standby } else { Server::Down };
    if at.server != from || matches!(at.data, Data::Empty | Data::Incomplete | Data::Foreign) {
        return false;
    }
    at.server = Server::Primary;
    at.following = false;
    if at.data != Data::New {
        at.data = Data::Primary;
    }
    // Its first record.
    state.logs = match state.logs {
        Logs::Equal => Logs::Ahead(node),
        Logs::Ahead(ahead) if ahead == node => Logs::Ahead(node),
        Logs::Ahead(_) | Logs::Diverged { .. } => Logs::Diverged { newer: node },
    };
    true
}

fn start(state: &mut State, node: usize) -> bool {
    let at = &mut state.nodes[node];
    if at.agent != Process::Down {
        return false;
    }
    at.agent = Process::Up { claimed: false, stopping: false };
    at.session |= !at.cut;
    true
}

/// An agent that lives is registered again.
fn heal(node: &mut Node) -> bool {
    node.session |= node.agent != Process::Down;
    std::mem::replace(&mut node.cut, false)
}

fn crash(state: &mut State, node: usize, forgets_session: bool) -> bool {
    let at = &mut state.nodes[node];
    if at.agent == Process::Down {
        return false;
    }
    interrupt(at);
    at.agent = Process::Down;
    at.plan = None;
    at.failed = None;
    if at.lease == Lease::Proven {
        at.lease = Lease::Guard;
    }
    if let Some(leader) = state.leader.as_mut().filter(|leader| leader.node == node) {
        leader.mine &= !forgets_session;
    }
    true
}

/// Nobody renews it. In pause the guard holds still.
fn lease_ends(state: &mut State, node: usize) -> bool {
    let at = &mut state.nodes[node];
    let alone = at.agent == Process::Down || at.cut;
    let ends = at.lease == Lease::Guard || (at.lease == Lease::Proven && alone);
    if !ends || state.paused {
        return false;
    }
    at.lease = Lease::Over;
    if let Some(job) = at.job.take_if(|job| job.work.needs_lease()) {
        at.failed = Some(job.work);
        at.server = Server::Down;
    }
    if at.server == Server::Primary {
        at.server = Server::Down;
    }
    true
}

/// Not before the lease that came from it is over; in pause nobody's is.
fn expire(state: &mut State, node: usize) -> bool {
    let at = &state.nodes[node];
    let alone = at.agent == Process::Down || at.cut;
    let holds = state.leader.filter(|leader| leader.node == node);
    let former = holds.is_some_and(|leader| !leader.mine);
    let leased = matches!(at.lease, Lease::Proven | Lease::Guard);
    if !(alone && at.session || former) || (holds.is_some() && leased && !state.paused) {
        return false;
    }
    if alone {
        state.nodes[node].session = false;
    }
    if holds.is_some() {
        lose_key(state);
        if state.nodes[node].lease == Lease::Over {
            state.nodes[node].lease = Lease::None;
        }
    }
    true
}

fn stream(state: &mut State, node: usize) -> bool {
    let streams = state.streams(node);
    if streams {
        state.logs = Logs::Equal;
    }
    streams
}

fn job_fails(state: &mut State, node: usize) -> bool {
    let at = &mut state.nodes[node];
    let Some(Running { work, .. }) = at.job.take() else { return false };
    match work {
        Work::Rewind => (at.data, at.server) = (Data::Incomplete, Server::Down),
        Work::Clone => at.server = Server::Down,
        Work::Initdb
        | Work::PostBootstrap
        | Work::StartPrimary
        | Work::StartStandby { .. }
        | Work::Promote
        | Work::Stop { .. } => {}
    }
    at.failed = Some(work);
    true
}

fn server_dies(state: &mut State, node: usize) -> bool {
    let at = &mut state.nodes[node];
    std::mem::replace(&mut at.server, Server::Down) != Server::Down
}

fn stop(state: &mut State, node: usize) -> bool {
    match &mut state.nodes[node].agent {
        Process::Up { stopping, .. } => !std::mem::replace(stopping, true),
        Process::Down => false,
    }
}

fn ask(state: &mut State, request: Request) -> bool {
    let leads = |node| state.leader.is_some_and(|leader| leader.node == node);
    let sensible = match request {
        Request::Switchover { from } => leads(from),
        Request::Failover { to } => !leads(to) && state.initialize == Initialize::Written,
    };
    sensible && state.request.replace(request) != Some(request)
}
