//! Failsafe mode: a primary goes on without the store while every member of the cluster agrees to it, round after round.
//!
//! # Why there is one writer
//!
//! Only who holds the leader key may make a writer. So a primary P may go on without the store for as long as nobody else can come to
//! use the key. Three things see to that:
//!
//! - **Who can take the key is known.** While the mode is on the leader keeps the names of all members in the key `failsafe`, and who is
//!   not in it does not lead ([`bound`]). Since the list that a node raced with may have been an older one, it looks again once it
//!   has the key, before it is promoted. P asks everybody in the list that it last saw, and in one that it has tried to write since:
//!   of an attempt without an answer it is not known which of the two the others see.
//! - **Who accepts binds itself.** From then on, by its own clock and for the longer of both `ttl`s, it follows P: it neither takes the
//!   key nor keeps one ([`bound`], [`gives_back`]), whatever the store shows, and whatever becomes of the mode. It refuses while it
//!   leads, or may have taken the key: an attempt whose outcome no later load has shown yet counts as a success.
//! - **P counts from before its first question was sent**, and less than the others do: a quarter of `ttl` for clocks that do not run
//!   alike, and the time that the guard needs (a round is a [`Lease`] that the members grant instead of the store). A member binds itself
//!   no earlier than that, so P's writer is gone before the first of them is free, however late an answer was, and whoever was paused in
//!   between. One refusal or one silence, and the round gives nothing.
//!
//! An agent forgets what it agreed to when it is started again. Until a `ttl` has passed since, it takes the key only if every other
//! member says that it is no primary ([`ask_all`]). Such an answer also ends a promise early: P shows itself as a primary before it asks.
//!
//! A permit of this kind keeps a server that runs as primary; it never makes one. In pause nothing of this applies, as nothing else does.
//!
//! Not covered: a plain Patroni that accepts counts by a wall clock, which somebody may set. Turning the mode off takes the protection of
//! the list away after a `ttl`, so a node that is not in it could be promoted beside a primary that is cut off together with all members of
//! the list. And a `ttl` that is lowered counts for an agent that is started again, though the former process may have agreed to more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::action::{Action, Job, Wake, WakeReason};
use crate::agent::{Plan, Situation, Standing};
use crate::local::{DataDirectory, Local, Postgres, Settings};
use crate::permit::{Lease, Permit};
use crate::rule::Rule;
use crate::types::{Boot, Epoch};
use crate::view::View;

/// Nobody binds itself for longer than this: a session of ZooKeeper lasts 40 s at most, of etcd some minutes, and who asks for more is
/// wrong, or hostile.
const LONGEST: Duration = Duration::from_secs(600);

/// A round whose answers have not come after so many of its own longest times is lost.
const LOST: u32 = 2;

/// Between two looks at a member that must say that it is no primary.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// What a primary without the store asks of each member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailsafeAsk {
    /// The primary's name.
    pub from: String,
    /// The time that it counts with. A plain Patroni does not say it, and means the `ttl` of the configuration.
    pub ttl: Option<Duration>,
    /// Where its slots are, by name: the members' own are moved along with them, since the store tells nobody.
    pub slots: BTreeMap<String, u64>,
}

/// What a member answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailsafeAnswer {
    /// It has bound itself.
    Accepted,
    /// The mode is off here.
    Off,
    /// It leads, or may have taken the key.
    Leads,
    /// The store shows another leader, or this one has accepted another.
    Other(String),
    /// Nothing of that kind is asked by a member.
    Nonsense,
}

/// The answers to one round of questions, all of which said the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailsafeRound {
    pub epoch: Epoch,
    /// Before the first of them was sent.
    pub sent: Boot,
    pub ttl: Duration,
    /// Who has accepted.
    pub accepted: BTreeSet<String>,
}

