//! The primary keeps the `sync` key and the names in step with the standbys that are there: one write a round, each safe by itself, so that a
//! crash between any two leaves a state that is.
//!
//! The order: the key becomes one that holds under the old names and the new; the server is told the new names; when they are in force and enough
//! of them have flushed, the key becomes the narrowest that is true.

use std::time::Duration;

use super::candidates::{self, Wanted};
use super::names::{Method, StandbyNames};
use super::{Memory, Synchronous};
use crate::action::{Action, Wake, WakeReason};
use crate::agent::{Plan, Situation};
use crate::local::Running;
use crate::rule::Rule;
use crate::types::{Boot, Epoch, Lsn};
use crate::view::SyncKey;

/// After a reload every walsender must have read the names anew before a position counts that is taken under them; one does so at its next
/// turn, which is milliseconds away. Nothing shows that it has when only the number changed. The checkpointer, which may be busy for
/// minutes, shows that it listens.
const TAKES_EFFECT: Duration = Duration::from_secs(1);

/// Two looks while a step waits: nothing tells when a standby has flushed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Between two tries to tell the server its names.
const TELL_AGAIN: Duration = Duration::from_secs(2);

/// The names that the server has, and since when.
#[derive(Clone, Debug)]
pub(crate) struct InForce {
    text: String,
    since: Boot,
    /// A position of this primary that was taken while every walsender went by them.
    position: Option<Lsn>,
}

/// The next step, if there is one to take.
pub(crate) fn maintain(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch, running: &Running) -> Option<Plan> {
    candidates::note(at, &mut memory.seen, running);
    let first_look = memory.in_force.is_none();
    note_names(at, memory, running);
    let Some(mode) = at.settings.synchronous else { return switch_off(at, epoch) };
    let key = at.view.sync.as_ref().map(|key| &key.value).filter(|key| key.leader.is_some());
    let Some(key) = key.filter(|key| key.leader.as_deref().is_some_and(|leader| super::names_equal(leader, at.me())))
    else {
        // What was acknowledged so far is on this node, and perhaps nowhere else.
        let first = SyncKey { leader: Some(at.me().to_owned()), quorum: 0, sync_standby: Vec::new() };
        return Some(write(at, epoch, Rule::SyncBegin, first));
    };
    let listed: Vec<String> = key.sync_standby.clone();
    if first_look {
        candidates::expect(at, &mut memory.seen, &listed);
    }
    let wanted = candidates::wanted(at, &memory.seen, mode, running, &listed);
    memory.wake = wanted.until.map(|at| Wake { at, reason: WakeReason::Settling });
    step(at, memory, epoch, running, mode, key, &wanted)
}

fn step(
    at: &Situation<'_>,
    memory: &mut Memory,
    epoch: Epoch,
    running: &Running,
    mode: Synchronous,
    key: &SyncKey,
    wanted: &Wanted,
) -> Option<Plan> {
    let names = target(mode, running, wanted)?;
    let goal = SyncKey {
        leader: key.leader.clone(),
        quorum: u32::try_from(names.names.len() - names.count).unwrap_or(u32::MAX),
        sync_standby: names.names.iter().filter(|name| *name != super::names::NOBODY).cloned().collect(),
    };
    if running.synchronous_standby_names != names.text() {
        let both = holds_under_both(key, &goal, &names, mode);
        if both != *key {
            return Some(write(at, epoch, Rule::SyncKeyBefore, both));
        }
        return tell(at, memory, epoch, names);
    }
    if goal == *key {
        return None;
    }
    let soon = at.soon(LOOK_AGAIN, WakeReason::Settling);
    memory.wake = Some(memory.wake.filter(|wake| wake.at < soon.at).unwrap_or(soon));
    let reached = confirmed(memory, running, mode, key, &goal, &names)?;
    (reached != *key).then(|| write(at, epoch, Rule::SyncKeyAfter, reached))
}

