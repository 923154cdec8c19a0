//! A planned change of leader, seen from the leader: the operator's request, and the hand-over of the stopped primary's key.
//!
//! The order is what saves the rows: ask the candidates, stop in order, see the shutdown checkpoint on a candidate, release.

use std::time::Duration;

use crate::action::{Action, Job, StopMode, WakeReason};
use crate::agent::{Memory, Plan, Situation};
use crate::local::{ControlState, PeerAnswer, PeerPoll, Running};
use crate::rule::Rule;
use crate::types::{Boot, Epoch, Timeline, Wall};
use crate::view::{FailoverKey, Member, MemberState, Status};
use crate::{leader, slot_name, sync};

/// How long the candidates may take to say where they are.
const ASK: Duration = Duration::from_secs(2);

/// How long a stopped primary waits for a candidate to hold its last record. The record is on its way before PostgreSQL has stopped, so
/// this is ten times what a loaded candidate needs to flush it.
const HAND_OVER: Duration = Duration::from_secs(5);

/// Two looks at a candidate that does not have the last record yet are this far apart.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// A scheduled switchover that is older than this is stale: nobody led when it was due.
const STALE: Duration = Duration::from_secs(15);

/// A request while this node leads and its server runs. `None`: there is none that is due.
pub(crate) fn requested(at: &Situation<'_>, memory: &mut Memory, running: &Running) -> Option<Plan> {
    let request = at.view.failover_request()?;
    let version = at.view.failover.as_ref()?.version;
    let refuse = || Some(Plan::act(Rule::SwitchoverRefused, [Action::ClearFailover { version }]));
    if is_done(at, request) {
        return Some(Plan::act(Rule::SwitchoverDone, [Action::ClearFailover { version }]));
    }
    if request.leader.as_deref().is_some_and(|leader| leader != at.me()) {
        return refuse();
    }
    if at.paused && request.member.is_none() {
        return refuse();
    }
    if let Some(due) = request.scheduled_at {
        if at.paused {
            return None;
        }
        if at.now.wall < due {
            return None;
        }
        if !is_due(request, at.now.wall) {
            return refuse();
        }
    }
    if candidates(at, request).is_empty() {
        return refuse();
    }
    let names = asked(at, request);
    let since = *memory.switchover_since.get_or_insert(at.now.boot);
    let answered = at.local.peers.as_ref().filter(|poll| poll.asked >= since);
    match answered {
        None if at.now.boot.since(since) < ASK => Some(
            Plan::act(Rule::SwitchoverAskCandidates, [Action::PollPeers { names }])
                .wake(at.soon(LOOK_AGAIN * 4, WakeReason::Settling)),
        ),
        None => refuse(),
        Some(poll) if is_enough(at, request, poll, |answer| is_ready(at, answer, running)) => {
            Some(Plan::act(Rule::SwitchoverStop, [Action::Run(Job::Stop(StopMode::Planned))]))
        }
        Some(_) => refuse(),
    }
}

/// Its time has come, and is not long over: an old schedule that nobody carried out says nothing about today.
pub(crate) fn is_due(request: &FailoverKey, now: Wall) -> bool {
    let stale = jiff::SignedDuration::try_from(STALE).unwrap_or(jiff::SignedDuration::MAX);
    request.scheduled_at.is_none_or(|due| {
        let late = now.duration_since(due);
        !late.is_negative() && late <= stale
    })
}

/// This node, which leads, is the one that was asked for; or any but the former leader was.
fn is_done(at: &Situation<'_>, request: &FailoverKey) -> bool {
    match (&request.member, &request.leader) {
        (Some(member), _) => member == at.me(),
        (None, Some(leader)) => leader != at.me(),
        (None, None) => false,
    }
}

/// The server is down and was stopped in order because the key is to be handed over. `None`: it is not.
pub(crate) fn hand_over(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch) -> Option<Plan> {
    let request = at.view.failover_request().filter(|request| concerns(at, request));
    let control = at.local.control()?;
    let in_order = control.state == ControlState::ShutDown && !control.standby_signal;
    if !in_order || (request.is_none() && !at.local.stopping) {
        return None;
    }
    let any = FailoverKey::default();
    let request_or_any = request.unwrap_or(&any);
    let names = asked(at, request_or_any);
    let since = *memory.hand_over_since.get_or_insert(at.now.boot);
    let holds = |answer: &PeerAnswer| is_on(answer, control.timeline) && answer.position > control.checkpoint;
    let poll = at.local.peers.as_ref().filter(|poll| poll.asked >= since);
    if poll.is_some_and(|poll| is_enough(at, request_or_any, poll, holds)) {
        return Some(release(at, epoch, Rule::HandOver));
    }
    if names.is_empty() || at.now.boot.since(since) >= HAND_OVER {
        return Some(give_up_hand_over(at, memory, epoch));
    }
    let ask = poll.is_none_or(|poll| at.now.boot.since(poll.asked) >= LOOK_AGAIN);
    let actions = ask.then_some(Action::PollPeers { names });
    Some(Plan::act(Rule::HandOverWait, actions).wake(at.soon(LOOK_AGAIN, WakeReason::Settling)))
}

