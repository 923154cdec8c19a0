//! Which server gets the writes: rules 1 and 2 of `crates/proxy/src/route/mod.rs` (there are no checks here).

use std::time::Duration;

use pgherd_ha::{Boot, Epoch, RouteMessage};

use crate::world::NODES;

/// How long an epoch is remembered after the last permit under it, as in the proxy.
const EPOCH_KEPT: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub struct Routes {
    agents: [Option<Pushed>; NODES],
    newest: Option<Newest>,
}

/// The last line of an agent.
#[derive(Clone, Copy, Debug)]
struct Pushed {
    epoch: Option<Epoch>,
    /// The end of its permit on our clock.
    deadline: Option<Boot>,
    can_write: bool,
}

/// The greatest epoch that was proved.
#[derive(Clone, Copy, Debug)]
struct Newest {
    epoch: Epoch,
    holder: usize,
    proved_until: Boot,
}

impl Routes {
    pub fn on_line(&mut self, node: usize, message: &RouteMessage, requested: Boot, now: Boot) {
        let deadline = message.permit_deadline(requested);
        let epoch = message.node.epoch;
        let can_write = message.node.running && message.node.in_recovery == Some(false);
        self.agents[node] = Some(Pushed { epoch, deadline, can_write });
        // Its own word that it does not hold the newest epoch any more.
        self.newest = self.newest.filter(|newest| newest.holder != node || epoch >= Some(newest.epoch));
        if let Some((epoch, until)) = self.proof(node, now)
            && self.newest.is_none_or(|newest| newest.epoch <= epoch)
        {
            let proved_until = if until == Boot::NEVER { now } else { until };
            self.newest = Some(Newest { epoch, holder: node, proved_until });
        }
    }

    /// The last line counts until its permit ends; pause, which has no end, does not outlive the stream.
    pub fn on_lost(&mut self, node: usize) {
        if let Some(pushed) = &mut self.agents[node]
            && pushed.deadline == Some(Boot::NEVER)
        {
            pushed.deadline = None;
        }
    }

    fn proof(&self, node: usize, now: Boot) -> Option<(Epoch, Boot)> {
        let pushed = self.agents[node]?;
        Some((pushed.epoch?, pushed.deadline.filter(|deadline| now < *deadline)?))
    }

    /// The server that may be written to at `now`.
    pub fn writer(&self, now: Boot) -> Option<usize> {
        let proofs = (0..NODES).filter_map(|node| Some((self.proof(node, now)?.0, node)));
        let (epoch, node) = proofs.max()?;
        let outdated = self.newest.is_some_and(|newest| epoch < newest.epoch && now < newest.proved_until + EPOCH_KEPT);
        let can_write = self.agents[node].is_some_and(|pushed| pushed.can_write);
        (!outdated && can_write).then_some(node)
    }
}
