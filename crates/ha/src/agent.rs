//! The agent of one node as a pure object: what was seen goes in, a [`Decision`] comes out.
//!
//! Level-triggered: each decision is made afresh from the whole picture. What must be kept from one to the next is in
//! [`Memory`], and is only ever a time since when something has been so. Situations are in files of their own, tried in the order of
//! [`plan`]; each is tested as data in `tests/`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::action::{Action, Job, Wake, WakeReason};
use crate::callback::{Callback, Told};
use crate::failsafe::{self, Failsafe, FailsafeAnswer, FailsafeAsk};
use crate::local::{DataDirectory, JobOutcome, Local, Postgres, Settings};
use crate::permit::{Lease, Permit};
use crate::rule::Rule;
use crate::types::{Boot, Epoch, Now};
use crate::view::{LeaderOwner, View};
use crate::{
    bootstrap, disk, job, leader, limits, pause, race, race_backoff, replica, request, slots, standby_cluster, stop,
    sync, watchdog, without_store,
};

/// What the store said.
#[derive(Clone, Copy, Debug)]
pub enum Store<'a> {
    Reachable(&'a View),
    /// The newest load failed; `last` is the newest one that did not.
    Unreachable {
        last: Option<&'a View>,
    },
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub rule: Rule,
    /// To be carried out in this order; the first that fails ends the round.
    pub actions: Vec<Action>,
    /// What has become of the server since the user's callbacks were last told. Comes before the actions, and holds nothing up.
    pub callback: Option<Callback>,
    /// Until when this node may have a writer.
    pub permit: Permit,
    /// A primary here may be given to clients.
    pub admits: bool,
    /// This node leads a standby cluster.
    pub standby_leader: bool,
    pub wake: Wake,
}

/// The node's agent: its settings and what it remembers between decisions.
#[derive(Clone, Debug)]
pub struct Agent {
    pub settings: Settings,
    memory: Memory,
}

impl Agent {
    pub fn new(settings: Settings) -> Agent {
        Agent { settings, memory: Memory::default() }
    }

    /// Whether this node keeps out of every race for now; the others must know, or they would wait for it if it is ahead of them.
    pub fn keeps_out_of_races(&self, now: Boot) -> bool {
        now < self.memory.no_race_until || self.memory.unguarded_since.is_some()
    }

    /// Whether commits should stop waiting for this node, since it is about to stop.
    pub fn leaves_sync(&self) -> bool {
        self.memory.sync.leaving.is_some()
    }

    /// Another node asks to go on as primary without the store. To be answered between two decisions, never while the actions of one are
    /// carried out.
    pub fn failsafe_asked(&mut self, ask: &FailsafeAsk, now: Boot) -> FailsafeAnswer {
        self.memory.failsafe.asked(ask, &self.settings, now)
    }

    /// What the members have granted this primary in place of the store.
    pub fn failsafe_lease(&self) -> Option<Lease> {
        self.memory.failsafe.granted
    }

    /// Until when failsafe mode is active here: as a primary without the store, or as a member that has agreed to one.
    pub fn failsafe_until(&self) -> Option<Boot> {
        self.memory.failsafe.active_until()
    }

    /// Logical slots that were copied here and may be used after a promotion.
    pub fn ready_slots(&self) -> BTreeSet<String> {
        self.memory.slots.ready.names()
    }

    /// How long a race may still be put off (rule `RaceHoldOff`).
    pub fn race_backoff_left(&self, now: Boot) -> Duration {
        race_backoff::left(&self.memory, self.settings.primary_race_backoff, now)
    }

    /// This node took the key of `epoch` and must not lead under it: it is given back before anything else is done.
    pub fn give_up(&mut self, epoch: Epoch) {
        self.memory.give_up = Some(epoch);
    }