/// With the last position of this primary, so that nobody who lacks it counts as close to it.
fn release(at: &Situation<'_>, epoch: Epoch, rule: Rule) -> Plan {
    let last = at.local.control().map(|control| control.checkpoint).filter(|last| *last > at.view.status.optime);
    let status = last.filter(|_| at.permitted()).map(|optime| {
        let mut slots = at.view.status.slots.clone();
        slots.extend(
            at.local.last_slots.clone().into_iter().filter(|(name, _)| at.view.status.slots.contains_key(name)),
        );
        slots.insert(slot_name(at.me()), optime.0);
        Action::WriteStatus { epoch, status: Status { optime, slots, ..at.view.status.clone() } }
    });
    Plan::act(rule, status.into_iter().chain([Action::Release { epoch }]))
}

/// Nobody holds the last record. A switchover is called off; an agent that stops leaves the key to whoever comes.
fn give_up_hand_over(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch) -> Plan {
    if at.local.stopping {
        return release(at, epoch, Rule::LeaveKey);
    }
    let clear = at.view.failover.as_ref().map(|key| Action::ClearFailover { version: key.version });
    let start = at.permitted().then(|| leader::start_primary(at, memory, epoch));
    Plan::act(Rule::HandOverFailed, clear.into_iter().chain(start))
}

fn concerns(at: &Situation<'_>, request: &FailoverKey) -> bool {
    is_due(request, at.now.wall)
        && request.leader.as_deref().is_none_or(|leader| leader == at.me())
        && request.member.as_deref() != Some(at.me())
}

/// The members that the request allows, by what they registered.
pub(crate) fn candidates(at: &Situation<'_>, request: &FailoverKey) -> Vec<String> {
    let allowed = |member: &&Member| {
        member.name != at.me()
            && request.member.as_ref().is_none_or(|name| *name == member.name)
            && !member.nofailover()
            && member.state == MemberState::Running
            && (is_forced(request) || sync::may_take_over(at, &member.name))
    };
    at.view.members.iter().filter(allowed).map(|member| member.name.clone()).collect()
}

/// A failover to a named node is wanted also where rows are lost by it.
fn is_forced(request: &FailoverKey) -> bool {
    request.leader.is_none() && request.member.is_some()
}

/// Whom to ask: the candidates, and those without whose votes none of them could take over.
fn asked(at: &Situation<'_>, request: &FailoverKey) -> Vec<String> {
    let mut names = candidates(at, request);
    if !names.is_empty() && !is_forced(request) {
        names.extend(sync::voters(at).filter(|name| at.view.member(name).is_some()).map(str::to_owned));
        names.sort_unstable();
        names.dedup();
    }
    names
}

/// A candidate is `good`, and so are as many others as its promotion needs.
fn is_enough(at: &Situation<'_>, request: &FailoverKey, poll: &PeerPoll, good: impl Fn(&PeerAnswer) -> bool) -> bool {
    let candidates = candidates(at, request);
    let may_lead = |answer: &PeerAnswer| answer.in_recovery && !answer.nofailover && !answer.watchdog_failed;
    let answers = || poll.peers.iter().filter_map(|peer| Some((&peer.name, peer.answer.as_ref()?)));
    let one = answers().any(|(name, answer)| candidates.contains(name) && may_lead(answer) && good(answer));
    let votes = answers().filter(|(_, answer)| answer.in_recovery && good(answer)).count();
    one && (is_forced(request) || votes > sync::votes_needed(at))
}

/// A position of another timeline says nothing: a former primary that has not been rewound may be "ahead". Who does not tell its
/// timeline is taken at its word.
fn is_on(answer: &PeerAnswer, timeline: Timeline) -> bool {
    answer.timeline.is_none_or(|theirs| theirs == timeline)
}

fn is_ready(at: &Situation<'_>, answer: &PeerAnswer, primary: &Running) -> bool {
    let lag = primary.position.0.saturating_sub(answer.position.0);
    is_on(answer, primary.timeline) && lag <= at.settings.maximum_lag_on_failover
}

/// When the request falls due, as an instant to wake up at.
pub(crate) fn schedule_wake(at: &Situation<'_>) -> Option<crate::Wake> {
    let due = at.view.failover_request()?.scheduled_at?;
    let ahead = Duration::try_from(due.duration_since(at.now.wall)).ok()?;
    Some(crate::Wake { at: Boot(at.now.boot.0.saturating_add(ahead)), reason: WakeReason::Schedule })
}