/// A server that does not take the names (something of the user's is in the way) is not told ten times a second.
fn tell(at: &Situation<'_>, memory: &mut Memory, epoch: Epoch, names: StandbyNames) -> Option<Plan> {
    let text = names.text();
    let told = memory.told.as_ref().is_some_and(|(last, when)| *last == text && at.now.boot.since(*when) < TELL_AGAIN);
    memory.wake = Some(at.soon(LOOK_AGAIN, WakeReason::Settling));
    if told {
        return None;
    }
    memory.told = Some((text, at.now.boot));
    let plan = Plan::act(Rule::SyncNames, [Action::SetStandbyNames { epoch, names: Some(names) }]);
    Some(plan.wake(at.soon(LOOK_AGAIN, WakeReason::Settling)))
}

/// What the names are to be. `None`: they stay.
fn target(mode: Synchronous, running: &Running, wanted: &Wanted) -> Option<StandbyNames> {
    if wanted.count > 0 {
        return Some(StandbyNames::new(mode.method(), wanted.count, wanted.names.iter().cloned()));
    }
    if !mode.strict {
        return Some(StandbyNames::default());
    }
    // Commits wait for those that were there last, until one of them is back.
    let kept = StandbyNames::parse(&running.synchronous_standby_names).filter(|names| names.count > 0);
    match kept {
        Some(kept) if kept.method == mode.method() => None,
        _ => Some(StandbyNames::nobody_at_all(mode.method())),
    }
}

/// A key under which nothing is lost while either the present or the coming names are in force.
fn holds_under_both(key: &SyncKey, goal: &SyncKey, names: &StandbyNames, mode: Synchronous) -> SyncKey {
    let voters = &key.sync_standby;
    let all: usize = names.names.len() + voters.iter().filter(|name| !names.contains(name)).count();
    let quorum = usize::try_from(key.quorum).unwrap_or(usize::MAX);
    if all <= quorum.saturating_add(names.count) {
        return key.clone();
    }
    let stay: Vec<String> = voters.iter().filter(|name| names.contains(name)).cloned().collect();
    if !mode.quorum && key.quorum == 0 {
        return SyncKey { sync_standby: stay, ..key.clone() };
    }
    let joining = goal.sync_standby.iter().filter(|name| !super::lists(voters, name)).count();
    let needed = names.names.len() - names.count;
    let quorum = u32::try_from(quorum.saturating_add(joining).max(needed)).unwrap_or(u32::MAX);
    SyncKey { quorum, sync_standby: goal.sync_standby.clone(), ..key.clone() }
}

/// The narrowest key that is true now that the names are what they are to be. `None`: not known yet.
fn confirmed(
    memory: &Memory,
    running: &Running,
    mode: Synchronous,
    key: &SyncKey,
    goal: &SyncKey,
    names: &StandbyNames,
) -> Option<SyncKey> {
    if names.count == 0 {
        // Commits wait for nobody: only this node has them all.
        return Some(goal.clone());
    }
    let position = memory.in_force.as_ref().filter(|known| known.text == names.text())?.position?;
    let has_it = |name: &String| {
        candidates::streaming(running, name).is_some_and(|standby| standby.listed && standby.flushed >= position)
    };
    if mode.quorum || key.quorum > 0 {
        let enough = names.names.iter().filter(|name| has_it(name)).count() >= names.count;
        return enough.then(|| goal.clone());
    }
    // Each that has it all may take over, whatever the others have.
    let may = |name: &&String| super::lists(&key.sync_standby, name) || has_it(name);
    Some(SyncKey { sync_standby: goal.sync_standby.iter().filter(may).cloned().collect(), ..goal.clone() })
}

/// Since when the server has the names that it has, and from which position on they count.
fn note_names(at: &Situation<'_>, memory: &mut Memory, running: &Running) {
    let text = &running.synchronous_standby_names;
    match &mut memory.in_force {
        Some(known) if known.text == *text => {
            let took_effect = at.now.boot.since(known.since) >= TAKES_EFFECT && running.checkpointer_listens;
            if known.position.is_none() && took_effect {
                known.position = Some(running.position);
            }
        }
        other => *other = Some(InForce { text: text.clone(), since: at.now.boot, position: None }),
    }
}

