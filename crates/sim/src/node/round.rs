//! The loop of the daemon as a machine of steps: load, observe, decide, carry out, tell, wait. Each step takes time, and anything can come
//! between two of them.

use std::collections::VecDeque;
use std::time::Duration;

use pgherd_ha::{
    Action, Agent, Boot, Decision, Divergence, Job, JobOutcome, JobResult, Local, Member, PeerPoll, Permit, Request,
    Rule, Settings, Store, Timeline, Upstream, Versioned, View,
};

use super::client::{Client, Outcome, Purpose};
use super::execute::Effect;
use super::failsafe::Failsafe;
use super::jobs::{JobRun, Report};
use super::lease::LeaseState;
use super::observe::Held;
use super::route::Listeners;
use super::{AgentEvent, Ambush, member};
use crate::faults::FaultEvent;
use crate::mutants::Mutant;
use crate::store::{Answer, Operation, SessionId, standby_cluster_of, synchronous_of};
use crate::world::{Event, World};

/// A load that takes longer is given up for this round.
const LOAD: Duration = Duration::from_secs(1);

/// As in `crates/agent/src/daemon/execute.rs`.
const KILL: Duration = Duration::from_secs(5);

/// Between two looks at what was killed.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The agent's process: what is gone when it is killed.
#[derive(Debug)]
pub struct Daemon {
    pub agent: Agent,
    pub client: Client,
    pub lease: LeaseState,
    pub listeners: Listeners,
    pub keeper_busy: bool,
    pub held: Held,
    pub view: Option<View>,
    pub reachable: bool,
    pub job: Option<JobRun>,
    pub last_job: Option<JobResult>,
    pub claimed_initialize: bool,
    pub following: Option<Upstream>,
    pub peers: Option<PeerPoll>,
    pub polling: bool,
    pub divergence: Option<Divergence>,
    /// The timelines of the leader of that comparison.
    pub lineage: Vec<Timeline>,
    pub failsafe: Failsafe,
    pub request: Option<Request>,
    pub stopping: bool,
    pub exit: Option<Result<(), String>>,
    /// As it was last written.
    pub member: Option<Box<Member>>,
    step: u64,
    phase: Phase,
    wake_at: Boot,
    /// Of the wake-ups that only say "look": one of each kind is kept.
    changed: bool,
    lease_lost: bool,
    server_exit: bool,
    news: VecDeque<News>,
    local: Option<Local>,
    /// The first decision has been made.
    decided: bool,
    shown: Option<Rule>,
    /// Clients may come to a primary here.
    pub admits: bool,
    /// This node leads a standby cluster.
    standby_leader: bool,
}

#[derive(Debug)]
enum Phase {
    Loading,
    Observing,
    Acting {
        left: VecDeque<Action>,
        current: Option<Action>,
        again: bool,
    },
    /// Between two looks whether the server is gone that was killed.
    Killing {
        left: VecDeque<Action>,
        again: bool,
        until: Boot,
    },
    Telling {
        again: bool,
    },
    Waiting,
}

/// What the loop waits for.
#[derive(Debug)]
pub enum News {
    Changed,
    LeaseLost,
    ServerExit,
    Peers(PeerPoll),
    /// The questions of failsafe mode have been answered, or one of this node's has been.
    Failsafe,
    Job(Job, Box<Result<Report, String>>),
    Terminate,
    Request(Request),
}

impl Daemon {
    pub fn new(settings: Settings, session: Option<SessionId>, server: usize) -> Daemon {
        Daemon {
            agent: Agent::new(settings),
            client: Client::new(session, server),
            lease: LeaseState::default(),
            listeners: Listeners::default(),
            keeper_busy: false,
            held: Held::default(),
            view: None,
            reachable: false,
            job: None,
            last_job: None,
            claimed_initialize: false,
            following: None,
            peers: None,
            polling: false,
            divergence: None,
            lineage: Vec::new(),
            failsafe: Failsafe::default(),
            request: None,
            stopping: false,
            exit: None,
            member: None,
            step: 0,
            phase: Phase::Waiting,
            wake_at: Boot::ZERO,
            changed: false,
            lease_lost: false,
            server_exit: false,
            news: VecDeque::new(),
            local: None,
            decided: false,
            shown: None,
            admits: true,
            standby_leader: false,
        }
    }

    /// Where the loop is now; older steps come to nothing.
    pub fn next_step(&mut self) -> u64 {
        self.step += 1;
        self.step
    }
}

impl World {
    pub fn begin_round(&mut self, node: usize) {
        let boot = self.boot(node);
        let daemon = self.daemon(node);
        daemon.changed = false;
        daemon.phase = Phase::Loading;
        let patience = daemon.wake_at.since(boot).clamp(LOAD / 4, LOAD);
        let step = daemon.next_step();
        self.request(node, Operation::Load, Purpose::Loop(step), patience);
        self.answer_failsafe(node);
    }

