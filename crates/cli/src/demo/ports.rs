//! Which ports a demo uses: one block of a hundred, the first one that is free as a whole.
//!
//! The blocks begin at 5000, 5100, ... and lie below the kernel's range for outgoing connections, so the same numbers
//! come back each time unless somebody else listens there.

use std::net::{Ipv4Addr, TcpListener};

/// More nodes than a laptop can carry; it keeps the ports of a role within their ten.
pub const MOST_NODES: usize = 9;

const FIRST_BLOCK: u16 = 5000;
const BLOCK: u16 = 100;
/// Blocks up to port 8999; then somebody should look at what runs on this machine.
const BLOCKS: u16 = 40;

/// The ports of one demo, all on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    base: u16,
}

impl Ports {
    pub fn entry(self) -> u16 {
        self.base
    }

    pub fn stats(self) -> u16 {
        self.base + 1
    }

    pub fn store(self) -> u16 {
        self.base + 2
    }

    /// PostgreSQL of node 1, 2, ...
    pub fn postgres(self, node: usize) -> u16 {
        self.base + 10 + node as u16
    }

    /// The REST API of node 1, 2, ...
    pub fn rest(self, node: usize) -> u16 {
        self.base + 20 + node as u16
    }

    fn all(self, nodes: usize) -> Vec<u16> {
        let of_nodes = (1..=nodes).flat_map(|node| [self.postgres(node), self.rest(node)]);
        [self.entry(), self.stats(), self.store()].into_iter().chain(of_nodes).collect()
    }
}

/// The first block in which nobody listens.
pub fn free(nodes: usize) -> Option<Ports> {
    choose(nodes, |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}

fn choose(nodes: usize, is_free: impl Fn(u16) -> bool) -> Option<Ports> {
    let blocks = (0..BLOCKS).map(|block| Ports { base: FIRST_BLOCK + block * BLOCK });
    blocks.into_iter().find(|ports| ports.all(nodes).into_iter().all(&is_free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_with_one_taken_port_is_passed_over() {
        for (taken, base) in [(4999, 5000), (5000, 5100), (5001, 5100), (5013, 5100), (5023, 5100), (5014, 5000)] {
            assert_eq!(choose(3, |port| port != taken), Some(Ports { base }), "taken: {taken}");
        }
        assert_eq!(choose(3, |_| false), None);
    }

    #[test]
    fn no_port_has_two_roles() {
        let mut all = Ports { base: 5000 }.all(MOST_NODES);
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