/// Whoever takes over from now on may lack what was acknowledged, as in any asynchronous cluster; so the key goes first.
fn switch_off(at: &Situation<'_>, epoch: Epoch) -> Option<Plan> {
    if at.view.sync.as_ref().is_some_and(|key| key.value.leader.is_some()) {
        return Some(write(at, epoch, Rule::SyncOff, SyncKey::default()));
    }
    at.local
        .manages_standby_names
        .then(|| Plan::act(Rule::SyncNamesOff, [Action::SetStandbyNames { epoch, names: None }]))
}

pub(super) fn write(at: &Situation<'_>, epoch: Epoch, rule: Rule, key: SyncKey) -> Plan {
    let version = at.view.sync.as_ref().map(|key| key.version);
    Plan::act(rule, [Action::WriteSync { epoch, version, key }])
}

pub(super) fn method_of(mode: Synchronous) -> Method {
    mode.method()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDBYS: [&str; 3] = ["b", "c", "d"];

    /// A set of standbys as bits.
    type Set = usize;

    fn list(set: Set) -> Vec<String> {
        (0..STANDBYS.len()).filter(|bit| set >> bit & 1 == 1).map(|bit| STANDBYS[bit].to_owned()).collect()
    }

    fn set(names: &[String]) -> Set {
        names.iter().map(|name| 1 << STANDBYS.iter().position(|known| known == name).expect("one of them")).sum()
    }

    fn size(set: Set) -> usize {
        set.count_ones() as usize
    }

    /// Whether a commit that these standbys have (beside the primary) survives whoever takes over: each choice of so many voters has one of
    /// them. The primary itself always has it.
    fn survives(holders: Set, key: &SyncKey) -> bool {
        let (voters, needed) = (set(&key.sync_standby), key.quorum as usize + 1);
        (0..8).filter(|choice| choice & !voters == 0 && size(*choice) >= needed).all(|choice| choice & holders != 0)
    }

    fn key(voters: Set, quorum: usize) -> SyncKey {
        let quorum = u32::try_from(quorum).expect("a small number");
        SyncKey { leader: Some("a".into()), quorum, sync_standby: list(voters) }
    }

    /// Every key, every set of names to come, both modes.
    fn all(mut look: impl FnMut(&SyncKey, &SyncKey, &StandbyNames, Synchronous)) {
        for (voters, quorum, wanted, count) in
            (0..8).flat_map(|v| (0..4).flat_map(move |q| (0..8).flat_map(move |w| (0..4).map(move |n| (v, q, w, n)))))
        {
            for by_quorum in [true, false] {
                let count = if by_quorum { count.min(size(wanted)) } else { size(wanted) };
                if (count == 0) != (wanted == 0) {
                    continue;
                }
                let mode = Synchronous { quorum: by_quorum, strict: false, node_count: 1, maximum_lag: None };
                let names = StandbyNames::new(mode.method(), count, list(wanted));
                look(&key(voters, quorum), &key(wanted, size(wanted) - count), &names, mode);
            }
        }
    }

    #[test]
    fn the_first_write_loses_nothing_of_before_and_holds_under_the_names_to_come() {
        let mut looked = 0;
        all(|key, goal, names, mode| {
            let both = holds_under_both(key, goal, names, mode);
            for holders in 0..8 {
                let before = survives(holders, key);
                assert!(!before || survives(holders, &both), "{key:?} to {both:?} loses what {holders:b} have");
                let enough = size(holders & set(&names.names)) >= names.count && names.count > 0;
                assert!(!enough || survives(holders, &both), "{both:?} loses what {holders:b} of {names:?} have");
                looked += 1;
            }
        });
        assert!(looked > 5_000, "{looked}");
    }

    #[test]
    fn the_last_write_holds_once_the_names_are_in_force() {
        all(|_, goal, names, _| {
            for holders in (0..8).filter(|holders| size(holders & set(&names.names)) >= names.count.max(1)) {
                assert!(survives(holders, goal), "{goal:?} loses what {holders:b} of {names:?} have");
            }
        });
    }
}