    /// Nothing is being carried out, so a question about what this node does may be answered.
    pub fn is_between_decisions(&mut self, node: usize) -> bool {
        let daemon = self.daemon(node);
        daemon.decided && matches!(daemon.phase, Phase::Loading | Phase::Waiting)
    }

    /// The answer that the loop waits for.
    pub fn answered(&mut self, node: usize, step: u64, outcome: Outcome) {
        if self.daemon(node).step != step {
            return;
        }
        match &mut self.daemon(node).phase {
            Phase::Loading => self.loaded(node, outcome.answer),
            Phase::Acting { current, .. } => {
                let action = current.take().expect("an action is in progress while its answer is waited for");
                let result = self.action_answered(node, &action, outcome);
                self.acted(node, result);
            }
            Phase::Telling { again } => {
                let again = *again;
                self.finish_round(node, again);
            }
            Phase::Observing | Phase::Killing { .. } | Phase::Waiting => {}
        }
    }

    fn loaded(&mut self, node: usize, answer: Option<Answer>) {
        let daemon = self.daemon(node);
        daemon.reachable = false;
        if let Some(Answer::View(view)) = answer {
            daemon.view = Some(*view);
            daemon.reachable = true;
        }
        if self.deletes_foreign_key() {
            self.delete_foreign_key(node);
        }
        let daemon = self.daemon(node);
        daemon.phase = Phase::Observing;
        let step = daemon.next_step();
        let takes = self.look(node);
        self.agent_after(node, takes, AgentEvent::Step(step));
    }

    pub fn step(&mut self, node: usize, step: u64) {
        if self.daemon(node).step != step {
            return;
        }
        match self.daemon(node).phase {
            Phase::Observing => self.decide(node),
            Phase::Acting { .. } => self.act(node),
            Phase::Killing { .. } => self.look_at_killed(node),
            Phase::Loading | Phase::Telling { .. } | Phase::Waiting => {}
        }
    }

    fn decide(&mut self, node: usize) {
        let local = self.observe(node);
        let now = self.clocks(node);
        let unproven = self.nodes[node].postgres.data.directory().is_some_and(|directory| directory.from_archive);
        let daemon = self.nodes[node].agent.as_mut().expect("its own step");
        let known = daemon.view.as_ref().filter(|view| view.config.is_some());
        let follows = known.map_or_else(|| self.scenario.born_following.clone(), standby_cluster_of);
        let follows = follows.filter(|_| self.mutant != Some(Mutant::StandbyClusterNotSeen));
        let synchronous = known.map_or(self.scenario.synchronous, synchronous_of);
        daemon.agent.settings.synchronous = synchronous.filter(|_| follows.is_none());
        daemon.agent.settings.standby_cluster = follows;
        // What an archive lacked may have been acknowledged.
        daemon.agent.settings.nofailover = unproven && daemon.agent.settings.synchronous.is_some();
        let store = match &daemon.view {
            Some(view) if daemon.reachable => Store::Reachable(view),
            last => Store::Unreachable { last: last.as_ref() },
        };
        let decision = daemon.agent.decide(store, &local, now);
        let decision = reordered(self.mutant, daemon, decision, &local, now);
        let by_members = daemon.agent.failsafe_lease().filter(|lease| decision.permit == Permit::from_lease(lease));
        daemon.admits = decision.admits || self.mutant == Some(Mutant::AdmitAtOnce);
        daemon.standby_leader = decision.standby_leader;
        let proven = local.lease.map(|lease| lease.epoch);
        daemon.local = Some(local);
        daemon.decided = true;
        self.rules.insert(decision.rule);
        if let Some(lease) = by_members {
            self.keep_alive(node, &lease);
        }
        let mut kick = false;
        match decision.permit {
            // What the members permit is no key to renew.
            Permit::Until { epoch, .. } if proven != Some(epoch) => {}
            Permit::Until { epoch, .. } | Permit::Paused { epoch: Some(epoch) } => {
                kick = self.daemon(node).lease.hold(epoch);
            }
            Permit::None | Permit::Paused { epoch: None } => {}
        }
        if kick {
            self.kick_keeper(node);
        }
        self.daemon(node).lease.decided(decision.permit);
        self.inform_guard(node);
        self.show(node, &decision);
        if let Some(callback) = decision.callback {
            self.call_back(node, callback);
        }
        let mut left: VecDeque<Action> = decision.actions.into();
        self.spoil(decision.permit, &mut left);
        let daemon = self.daemon(node);
        daemon.wake_at = decision.wake.at;
        daemon.phase = Phase::Acting { left, current: None, again: false };
        self.next_action(node);
    }

