//! Carrying out what was decided about replication slots. What needs a database of its own or reads log (logical slots) runs in the background,
//! one after the other: the loop waits for none of it.
//!
//! A change that fails is complained of and changes nothing else; what is missing is seen in a later round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{Epoch, LeaderSlots, Postgres, Slot, SlotChange, SlotKind, Upstream, slot_clashes, slot_name};
use tokio::task::JoinHandle;

use super::round::Daemon;
use crate::postgres::{Error, Server, slots};

/// A slot is made when every transaction of now has ended; it is moved by reading the log. Given up, it is asked for again.
const LOGICAL: Duration = Duration::from_secs(60);

/// Changes of logical slots in the background.
#[derive(Debug, Default)]
pub struct SlotWork {
    /// By name: a newer wish for a slot replaces an older one.
    waiting: BTreeMap<String, SlotChange>,
    running: Option<JoinHandle<Vec<Outcome>>>,
    /// Slots that cannot be moved, since their log is gone.
    pub broken: BTreeSet<String>,
    /// What the leader last said of its slots, and the question that is on its way.
    pub leader: Option<LeaderSlots>,
    asking: Option<JoinHandle<Result<LeaderSlots, Error>>>,
    /// Copies that may be used after a promotion, as far as that was said.
    ready: BTreeSet<String>,
    /// Slots that several members share, as far as that was said.
    clashes: BTreeMap<String, Vec<String>>,
}

#[derive(Debug)]
struct Outcome {
    change: SlotChange,
    result: Result<(), Error>,
}

impl SlotWork {
    /// Begins what waits, if nothing is in progress.
    fn begin(&mut self, server: &Arc<Server>) {
        if self.running.is_some() || self.waiting.is_empty() {
            return;
        }
        let (changes, server) = (std::mem::take(&mut self.waiting), server.clone());
        self.running = Some(tokio::spawn(async move {
            let mut outcomes = Vec::new();
            for change in changes.into_values() {
                let result = change_logical(&server, &change).await;
                outcomes.push(Outcome { change, result });
            }
            outcomes
        }));
    }

