//! No permit outlives its lease: when the store frees the key of a session that is over, the permit that came from it has been over for
//! the guard's stop time already, whether or not a server ran.

use pgherd_ha::{Permit, STOP_TIME};

use super::lease_obeyed;
use crate::world::{World, name};

pub fn check(world: &World) -> Option<(&'static str, String)> {
    let before = world.checks.leader_before.filter(|before| before.renewable)?;
    if lease_obeyed::held(world).is_some_and(|now| now.epoch == before.epoch) {
        return None;
    }
    let boot = world.boot(before.node);
    let Permit::Until { epoch, deadline } = world.nodes[before.node].permit() else { return None };
    let late = (deadline + STOP_TIME).since(boot);
    (epoch == before.epoch && !late.is_zero()).then(|| {
        let who = name(before.node);
        (
            "permit bound",
            format!("the key of {who} is freed {} ms before its permit and the stop time end", late.as_millis()),
        )
    })
}