    fn show(&mut self, node: usize, decision: &Decision) {
        let daemon = self.daemon(node);
        if daemon.shown.replace(decision.rule) != Some(decision.rule) || !decision.actions.is_empty() {
            let actions = format!("{:?}", decision.actions);
            let rule = decision.rule.name();
            self.note(node, "rule", || if actions == "[]" { rule.into() } else { format!("{rule}: {actions}") });
        }
    }

    /// The mutant that gives the key away when the stop begins.
    fn spoil(&mut self, permit: Permit, actions: &mut VecDeque<Action>) {
        if self.mutant == Some(Mutant::ReleaseBeforeDown)
            && let Some(Action::Run(Job::Stop(_))) = actions.front()
            && let Some(epoch) = permit.epoch()
        {
            actions.push_front(Action::Release { epoch });
        }
    }

    fn next_action(&mut self, node: usize) {
        let step = self.daemon(node).next_step();
        let pause = self.rng.micros(20, 400);
        self.agent_after(node, pause, AgentEvent::Step(step));
    }

    fn act(&mut self, node: usize) {
        let Phase::Acting { left, again, .. } = &mut self.daemon(node).phase else { return };
        let again = *again;
        let Some(action) = left.front() else { return self.tell(node, again) };
        let interesting = action.is_news() || matches!(action, Action::Run(_));
        if interesting && self.ambushed(node) {
            // Stopped, it is to come back to this action; killed, to nothing.
            if self.nodes[node].agent.is_some() {
                let step = self.daemon(node).next_step();
                self.agent_after(node, Duration::ZERO, AgentEvent::Step(step));
            }
            return;
        }
        let Phase::Acting { left, current, .. } = &mut self.daemon(node).phase else { return };
        let action = left.pop_front().expect("it was there a moment ago");
        *current = Some(action.clone());
        match self.execute(node, &action) {
            Effect::Now(result) => {
                if let Phase::Acting { current, .. } = &mut self.daemon(node).phase {
                    *current = None;
                }
                self.acted(node, result);
            }
            Effect::Killing => {
                let until = self.boot(node) + KILL;
                let daemon = self.daemon(node);
                if let Phase::Acting { left, again, .. } = &mut daemon.phase {
                    daemon.phase = Phase::Killing { left: std::mem::take(left), again: *again, until };
                }
                self.look_at_killed(node);
            }
            Effect::Asked(operation, limit) => {
                let step = self.daemon(node).next_step();
                self.request(node, operation, Purpose::Loop(step), limit);
            }
        }
    }

    fn look_at_killed(&mut self, node: usize) {
        let Phase::Killing { left, again, until } = &mut self.daemon(node).phase else { return };
        let (left, again, until) = (std::mem::take(left), *again, *until);
        match self.killed(node, until) {
            Some(result) => {
                self.daemon(node).phase = Phase::Acting { left, current: None, again };
                self.acted(node, result);
            }
            None => {
                self.daemon(node).phase = Phase::Killing { left, again, until };
                let step = self.daemon(node).next_step();
                self.agent_after(node, LOOK_AGAIN, AgentEvent::Step(step));
            }
        }
    }

    /// A fault that has waited for an action to be in hand. Whoever is ambushed sees to it that it is taken up again.
    pub fn ambushed(&mut self, node: usize) -> bool {
        let Some(ambush) = self.nodes[node].ambush.take() else { return false };
        match ambush {
            Ambush::Kill => {
                self.kill_agent(node);
                let back = self.rng.millis(200, 6000);
                self.after(back, Event::Fault(FaultEvent::StartAgent(node)));
            }
            Ambush::Hang(time) => {
                self.hang_agent(node);
                self.after(time, Event::Fault(FaultEvent::ResumeAgent(node)));
            }
        }
        true
    }

    /// `Ok(true)`: look again at once. The first failure ends the actions.
    fn acted(&mut self, node: usize, result: Result<bool, String>) {
        match result {
            Ok(changed) => {
                if let Phase::Acting { again, .. } = &mut self.daemon(node).phase {
                    *again |= changed;
                }
                self.next_action(node);
            }
            Err(error) => {
                self.note(node, "agent", || error);
                self.tell(node, false);
            }
        }
    }