    /// What has ended since the last call.
    async fn ended(&mut self) -> Vec<Outcome> {
        match self.running.take_if(|task| task.is_finished()) {
            // One that broke off has told nothing: what is missing is seen again.
            Some(task) => task.await.unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// The server goes, or becomes a primary: what was wished of the standby means nothing any more.
    pub async fn cancel(&mut self) {
        self.waiting.clear();
        if let Some(task) = self.asking.take() {
            task.abort();
        }
        if let Some(task) = self.running.take() {
            task.abort();
            // It has been told to end; how it ends is no news.
            let _ = task.await;
        }
    }
}

/// Moves logical slots of a standby that is about to be promoted, all at once, for so long at most.
pub async fn bring_up(server: &Server, changes: &[SlotChange], limit: Duration) {
    let all = changes.iter().map(async |change| {
        if let Err(error) = change_logical(server, change).await {
            tracing::warn!("{}; its consumer gets again what it has confirmed since", error.full());
        }
    });
    if tokio::time::timeout(limit, futures::future::join_all(all)).await.is_err() {
        tracing::warn!(
            "logical slots are promoted as they are: moving them takes too long; their consumers get again what they have confirmed"
        );
    }
}

async fn change_logical(server: &Server, change: &SlotChange) -> Result<(), Error> {
    match change {
        SlotChange::Create { name, kind: SlotKind::Logical { database, plugin } } => {
            slots::create_logical(server, database, name, plugin, LOGICAL).await
        }
        SlotChange::Advance { name, kind: SlotKind::Logical { database, .. }, to } => {
            slots::advance_logical(server, database, name, *to, LOGICAL).await
        }
        SlotChange::Create { .. } | SlotChange::Advance { .. } | SlotChange::Drop { .. } => Ok(()),
    }
}

/// A promotion waits for nothing, and such a slot would be lost otherwise: so it is promoted, and said.
pub fn warn_of_unproven(slots: &[String]) {
    for name in slots {
        tracing::warn!(
            "the logical slot `{name}` is promoted though its former primary was not seen to keep the rows of the catalogs that it needs \
             (it was copied here only lately, or hot_standby_feedback did not reach the primary): its consumer may fail. If it does, drop the \
             slot there and fill the consumer's target anew"
        );
    }
}

impl Daemon {
    pub(super) async fn change_slots(&mut self, changes: &[SlotChange]) {
        for change in changes {
            match change {
                SlotChange::Create { kind: SlotKind::Logical { .. }, .. }
                | SlotChange::Advance { kind: SlotKind::Logical { .. }, .. } => {
                    self.slots.waiting.insert(change.name().to_owned(), change.clone());
                }
                _ => {
                    let result = self.change_physical(change).await;
                    self.tell_of_slot(change, &result);
                }
            }
        }
        self.slots.begin(&self.node.server);
    }

    /// One question at a time; the answer is taken in by a later round.
    pub(super) fn ask_leader_slots(&mut self, epoch: Epoch, leader: &Upstream, names: &[String]) {
        let Some(upstream) = self.upstream(Some(leader)).filter(|_| self.slots.asking.is_none()) else { return };
        let (server, names) = (self.node.server.clone(), names.to_vec());
        self.slots.asking = Some(tokio::spawn(async move {
            let asked = boot_now();
            let catalog_xmins = slots::catalog_xmins(&server, &upstream, &names).await?;
            Ok(LeaderSlots { epoch, asked, catalog_xmins })
        }));
    }

    /// Members that share a slot, each time that there are others than before.
    fn look_for_clashes(&mut self) {
        let Some(view) = self.memory.view.as_ref().filter(|_| self.current.dynamic.postgresql.use_slots) else {
            return;
        };
        let clashes = slot_clashes(view);
        for (slot, members) in clashes.iter().filter(|(slot, members)| self.slots.clashes.get(*slot) != Some(*members))
        {
            tracing::error!(
                "the members {} have the same replication slot, `{slot}`, so only one of them can stream: give all but one another name \
                 (`name` in its file)",
                members.join(" and ")
            );
        }
        self.slots.clashes = clashes;
    }

    async fn change_physical(&mut self, change: &SlotChange) -> Result<(), Error> {
        let connection = self.node.connection();
        match change {
            SlotChange::Create { name, .. } => slots::create(connection, name).await,
            SlotChange::Drop { name, .. } => slots::remove(connection, name).await,
            SlotChange::Advance { name, to, .. } => slots::advance(connection, name, *to).await,
        }
    }

    /// Takes in what has come of the work in the background, and begins more of it. A server that is down has no slots to change.
    pub(super) async fn attend_slots(&mut self, postgres: &Postgres) {
        self.look_for_clashes();
        let ready = self.agent.ready_slots();
        for name in ready.difference(&self.slots.ready) {
            tracing::info!(
                "the logical slot `{name}` is ready for a promotion: the primary keeps the rows that it needs"
            );
        }
        self.slots.ready = ready;
        if let Some(task) = self.slots.asking.take_if(|task| task.is_finished()) {
            match task.await {
                Ok(Ok(answer)) => self.slots.leader = Some(answer),
                Ok(Err(error)) => self.complain(format!("{}; it is tried again", error.full())),
                // It was told to end.
                Err(_) => {}
            }
        }
        for Outcome { change, result } in self.slots.ended().await {
            self.tell_of_slot(&change, &result);
            if result.as_ref().is_err_and(slots::is_broken) && matches!(change, SlotChange::Advance { .. }) {
                self.slots.broken.insert(change.name().to_owned());
            }
        }
        match postgres {
            Postgres::Running(_) => {
                self.memory.last_slots.clear();
                self.slots.begin(&self.node.server);
            }
            Postgres::Stopped => {
                self.slots.cancel().await;
                self.slots.broken.clear();
            }
            Postgres::Starting { .. } | Postgres::Silent { .. } | Postgres::Orphans => {}
        }
    }

    pub(super) fn mark_broken_slots(&self, postgres: &mut Postgres) {
        if let Postgres::Running(running) = postgres {
            let broken = |slot: &&mut Slot| self.slots.broken.contains(&slot.name);
            running.slots.iter_mut().filter(broken).for_each(|slot| slot.broken = true);
        }
    }

    /// For a standby that is asked whether this primary may go on without the store: of all slots, and of this server under the name that its
    /// own has elsewhere.
    pub(super) fn slot_positions(&self) -> BTreeMap<String, u64> {
        let Some(seen) = &self.node.seen else { return BTreeMap::new() };
        let own = seen.flush_lsn.map(|position| (slot_name(&self.current.identity.name), position.0));
        seen.slot_positions().into_iter().chain(own).collect()
    }

    fn tell_of_slot(&mut self, change: &SlotChange, result: &Result<(), Error>) {
        match (change, result) {
            (SlotChange::Create { name, kind: SlotKind::Physical }, Ok(())) => {
                tracing::info!("made the replication slot `{name}`");
            }
            (SlotChange::Create { name, kind }, Ok(())) => self.tell_of_logical(name, kind),
            (SlotChange::Drop { name, why }, Ok(())) => tracing::info!("dropped the replication slot `{name}`, {why}"),
            (SlotChange::Advance { name, to, .. }, Ok(())) => {
                tracing::debug!("moved the replication slot `{name}` to {to}")
            }
            (change, Err(error)) => {
                let error = error.full();
                let advice = advice(change, &error);
                self.complain(format!("{error}{advice}; it is tried again"));
            }
        }
    }

    /// One that a former primary had and this one did not: what was written since is not in it.
    fn tell_of_logical(&mut self, name: &str, kind: &SlotKind) {
        let SlotKind::Logical { database, plugin } = kind else { return };
        let slots = self.memory.view.as_ref().map(|view| &view.status.slots);
        match slots.and_then(|slots| slots.get(name)) {
            Some(position) => tracing::warn!(
                "made the logical replication slot `{name}` (database {database}, {plugin}) anew: the one that its consumer had read up to \
                 {} is not on this node, so what was committed since is not in the new one",
                pgherd_ha::Lsn(*position)
            ),
            None => tracing::info!("made the logical replication slot `{name}` (database {database}, {plugin})"),
        }
    }
}

/// What to do about the commonest reasons.
fn advice(change: &SlotChange, error: &str) -> String {
    let SlotChange::Create { kind, .. } = change else { return String::new() };
    if error.contains("max_replication_slots") || error.contains("all replication slots are in use") {
        return " (set max_replication_slots higher in the dynamic configuration and restart the servers)".into();
    }
    if error.contains("wal_level") {
        return " (set wal_level: logical in the dynamic configuration and restart the servers)".into();
    }
    match kind {
        SlotKind::Logical { database, .. } if error.contains("does not exist") && error.contains(database.as_str()) => {
            format!(" (make the database {database}, or correct `slots` in the dynamic configuration)")
        }
        SlotKind::Logical { plugin, .. } if error.contains("could not access file") => {
            format!(
                " (install the output plugin {plugin} on every node, or correct `slots` in the dynamic configuration)"
            )
        }
        _ => String::new(),
    }
}
