//! What waits for a restart of the server: found out anew where something has changed, and kept else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, LimitChange, Role};

use super::round::Daemon;
use crate::postgres::parameters::BINDING;
use crate::postgres::pending::{Change, Changes, Flagged, changes};
use crate::postgres::{Observation, Server};

/// The round must go on; what could not be found out in this time is looked for in the next.
const LIMIT: Duration = Duration::from_secs(1);

/// Unless something changes, a file that somebody has edited and not reloaded is noticed after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What a restart would change, and of what that was found out.
#[derive(Debug, Default)]
pub struct PendingRestart {
    question: Option<Question>,
    asked: Boot,
    pub changes: Changes,
}

#[derive(Debug, PartialEq)]
struct Question {
    server: Arc<Server>,
    flagged: Vec<Flagged>,
    binding: BTreeMap<String, u64>,
    loaded: i64,
}

impl PendingRestart {
    /// Of the settings of which a standby needs as much as its primary.
    pub fn limits(&self) -> BTreeMap<String, LimitChange> {
        let limit = |(name, change): (&String, &Change)| {
            let (from, to) = change.numbers().filter(|_| BINDING.contains(&name.as_str()))?;
            Some((name.clone(), LimitChange { from, to }))
        };
        self.changes.iter().filter_map(limit).collect()
    }

    fn is_news(&self, question: &Question, now: Boot) -> bool {
        self.question.as_ref() != Some(question)
            || (!question.flagged.is_empty() && now.since(self.asked) >= LOOK_AGAIN)
    }
}

impl Daemon {
    /// Waits for the program that is asked, where something has changed.
    pub(super) async fn look_for_pending_restart(&mut self) {
        let Some(seen) = self.node.seen.clone() else {
            self.node.pending = PendingRestart::default();
            return;
        };
        let role = self.running_role().unwrap_or(Role::Replica);
        if let Some(complaint) = self.current.left_out(role) {
            self.complain(complaint);
        }
        let server = self.current.server(role);
        let Observation { pending_restart: flagged, binding, loaded, .. } = seen.clone();
        let question = Question { server: server.clone(), flagged, binding, loaded };
        if !self.node.pending.is_news(&question, boot_now()) {
            return;
        }
        let asking = Box::pin(changes(&server, &seen));
        let found = self.answering(tokio::time::timeout(LIMIT, asking)).await;
        let Ok(found) = found else {
            return tracing::debug!("what waits for a restart could not be found out in time");
        };
        let before = &self.node.pending.changes;
        for (name, change) in found.iter().filter(|(name, change)| before.get(*name) != Some(*change)) {
            tracing::info!("{name} waits for a restart of PostgreSQL: {} -> {}", change.old, change.new);
        }
        for name in before.keys().filter(|name| !found.contains_key(*name)) {
            tracing::info!("{name} waits for no restart any more");
        }
        self.node.pending = PendingRestart { question: Some(question), asked: boot_now(), changes: found };
    }
}
