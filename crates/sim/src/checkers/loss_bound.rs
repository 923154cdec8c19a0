//! In asynchronous mode a failover loses no more than it may: of the acknowledged rows that the new primary does not have, those from before
//! the old one's last lease are at most `maximum_lag_on_failover` bytes.
//!
//! Nobody answers for rows of a cluster that is not announced yet, in pause, after a failover that an operator forced, or when a disk has lied.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clients::{ROW, Row};
use crate::world::{World, name};

/// What has been lost and accounted for.
#[derive(Debug, Default)]
pub struct Losses {
    written_off: BTreeSet<u64>,
    /// When a leader last told the store its position.
    pub reported: Duration,
    objection: Option<String>,
}

impl World {
    /// This node has been promoted: the rows that it does not have are lost now.
    pub fn account_for_losses(&mut self, node: usize) -> usize {
        let mut lost = self.acknowledged_and_not_in(node);
        lost.retain(|row| row.announced && !self.checks.losses.written_off.contains(&row.number));
        let excused = self.checks.operator_forced || self.checks.a_disk_lied;
        if !excused && let Some(excess) = self.excess(&lost) {
            let who = name(node);
            self.checks.losses.objection = Some(format!("{who} is promoted and {excess}"));
        }
        self.checks.losses.written_off.extend(lost.iter().map(|row| row.number));
        lost.len()
    }

    fn excess(&self, lost: &[Row]) -> Option<String> {
        let newest = lost.iter().map(|row| row.acknowledged).max()?;
        let lease = newest.saturating_sub(self.unreported());
        // In failsafe mode a primary goes on for as long as the store is away, and the store is told no position then.
        let begins = if self.scenario.failsafe_mode { lease.min(self.checks.losses.reported) } else { lease };
        let old = lost.iter().filter(|row| row.acknowledged < begins).count();
        let bytes = ROW * u64::try_from(old).expect("a run has some thousand rows");
        let allowed = self.scenario.maximum_lag_on_failover;
        (bytes > allowed).then(|| {
            format!(
                "{bytes} bytes of rows from before the last lease of the old primary are lost, {allowed} are allowed"
            )
        })
    }

    /// How long a primary may go on without having its position in the store: a lease until it is noticed that its agent does nothing, and
    /// another until its permit ends.
    fn unreported(&self) -> Duration {
        2 * self.scenario.ttl.max(2 * self.scenario.tick) + self.scenario.retry_timeout + Duration::from_secs(2)
    }
}

pub fn check(world: &World) -> Option<(&'static str, String)> {
    world.checks.losses.objection.clone().map(|what| ("loss bound", what))
}
