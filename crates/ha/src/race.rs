//! Nobody holds the leader key: who takes it.
//!
//! First the upstream is cut, so that this node's position is final; then the others are asked; the node that nobody is ahead of takes the
//! key. The key's creation decides; the questions only keep a node that lags from trying. A candidate that an operator named goes first; for
//! a switchover it too must have everything that the others have, since the primary may have crashed before it handed over.

use std::cmp::Ordering;
use std::time::Duration;

use crate::action::{Action, Job, WakeReason};
use crate::agent::{Memory, Plan, Situation};
use crate::local::{PeerAnswer, PeerPoll, Postgres, Running};
use crate::rule::Rule;
use crate::types::{Boot, Lsn};
use crate::upstream::{self, Target};
use crate::view::{FailoverKey, Member, MemberState};
use crate::{failsafe, replica, switchover, sync};

/// How long to wait for the receiver to go and for the log to be replayed. A standby with more to replay than this
/// races with the position that it has received, which is the one that counts.
const SETTLE: Duration = Duration::from_secs(2);

/// Between two looks at a settling server.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Between two rounds of questions.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// How old an answer may be, beyond the time that the questions may take: what was true when the key was last free says nothing about a
/// cluster that another node has led since.
const FRESH: Duration = Duration::from_millis(500);

/// How long the race waits for a candidate that an operator named.
const YIELD: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Race {
    pub since: Boot,
    /// When the position became final.
    pub settled: Option<Boot>,
}

pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory) -> Plan {
    let race = *memory.race.get_or_insert(Race { since: at.now.boot, settled: None });
    match &at.local.postgres {
        Postgres::Stopped => match memory.may_start(at.now.boot) {
            Ok(()) => {
                let upstream = remote(at).and_then(|target| target.upstream());
                Plan::act(Rule::StartForRace, [Action::Run(Job::StartStandby { upstream })])
            }
            Err(wake) => Plan::wait(Rule::RetryLater).wake(wake),
        },
        Postgres::Starting { .. } => {
            Plan::wait(Rule::StandbyStarting).wake(at.soon(Duration::from_millis(50), WakeReason::Settling))
        }
        Postgres::Running(running) if !running.in_recovery => keep_primary(at, memory, running),
        Postgres::Running(running) => standby(at, memory, race, running),
        Postgres::Silent { .. } | Postgres::Orphans => Plan::wait(Rule::RaceNotAllowed),
    }
}

/// A primary whose key was lost (its session ended while the agent was away) takes it back, unless the cluster has moved on.
fn keep_primary(at: &Situation<'_>, memory: &Memory, running: &Running) -> Plan {
    if running.timeline < at.view.history_timeline() || !sync::may_go_on(at) {
        return Plan::act(Rule::FenceUnlicensedPrimary, [Action::Fence]);
    }
    if !at.local.guarded {
        // Without key, permit and guard nothing would ever end it.
        return if memory.is_unguarded_for(at, at.settings.retry_timeout) {
            Plan::act(Rule::NoGuard, [Action::Fence])
        } else {
            Plan::act(Rule::WaitForGuard, [Action::Guard])
        };
    }
    Plan::act(Rule::KeepPrimary, [Action::Acquire])
}

fn standby(at: &Situation<'_>, memory: &mut Memory, race: Race, running: &Running) -> Plan {
    let remote = remote(at);
    // On a disk that does not answer a promotion would wait as well.
    if at.settings.nofailover || at.now.boot < memory.no_race_until || at.local.disk_stuck {
        // A copy of the other cluster proves itself by following it.
        return match remote.filter(|remote| remote.differs_from(at.local.following.as_ref())) {
            Some(remote) => replica::follow(at, &remote, Rule::RaceNotAllowed),
            None => Plan::wait(Rule::RaceNotAllowed),
        };
    }
    if !at.local.guarded && remote.is_none() {
        return Plan::act(Rule::WaitForGuard, [Action::Guard]);
    }
    // A switchover that is planned for later says nothing about a leader that is lost today, and neither does a stale one.
    let request = at.view.failover_request().filter(|request| switchover::is_due(request, at.now.wall));
    // A failover to this node is wanted whoever else may be ahead.
    if is_forced(at) {
        return Plan::act(Rule::CandidateAcquire, [Action::Acquire]);
    }
    // Where commits wait for standbys, what was written and not acknowledged says nothing against one.
    if sync::active(at).is_none() && lags(at, running.position) {
        return Plan::wait(Rule::RaceTooFarBehind);
    }
    if remote.is_some() {
        // There is nothing to be lost, so positions need not be final.
        memory.race = Some(Race { settled: Some(race.settled.unwrap_or(race.since)), ..race });
        return ask_and_take(at, memory, running, request);
    }
    if at.settings.check_timeline && running.timeline < at.view.history_timeline() {
        return Plan::wait(Rule::RaceWrongTimeline);
    }
    if let Some(plan) = settle(at, memory, race, running) {
        return plan;
    }
    ask_and_take(at, memory, running, request)
}

