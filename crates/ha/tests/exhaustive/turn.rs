//! A node's turn: it looks, decides, waits and decides again, until it asks for something that others can notice, or waits for them.
//!
//! Its agent begins without a memory, as after a restart, so what it does depends on the state alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgherd_ha::{
    Action, Address, Agent, Boot, ControlFile, ControlState, DataDirectory, Divergence, Epoch, FailoverKey, Job,
    JobInProgress, JobOutcome, JobResult, LeaderOwner, Local, Lsn, Member, MemberState, Now, Peer, PeerAnswer,
    PeerPoll, Postgres, Role, Rule, Settings, Store, SystemId, Timeline, Upstream, Verdict, Versioned, View, Wall,
};
use serde_json::Map;

use crate::state::{Data, Initialize, Lease, Logs, NODES, Node, Process, Request, Server, State, Step, Work, other};

/// The leadership of now, and the one of which stale jobs are.
const EPOCH: Epoch = Epoch(7);
const OLD_EPOCH: Epoch = Epoch(6);
const SYSTEM: SystemId = SystemId(7_123_456_789_012_345_678);

/// Longer than any patience of the decision in which nobody else does anything (a claim that nobody works on: 10 s).
const QUIET: Duration = Duration::from_secs(25);

/// How a turn ends.
#[derive(Debug)]
pub struct Turn {
    /// The state of the node after what only concerns itself.
    pub node: Node,
    pub step: Option<Step>,
    pub rules: BTreeSet<Rule>,
}

/// What a node finds out during its turn.
#[derive(Default)]
struct Found {
    peers: Option<PeerPoll>,
    divergence: Option<Divergence>,
}

/// `Err`: the decision is not as it should be.
pub fn take(state: &State, index: usize) -> Result<Turn, String> {
    let mut agent = Agent::new(settings(index));
    let mut turn = Turn { node: state.nodes[index], step: None, rules: BTreeSet::new() };
    let mut found = Found::default();
    let begun = Boot::from_millis(1_000_000);
    let mut now = begun;
    while now.since(begun) < QUIET {
        let view = view(state, index);
        let local = local(state, index, &turn.node, &found, begun, now);
        let store = if turn.node.cut { Store::Unreachable { last: Some(&view) } } else { Store::Reachable(&view) };
        let wall = Wall::from_millisecond(1_700_000_000_000).expect("a time of this century");
        let decision = agent.decide(store, &local, Now { boot: now, wall });
        if decision.wake.at <= now {
            return Err(format!("{} wakes up at once", decision.rule.name()));
        }
        turn.rules.insert(decision.rule);
        let mut looked = false;
        for action in &decision.actions {
            match step(action) {
                Some(step) => {
                    turn.step = Some(step);
                    return Ok(turn);
                }
                None => looked |= look(state, index, action, now, &mut turn.node, &mut found),
            }
        }
        now = if looked { now + Duration::from_millis(10) } else { decision.wake.at };
    }
    Ok(turn)
}

/// What others can notice.
fn step(action: &Action) -> Option<Step> {
    Some(match action {
        Action::ClaimInitialize => Step::Claim,
        Action::RemoveClaim { .. } => Step::RemoveClaim,
        Action::WriteInitialize { .. } => Step::WriteInitialize,
        Action::Acquire => Step::Acquire,
        Action::Renew { .. } => Step::Renew,
        Action::Release { .. } => Step::Release,
        Action::ClearFailover { .. } => Step::ClearRequest,
        Action::Fence => Step::Fence,
        Action::Run(Job::CheckDivergence { .. }) => return None,
        Action::Run(job) => Step::Run(Work::of(job)),
        Action::Exit { .. } => Step::Exit,
        _ => return None,
    })
}

/// Done at once; answers whether it may change the next decision.
fn look(state: &State, index: usize, action: &Action, now: Boot, node: &mut Node, found: &mut Found) -> bool {
    match action {
        Action::PollPeers { .. } => found.peers = Some(PeerPoll { asked: now, peers: vec![peer(state, other(index))] }),
        Action::Follow { upstream } => node.following = upstream.is_some(),
        Action::Run(Job::CheckDivergence { .. }) => {
            let verdict = verdict(state, index);
            found.divergence = Some(Divergence { epoch: EPOCH, verdict, at: now });
        }
        _ => return false,
    }
    true
}

fn verdict(state: &State, index: usize) -> Verdict {
    if state.nodes[other(index)].server != Server::Primary {
        return Verdict::Unknown;
    }
    match state.logs {
        Logs::Equal => Verdict::Same,
        Logs::Ahead(ahead) if ahead != index => Verdict::Same,
        Logs::Ahead(_) | Logs::Diverged { .. } => Verdict::Diverged,
    }
}

