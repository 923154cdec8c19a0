//! Clients that write: one at each server directly, with a session that it keeps as long as a backend lives, and one through an
//! entrypoint, which routes by what the agents push. Each acknowledged row is remembered.

use std::collections::BTreeSet;
use std::time::Duration;

use pgherd_ha::{Epoch, Permit};

use crate::world::{Event, NODES, World};

#[derive(Debug, Default)]
pub struct Clients {
    routes: [Option<Route>; NODES],
    /// The records of the rows that were acknowledged, in their order.
    pub acknowledged: Vec<u64>,
    /// When a row was last acknowledged through the entrypoint.
    pub last_routed: Duration,
}

/// What an agent has pushed of a primary.
#[derive(Clone, Copy, Debug)]
struct Route {
    epoch: Epoch,
    /// Counted from the receipt, so no clock is shared.
    until: Duration,
}

impl World {
    /// The agent pushes its route.
    pub fn publish(&mut self, node: usize) {
        let boot = self.boot(node);
        let permit = self.nodes[node].permit();
        let leads = self.nodes[node].postgres.server.as_ref().is_some_and(|server| !server.in_recovery);
        self.clients.routes[node] = match permit {
            Permit::Until { epoch, deadline } if leads => Some(Route { epoch, until: self.now + deadline.since(boot) }),
            Permit::Paused { epoch: Some(epoch) } if leads => Some(Route { epoch, until: Duration::MAX }),
            _ => None,
        };
    }

    pub fn direct_write(&mut self, node: usize) {
        self.write_row(node);
        let pause = self.think();
        self.after(pause, Event::DirectClient(node));
    }

    pub fn routed_write(&mut self) {
        let routes = self.clients.routes.iter().enumerate();
        let fresh =
            routes.filter_map(|(node, route)| route.filter(|route| route.until > self.now).map(|r| (r.epoch, node)));
        if let Some((_, node)) = fresh.max()
            && self.write_row(node)
        {
            self.clients.last_routed = self.now;
        }
        let pause = self.think();
        self.after(pause, Event::RoutedClient);
    }

    fn think(&mut self) -> Duration {
        if self.scenario.idle && self.now > Duration::from_secs(20) {
            self.rng.millis(10_000, 60_000)
        } else {
            self.rng.millis(20, 60)
        }
    }

    /// Rows that were acknowledged and that this node does not have.
    pub fn acknowledged_and_not_in(&self, node: usize) -> usize {
        let log = self.nodes[node].postgres.data.directory().map(|directory| &directory.log);
        let kept: BTreeSet<u64> = log.into_iter().flatten().map(|record| record.number).collect();
        self.clients.acknowledged.iter().filter(|row| !kept.contains(row)).count()
    }

    /// A row is written and acknowledged, without waiting for any standby.
    fn write_row(&mut self, node: usize) -> bool {
        if !self.nodes[node].postgres.can_commit() {
            return false;
        }
        let number = self.number();
        let Some(directory) = self.nodes[node].postgres.data.directory_mut() else { return false };
        directory.append(number, 160);
        self.clients.acknowledged.push(number);
        true
    }
}