/// What is remembered of the mode.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failsafe {
    /// Under which key this node's server became a primary.
    epoch: Option<Epoch>,
    /// The newest round that every member accepted.
    pub granted: Option<Lease>,
    /// When the round in progress, or the last one, was begun.
    asked: Option<Boot>,
    /// The list that is being written, until the store shows it.
    written: Option<Written>,
    promise: Option<Promise>,
    /// The first decision of this process.
    started: Option<Boot>,
    /// A server ran then: its guard may have a deadline that the members gave to an agent before this one.
    found_server: bool,
    /// When the mode was last seen to be on.
    on: Option<Boot>,
    /// This node leads, or may have taken the key. Unknown before the first decision.
    leads: Option<bool>,
    /// Whom the store shows as the leader, while it answers.
    leader: Option<String>,
}

/// A list that was given to the store.
#[derive(Clone, Debug)]
struct Written {
    members: BTreeMap<String, String>,
    /// With those of the attempts before it, of which nothing is known either.
    tried: BTreeMap<String, String>,
    at: Boot,
}

/// This node has agreed that another goes on as primary.
#[derive(Clone, Debug)]
struct Promise {
    to: String,
    accepted: Boot,
    until: Boot,
    /// As the primary last said.
    slots: BTreeMap<String, u64>,
}

impl Failsafe {
    /// Takes in a new picture; called before anything is decided on it.
    pub fn update(&mut self, view: &View, reachable: bool, local: &Local, settings: &Settings, now: Boot) {
        if self.started.is_none() {
            self.started = Some(now);
            self.found_server = local.postgres != Postgres::Stopped;
        }
        if settings.failsafe_mode {
            self.on = Some(now);
        }
        if self.written.as_ref().is_some_and(|written| reachable && written.members == view.failsafe) {
            self.written = None;
        }
        if let Some(promise) = &self.promise
            && (now >= promise.until || says_it_is_no_primary(local, &promise.to, promise.accepted))
        {
            self.promise = None;
        }
        self.epoch = match Standing::of(view) {
            Standing::Mine(epoch) => Some(epoch),
            Standing::Other(_) => None,
            // Freed while this node was cut off; what the members agreed to holds all the same.
            Standing::Nobody => self.epoch.filter(|_| local.is_writer()),
        };
        if self.granted.is_some_and(|granted| self.epoch != Some(granted.epoch)) || !local.is_writer() {
            self.granted = None;
        }
        if local.is_writer()
            && let Some(round) = &local.failsafe
            && self.granted.is_none_or(|granted| granted.sent < round.sent)
            && self.epoch == Some(round.epoch)
            && self.others(view, &settings.name).is_some_and(|others| others.keys().all(|n| round.accepted.contains(n)))
        {
            self.granted = Some(granted(round.epoch, round.sent, round.ttl));
        }
    }

    /// The permit of the lease, or that of the members where it lasts longer.
    pub fn prolong(&self, lease: Permit) -> Permit {
        let Some(granted) = self.granted.as_ref().map(Permit::from_lease) else { return lease };
        match (lease, granted) {
            (Permit::None, granted) => granted,
            (Permit::Until { deadline: store, .. }, Permit::Until { deadline: members, .. }) if members > store => {
                granted
            }
            _ => lease,
        }
    }

    /// The permit is one that the members have given.
    pub fn gives(&self, permit: Permit) -> bool {
        self.granted.as_ref().map(Permit::from_lease) == Some(permit)
    }

    /// Until when the mode is active on this node, as a primary or as one that has agreed to it.
    pub fn active_until(&self) -> Option<Boot> {
        let granted = self.granted.map(|granted| granted.deadline());
        granted.max(self.promise.as_ref().map(|promise| promise.until))
    }

    /// Everybody who might be able to take the key, beside this node. `None`: this node may not rely on that, for it is not in the list.
    fn others(&self, view: &View, me: &str) -> Option<BTreeMap<String, String>> {
        let mut list = view.failsafe.clone();
        if let Some(written) = &self.written {
            list.extend(written.tried.clone());
        }
        view.failsafe.get(me)?;
        list.remove(me);
        Some(list)
    }

