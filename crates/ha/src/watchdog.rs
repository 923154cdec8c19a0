//! The machine's watchdog underneath the guard: when it runs, and what follows where one is required and does not work.
//!
//! While it runs, the machine is reset unless the device hears in time that the lease was proven, so it runs exactly while this node may
//! have a writer. Not here: driving the device (`crates/agent/src/watchdog`), and what a proof is.

use crate::action::{Action, Job, StopMode};
use crate::agent::{Memory, Plan, Situation, Standing};
use crate::local::{JobOutcome, Postgres};
use crate::rule::Rule;
use crate::switchover;

/// What this node can say of its watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watchdog {
    /// Turned off; or wanted where it works, and it does not: nothing depends on it.
    #[default]
    Unused,
    /// It works, as far as is known without starting it.
    Idle,
    Armed,
    /// It is required and does not work.
    Failed,
}

/// Where a watchdog is required and does not work, nobody leads: a primary is stopped in order while its lease still holds, and the key
/// goes to others.
pub(crate) fn failed(at: &Situation<'_>, memory: &mut Memory) -> Option<Plan> {
    if at.local.watchdog != Watchdog::Failed {
        return None;
    }
    match (at.standing, &at.local.postgres) {
        (Standing::Mine(epoch), Postgres::Stopped) => {
            let handed_over = switchover::hand_over(at, memory, epoch);
            Some(handed_over.unwrap_or_else(|| Plan::act(Rule::WatchdogFailed, [Action::Release { epoch }])))
        }
        (Standing::Mine(epoch), Postgres::Running(running)) if running.in_recovery => {
            memory.no_race_until = at.now.boot + at.settings.ttl;
            Some(Plan::act(Rule::WatchdogFailed, [Action::Release { epoch }]))
        }
        (Standing::Mine(epoch), _) if at.local.is_writer() && !at.lease_is_over(epoch) => {
            let stopped = at.local.last(|job| matches!(job, Job::Stop(_)));
            let hangs = stopped.is_some_and(|last| last.outcome == JobOutcome::Failed);
            let mode = if hangs { StopMode::Immediate } else { StopMode::Planned };
            Some(Plan::act(Rule::WatchdogFailed, [Action::Run(Job::Stop(mode))]))
        }
        // It is about to become a writer.
        (Standing::Mine(_), Postgres::Starting { .. }) if at.local.control().is_some_and(|it| !it.standby_signal) => {
            Some(Plan::act(Rule::WatchdogFailed, [Action::Run(Job::Stop(StopMode::Immediate))]))
        }
        (Standing::Nobody, Postgres::Running(running)) if running.in_recovery => {
            Some(Plan::wait(Rule::RaceWithoutWatchdog))
        }
        _ => None,
    }
}

/// Arms it before whatever makes a writer, and disarms it once no process of one is left.
pub(crate) fn attend(at: &Situation<'_>, actions: &mut Vec<Action>) {
    match at.local.watchdog {
        Watchdog::Armed if !is_needed(at) && !actions.iter().any(starts_writer) => {
            actions.insert(0, Action::DisarmWatchdog)
        }
        Watchdog::Idle if !at.paused && at.permitted() => {
            if let (Standing::Mine(epoch), Some(place)) = (at.standing, place_to_arm(at, actions)) {
                actions.insert(place, Action::ArmWatchdog { epoch });
            }
        }
        _ => {}
    }
}

/// Before the action that makes a writer; at once where there is one already that nothing is about to end.
fn place_to_arm(at: &Situation<'_>, actions: &[Action]) -> Option<usize> {
    let ends_writer = |action: &Action| matches!(action, Action::Fence | Action::Run(Job::Stop(_)));
    let first = actions.iter().position(starts_writer);
    let leads = at.local.is_writer() && at.local.job.is_none() && !actions.iter().any(ends_writer);
    first.or_else(|| leads.then_some(0))
}

fn is_needed(at: &Situation<'_>) -> bool {
    if at.paused {
        return false;
    }
    let about_to_write = at.local.job.as_ref().is_some_and(|running| running.job.makes_writer());
    match at.local.postgres {
        Postgres::Stopped => about_to_write,
        Postgres::Running(_) | Postgres::Silent { .. } => at.local.is_writer() || about_to_write,
        Postgres::Starting { .. } | Postgres::Orphans => true,
    }
}

fn starts_writer(action: &Action) -> bool {
    matches!(action, Action::Run(job) if job.makes_writer())
}
