//! See `crate::fuzz`.

use std::hint::black_box;
use std::net::Ipv6Addr;

use pgherd_ha::Wall;
use serde_json::{Map, Value};

use super::query::{Query, parse_bytes, parse_seconds};
use super::{Network, PeerStatus, failsafe, restart, schedule, switchover};

pub fn request(object: &Map<String, Value>, now: Wall) {
    black_box(restart::parse(object, now).ok());
    for action in [switchover::Action::Switchover, switchover::Action::Failover] {
        for paused in [false, true] {
            black_box(switchover::parse(action, object, paused, now).ok());
        }
    }
    black_box(failsafe::read(object));
}

pub fn query(text: &str) {
    let query = Query::parse(text);
    black_box((query.first("lag"), query.tags().count(), parse_bytes(text), parse_seconds(text)));
    black_box(schedule::parse(text, "restart", Wall::UNIX_EPOCH).map(super::iso).ok());
}

pub fn network(text: &str) {
    if let Ok(network) = text.parse::<Network>() {
        black_box(network.contains(Ipv6Addr::LOCALHOST.into()));
    }
}

pub fn peer_status(body: &[u8]) {
    black_box(PeerStatus::parse(body));
}