    /// Another asks to go on as primary.
    pub fn asked(&mut self, ask: &FailsafeAsk, settings: &Settings, now: Boot) -> FailsafeAnswer {
        let ttl = ask.ttl.map_or(settings.ttl, |asked| asked.max(settings.ttl));
        if !settings.failsafe_mode {
            return FailsafeAnswer::Off;
        }
        if self.leads != Some(false) {
            return FailsafeAnswer::Leads;
        }
        if ask.from == settings.name || ask.from.is_empty() || ttl > LONGEST {
            return FailsafeAnswer::Nonsense;
        }
        let promised = self.promise.as_ref().filter(|promise| now < promise.until).map(|promise| &promise.to);
        if let Some(other) = self.leader.as_ref().or(promised).filter(|other| **other != ask.from) {
            return FailsafeAnswer::Other(other.clone());
        }
        let until = self.promise.as_ref().map_or(Boot::ZERO, |promise| promise.until).max(now + ttl);
        self.promise = Some(Promise { to: ask.from.clone(), accepted: now, until, slots: ask.slots.clone() });
        FailsafeAnswer::Accepted
    }

    /// Whom this node has agreed to, and where the slots of that primary are.
    pub fn agreed_to(&self) -> Option<(&str, &BTreeMap<String, u64>)> {
        self.promise.as_ref().map(|promise| (promise.to.as_str(), &promise.slots))
    }

    /// What the next question is answered by: whether this node leads, may be about to, and who else does.
    pub fn decided(&mut self, at: &Situation<'_>, actions: &[Action]) {
        let takes = actions.contains(&Action::Acquire);
        // What was tried shows in a load that came after it.
        let unknown = !at.reachable && self.leads == Some(true);
        self.leads = Some(takes || unknown || at.local.is_writer() || matches!(at.standing, Standing::Mine(_)));
        let leader = at.view.leader.as_ref().filter(|_| at.reachable);
        self.leader = leader.map(|leader| leader.name.clone());
    }

    /// This process may have agreed to something that it does not remember.
    fn may_have_forgotten(&self, at: &Situation<'_>) -> bool {
        let young = self.started.is_none_or(|started| at.now.boot < started + at.settings.ttl);
        young && self.is_on(at) && !at.view.failsafe.is_empty()
    }

    /// This server may go on by the word of the members of now: another that is listed meanwhile could take the key and is not bound.
    fn permitted_by_fewer(&self, at: &Situation<'_>) -> bool {
        let before = self.started.filter(|_| self.found_server && at.view.failsafe.contains_key(at.me()));
        let before = before.map(|started| started + at.settings.ttl);
        before.max(self.granted.map(|granted| granted.end())).is_some_and(|until| at.now.boot < until)
    }

    /// A primary that runs without the store would not ask this node.
    fn unlisted(&self, at: &Situation<'_>) -> bool {
        self.is_on(at) && !at.view.failsafe.is_empty() && !at.view.failsafe.contains_key(at.me())
    }

    /// The mode is on, or was a `ttl` ago, when somebody may have relied on it.
    fn is_on(&self, at: &Situation<'_>) -> bool {
        self.on.is_some_and(|on| at.now.boot.since(on) < at.settings.ttl)
    }
}

/// A round as what it is: a lease, granted by the members.
fn granted(epoch: Epoch, sent: Boot, ttl: Duration) -> Lease {
    Lease { epoch, sent, granted: ttl, tick: None }
}

/// In an answer to a question that was sent since.
fn says_it_is_no_primary(local: &Local, name: &str, since: Boot) -> bool {
    let poll = local.peers.as_ref().filter(|poll| poll.asked >= since);
    poll.into_iter()
        .flat_map(|poll| &poll.peers)
        .any(|peer| peer.name == name && peer.answer.as_ref().is_some_and(|answer| answer.in_recovery))
}

