//! The loop of the daemon as a machine of steps: load, observe, decide, carry out, tell, wait. Each step takes time, and anything can come
//! between two of them.

use std::collections::VecDeque;
use std::time::Duration;

use pgherd_ha::{
    Action, Agent, Decision, Divergence, Job, JobOutcome, JobResult, Local, Member, PeerPoll, Permit, Request, Rule,
    Settings, Store, Upstream, View,
};

use super::client::{Client, Outcome, Purpose};
use super::execute::{Effect, is_news};
use super::jobs::{JobRun, Report};
use super::lease::LeaseState;
use super::observe::Held;
use super::{AgentEvent, Ambush, member};
use crate::faults::FaultEvent;
use crate::mutants::Mutant;
use crate::store::{Answer, Operation, SessionId};
use crate::world::{Event, World};

/// A load that takes longer is given up for this round.
const LOAD: Duration = Duration::from_secs(1);

/// The agent's process: what is gone when it is killed.
#[derive(Debug)]
pub struct Daemon {
    pub agent: Agent,
    pub client: Client,
    pub lease: LeaseState,
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
    pub request: Option<Request>,
    pub stopping: bool,
    pub exit: Option<Result<(), String>>,
    /// As it was last written.
    pub member: Option<Box<Member>>,
    step: u64,
    phase: Phase,
    wake_at: pgherd_ha::Boot,
    /// Of the wake-ups that only say "look": one of each kind is kept.
    changed: bool,
    lease_lost: bool,
    server_exit: bool,
    news: VecDeque<News>,
    local: Option<Local>,
    shown: Option<Rule>,
}

#[derive(Debug)]
enum Phase {
    Loading,
    Observing,
    Acting { left: VecDeque<Action>, current: Option<Action>, again: bool },
    Telling { again: bool },
    Waiting,
}

/// What the loop waits for.
#[derive(Debug)]
pub enum News {
    Changed,
    LeaseLost,
    ServerExit,
    Peers(PeerPoll),
    Job(Job, Result<Report, String>),
    Terminate,
    Request(Request),
}

impl Daemon {
    pub fn new(settings: Settings, session: Option<SessionId>, server: usize) -> Daemon {
        Daemon {
            agent: Agent::new(settings),
            client: Client::new(session, server),
            lease: LeaseState::default(),
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
            request: None,
            stopping: false,
            exit: None,
            member: None,
            step: 0,
            phase: Phase::Waiting,
            wake_at: pgherd_ha::Boot::ZERO,
            changed: false,
            lease_lost: false,
            server_exit: false,
            news: VecDeque::new(),
            local: None,
            shown: None,
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
            Phase::Observing | Phase::Waiting => {}
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
            Phase::Loading | Phase::Telling { .. } | Phase::Waiting => {}
        }
    }

    fn decide(&mut self, node: usize) {
        let local = self.observe(node);
        let now = self.clocks(node);
        let daemon = self.nodes[node].agent.as_mut().expect("its own step");
        let store = match &daemon.view {
            Some(view) if daemon.reachable => Store::Reachable(view),
            last => Store::Unreachable { last: last.as_ref() },
        };
        let decision = daemon.agent.decide(store, &local, now);
        daemon.local = Some(local);
        self.rules.insert(decision.rule);
        let mut kick = false;
        if let Permit::Until { epoch, .. } | Permit::Paused { epoch: Some(epoch) } = decision.permit {
            kick = self.daemon(node).lease.hold(epoch);
        }
        if kick {
            self.kick_keeper(node);
        }
        self.daemon(node).lease.decided(decision.permit);
        self.inform_guard(node);
        self.show(node, &decision);
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
        let interesting = is_news(action) || matches!(action, Action::Run(_));
        if interesting && self.ambushed(node) {
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
            Effect::Asked(operation, limit) => {
                let step = self.daemon(node).next_step();
                self.request(node, operation, Purpose::Loop(step), limit);
            }
        }
    }

    /// A fault that has waited for an action to be in hand.
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
                let step = self.daemon(node).next_step();
                self.agent_after(node, Duration::ZERO, AgentEvent::Step(step));
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
        let daemon = self.daemon(node);
        daemon.request = None.or(daemon.request.filter(|_| daemon.job.is_none()));
        let step = daemon.next_step();
        daemon.phase = Phase::Telling { again };
        let local = daemon.local.take().expect("it was observed in this round");
        let member = member::member(node, &local);
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
                match result {
                    Ok(report) => self.take_report(node, report),
                    Err(error) => self.note(node, "job", || format!("{} failed: {error}", job.name())),
                }
                self.daemon(node).last_job = Some(JobResult { job, at: boot, outcome });
            }
            News::Changed | News::LeaseLost | News::ServerExit => {}
        }
    }
}
