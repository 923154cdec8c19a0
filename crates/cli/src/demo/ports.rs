//! Which ports a demo uses: one block of a hundred, the first one that is free as a whole.
//!
//! The blocks begin at 5000, 5100, ... and lie below the kernel's range for outgoing connections, so the same numbers
//! come back each time unless somebody else listens there.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

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

    /// The member of the built-in store of node 1, 2, ...
    pub fn member(self, node: usize) -> u16 {
        self.base + 30 + node as u16
    }

    fn all(self, nodes: usize) -> Vec<u16> {
        let of_nodes = (1..=nodes).flat_map(|node| [self.postgres(node), self.rest(node), self.member(node)]);
        [self.entry(), self.stats(), self.store()].into_iter().chain(of_nodes).collect()
    }
}

/// A claim on a block until the demo's own servers listen there: another start passes the block over.
#[derive(Debug)]
pub struct Claim {
    _held: UnixListener,
}

/// The first block in which nobody listens and which no other start has claimed.
pub fn free(nodes: usize) -> Option<(Ports, Claim)> {
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    choose(nodes, claim, is_free)
}

/// A name in the kernel that ends with the process that holds it, so nothing is left behind.
fn claim(ports: Ports) -> Option<Claim> {
    let name = SocketAddr::from_abstract_name(format!("pgherd-demo-ports-{}", ports.base)).ok()?;
    UnixListener::bind_addr(&name).ok().map(|held| Claim { _held: held })
}

fn choose<C>(nodes: usize, claim: impl Fn(Ports) -> Option<C>, is_free: impl Fn(u16) -> bool) -> Option<(Ports, C)> {
    let mut blocks = (0..BLOCKS).map(|block| Ports { base: FIRST_BLOCK + block * BLOCK });
    // Claimed first, looked at then: in the other order another start could come in between.
    blocks.find_map(|ports| {
        let claimed = claim(ports)?;
        ports.all(nodes).into_iter().all(&is_free).then_some((ports, claimed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_with_one_taken_port_is_passed_over() {
        for (taken, base) in [(4999, 5000), (5000, 5100), (5001, 5100), (5013, 5100), (5023, 5100), (5014, 5000)] {
            let chosen = choose(3, |_| Some(()), |port| port != taken);
            assert_eq!(chosen, Some((Ports { base }, ())), "taken: {taken}");
        }
        assert_eq!(choose(3, |_| Some(()), |_| false), None);
    }

    #[test]
    fn a_claimed_block_is_passed_over_until_the_claim_ends() {
        // Far from the blocks of a real demo.
        let ports = Ports { base: 1 };
        let claimed = claim(ports).expect("nobody has claimed it");
        assert!(claim(ports).is_none());
        drop(claimed);
        assert!(claim(ports).is_some());
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
