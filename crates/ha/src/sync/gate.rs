//! A primary that has just left recovery shows everything that is in its log, also what nobody was told is committed
//! (`postgres-facts` 9). Until the standbys that could take over have it all, no client is let in: what was read could be gone after the next failover.

use super::{Memory, candidates};
use crate::action::Action;
use crate::agent::{Plan, Situation};
use crate::local::Running;
use crate::rule::Rule;
use crate::types::Lsn;

/// Closed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gate {
    /// A position after the end of recovery.
    position: Option<Lsn>,
}

/// Opens, if it is time to.
pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory, running: &Running) -> Option<Plan> {
    // An agent before this one has closed it.
    if !at.local.admits_clients {
        memory.gate.get_or_insert_default();
    }
    let gate = memory.gate.as_mut()?;
    let position = *gate.position.get_or_insert(running.position);
    if !is_held(at, running, position) {
        return None;
    }
    memory.gate = None;
    Some(Plan::act(Rule::AdmitClients, [Action::AdmitClients]))
}

/// Whether clients are sent here. From the decision that begins a start or a promotion with the gate closed, not only from the first look at the
/// server afterwards: in between it takes connections, and refuses them.
pub(crate) fn admits(at: &Situation<'_>, memory: &Memory, actions: &[Action]) -> bool {
    let closes = actions.iter().any(|action| matches!(action, Action::Run(job) if job.holds_clients()));
    let opens = actions.contains(&Action::AdmitClients);
    memory.gate.is_none() && !closes && (opens || at.local.admits_clients)
}

/// Whoever may take over has it.
fn is_held(at: &Situation<'_>, running: &Running, position: Lsn) -> bool {
    if at.settings.synchronous.is_none() {
        return true;
    }
    let Some(key) = super::active(at) else { return false };
    let has_it =
        |name: &&String| candidates::streaming(running, name).is_some_and(|standby| standby.flushed >= position);
    let held = key.sync_standby.iter().filter(has_it).count();
    held + usize::try_from(key.quorum).unwrap_or(usize::MAX) >= key.sync_standby.len()
}