fn settings(index: usize) -> Settings {
    Settings {
        name: name(index),
        loop_wait: Duration::from_secs(1),
        retry_timeout: Duration::from_secs(3),
        ttl: Duration::from_secs(8),
        maximum_lag_on_failover: 1_048_576,
        primary_start_timeout: Duration::from_secs(300),
        check_timeline: false,
        nofailover: false,
        failover_priority: 1,
        use_pg_rewind: true,
        remove_on_rewind_failure: false,
        remove_on_diverged: false,
        use_slots: false,
        synchronous: None,
        failsafe_mode: false,
        pre_promote: false,
        custom_bootstrap: false,
        post_bootstrap: false,
        copies_without_leader: false,
        member_slots_ttl: Duration::from_secs(1800),
        standby_cluster: None,
        replicatefrom: None,
        nostream: false,
        permanent_slots: BTreeMap::new(),
        ignore_slots: Vec::new(),
        primary_stop_timeout: None,
        primary_race_backoff: Duration::ZERO,
    }
}

fn name(index: usize) -> String {
    format!("n{index}")
}

fn upstream(index: usize) -> Upstream {
    Upstream { name: name(index), addresses: vec![Address::new(&name(index), 5432)], remote: None }
}

fn view(state: &State, index: usize) -> View {
    let leader = state.leader.map(|leader| pgherd_ha::Leader {
        name: name(leader.node),
        epoch: EPOCH,
        owner: if leader.node == index && leader.mine { LeaderOwner::Me } else { LeaderOwner::Other },
    });
    let initialize = match state.initialize {
        Initialize::Absent => None,
        Initialize::Claimed => Some(String::new()),
        Initialize::Written => Some(SYSTEM.to_string()),
    };
    let request = match state.request {
        None => FailoverKey::default(),
        Some(Request::Switchover { from }) => FailoverKey { leader: Some(name(from)), ..FailoverKey::default() },
        Some(Request::Failover { to }) => FailoverKey { member: Some(name(to)), ..FailoverKey::default() },
    };
    let config = Map::from_iter([("pause".to_owned(), state.paused.into())]);
    View {
        leader,
        initialize: initialize.map(|value| Versioned { value, version: 1 }),
        config: Some(Versioned { value: config, version: 1 }),
        members: (0..NODES).filter(|node| state.nodes[*node].session).map(|node| member(state, node)).collect(),
        failover: Some(Versioned { value: request, version: 1 }),
        ..View::default()
    }
}

/// As it has registered itself; of a dead agent the last is still there.
fn member(state: &State, index: usize) -> Member {
    let at = &state.nodes[index];
    let working = at.job.map(|job| match job.work {
        Work::Initdb | Work::PostBootstrap => MemberState::InitializingNewCluster,
        Work::Clone => MemberState::CreatingReplica,
        Work::StartPrimary | Work::StartStandby { .. } => MemberState::Starting,
        Work::Stop { .. } => MemberState::Stopping,
        Work::Rewind => MemberState::Stopped,
        Work::Promote => MemberState::Running,
    });
    let idle = if at.server == Server::Down { MemberState::Stopped } else { MemberState::Running };
    Member {
        name: name(index),
        conn_url: format!("postgres://{}:5432/postgres", name(index)),
        api_url: format!("http://{}:8008/patroni", name(index)),
        state: if at.agent == Process::Down { MemberState::Running } else { working.unwrap_or(idle) },
        role: if at.server == Server::Primary { Role::Primary } else { Role::Replica },
        version: "4.1.4".into(),
        pgherd: Some("0.1.0".into()),
        tags: Map::new(),
        xlog_location: None,
        replay_lsn: None,
        receive_lsn: None,
        replication_state: None,
        timeline: None,
        checkpoint_after_promote: None,
        pending_restart: false,
        pause: false,
        extra: Map::new(),
    }
}

fn position(state: &State, index: usize) -> (Timeline, Lsn) {
    match state.logs {
        Logs::Equal => (Timeline(1), Lsn(1000)),
        Logs::Ahead(ahead) => (Timeline(1), Lsn(if ahead == index { 2000 } else { 1000 })),
        // The older timeline has come further.
        Logs::Diverged { newer } if newer == index => (Timeline(2), Lsn(1500)),
        Logs::Diverged { .. } => (Timeline(1), Lsn(2000)),
    }
}

