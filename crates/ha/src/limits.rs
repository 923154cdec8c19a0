//! The settings of which a standby needs as much as its primary had when it wrote the log (`max_connections` and four more; `postgres-facts`
//! 19): a standby that runs with less is restarted with what the log needs. So an order that reaches the primary first, as patronictl's may, does
//! no lasting harm, and is carried out; but a plain Patroni leaves its standby with a paused replay until somebody comes.
//!
//! Not here: with which values a server is started (a standby never with less than its control file says, so lowering needs no order but
//! that of patience), and the order in which `pgherd restart` asks its members.

use std::time::Duration;

use crate::action::{Action, Job};
use crate::agent::{Memory, Plan, Situation};
use crate::rule::Rule;
use crate::sync;
use crate::view::{Member, MemberState, Role};

/// The pause after a restart that has not helped.
const RETRY: Duration = Duration::from_secs(10);

/// What a restart would make of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitChange {
    pub from: u64,
    pub to: u64,
}

/// A standby whose replay has paused for good. It could not be promoted either, so it does not matter who leads.
pub(crate) fn starved(at: &Situation<'_>, memory: &mut Memory) -> Option<Plan> {
    at.local.running().filter(|running| running.in_recovery && running.starved)?;
    let last = at.local.last(|job| matches!(job, Job::Restart { .. }));
    if last.is_some_and(|last| at.now.boot < last.at + RETRY) {
        return None;
    }
    if let Some(plan) = sync::leave_first(at, &mut memory.sync) {
        return Some(plan);
    }
    Some(Plan::act(Rule::RestartForReplay, [Action::Run(Job::Restart { epoch: None, names: None })]))
}

/// Why this primary should not be restarted before its standbys: the replay of some would pause, and they have nobody who mends that.
pub(crate) fn standbys_behind(at: &Situation<'_>) -> Option<String> {
    at.local.limits.iter().filter(|(_, change)| change.to > change.from).find_map(|(name, change)| {
        let LimitChange { from, to } = change;
        let behind = |member: &&Member| {
            let follows = member.name != at.me() && member.state == MemberState::Running && member.role != Role::Primary;
            follows && member.pgherd.is_none() && member.limit(name).is_some_and(|theirs| theirs < *to)
        };
        let names: Vec<&str> = at.view.members.iter().filter(behind).map(|member| member.name.as_str()).collect();
        let names = (!names.is_empty()).then(|| names.join(", "))?;
        Some(format!(
            "{name} would be raised from {from} to {to}, and {names} (no pgherd) still run with less, so their replay would pause until somebody \
             restarts them: restart {names} first, as `pgherd restart` of the whole cluster does (or ask with `unordered`)"
        ))
    })
}