/// What a standby cluster without a leader follows.
fn remote(at: &Situation<'_>) -> Option<Target> {
    at.settings.standby_cluster.as_ref().map(|_| upstream::target(at))
}

/// An operator has ordered a failover to this node: it takes over whoever may be ahead, and whatever is lost.
pub(crate) fn is_forced(at: &Situation<'_>) -> bool {
    let request = at.view.failover_request().filter(|request| switchover::is_due(request, at.now.wall));
    request.is_some_and(|request| request.leader.is_none() && names(request, at.me()))
}

fn names(request: &FailoverKey, me: &str) -> bool {
    request.member.as_deref() == Some(me)
}

/// An operator wants another node, and there is hope that it comes: it runs, may lead, and is not behind this one.
fn yields(at: &Situation<'_>, race: Race, request: &FailoverKey, poll: &PeerPoll, running: &Running) -> bool {
    if at.now.boot.since(race.since) >= YIELD {
        return false;
    }
    let answer = |member: &Member| poll.peers.iter().find(|peer| peer.name == member.name)?.answer.as_ref();
    // A failover to a named node is wanted also where rows are lost by it.
    let may_be_behind = request.leader.is_none();
    let hopeful = |member: &Member| {
        member.name != at.me()
            && member.state == MemberState::Running
            && !member.nofailover()
            && answer(member).is_some_and(|answer| may_be_behind || has_all_of(answer, running))
    };
    match (&request.member, &request.leader) {
        (Some(candidate), _) => at.view.member(candidate).is_some_and(hopeful),
        (None, Some(leader)) if leader == at.me() => at.view.members.iter().any(hopeful),
        (None, _) => false,
    }
}

fn settle(at: &Situation<'_>, memory: &mut Memory, race: Race, running: &Running) -> Option<Plan> {
    if race.settled.is_some() {
        return None;
    }
    if at.local.following.is_some() {
        return Some(
            Plan::act(Rule::RaceSettle, [Action::Follow { upstream: None }])
                .wake(at.soon(LOOK_AGAIN, WakeReason::Settling)),
        );
    }
    if !running.settled && at.now.boot.since(race.since) < SETTLE {
        return Some(Plan::wait(Rule::RaceSettle).wake(at.soon(LOOK_AGAIN, WakeReason::Settling)));
    }
    memory.race = Some(Race { settled: Some(at.now.boot), ..race });
    None
}

/// The answers of the others, if they say how things are now.
fn fresh_poll<'a>(at: &Situation<'a>) -> Option<&'a PeerPoll> {
    let valid = at.settings.retry_timeout / 3 + FRESH;
    at.local.peers.as_ref().filter(|poll| at.now.boot.since(poll.asked) <= valid)
}

/// The same, with the key in hand: who had settled gets nothing from anybody else any more, so an answer need not be as young as before, when
/// the key's creation has taken its time.
pub(crate) fn poll_of_holder<'a>(at: &Situation<'a>) -> Option<&'a PeerPoll> {
    let valid = at.settings.retry_timeout + FRESH;
    at.local.peers.as_ref().filter(|poll| at.now.boot.since(poll.asked) <= valid)
}

pub(crate) fn ask(at: &Situation<'_>, rule: Rule) -> Plan {
    let names = others(at).map(|member| member.name.clone()).collect();
    Plan::act(rule, [Action::PollPeers { names }]).wake(at.soon(ASK_AGAIN, WakeReason::Settling))
}

/// The whole cluster has been down, and this agent is the first that is back: one that has more may come in a moment. Where commits wait for
/// standbys nobody can lead without a right to, so there is no need to wait.
fn waits_for_others(at: &Situation<'_>, memory: &Memory, race: Race) -> bool {
    !memory.leader_seen
        && sync::active(at).is_none()
        && at.view.has_absent_members()
        && at.now.boot.since(race.since) < at.settings.ttl
}

