//! What must hold, one file a property. All but `clean_handover` and `progress` are asked after every event.

mod clean_handover;
mod lease_obeyed;
mod loss_bound;
mod no_needless_failover;
mod nothing_lost;
mod nothing_missed;
mod one_writer;
mod permit_bound;
mod progress;
mod standby_cluster;
mod stuck_disk;
mod timeline_lineage;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use pgherd_ha::{Boot, Epoch};

pub use progress::{BOUND as PROGRESS_BOUND, Progress, left_to_the_operator};
pub use standby_cluster::promoted;

use crate::scenario::Kind;
use crate::world::World;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub at: Duration,
    pub property: &'static str,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} violated after {:.3} s: {}", self.property, self.at.as_secs_f64(), self.what)
    }
}

/// What the checkers remember.
#[derive(Debug, Default)]
pub struct Checks {
    /// The cluster is paused, or was and a server still has a guard without an end from then: the operator is in charge.
    pub operator_in_charge: bool,
    pub beginnings: timeline_lineage::Beginnings,
    /// Until when a member has bound itself to another in failsafe mode, by what it answered; the world's time.
    promises: BTreeMap<(usize, usize), Duration>,
    /// A disk has lost what it said to have written: nobody answers for rows then.
    pub a_disk_lied: bool,
    /// Synchronous mode was turned off.
    pub synchronous_mode_left: bool,
    /// A machine has come back without its data.
    pub a_disk_is_new: bool,
    /// There was a pause, or a failover to a node that may be behind was asked for.
    pub operator_forced: bool,
    /// Since when this cluster is to follow another one.
    follows_since: Option<Duration>,
    promoted_while_following: Option<String>,
    pub losses: loss_bound::Losses,
    /// The epoch under which a gentle storm began.
    gentle_since: Option<Epoch>,
    /// The session that held the leader key, and whether it is still there.
    leader_before: Option<lease_obeyed::Held>,
    /// The primary that was last looked at.
    primary: Option<nothing_lost::Primary>,
}

impl Checks {
    /// `member` has agreed that `primary` goes on.
    pub fn promised(&mut self, member: usize, primary: usize, until: Duration) {
        let known = self.promises.entry((member, primary)).or_default();
        *known = until.max(*known);
    }
}

impl World {
    /// The end of the first promise that a primary without the store relies on: every listed member but itself must have given one.
    pub fn promised_until(&self, primary: usize) -> Option<Duration> {
        let listed = self.store.tree.listed();
        if !listed.contains(&primary) {
            return None;
        }
        let others = listed.into_iter().filter(|member| *member != primary);
        let until = |member| self.checks.promises.get(&(member, primary)).copied().unwrap_or_default();
        Some(others.map(until).min().unwrap_or(Duration::MAX))
    }

    pub fn check(&mut self) -> Option<Violation> {
        self.note_pause();
        standby_cluster::note(self);
        let found = if self.checks.operator_in_charge {
            None
        } else {
            one_writer::check(self)
                .or_else(|| lease_obeyed::check(self))
                .or_else(|| permit_bound::check(self))
                .or_else(|| permit_bound::check_failsafe(self))
                .or_else(|| loss_bound::check(self))
                .or_else(|| no_needless_failover::check(self))
                .or_else(|| stuck_disk::check(self))
                .or_else(|| standby_cluster::check(self))
        };
        self.clients.routed = None;
        // An operator's promotion in a pause reserves its timeline, too.
        let found = found.or_else(|| timeline_lineage::check(self));
        self.checks.leader_before = lease_obeyed::held(self);
        let found = found.or_else(|| nothing_lost::check(self)).or_else(|| nothing_missed::check(self));
        found.map(|(property, what)| Violation { at: self.now, property, what })
    }

    /// The storm begins.
    pub fn begin_checks(&mut self) {
        if self.scenario.kind == Kind::Gentle {
            self.checks.gentle_since = no_needless_failover::epoch(self);
        }
    }

    /// What must hold of the whole run, at its end.
    pub fn check_end(&mut self) -> Option<Violation> {
        clean_handover::check(self).map(|what| Violation { at: self.now, property: "clean handover", what })
    }

    /// What keeps the cluster from being well.
    pub fn missing(&self) -> Option<String> {
        progress::missing(self)
    }

    /// Promises end with a pause, and begin again when every writer is bound to a deadline that has not passed and nobody acts on the
    /// pause any more.
    fn note_pause(&mut self) {
        if self.store.tree.paused() {
            self.checks.operator_in_charge = true;
            self.checks.operator_forced = true;
        } else if self.checks.operator_in_charge {
            let unbound = (0..self.nodes.len()).any(|node| {
                let acts = matches!(self.nodes[node].permit(), pgherd_ha::Permit::Paused { .. });
                let server = self.nodes[node].postgres.server.as_ref();
                let writer = server.filter(|server| !server.in_recovery || server.promoting);
                // Killed right after the pause, because its lease had run out meanwhile: that takes its time.
                let ending = |deadline: Boot| deadline <= self.boot(node);
                let bound = |guard: &crate::guard::Guard| guard.deadline != Boot::NEVER && !ending(guard.deadline);
                acts || writer.is_some_and(|server| !server.guard.as_ref().is_some_and(bound))
            });
            let writers = self.nodes.iter().filter(|node| node.postgres.can_commit()).count();
            let stray = lease_obeyed::check(self).is_some();
            self.checks.operator_in_charge = unbound || writers > 1 || stray;
        }
    }
}
