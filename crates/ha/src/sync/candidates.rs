//! Which standbys can be waited for, and which of them are.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Synchronous;
use crate::agent::Situation;
use crate::local::{ConnectedStandby, Running, SyncState};
use crate::types::{Boot, Lsn};
use crate::view::{Member, MemberState};

/// How long one that has just stopped streaming is still counted on: a receiver that connects anew takes some 100 ms. As long as it is
/// counted on, commits may wait for it.
const GRACE: Duration = Duration::from_secs(1);

/// After a primary has started, its standbys have to find it first; a change of the upstream takes up to 2 s.
const FIRST_GRACE: Duration = Duration::from_secs(3);

/// The standbys that commits are to wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Sorted.
    pub names: Vec<String>,
    /// How many of them.
    pub count: usize,
    /// When one of them has not streamed for too long.
    pub until: Option<Boot>,
}

struct Candidate<'a> {
    member: &'a Member,
    sync_state: SyncState,
    position: Lsn,
}

pub(super) fn wanted(
    at: &Situation<'_>,
    seen: &BTreeMap<String, Boot>,
    mode: Synchronous,
    running: &Running,
    now_listed: &[String],
) -> Wanted {
    let mut until = None;
    let mut found: Vec<Candidate<'_>> = Vec::new();
    for member in eligible(at, running) {
        if let Some(standby) = streaming(running, &member.name) {
            found.push(Candidate { member, sync_state: standby.sync_state, position: standby.flushed });
        } else if let Some(last) = seen.get(&member.name).filter(|_| super::lists(now_listed, &member.name)) {
            let end = *last + GRACE;
            if at.now.boot < end {
                until = Some(until.map_or(end, |until: Boot| until.min(end)));
                found.push(Candidate { member, sync_state: SyncState::Sync, position: running.position });
            }
        }
    }
    drop_laggards(&mut found, mode, running.position);
    found.sort_by_key(|candidate| {
        // Best first. One that must not be promoted helps durability and not availability.
        let priority = sync_priority(candidate.member);
        (candidate.member.nofailover(), Reverse((priority, candidate.sync_state, candidate.position)))
    });
    let electable = found.iter().filter(|candidate| !candidate.member.nofailover()).count();
    let take = if mode.quorum { electable.max(mode.node_count) } else { mode.node_count };
    let mut names: Vec<String> = found.iter().take(take).map(|candidate| candidate.member.name.clone()).collect();
    names.sort_unstable();
    let count = if mode.quorum { mode.node_count.min(names.len()) } else { names.len() };
    Wanted { names, count, until }
}

/// Those that were waited for before this primary started are not given up because they do not stream yet.
pub(super) fn expect(at: &Situation<'_>, seen: &mut BTreeMap<String, Boot>, listed: &[String]) {
    let as_if = at.now.boot + (FIRST_GRACE - GRACE);
    seen.extend(listed.iter().map(|name| (name.clone(), as_if)));
}

/// Notes who streams now.
pub(super) fn note(at: &Situation<'_>, seen: &mut BTreeMap<String, Boot>, running: &Running) {
    for member in &at.view.members {
        if streaming(running, &member.name).is_some() {
            let last = seen.entry(member.name.clone()).or_default();
            *last = at.now.boot.max(*last);
        }
    }
    seen.retain(|_, last| at.now.boot.since(*last) < GRACE);
}

pub(super) fn streaming<'a>(running: &'a Running, name: &str) -> Option<&'a ConnectedStandby> {
    running.standbys.iter().find(|standby| standby.streaming && super::names_equal(&standby.name, name))
}

/// Members that may be waited for, connected or not.
fn eligible<'a>(at: &'a Situation<'_>, running: &'a Running) -> impl Iterator<Item = &'a Member> {
    at.view.members.iter().filter(move |member| {
        // Behind a standby that streams itself it would count twice.
        let cascades = member
            .tags
            .get("replicatefrom")
            .and_then(serde_json::Value::as_str)
            .is_some_and(|source| source != at.me() && streaming(running, source).is_some());
        member.name != at.me() && member.state == MemberState::Running && sync_priority(member) > 0 && !cascades
    })
}

/// The tag `sync_priority` (1 by default); 0 with `nosync`.
fn sync_priority(member: &Member) -> i64 {
    if member.tag("nosync") {
        return 0;
    }
    member.tags.get("sync_priority").and_then(serde_json::Value::as_i64).unwrap_or(1)
}

/// Against the best of them; of one alone, against the primary.
fn drop_laggards(found: &mut Vec<Candidate<'_>>, mode: Synchronous, own: Lsn) {
    let Some(limit) = mode.maximum_lag else { return };
    let best = if found.len() == 1 { own } else { found.iter().map(|c| c.position).max().unwrap_or(own) };
    found.retain(|candidate| best.0.saturating_sub(candidate.position.0) <= limit);
}
