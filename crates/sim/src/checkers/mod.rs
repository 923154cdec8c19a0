//! What must hold, one file a property. The first three are asked after every event.

mod clean_handover;
mod lease_obeyed;
mod one_writer;
mod permit_bound;
mod progress;

use std::fmt;
use std::time::Duration;

use pgherd_ha::Boot;

pub use progress::{BOUND as PROGRESS_BOUND, Progress};

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
    /// The session that held the leader key, and whether it is still there.
    leader_before: Option<lease_obeyed::Held>,
}

impl World {
    pub fn check(&mut self) -> Option<Violation> {
        self.note_pause();
        let found = if self.checks.operator_in_charge {
            None
        } else {
            one_writer::check(self).or_else(|| lease_obeyed::check(self)).or_else(|| permit_bound::check(self))
        };
        self.checks.leader_before = lease_obeyed::held(self);
        found.map(|(property, what)| Violation { at: self.now, property, what })
    }

    /// What must hold of the whole run, at its end.
    pub fn check_end(&mut self) -> Option<Violation> {
        clean_handover::check(self).map(|what| Violation { at: self.now, property: "clean handover", what })
    }

    /// What keeps the cluster from being well.
    pub fn missing(&self) -> Option<String> {
        progress::missing(self)
    }

    /// Promises end with a pause, and begin again when every writer is bound to a deadline and nobody acts on the pause any more.
    fn note_pause(&mut self) {
        if self.store.tree.paused() {
            self.checks.operator_in_charge = true;
        } else if self.checks.operator_in_charge {
            let unbound = self.nodes.iter().any(|node| {
                let acts = matches!(node.permit(), pgherd_ha::Permit::Paused { .. });
                let server = node.postgres.server.as_ref().filter(|server| !server.in_recovery || server.promoting);
                let endless =
                    server.is_some_and(|server| server.guard.as_ref().is_none_or(|g| g.deadline == Boot::NEVER));
                acts || endless
            });
            let writers = self.nodes.iter().filter(|node| node.postgres.can_commit()).count();
            let leads = |node: usize| self.store.tree.leader() == Some(node);
            let stray = (0..self.nodes.len()).any(|node| self.nodes[node].postgres.can_commit() && !leads(node));
            self.checks.operator_in_charge = unbound || writers > 1 || stray;
        }
    }
}