/// The next round of questions, of a primary that the store does not answer; and when the one after it is due.
pub(crate) fn ask(at: &Situation<'_>, memory: &mut Failsafe) -> (Option<Action>, Option<Wake>) {
    let Some((epoch, members)) = may_ask(at, memory) else { return (None, None) };
    if members.is_empty() {
        memory.granted = Some(granted(epoch, at.now.boot, at.settings.ttl));
        return (None, None);
    }
    let answered = match (memory.asked, &at.local.failsafe) {
        (Some(asked), round) => round.as_ref().is_some_and(|round| round.sent >= asked),
        (None, _) => true,
    };
    // A permit lasts three quarters of `ttl` less half a second: four rounds or more fit into one.
    let pause = at.settings.ttl / 8;
    let wait = if answered { pause } else { patience(at.settings.ttl) * LOST };
    if let Some(due) = memory.asked.map(|asked| asked + wait).filter(|due| at.now.boot < *due) {
        return (None, Some(Wake { at: due, reason: WakeReason::Retry }));
    }
    memory.asked = Some(at.now.boot);
    let again = Wake { at: at.now.boot + pause, reason: WakeReason::Retry };
    (Some(Action::AskFailsafe { epoch, ttl: at.settings.ttl, members }), Some(again))
}

/// How long a member may take for its answer: 2 s is what a Patroni allows, and of a short `ttl` two tries must fit into a permit.
pub fn patience(ttl: Duration) -> Duration {
    (ttl / 4).min(Duration::from_secs(2))
}

fn may_ask(at: &Situation<'_>, memory: &Failsafe) -> Option<(Epoch, BTreeMap<String, String>)> {
    let ending = at.local.stopping || at.local.job.as_ref().is_some_and(|running| running.job.takes_server_down());
    if !at.settings.failsafe_mode || at.paused || ending || !at.local.is_writer() || !at.permitted() {
        return None;
    }
    if at.reachable && !renewals_fail(at, memory) {
        return None;
    }
    Some((memory.epoch?, memory.others(at.view, at.me())?))
}

/// The store is read and cannot be written: more than half of the newest proof is used up.
fn renewals_fail(at: &Situation<'_>, memory: &Failsafe) -> bool {
    let span = at.local.lease.or(memory.granted).map(|proof| proof.deadline().since(proof.sent));
    span.is_some_and(|span| at.permit.remaining(at.now.boot) < span / 2)
}

/// The leader keeps the list up to date, before it does anything else that could need it.
pub(crate) fn list(at: &Situation<'_>, memory: &mut Failsafe, epoch: Epoch) -> Option<Plan> {
    if !at.settings.failsafe_mode {
        return None;
    }
    let with_address = at.view.members.iter().filter(|member| !member.api_url.is_empty());
    let mut members: BTreeMap<String, String> =
        with_address.map(|member| (member.name.clone(), member.api_url.clone())).collect();
    if at.settings.standby_cluster.is_some() {
        // Who may lead when this cluster stands alone again is not known: a standby leader takes nobody's place.
        for (name, url) in &at.view.failsafe {
            members.entry(name.clone()).or_insert_with(|| url.clone());
        }
    }
    let before = memory.written.as_ref();
    let seen = members == at.view.failsafe && before.is_none();
    // Its own key comes with the first round; a list without the leader serves nobody.
    if seen || !members.contains_key(at.me()) {
        return None;
    }
    if before.is_some_and(|w| w.members == members && at.now.boot.since(w.at) < at.settings.loop_wait) {
        return None;
    }
    let joins = members.keys().any(|name| !at.view.failsafe.contains_key(name));
    if joins && memory.permitted_by_fewer(at) {
        return None;
    }
    // One that was tried before may be there, or come still: whoever is in it is asked as well until the store shows this one.
    let mut tried = before.map(|written| written.tried.clone()).unwrap_or_default();
    tried.extend(members.clone());
    memory.written = Some(Written { members: members.clone(), tried, at: at.now.boot });
    Some(Plan::act(Rule::FailsafeList, [Action::WriteFailsafe { epoch, members }]))
}

