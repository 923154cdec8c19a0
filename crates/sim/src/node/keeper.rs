//! The keeper of the lease: renews while the loop is alive, and carries what was proven to the guard. It waits for nothing but the store.

use std::time::Duration;

use pgherd_ha::{Epoch, LeaderOwner, Lease};

use super::client::{Outcome, Purpose};
use super::{AgentEvent, member, round};
use crate::mutants::Mutant;
use crate::store::{Answer, Operation};
use crate::world::World;

const INTERVAL: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(100);

impl World {
    pub fn keeper_timer(&mut self, node: usize) {
        let boot = self.boot(node);
        let ttl = self.scenario.ttl;
        let retry_timeout = self.scenario.retry_timeout;
        let daemon = self.daemon(node);
        if daemon.keeper_busy {
            return;
        }
        if daemon.lease.held.is_none() {
            return self.agent_after(node, INTERVAL, AgentEvent::Keeper);
        }
        if boot.since(daemon.lease.round_done) > ttl || boot.since(daemon.lease.disk_answered) > ttl {
            return self.agent_after(node, RETRY, AgentEvent::Keeper);
        }
        daemon.keeper_busy = true;
        let operation = self.renewal(node);
        self.request(node, operation, Purpose::Keeper, retry_timeout);
    }

    /// At once, instead of at the next interval.
    pub fn kick_keeper(&mut self, node: usize) {
        self.agent_after(node, Duration::ZERO, AgentEvent::Keeper);
    }

    pub fn renewal(&mut self, node: usize) -> Operation {
        if self.mutant == Some(Mutant::ReadRenews) {
            return Operation::ReadLeader;
        }
        let known = self.daemon(node).member.clone();
        let member = known.unwrap_or_else(|| Box::new(member::blank(node)));
        Operation::Renew { member }
    }

    pub fn keeper_answered(&mut self, node: usize, outcome: Outcome) {
        self.daemon(node).keeper_busy = false;
        let Some(held) = self.daemon(node).lease.held else {
            return self.agent_after(node, INTERVAL, AgentEvent::Keeper);
        };
        match self.proof(node, &outcome, held) {
            Some(Some(lease)) => {
                self.prove(node, lease);
                self.agent_after(node, INTERVAL, AgentEvent::Keeper);
            }
            Some(None) => {
                self.note(node, "keeper", || format!("the key of epoch {held} is not ours any more"));
                let lease = &mut self.daemon(node).lease;
                lease.held = None;
                lease.lease = None;
                self.news(node, round::News::LeaseLost);
                self.agent_after(node, INTERVAL, AgentEvent::Keeper);
            }
            None => self.agent_after(node, RETRY, AgentEvent::Keeper),
        }
    }

    /// What an answer to a renewal proves. `Some(None)`: that the key is not ours; `None`: nothing.
    pub fn proof(&mut self, node: usize, outcome: &Outcome, epoch: Epoch) -> Option<Option<Lease>> {
        match &outcome.answer {
            Some(Answer::Renewed(leader) | Answer::Leader(leader)) => {
                let ours = leader.as_ref().is_some_and(|l| l.owner == LeaderOwner::Me && l.epoch == epoch);
                Some(ours.then(|| self.lease_of(node, epoch, outcome)))
            }
            Some(Answer::SessionExpired) => Some(None),
            _ => None,
        }
    }

    /// The lease as the store's client makes it, with what the mutants get wrong.
    pub fn lease_of(&mut self, node: usize, epoch: Epoch, outcome: &Outcome) -> Lease {
        let client = &self.daemon(node).client;
        let granted = client.granted;
        let sent = client.signs.counts_from(outcome.sent, tick(granted));
        let lease = Lease { epoch, sent, granted, tick: Some(tick(granted)) };
        match self.mutant {
            Some(Mutant::CountFromAcknowledgement) => Lease { sent: self.boot(node), ..lease },
            Some(Mutant::CountFromTheWrite) => Lease { sent: outcome.sent, ..lease },
            Some(Mutant::NoTick) => Lease { tick: Some(Duration::ZERO), ..lease },
            Some(Mutant::ConfiguredTtl) => {
                let granted = self.scenario.ttl;
                Lease { granted, tick: Some(tick(granted)), ..lease }
            }
            _ => lease,
        }
    }

    pub fn prove(&mut self, node: usize, lease: Lease) {
        self.daemon(node).lease.proven(lease);
        self.keep_alive(node, &lease);
        self.inform_guard(node);
    }

    pub fn inform_guard(&mut self, node: usize) {
        let lease = &self.daemon(node).lease;
        if let (Some(postmaster), Some(deadline)) = (lease.page, lease.deadline()) {
            self.write_page(node, postmaster, deadline);
        }
    }

    /// From now on the permit binds this server: before it can write. `false`: there is no permit.
    pub fn license(&mut self, node: usize, postmaster: u64) -> bool {
        if self.mutant == Some(Mutant::StalePlan) {
            return true;
        }
        let boot = self.boot(node);
        let lease = &self.daemon(node).lease;
        let (permit, deadline) = (lease.permit, lease.deadline());
        if !permit.allows_writer(boot) {
            return false;
        }
        let written = deadline.is_some_and(|deadline| self.write_page(node, postmaster, deadline));
        if written {
            self.daemon(node).lease.page = Some(postmaster);
        }
        written
    }
}

/// As `crates/dcs/src/zookeeper/lease.rs` has it: a server does not tell its tick.
fn tick(granted: Duration) -> Duration {
    (granted / 4).max(Duration::from_secs(2).min(granted / 2))
}
