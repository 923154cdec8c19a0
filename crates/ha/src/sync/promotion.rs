//! What comes before a server may write: the `sync` key names it as the primary, and its server has the names that fit the key.

use super::names::StandbyNames;
use super::votes::{Standing, standing, verdict};
use super::{Memory, Synchronous, transition};
use crate::action::{Action, WakeReason};
use crate::agent::{Plan, Situation};
use crate::local::Running;
use crate::race;
use crate::rule::Rule;
use crate::types::Epoch;
use crate::view::SyncKey;

/// `None`: nothing is in the way of the promotion.
///
/// The key was read before this node had the leader key; now it is read again, and it decides: the old primary may have changed it meanwhile.
/// From the conditional write on it cannot any more.
pub(crate) fn before_promotion(at: &Situation<'_>, epoch: Epoch, running: &Running) -> Option<Plan> {
    let mode = at.settings.synchronous?;
    let key = super::active(at)?;
    if standing(at) == Standing::Primary {
        return None;
    }
    if !race::is_forced(at) {
        let Some(poll) = race::poll_of_holder(at) else {
            return Some(race::ask(at, Rule::RaceAskPeers));
        };
        if verdict(at, key, poll, running, |_| false) != Rule::RaceAcquire {
            return Some(Plan::act(Rule::GiveKeyBack, [Action::Release { epoch }]));
        }
    }
    let plan = transition::write(at, epoch, Rule::SyncClaim, claimed(at, mode, key));
    Some(plan.wake(at.soon(at.settings.retry_timeout / 4, WakeReason::Retry)))
}

/// The key with this node as its primary, and the former one among the voters: it has everything that it acknowledged.
fn claimed(at: &Situation<'_>, mode: Synchronous, key: &SyncKey) -> SyncKey {
    let members = key.sync_standby.iter().chain(&key.leader);
    let mut others: Vec<String> = members.filter(|name| !super::names_equal(name, at.me())).cloned().collect();
    others.sort_unstable();
    others.dedup();
    // Without `strict` the first commits wait for nobody rather than for those that may be down; until one of them is confirmed nobody else may
    // take over.
    let alone = !mode.quorum && key.quorum == 0 && !mode.strict;
    SyncKey {
        leader: Some(at.me().to_owned()),
        quorum: key.quorum,
        sync_standby: if alone { Vec::new() } else { others },
    }
}

/// The names that fit the key, for a server that is about to be started as a primary or promoted. `None`: the user's own count.
pub(crate) fn names_at_start(at: &Situation<'_>) -> Option<StandbyNames> {
    let mode = at.settings.synchronous?;
    Some(super::active(at).map_or_else(StandbyNames::default, |key| names_of(mode, key)))
}

pub(crate) fn names_of(mode: Synchronous, key: &SyncKey) -> StandbyNames {
    let voters = key.sync_standby.len();
    let count = voters.saturating_sub(usize::try_from(key.quorum).unwrap_or(usize::MAX));
    let least = usize::from(mode.strict);
    if voters == 0 && mode.strict {
        return StandbyNames::nobody_at_all(transition::method_of(mode));
    }
    StandbyNames::new(transition::method_of(mode), count.max(least), key.sync_standby.iter().cloned())
}

/// A crashed primary may be started again as one only while the key still names it: else another was promoted since.
pub(crate) fn may_go_on(at: &Situation<'_>) -> bool {
    matches!(standing(at), Standing::Asynchronous | Standing::Primary)
}

/// Closed from the start of a primary until the standbys have what it shows.
pub(crate) fn starts(at: &Situation<'_>, memory: &mut Memory) {
    if at.settings.synchronous.is_some() {
        memory.gate = Some(super::Gate::default());
    }
}
