//! Who may take the leader key: one that has every commit which was acknowledged.

use std::cmp::Ordering;

use crate::agent::Situation;
use crate::local::{PeerAnswer, PeerPoll, Running};
use crate::race::compare;
use crate::rule::Rule;
use crate::view::SyncKey;

/// What the `sync` key says of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Synchronous mode is off, or has not begun.
    Asynchronous,
    /// The last primary: it has everything that it acknowledged.
    Primary,
    Voter,
    Outsider,
}

pub(crate) fn standing(at: &Situation<'_>) -> Standing {
    let Some(key) = super::active(at) else { return Standing::Asynchronous };
    if key.leader.as_deref().is_some_and(|leader| super::names_equal(leader, at.me())) {
        Standing::Primary
    } else if super::lists(&key.sync_standby, at.me()) {
        Standing::Voter
    } else {
        Standing::Outsider
    }
}

/// Whether a switchover may go to this member.
pub(crate) fn may_take_over(at: &Situation<'_>, name: &str) -> bool {
    super::active(at).is_none_or(|key| super::lists(&key.sync_standby, name))
}

pub(crate) fn voters<'a>(at: &Situation<'a>) -> impl Iterator<Item = &'a str> {
    super::active(at).into_iter().flat_map(|key| key.sync_standby.iter().map(String::as_str))
}

/// How many others a voter needs behind it.
pub(crate) fn votes_needed(at: &Situation<'_>) -> usize {
    super::active(at).map_or(0, |key| usize::try_from(key.quorum).unwrap_or(usize::MAX))
}

/// [`Rule::RaceAcquire`], or why this node must not take the key.
///
/// A vote is the answer of a voter that has no more than this node **and has settled**: else an old primary that goes on somewhere could have
/// it acknowledge what this node will never have, and one that has just been restarted says less than it has (`postgres-facts` 6).
pub(crate) fn verdict(
    at: &Situation<'_>,
    key: &SyncKey,
    poll: &PeerPoll,
    running: &Running,
    preferred: impl Fn(&PeerAnswer) -> bool,
) -> Rule {
    let standing = standing(at);
    if key.quorum == 0 && standing == Standing::Outsider {
        return Rule::NotSynchronous;
    }
    let mut votes = 0_u32;
    for peer in poll.peers.iter().filter(|peer| super::lists(&key.sync_standby, &peer.name)) {
        let Some(answer) = &peer.answer else { continue };
        let order = compare(answer, running);
        let may_lead = !answer.nofailover && !answer.watchdog_failed;
        if may_lead && (order == Ordering::Greater || (order == Ordering::Equal && preferred(answer))) {
            return Rule::RaceBehind;
        }
        if order != Ordering::Greater && answer.position.0 > 0 && answer.settled {
            votes += 1;
        }
    }
    let needed = match standing {
        Standing::Primary => 0,
        Standing::Voter | Standing::Asynchronous => key.quorum,
        Standing::Outsider => key.quorum.saturating_add(1),
    };
    if votes >= needed { Rule::RaceAcquire } else { Rule::RaceNoQuorum }
}
