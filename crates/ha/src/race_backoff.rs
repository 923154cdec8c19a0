//! `primary_race_backoff`: nobody holds the leader key, and what this standby follows still sends: the primary may be alive and only cut off
//! from the store, or on its way back. The race is put off while it sends, for that time at most, and for one `loop_wait` in any case.
//!
//! Before the race and not in it, for the race begins by cutting the upstream.

use std::time::Duration;

use crate::action::{Wake, WakeReason};
use crate::agent::{Memory, Plan, Situation, Standing};
use crate::local::Running;
use crate::rule::Rule;
use crate::types::{Boot, Lsn};

/// What this standby had received when it was last looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    position: Lsn,
    /// When there was no leader for the first time; `None`: there still is one.
    since: Option<Boot>,
    looked: Boot,
    /// At the newest look nothing had come: the race is on until there is a leader again.
    over: bool,
}

/// Keeps what was received while there was a leader: what came since then has come without one.
pub(crate) fn remember(at: &Situation<'_>, memory: &mut Memory) {
    if at.standing == Standing::Nobody {
        return;
    }
    let running = at.local.running().filter(|running| running.in_recovery);
    let seen =
        |running: &Running| Backoff { position: running.position, since: None, looked: at.now.boot, over: false };
    memory.backoff = running.map(seen);
}

pub(crate) fn hold_off(at: &Situation<'_>, memory: &mut Memory) -> Option<Plan> {
    let limit = at.settings.primary_race_backoff;
    let named = at.view.failover_request().is_some_and(|request| request.member.is_some());
    let running = at.local.running().filter(|running| running.in_recovery)?;
    // One that was not up while there was a leader cannot tell whether anything has come since.
    let backoff = memory.backoff.as_mut().filter(|backoff| !backoff.over)?;
    if limit.is_zero() || named {
        return None;
    }
    let now = at.now.boot;
    if backoff.since.is_none() {
        (backoff.since, backoff.looked) = (Some(now), now);
    }
    let since = backoff.since.unwrap_or(now);
    if now.since(backoff.looked) >= at.settings.loop_wait {
        let moved = running.streaming && running.position > backoff.position;
        (backoff.position, backoff.looked) = (running.position, now);
        backoff.over = !moved || now.since(since) >= limit;
    }
    if backoff.over {
        return None;
    }
    let next = backoff.looked + at.settings.loop_wait;
    Some(Plan::wait(Rule::RaceHoldOff).wake(Wake { at: next, reason: WakeReason::Retry }))
}

/// How long the race may still be put off.
pub(crate) fn left(memory: &Memory, limit: Duration, now: Boot) -> Duration {
    let since = memory.backoff.as_ref().and_then(|backoff| backoff.since);
    since.map_or(limit, |since| limit.saturating_sub(now.since(since)))
}