fn peer(state: &State, index: usize) -> Peer {
    let at = &state.nodes[index];
    let (timeline, position) = position(state, index);
    let answers = at.agent != Process::Down && at.server != Server::Down;
    let answer = answers.then(|| PeerAnswer {
        in_recovery: at.server == Server::Standby,
        position,
        timeline: Some(timeline),
        nofailover: false,
        failover_priority: 1,
        watchdog_failed: false,
        settled: true,
    });
    Peer { name: name(index), answer }
}

fn local(state: &State, index: usize, node: &Node, found: &Found, begun: Boot, now: Boot) -> Local {
    let (claimed, stopping) = match node.agent {
        Process::Up { claimed, stopping } => (claimed, stopping),
        Process::Down => (false, false),
    };
    let (timeline, position) = position(state, index);
    let running = |in_recovery| {
        Postgres::Running(pgherd_ha::Running {
            in_recovery,
            restores: false,
            timeline,
            position,
            streaming: state.streams(index) && node.following,
            settled: in_recovery && !node.following,
            checkpointed: true,
            newest_history: timeline,
            synchronous_standby_names: String::new(),
            starved: false,
            checkpointer_listens: true,
            standbys: Vec::new(),
            replayed: position,
            slots: Vec::new(),
        })
    };
    let sent = match node.lease {
        Lease::Proven => Some(now),
        Lease::Over => Some(begun - Duration::from_secs(60)),
        Lease::None | Lease::Guard => None,
    };
    let lease = |sent| pgherd_ha::Lease { epoch: EPOCH, sent, granted: Duration::from_secs(8), tick: None };
    Local {
        data: data(state, index, node.data),
        postgres: match node.server {
            Server::Down => Postgres::Stopped,
            Server::Standby => running(true),
            Server::Primary => running(false),
        },
        job: node.job.map(|running| JobInProgress { job: job(running.work, running.stale, index), since: begun }),
        last_job: node.failed.map(|work| JobResult {
            job: job(work, false, index),
            at: begun,
            outcome: JobOutcome::Failed,
        }),
        lease: sent.map(lease),
        claimed_initialize: claimed,
        guarded: true,
        watchdog: pgherd_ha::Watchdog::Unused,
        disk_stuck: false,
        following: node.following.then(|| upstream(other(index))),
        peers: found.peers.clone(),
        divergence: found.divergence,
        failsafe: None,
        request: None,
        stopping,
        manages_standby_names: false,
        limits: Default::default(),
        admits_clients: true,
        last_slots: BTreeMap::new(),
        leader_slots: None,
    }
}

fn data(state: &State, index: usize, data: Data) -> DataDirectory {
    let (timeline, position) = position(state, index);
    // An initdb of ours that never became the cluster, since another's did.
    let leftover = data == Data::New && state.initialize == Initialize::Written;
    let system_id = if data == Data::Foreign || leftover { SystemId(SYSTEM.0 + 1) } else { SYSTEM };
    let state = match data {
        Data::Empty => return DataDirectory::Empty,
        Data::Incomplete => return DataDirectory::Incomplete,
        Data::Standby | Data::Foreign => ControlState::InArchiveRecovery,
        Data::Primary => ControlState::InProduction,
        Data::New | Data::StoppedPrimary => ControlState::ShutDown,
    };
    DataDirectory::Present(ControlFile {
        system_id,
        state,
        timeline,
        // The newest record is the shutdown checkpoint itself.
        checkpoint: Lsn(position.0 - 1),
        standby_signal: data == Data::Standby,
        bootstrap_pending: data == Data::New,
        rewindable: true,
    })
}

fn job(work: Work, stale: bool, index: usize) -> Job {
    let epoch = if stale { OLD_EPOCH } else { EPOCH };
    let source = upstream(other(index));
    match work {
        Work::Initdb => Job::Initdb,
        Work::PostBootstrap => Job::PostBootstrap { epoch },
        Work::Clone => Job::Clone { source: Some(source), make_room: false, from_leader: false },
        Work::Rewind => Job::Rewind { source },
        Work::StartPrimary => Job::StartPrimary { epoch, names: None },
        Work::StartStandby { following } => Job::StartStandby { upstream: following.then_some(source) },
        Work::Promote => {
            Job::Promote { epoch, timeline: Timeline(2), names: None, slots: Vec::new(), unproven: Vec::new() }
        }
        Work::Stop { in_order: true } => Job::Stop(pgherd_ha::StopMode::Planned),
        Work::Stop { in_order: false } => Job::Stop(pgherd_ha::StopMode::Immediate),
    }
}
