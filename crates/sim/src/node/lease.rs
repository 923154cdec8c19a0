//! What loop, keeper and guard share about the lease: `crates/agent/src/daemon/lease.rs` without its thread.

use pgherd_ha::{Boot, Epoch, Lease, Permit};

#[derive(Debug, Default)]
pub struct LeaseState {
    /// The epoch to renew.
    pub held: Option<Epoch>,
    /// The newest proof.
    pub lease: Option<Lease>,
    pub permit: Permit,
    /// The postmaster whose guard follows the permit.
    pub page: Option<u64>,
    /// When the loop last finished a round.
    pub round_done: Boot,
    /// When a write was last known to reach the disk, or there was no server whose disk matters.
    pub disk_answered: Boot,
}

impl LeaseState {
    /// The leader key is ours: keep it. `true`: this is new to the keeper.
    pub fn hold(&mut self, epoch: Epoch) -> bool {
        self.held.replace(epoch) != Some(epoch)
    }

    pub fn let_go(&mut self) {
        self.held = None;
        self.lease = None;
    }

    /// A proof has come: keep it, and prolong what it permits. What the members have permitted may last longer.
    pub fn proven(&mut self, lease: Lease) {
        let newer = self.lease.is_none_or(|known| known.epoch != lease.epoch || known.sent < lease.sent);
        if !newer || self.held != Some(lease.epoch) {
            return;
        }
        self.lease = Some(lease);
        if let Permit::Until { epoch, deadline } = self.permit
            && epoch == lease.epoch
            && deadline < lease.deadline()
        {
            self.permit = Permit::from_lease(&lease);
        }
    }

    /// The decision's permit comes into force; of one epoch the later deadline counts.
    pub fn decided(&mut self, permit: Permit) {
        let keep = matches!((self.permit, permit), (Permit::Until { epoch: a, deadline: old }, Permit::Until { epoch: b, deadline: new }) if a == b && old > new);
        if !keep {
            self.permit = permit;
        }
    }

    /// What the guard's page is to say; `None`: it keeps what it has.
    pub fn deadline(&self) -> Option<Boot> {
        match self.permit {
            Permit::None => None,
            Permit::Until { deadline, .. } => Some(deadline),
            Permit::Paused { .. } => Some(Boot::NEVER),
        }
    }
}