    /// Decides what to do. Total: every combination of inputs has an answer.
    pub fn decide(&mut self, store: Store<'_>, local: &Local, now: Now) -> Decision {
        let empty = View::default();
        let (view, reachable) = match store {
            Store::Reachable(view) => (view, true),
            Store::Unreachable { last } => (last.unwrap_or(&empty), false),
        };
        let standing = Standing::of(view);
        self.memory.failsafe.update(view, reachable, local, &self.settings, now.boot);
        let permit = self.memory.failsafe.prolong(permit_of(view, local, standing, &self.settings));
        let situation = Situation {
            view,
            reachable,
            local,
            settings: &self.settings,
            now,
            standing,
            permit,
            paused: view.is_paused(),
        };
        self.memory.update(&situation);
        let plan = plan(&situation, &mut self.memory);
        let mut plan = failsafe::ask_all(&situation, &self.memory.failsafe, plan);
        plan.actions.retain(|action| !standby_cluster::forbids(&situation, action));
        plan.actions.extend(slots::move_along(&situation, &mut self.memory.slots, &self.memory.failsafe, plan.rule));
        // First, since an action that fails ends the round.
        let (ask, ask_wake) = failsafe::ask(&situation, &mut self.memory.failsafe);
        plan.actions.splice(0..0, ask);
        self.memory.failsafe.decided(&situation, &plan.actions);
        watchdog::attend(&situation, &mut plan.actions);
        let round = Wake { at: now.boot + self.settings.loop_wait, reason: WakeReason::Round };
        let wake = [plan.wake, ask_wake, without_store::permit_wake(&situation)]
            .into_iter()
            .flatten()
            .filter(|wake| wake.at > now.boot)
            .fold(round, |first, wake| if wake.at < first.at { wake } else { first });
        // Its roles are not made yet, or its owner's command still works on it.
        let half_made = local.is_writer() && local.control().is_some_and(|control| control.bootstrap_pending);
        let admits = !half_made && sync::admits(&situation, &self.memory.sync, &plan.actions);
        let standby_leader = self.settings.standby_cluster.is_some() && matches!(standing, Standing::Mine(_));
        let callback = self.memory.told.update(&situation, standby_leader, plan.rule);
        Decision { rule: plan.rule, actions: plan.actions, callback, permit, admits, standby_leader, wake }
    }
}

/// The first situation that applies decides.
fn plan(at: &Situation<'_>, memory: &mut Memory) -> Plan {
    if let DataDirectory::Unusable(_) = at.local.data {
        return unusable_directory(at);
    }
    if let Some(plan) = disk::plan(at) {
        return plan;
    }
    if at.local.postgres == Postgres::Orphans && !job::owns_processes(at) {
        return Plan::act(Rule::KillOrphans, [Action::Fence]);
    }
    if at.local.stopping {
        return stop::plan(at, memory);
    }
    if !at.reachable {
        return without_store::plan(at, memory);
    }
    if let Some(plan) = bootstrap::foreign_cluster(at) {
        return plan;
    }
    if let Some(plan) = job::plan(at, memory) {
        return plan;
    }
    if !at.paused && at.local.is_writer() && matches!(at.standing, Standing::Other(_)) {
        return Plan::act(Rule::FenceUnlicensedPrimary, [Action::Fence]);
    }
    if let Some(plan) = standby_cluster::demote(at) {
        return plan;
    }
    if let Some(plan) = request::plan(at, memory) {
        return plan;
    }
    if at.standing == Standing::Nobody
        && let Some(plan) = failsafe::bound(at, memory)
    {
        return plan;
    }
    if at.paused {
        return pause::plan(at, memory);
    }
    if let Some(plan) = bootstrap::plan(at, memory) {
        return plan;
    }
    let standby_cluster = at.settings.standby_cluster.is_some();
    if let Some(plan) = watchdog::failed(at, memory).filter(|_| !standby_cluster) {
        return plan;
    }
    if let Some(plan) = limits::starved(at, memory) {
        return plan;
    }
    if let (Standing::Mine(epoch), true) = (at.standing, standby_cluster) {
        return standby_cluster::plan(at, memory, epoch);
    }
    match at.standing {
        Standing::Mine(epoch) => {
            failsafe::gives_back(at, &memory.failsafe, epoch).unwrap_or_else(|| leader::plan(at, memory, epoch))
        }
        Standing::Other(epoch) => replica::plan(at, memory, epoch),
        Standing::Nobody => race_backoff::hold_off(at, memory).unwrap_or_else(|| race::plan(at, memory)),
    }
}

