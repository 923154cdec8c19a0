//! Ports for servers that are told where to listen, and keep the port while they are down.
//!
//! They lie below the kernel's range for outgoing connections and above the demo's blocks, so nobody gets one by chance; and
//! each is claimed by a name in the kernel, which ends with the test's process, so parallel tests do not share one.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

const RANGE: std::ops::Range<u16> = 20_000..30_000;

/// What this process has claimed, until it ends.
static CLAIMED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port on loopback that nobody listens on, and that no other test is given while this process lives.
pub fn free_port() -> u16 {
    let claimed = |port: &u16| {
        let name = SocketAddr::from_abstract_name(format!("pgherd-it-port-{port}")).expect("a short name");
        UnixListener::bind_addr(&name).ok()
    };
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    // Claimed first, looked at then: in the other order another test could come in between.
    let mut found = RANGE.filter_map(|port| Some((port, claimed(&port)?))).filter(|(port, _)| is_free(port));
    let (port, claim) = found.next().expect("one of ten thousand ports is free");
    CLAIMED.lock().expect("nobody panics with it").push(claim);
    port
}

/// Several, all different.
pub fn free_ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_port())
}

#[test]
fn no_port_is_given_twice() {
    let ports: [u16; 20] = free_ports();
    let different: std::collections::BTreeSet<u16> = ports.into_iter().collect();
    assert_eq!(different.len(), ports.len(), "{ports:?}");
}
