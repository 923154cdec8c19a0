//! The disk under the leader's data does not answer: whatever is started there waits for it as well, so another node is to lead.
//!
//! The lease is not renewed then, but the store keeps the key as long as the agent's session lives, and the agent is well. Not here: a disk that is
//! full or refuses a write, which is an answer.

use std::time::Duration;

use crate::action::{Action, WakeReason};
use crate::agent::{Plan, Situation, Standing};
use crate::leader::another_could_lead;
use crate::local::Postgres;
use crate::rule::Rule;

/// Between two attempts to give the key up: each looks through all processes of the machine.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Processes that are killed and wait for the disk never come back to a client, so the key need not wait for them.
pub(crate) fn plan(at: &Situation<'_>) -> Option<Plan> {
    let Standing::Mine(epoch) = at.standing else { return None };
    if !at.local.disk_stuck || at.paused || !at.reachable || !another_could_lead(at) {
        return None;
    }
    // A start that waits for the disk would go on when it answers, and the key would be another node's by then.
    let idle = at.local.job.is_none();
    let action = match at.local.postgres {
        Postgres::Stopped | Postgres::Orphans if idle => Action::Release { epoch },
        _ => Action::Fence,
    };
    Some(Plan::act(Rule::DiskStuck, [action]).wake(at.soon(LOOK_AGAIN, WakeReason::Retry)))
}