/// Nobody holds the key, and this node must not take it: it has agreed to a primary that runs without the store, or such a primary would
/// not know of it.
pub(crate) fn bound(at: &Situation<'_>, memory: &mut crate::agent::Memory) -> Option<Plan> {
    let promise = memory.failsafe.promise.clone();
    if let Some(promise) = promise {
        return follow(at, memory, &promise);
    }
    let unlisted = memory.failsafe.unlisted(at) && !at.paused && !at.local.is_writer();
    unlisted.then(|| Plan::wait(Rule::FailsafeUnlisted))
}

/// Whether this member may race, as far as the list goes.
pub(crate) fn lists(at: &Situation<'_>, name: &str) -> bool {
    !at.settings.failsafe_mode || at.view.failsafe.is_empty() || at.view.failsafe.contains_key(name)
}

fn follow(at: &Situation<'_>, memory: &mut crate::agent::Memory, promise: &Promise) -> Option<Plan> {
    if at.local.is_writer() {
        // Somebody promoted it by hand.
        return (!at.paused).then(|| Plan::act(Rule::FenceUnlicensedPrimary, [Action::Fence]));
    }
    let complete = matches!(&at.local.data, DataDirectory::Present(control) if !control.bootstrap_pending);
    if at.local.postgres == Postgres::Stopped && complete && !at.paused && at.local.job.is_none() {
        return Some(match memory.may_start(at.now.boot) {
            Ok(()) => {
                let upstream = at.local.following.clone();
                Plan::act(Rule::FailsafeFollow, [Action::Run(Job::StartStandby { upstream })])
            }
            Err(wake) => Plan::wait(Rule::RetryLater).wake(wake),
        });
    }
    let asked = at.local.peers.as_ref().is_some_and(|poll| at.now.boot.since(poll.asked) < ASK_AGAIN);
    let ask = !asked && at.view.member(&promise.to).is_some();
    let question = ask.then(|| Action::PollPeers { names: vec![promise.to.clone()] });
    let wake = Wake { at: promise.until.min(at.now.boot + ASK_AGAIN), reason: WakeReason::Retry };
    Some(Plan::act(Rule::FailsafeFollow, question).wake(wake))
}

/// This node took the key, and sees only now that it must not lead under it.
pub(crate) fn gives_back(at: &Situation<'_>, memory: &Failsafe, epoch: Epoch) -> Option<Plan> {
    let must = memory.promise.is_some() || memory.unlisted(at);
    (must && !at.paused && is_standby(at.local)).then(|| Plan::act(Rule::GiveKeyBack, [Action::Release { epoch }]))
}

/// What may have been agreed to by a former process of this agent is found out before this node leads: from everybody.
pub(crate) fn ask_all(at: &Situation<'_>, memory: &Failsafe, plan: Plan) -> Plan {
    let leads = |action: &Action| matches!(action, Action::Acquire | Action::Run(Job::Promote { .. }));
    if at.paused || at.local.is_writer() || !plan.actions.iter().any(leads) || !memory.may_have_forgotten(at) {
        return plan;
    }
    let started = memory.started.unwrap_or(at.now.boot);
    let registered = at.view.members.iter().map(|member| &member.name);
    let others: BTreeSet<&String> = registered.chain(at.view.failsafe.keys()).filter(|name| *name != at.me()).collect();
    if others.iter().all(|name| says_it_is_no_primary(at.local, name, started)) {
        return plan;
    }
    let asked = at.local.peers.as_ref().is_some_and(|poll| at.now.boot.since(poll.asked) < ASK_AGAIN);
    let names = others.into_iter().cloned().collect();
    let question = (!asked).then_some(Action::PollPeers { names });
    Plan::act(Rule::FailsafeAskAll, question).wake(at.soon(ASK_AGAIN, WakeReason::Retry))
}

/// A server that would have to be promoted. One that was a primary and crashed has agreed to nothing.
fn is_standby(local: &Local) -> bool {
    match &local.postgres {
        Postgres::Running(running) => running.in_recovery,
        Postgres::Stopped => local.control().is_some_and(|control| control.standby_signal),
        Postgres::Starting { .. } | Postgres::Silent { .. } | Postgres::Orphans => false,
    }
}