fn unusable_directory(at: &Situation<'_>) -> Plan {
    // What runs as a primary goes on; a standby could not be promoted.
    let cannot_lead = match &at.local.postgres {
        Postgres::Stopped => true,
        Postgres::Running(running) => running.in_recovery && !running.restores && at.local.job.is_none(),
        _ => false,
    };
    match at.standing {
        Standing::Mine(epoch) if cannot_lead && at.reachable => {
            Plan::act(Rule::UnusableDirectory, [Action::Release { epoch }])
        }
        _ if at.local.stopping => Plan::act(Rule::StopDone, [Action::Exit { failure: None }]),
        _ => Plan::wait(Rule::UnusableDirectory),
    }
}

/// The permit follows from the lease, which only the leader key gives; or from pause. Failsafe mode may prolong it.
/// A standby cluster has none but for a primary of before, which is to be stopped in order.
fn permit_of(view: &View, local: &Local, standing: Standing, settings: &Settings) -> Permit {
    let epoch = match standing {
        Standing::Mine(epoch) => Some(epoch),
        Standing::Other(_) | Standing::Nobody => None,
    };
    if view.is_paused() {
        return Permit::Paused { epoch };
    }
    if settings.standby_cluster.is_some() && !standby_cluster::may_have_writer(local) {
        return Permit::None;
    }
    match &local.lease {
        Some(lease) if Some(lease.epoch) == epoch => Permit::from_lease(lease),
        _ => Permit::None,
    }
}

/// Who holds the leader key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Mine(Epoch),
    Other(Epoch),
    Nobody,
}

impl Standing {
    pub fn of(view: &View) -> Standing {
        match &view.leader {
            Some(leader) if leader.owner == LeaderOwner::Me => Standing::Mine(leader.epoch),
            Some(leader) => Standing::Other(leader.epoch),
            None => Standing::Nobody,
        }
    }
}

/// Everything a rule may read.
pub(crate) struct Situation<'a> {
    /// The newest load, or the last good one while the store is not reachable.
    pub view: &'a View,
    pub reachable: bool,
    pub local: &'a Local,
    pub settings: &'a Settings,
    pub now: Now,
    pub standing: Standing,
    pub permit: Permit,
    pub paused: bool,
}

impl Situation<'_> {
    pub fn me(&self) -> &str {
        &self.settings.name
    }

    pub fn permitted(&self) -> bool {
        self.permit.allows_writer(self.now.boot)
    }

    /// The newest proof is so old that the store may have freed the key, whatever a server of it that is cut off still shows, and the
    /// members have not agreed that this is no matter. Where there is a guard, it has killed the writer before.
    pub fn lease_is_over(&self, epoch: Epoch) -> bool {
        !self.permitted() && self.local.lease.is_some_and(|lease| lease.epoch == epoch && self.now.boot >= lease.end())
    }

    /// Wake up soon, to look again.
    pub fn soon(&self, after: Duration, reason: WakeReason) -> Wake {
        Wake { at: self.now.boot + after, reason }
    }
}

/// What must survive from one decision to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub race: Option<race::Race>,
    pub backoff: Option<race_backoff::Backoff>,
    /// Since when the stopped primary looks for a candidate that holds its last record.
    pub hand_over_since: Option<Boot>,
    /// Since when the candidates of a switchover are asked.
    pub switchover_since: Option<Boot>,
    pub starts: Starts,
    /// How long the restart that an operator has asked for may take.
    pub start_patience: Option<Duration>,
    /// Since when the server runs without a guard.
    pub unguarded_since: Option<Boot>,
    /// The leadership that this node gives up as soon as its server is down.
    pub give_up: Option<Epoch>,
    /// No race before this instant (after a failed promotion).
    pub no_race_until: Boot,
    /// Since when `initialize` is claimed and nobody seems to work on it.
    pub idle_claim_since: Option<Boot>,
    pub unreachable_since: Option<Boot>,
    /// This node was rewound to the leader of this epoch, and has not streamed since.
    pub rewound: Option<Epoch>,
    /// A leader has been seen since this agent started.
    pub leader_seen: bool,
    pub status_written: Boot,
    /// Under this key of a standby leader the other cluster's log has gone on where this cluster's ended.
    pub follows_on: Option<Epoch>,
    /// Since when the standby leader under this key is seen to stream.
    pub streams_since: Option<(Epoch, Boot)>,
    pub slots: slots::Memory,
    pub sync: sync::Memory,
    pub failsafe: Failsafe,
    /// The server of the cluster that this node makes has been started.
    pub new_cluster_started: bool,
    /// `pre_promote` has succeeded under this leadership.
    pub pre_promoted: Option<Epoch>,
    pub told: Told,
}

