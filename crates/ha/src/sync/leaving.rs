//! A standby that is about to stop asks first not to be waited for: else commits would hang until the primary has noticed.

use std::time::Duration;

use super::Memory;
use super::votes::{Standing, standing};
use crate::action::WakeReason;
use crate::agent::{self, Plan, Situation};
use crate::rule::Rule;
use crate::types::Boot;

/// Two looks at the `sync` key, should its change not wake the agent.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Since when this node asks (with the tags `nosync` and `sync_priority: 0`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    since: Boot,
}

/// `None`: it may stop. It waits for two rounds of the primary at most.
pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory) -> Option<Plan> {
    let follows = at.local.running().is_some_and(|running| running.in_recovery)
        && matches!(at.standing, agent::Standing::Other(_))
        && at.reachable;
    if !follows || standing(at) != Standing::Voter {
        return None;
    }
    let leaving = *memory.leaving.get_or_insert(Leaving { since: at.now.boot });
    if at.now.boot.since(leaving.since) >= at.settings.loop_wait * 2 {
        return None;
    }
    Some(Plan::wait(Rule::LeaveSync).wake(at.soon(LOOK_AGAIN, WakeReason::Settling)))
}