    fn tell(&mut self, node: usize, again: bool) {
        self.publish(node);
        let above = self.scenario.above[node];
        let daemon = self.daemon(node);
        daemon.request = None.or(daemon.request.filter(|_| daemon.job.is_none()));
        let step = daemon.next_step();
        daemon.phase = Phase::Telling { again };
        let local = daemon.local.take().expect("it was observed in this round");
        let member = member::member(node, &local, daemon.standby_leader, daemon.agent.leaves_sync(), above);
        let registered = daemon.view.as_ref().is_some_and(|view| view.member(&member.name).is_some());
        let worth = !registered || daemon.member.as_ref().is_none_or(|old| member::differs(old, &member));
        let positions = daemon.member.as_ref().is_some_and(|old| old.xlog_location != member.xlog_location);
        let reachable = daemon.reachable;
        if reachable && (worth || (positions && self.rng.chance(200))) {
            let member = Box::new(member);
            self.daemon(node).member = Some(member.clone());
            let limit = self.scenario.retry_timeout;
            self.request(node, Operation::WriteMember { member }, Purpose::Loop(step), limit);
        } else {
            self.finish_round(node, again);
        }
    }

    fn finish_round(&mut self, node: usize, again: bool) {
        let boot = self.boot(node);
        let daemon = self.daemon(node);
        daemon.lease.round_done = boot;
        daemon.next_step();
        match daemon.exit.take() {
            Some(result) => {
                let stopping = daemon.stopping;
                self.note(node, "agent", || format!("ends: {result:?}"));
                self.disarm_watchdog(node);
                self.end_agent(node);
                // Whoever stopped it starts it again, or has done so while it was still stopping: then it is for the healing.
                if !stopping || result.is_err() || self.calm {
                    self.after(Duration::from_secs(3), Event::Fault(FaultEvent::StartAgent(node)));
                }
            }
            None if again => self.begin_round(node),
            None => self.wait(node),
        }
    }

    fn wait(&mut self, node: usize) {
        let boot = self.boot(node);
        let daemon = self.daemon(node);
        daemon.phase = Phase::Waiting;
        if self.answer_failsafe(node) {
            return self.begin_round(node);
        }
        let daemon = self.daemon(node);
        let look = daemon.changed | daemon.lease_lost | daemon.server_exit;
        daemon.lease_lost = false;
        daemon.server_exit = false;
        if look {
            return self.begin_round(node);
        }
        if let Some(news) = daemon.news.pop_front() {
            self.take_news(node, news);
            return self.begin_round(node);
        }
        let step = daemon.next_step();
        let left = daemon.wake_at.since(boot);
        self.agent_after(node, left, AgentEvent::Wake(step));
    }

    pub fn wake(&mut self, node: usize, step: u64) {
        if self.daemon(node).step == step && matches!(self.daemon(node).phase, Phase::Waiting) {
            self.begin_round(node);
        }
    }

    /// Something for the loop: taken when it waits.
    pub fn news(&mut self, node: usize, news: News) {
        let daemon = self.daemon(node);
        match news {
            News::Changed => daemon.changed = true,
            News::LeaseLost => daemon.lease_lost = true,
            News::ServerExit => daemon.server_exit = true,
            // A handful at most: one job, one poll, and what an operator asks.
            other => daemon.news.push_back(other),
        }
        if matches!(self.daemon(node).phase, Phase::Waiting) {
            self.wait(node);
        }
    }

    fn take_news(&mut self, node: usize, news: News) {
        let boot = self.boot(node);
        let daemon = self.daemon(node);
        match news {
            News::Peers(poll) => {
                daemon.polling = false;
                daemon.peers = Some(poll);
            }
            News::Terminate => daemon.stopping = true,
            News::Request(request) => daemon.request = Some(request),
            News::Job(job, result) => {
                daemon.job = None;
                let outcome = if result.is_ok() { JobOutcome::Done } else { JobOutcome::Failed };
                match *result {
                    Ok(report) => self.take_report(node, report),
                    Err(error) => self.note(node, "job", || format!("{} failed: {error}", job.name())),
                }
                self.daemon(node).last_job = Some(JobResult { job, at: boot, outcome });
            }
            News::Changed | News::LeaseLost | News::ServerExit | News::Failsafe => {}
        }
    }
}

/// The mutant that does first what is to be done after the `sync` key is written: as if it were written, and writes it then.
fn reordered(
    mutant: Option<Mutant>,
    daemon: &mut Daemon,
    decision: Decision,
    local: &Local,
    now: pgherd_ha::Now,
) -> Decision {
    let swapped = mutant == Some(Mutant::NamesBeforeKey) && decision.rule == Rule::SyncKeyBefore;
    let (Some(Action::WriteSync { key, .. }), Some(view)) = (decision.actions.first(), &daemon.view) else {
        return decision;
    };
    if !swapped {
        return decision;
    }
    let version = view.sync.as_ref().map_or(0, |sync| sync.version);
    let written = View { sync: Some(Versioned { value: key.clone(), version }), ..view.clone() };
    let after = daemon.agent.decide(Store::Reachable(&written), local, now);
    Decision { actions: after.actions.iter().chain(&decision.actions).cloned().collect(), ..after }
}
