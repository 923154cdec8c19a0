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
use crate::switchover;
use crate::types::Boot;
use crate::view::{FailoverKey, Member, MemberState};

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
            Ok(()) => Plan::act(Rule::StartForRace, [Action::Run(Job::StartStandby { upstream: None })]),
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
    if running.timeline < at.view.history_timeline() {
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
    if at.settings.nofailover || at.now.boot < memory.no_race_until {
        return Plan::wait(Rule::RaceNotAllowed);
    }
    if !at.local.guarded {
        return Plan::act(Rule::WaitForGuard, [Action::Guard]);
    }
    // A switchover that is planned for later says nothing about a leader that is lost today, and neither does a stale one.
    let request = at.view.failover_request().filter(|request| switchover::is_due(request, at.now.wall));
    // A failover to this node is wanted whoever else may be ahead.
    if request.is_some_and(|request| request.leader.is_none() && names(request, at.me())) {
        return Plan::act(Rule::CandidateAcquire, [Action::Acquire]);
    }
    if at.view.status.optime.0.saturating_sub(running.position.0) > at.settings.maximum_lag_on_failover {
        return Plan::wait(Rule::RaceTooFarBehind);
    }
    if at.settings.check_timeline && running.timeline < at.view.history_timeline() {
        return Plan::wait(Rule::RaceWrongTimeline);
    }
    if let Some(plan) = settle(at, memory, race, running) {
        return plan;
    }
    ask_and_take(at, memory, running, request)
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

fn ask_and_take(at: &Situation<'_>, memory: &mut Memory, running: &Running, request: Option<&FailoverKey>) -> Plan {
    let race = memory.race.unwrap_or(Race { since: at.now.boot, settled: None });
    let settled = race.settled.unwrap_or(at.now.boot);
    let others: Vec<String> = others(at).map(|member| member.name.clone()).collect();
    if others.is_empty() {
        return Plan::act(Rule::RaceAcquire, [Action::Acquire]);
    }
    let valid = at.settings.retry_timeout / 3 + FRESH;
    let fresh = |poll: &&PeerPoll| poll.asked >= settled && at.now.boot.since(poll.asked) <= valid;
    let fresh = at.local.peers.as_ref().filter(fresh);
    let Some(poll) = fresh else {
        return Plan::act(Rule::RaceAskPeers, [Action::PollPeers { names: others }])
            .wake(at.soon(ASK_AGAIN, WakeReason::Settling));
    };
    let named = request.is_some_and(|request| names(request, at.me()));
    let verdict = match verdict(at, poll, running, named) {
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

/// Whom to ask: every registered member but this one.
fn others<'a>(at: &'a Situation<'_>) -> impl Iterator<Item = &'a Member> {
    at.view.members.iter().filter(|member| member.name != at.me() && !member.api_url.is_empty())
}

fn verdict(at: &Situation<'_>, poll: &PeerPoll, running: &Running, named: bool) -> Rule {
    let answers = || poll.peers.iter().filter_map(|peer| peer.answer.as_ref());
    if answers().any(|answer| !answer.in_recovery) {
        return Rule::RacePrimaryAlive;
    }
    // Of equals the one with the higher priority, unless an operator has named this one.
    let preferred = |answer: &PeerAnswer| !named && answer.failover_priority > at.settings.failover_priority;
    let may_lead = |answer: &&PeerAnswer| !answer.nofailover && !answer.watchdog_failed;
    let wins = |answer: &PeerAnswer| match compare(answer, running) {
        Ordering::Greater => true,
        Ordering::Equal => preferred(answer),
        Ordering::Less => false,
    };
    if answers().filter(may_lead).any(wins) { Rule::RaceBehind } else { Rule::RaceAcquire }
}

/// Ordered by timeline, then by position. A member that does not know its timeline (a plain Patroni right after its upstream went) is
/// compared by position.
fn compare(answer: &PeerAnswer, running: &Running) -> Ordering {
    let timeline = answer.timeline.unwrap_or(running.timeline);
    (timeline, answer.position).cmp(&(running.timeline, running.position))
}

fn has_all_of(answer: &PeerAnswer, running: &Running) -> bool {
    compare(answer, running) != Ordering::Less
}
