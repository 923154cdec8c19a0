//! Synchronous replication: no commit that was acknowledged is lost by a failover.
//!
//! Two values must fit at every instant: the `sync` key, which says who may take over, and the server's `synchronous_standby_names`, which
//! says whom a commit waits for. The key holds the primary, the voters, and a number `quorum`: a voter may be promoted if `quorum` others
//! of them have no more than it has. The names hold a list and how many of it must have flushed a commit. So with `V` voters, and `S` the list of
//! which `n` are waited for, every acknowledged commit is on at least one of any `quorum + 1` voters as long as
//!
//! > |V ∪ S| ≤ quorum + n.
//!
//! Mode `on` is the case `quorum` = 0, where every listed standby is waited for and each of them may take over alone.
//!
//! Whatever was acknowledged before stays safe when voters are removed from the key, when one is added and `quorum` raised by one with it, and
//! when `quorum` is raised. It stays so under other names only once `n` of the new list have flushed a position that was taken after the change
//! came into force (`postgres-facts` 10). [`transition`] goes by nothing else.

mod candidates;
mod gate;
mod leaving;
mod names;
mod promotion;
mod transition;
mod votes;

use std::collections::BTreeMap;

pub(crate) use gate::{Gate, admits, plan as gate};
pub(crate) use leaving::{Leaving, plan as leave_first};
pub use names::{Method, StandbyNames};
pub(crate) use promotion::{before_promotion, may_go_on, names_at_start, starts};
pub(crate) use transition::{InForce, maintain};
pub(crate) use votes::{may_take_over, verdict, voters, votes_needed};

use crate::action::Wake;
use crate::agent::Situation;
use crate::types::Boot;
use crate::view::SyncKey;

/// What an operator has asked for (`synchronous_mode` and its neighbours).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synchronous {
    /// Any standbys of the set are waited for, instead of all of a smaller one.
    pub quorum: bool,
    /// Where no standby is there, commits wait instead of going on without.
    pub strict: bool,
    /// How many standbys must have a commit.
    pub node_count: usize,
    /// In bytes: a standby that is further behind the best is not picked.
    pub maximum_lag: Option<u64>,
}

impl Synchronous {
    fn method(&self) -> Method {
        if self.quorum { Method::Any } else { Method::First }
    }
}

/// What is kept from one decision to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub in_force: Option<InForce>,
    /// When each standby was last seen streaming.
    pub seen: BTreeMap<String, Boot>,
    pub gate: Option<Gate>,
    pub leaving: Option<Leaving>,
    /// It is about to be stopped for a moment, to copy logical slots.
    pub stops_for_slots: bool,
    /// When to look again, while a step waits for its time.
    pub wake: Option<Wake>,
    /// Which names the server was last told, and when.
    pub told: Option<(String, Boot)>,
}

impl Memory {
    /// Forgets what the new picture has made untrue.
    pub fn update(&mut self, at: &Situation<'_>) {
        self.wake = None;
        let writes = at.local.running().is_some_and(|running| !running.in_recovery);
        if !writes {
            self.in_force = None;
            self.seen.clear();
            self.told = None;
        }
        if at.local.job.is_none() && at.local.running().is_some_and(|running| running.in_recovery) {
            self.gate = None;
        }
        let starved = at.local.running().is_some_and(|running| running.starved);
        let busy = at.local.job.as_ref().is_some_and(|running| running.job.takes_server_down());
        self.stops_for_slots &= matches!(at.standing, crate::agent::Standing::Other(_));
        let staying = !starved && !self.stops_for_slots;
        if !at.local.stopping && at.local.request.is_none() && !busy && staying {
            self.leaving = None;
        }
    }
}

/// The key, if synchronous mode is on and has begun.
pub(crate) fn active<'a>(at: &Situation<'a>) -> Option<&'a SyncKey> {
    at.settings.synchronous?;
    at.view.sync.as_ref().map(|key| &key.value).filter(|key| key.leader.is_some())
}

/// Names of members match in any case of letters, as PostgreSQL matches those of standbys.
pub(crate) fn names_equal(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn lists(list: &[String], name: &str) -> bool {
    list.iter().any(|listed| names_equal(listed, name))
}