fn ask_and_take(at: &Situation<'_>, memory: &mut Memory, running: &Running, request: Option<&FailoverKey>) -> Plan {
    let race = memory.race.unwrap_or(Race { since: at.now.boot, settled: None });
    if waits_for_others(at, memory, race) {
        return Plan::wait(Rule::RaceWaitForMembers).wake(at.soon(ASK_AGAIN, WakeReason::Retry));
    }
    let settled = race.settled.unwrap_or(at.now.boot);
    let others: Vec<String> = others(at).map(|member| member.name.clone()).collect();
    let alone = others.is_empty().then(|| PeerPoll { asked: at.now.boot, peers: Vec::new() });
    let Some(poll) = alone.as_ref().or_else(|| fresh_poll(at).filter(|poll| poll.asked >= settled)) else {
        return ask(at, Rule::RaceAskPeers);
    };
    let named = request.is_some_and(|request| names(request, at.me()));
    let verdict = match verdict(at, poll, running, named) {
        Rule::RaceAcquire if unsettled(at, race, poll) => Rule::RaceSettle,
        Rule::RaceAcquire if named => Rule::CandidateAcquire,
        Rule::RaceAcquire if request.is_some_and(|request| yields(at, race, request, poll, running)) => Rule::RaceYield,
        verdict => verdict,
    };
    match verdict {
        rule @ (Rule::RaceAcquire | Rule::CandidateAcquire) => Plan::act(rule, [Action::Acquire]),
        rule => {
            let again = at.now.boot.since(poll.asked) >= ASK_AGAIN;
            Plan::act(rule, again.then_some(Action::PollPeers { names: others }))
                .wake(at.soon(ASK_AGAIN, WakeReason::Retry))
        }
    }
}

/// Too far behind the last position that the leader wrote.
fn lags(at: &Situation<'_>, position: Lsn) -> bool {
    at.view.status.optime.0.saturating_sub(position.0) > at.settings.maximum_lag_on_failover
}

/// Whom to ask: every registered member but this one.
fn others<'a>(at: &'a Situation<'_>) -> impl Iterator<Item = &'a Member> {
    at.view.members.iter().filter(|member| member.name != at.me() && !member.api_url.is_empty())
}

/// Another still receives, or replays what it had before its last restart: what it says is not its last word, and soon is. A plain Patroni does not
/// cut its upstream, and is not waited for.
fn unsettled(at: &Situation<'_>, race: Race, poll: &PeerPoll) -> bool {
    let cuts = |name: &str| at.view.member(name).is_some_and(|member| member.pgherd.is_some());
    let receives = |answer: &PeerAnswer| answer.in_recovery && !answer.settled && !answer.nofailover;
    at.settings.standby_cluster.is_none()
        && at.now.boot.since(race.since) < SETTLE
        && poll.peers.iter().any(|peer| peer.answer.as_ref().is_some_and(receives) && cuts(&peer.name))
}

fn verdict(at: &Situation<'_>, poll: &PeerPoll, running: &Running, named: bool) -> Rule {
    let answers = || poll.peers.iter().filter_map(|peer| peer.answer.as_ref());
    if answers().any(|answer| !answer.in_recovery) {
        return Rule::RacePrimaryAlive;
    }
    // Of equals the one with the higher priority, unless an operator has named this one.
    let preferred = |answer: &PeerAnswer| !named && answer.failover_priority > at.settings.failover_priority;
    if let Some(key) = sync::active(at) {
        return sync::verdict(at, key, poll, running, preferred);
    }
    // Who must not lead is not waited for, be it ahead.
    let may_race =
        || poll.peers.iter().filter(|peer| failsafe::lists(at, &peer.name)).filter_map(|p| p.answer.as_ref());
    // One that would keep itself out for its lag is not waited for, be its timeline newer.
    let may_lead = |answer: &&PeerAnswer| !answer.nofailover && !answer.watchdog_failed && !lags(at, answer.position);
    let wins = |answer: &PeerAnswer| match compare(answer, running) {
        Ordering::Greater => true,
        Ordering::Equal => preferred(answer),
        Ordering::Less => false,
    };
    if may_race().filter(may_lead).any(wins) { Rule::RaceBehind } else { Rule::RaceAcquire }
}

/// Ordered by timeline, then by position. A member that does not know its timeline (a plain Patroni right after its upstream went) is
/// compared by position.
pub(crate) fn compare(answer: &PeerAnswer, running: &Running) -> Ordering {
    let timeline = answer.timeline.unwrap_or(running.timeline);
    (timeline, answer.position).cmp(&(running.timeline, running.position))
}

fn has_all_of(answer: &PeerAnswer, running: &Running) -> bool {
    compare(answer, running) != Ordering::Less
}
