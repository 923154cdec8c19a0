//! What people and their tools do: stop an agent in order, ask for a change of leader, pause the cluster.

use std::time::Duration;

use pgherd_ha::{FailoverKey, Request};

use super::{Fault, FaultEvent};
use crate::node::Process;
use crate::store::{Key, Transaction, Value};
use crate::world::{NODES, World, name};

impl World {
    /// Nothing is broken by it.
    pub(super) fn let_people_act(&mut self, fault: Fault, node: usize) {
        match fault {
            Fault::CleanStop => self.clean_stop(node),
            Fault::Switchover => self.ask_for_switchover(),
            Fault::ChangeSynchronousMode => self.change_synchronous_mode(),
            Fault::FollowAnother => self.follow_another(),
            Fault::Pause => {
                self.set_pause(true);
                // Rarely longer than a session that ends meanwhile.
                let longest = if self.rng.chance(300) { 40_000 } else { 15_000 };
                self.later(1000, longest, FaultEvent::Resume);
            }
            Fault::OperatorRequest => {
                self.limit += 10;
                let restart = self.rng.chance(700);
                let request = match restart {
                    true => Request::RESTART,
                    false => Request::Reinitialize { force: false, from_leader: false },
                };
                if self.nodes[node].process == Process::Running {
                    self.news(node, crate::node::request(request));
                }
            }
            _ => {}
        }
    }

    /// As a service manager stops and, later, starts it.
    pub(super) fn clean_stop(&mut self, node: usize) {
        if self.nodes[node].process == Process::Running {
            self.agent_after(node, Duration::ZERO, crate::node::AgentEvent::Terminate);
            self.later(8000, 25_000, FaultEvent::StartAgent(node));
        }
    }

    pub(super) fn ask_for_switchover(&mut self) {
        let Some(leader) = self.store.tree.leader() else { return };
        let member = self.rng.chance(500).then(|| self.rng.index(NODES)).filter(|node| *node != leader);
        // Without the leader's name it is a failover, which needs a candidate.
        // A failover is wanted also where rows are lost by it.
        let named = member.is_none() || self.scenario.synchronous.is_some() || self.rng.chance(700);
        let request = FailoverKey { leader: named.then(|| name(leader)), member: member.map(name), scheduled_at: None };
        self.checks.operator_forced |= !named;
        self.write_key(Key::Failover, Value::Failover(request));
    }

    fn change_synchronous_mode(&mut self) {
        if self.scenario.synchronous.is_none() || self.store.tree.entry(Key::Config).is_none() {
            return;
        }
        let off = self.rng.chance(150);
        let synchronous = (!off).then(|| crate::scenario::synchronous(&mut self.rng));
        // From here on a failover may lose rows, those of before as well.
        self.checks.synchronous_mode_left |= off;
        self.note_who("world", || format!("synchronous mode: {synchronous:?}"));
        let (paused, follows) = (self.store.tree.paused(), self.store.tree.follows());
        self.write_key(Key::Config, Value::Config { paused, synchronous, follows });
    }

    fn follow_another(&mut self) {
        let streams = self.rng.chance(500);
        self.set_followed(Some(streams));
        let (from, to) = if self.rng.chance(300) { (25_000, 50_000) } else { (3000, 20_000) };
        self.later(from, to, FaultEvent::StandAlone);
    }

    /// Also a cluster that was to follow another from the first on, wherever its making is.
    pub(super) fn stand_alone(&mut self) {
        if self.scenario.born_following.take().is_some() {
            self.note_who("world", || "the files say that the cluster follows no other".into());
        }
        self.set_followed(None);
    }

    fn set_followed(&mut self, follows: Option<bool>) {
        if self.store.tree.entry(Key::Config).is_some() && self.store.tree.follows() != follows {
            self.note_who("world", || format!("follows another cluster: {follows:?}"));
            let (paused, synchronous) = (self.store.tree.paused(), self.store.tree.synchronous());
            // A primary that is kept in a pause leaves the mode, which is none of a standby cluster's.
            self.checks.synchronous_mode_left |= paused && follows.is_some();
            self.write_key(Key::Config, Value::Config { paused, synchronous, follows });
        }
    }

    pub(super) fn set_pause(&mut self, paused: bool) {
        self.checks.synchronous_mode_left |= paused && self.store.tree.follows().is_some();
        if self.store.tree.entry(Key::Config).is_some() && self.store.tree.paused() != paused {
            self.note_who("world", || if paused { "paused" } else { "resumed" }.into());
            let (synchronous, follows) = (self.store.tree.synchronous(), self.store.tree.follows());
            self.write_key(Key::Config, Value::Config { paused, synchronous, follows });
        }
    }

    /// An operator's tool writes.
    fn write_key(&mut self, key: Key, value: Value) {
        if self.store.servers.iter().any(|server| !server.up) {
            return;
        }
        let transaction = match self.store.tree.entry(key) {
            Some(_) => Transaction::Set { key, value },
            None => Transaction::Create { key, value, owner: None },
        };
        self.commit_outside(transaction);
    }
}