/// Attempts to start the server since it last ran.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Starts {
    pub count: u32,
    pub last: Boot,
}

impl Memory {
    /// Forgets what the new picture has made untrue.
    fn update(&mut self, at: &Situation<'_>) {
        if at.local.running().is_some() {
            self.starts = Starts::default();
            self.start_patience = self.start_patience.filter(|_| at.local.job.is_some());
        }
        let rewound = at.local.last(|job| matches!(job, Job::Rewind { .. }));
        if let (Standing::Other(epoch) | Standing::Mine(epoch), true) =
            (at.standing, rewound.is_some_and(|last| last.outcome == JobOutcome::Done))
        {
            self.rewound = Some(epoch);
        }
        if at.local.running().is_some_and(|running| running.streaming) {
            self.rewound = None;
        }
        if at.settings.standby_cluster.is_none() {
            self.follows_on = None;
        }
        self.leader_seen |= at.standing != Standing::Nobody;
        race_backoff::remember(at, self);
        if at.standing != Standing::Nobody || !at.reachable {
            self.race = None;
        }
        if let Postgres::Running(_) | Postgres::Starting { .. } = at.local.postgres {
            self.hand_over_since = None;
        }
        // In pause nobody gives it one; only what was tried has failed.
        self.unguarded_since = match at.local.guarded || at.local.running().is_none() || at.paused {
            true => None,
            false => self.unguarded_since.or(Some(at.now.boot)),
        };
        if at.view.failover_request().is_none() {
            self.switchover_since = None;
        }
        self.sync.update(at);
        self.unreachable_since = if at.reachable { None } else { self.unreachable_since.or(Some(at.now.boot)) };
        // A view without a leader may be older than the key that was taken.
        if self.give_up.is_some_and(|epoch| ![Standing::Mine(epoch), Standing::Nobody].contains(&at.standing)) {
            self.give_up = None;
        }
    }

    pub fn is_unguarded_for(&self, at: &Situation<'_>, limit: Duration) -> bool {
        self.unguarded_since.is_some_and(|since| at.now.boot.since(since) >= limit)
    }

    /// How long a start may take that has been begun.
    pub fn start_patience(&self, at: &Situation<'_>) -> Duration {
        self.start_patience.unwrap_or_else(|| at.settings.start_patience())
    }

    /// Counts an attempt to start, or says how long to wait before the next: none before the second, then 1 s doubling up to
    /// 8 s, so that a server that cannot start does not fill its log and still comes back soon when the cause is mended.
    pub fn may_start(&mut self, now: Boot) -> Result<(), Wake> {
        let pause = match self.starts.count {
            0 | 1 => Duration::ZERO,
            n => Duration::from_secs(1 << (n - 2).min(3)),
        };
        let due = self.starts.last + pause;
        if self.starts.count > 0 && now < due {
            return Err(Wake { at: due, reason: WakeReason::Retry });
        }
        self.starts = Starts { count: self.starts.count.saturating_add(1), last: now };
        Ok(())
    }
}

/// A rule with its actions.
pub(crate) struct Plan {
    pub rule: Rule,
    pub actions: Vec<Action>,
    pub wake: Option<Wake>,
}

impl Plan {
    pub fn act(rule: Rule, actions: impl IntoIterator<Item = Action>) -> Plan {
        Plan { rule, actions: actions.into_iter().collect(), wake: None }
    }

    pub fn wait(rule: Rule) -> Plan {
        Plan::act(rule, [])
    }

    pub fn wake(mut self, wake: Wake) -> Plan {
        self.wake = Some(wake);
        self
    }
}
