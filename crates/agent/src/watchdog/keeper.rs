//! The thread that drives the device: it alone waits for it. What it is told comes through a short queue, and whatever the device does,
//! nobody waits to put something there.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, Lease};
use tokio::sync::oneshot;

use super::Shared;
use super::device::Device;
use super::wish::Wish;
use crate::config::Demand;

/// What the keeper is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Start the device.
    Arm {
        proof: Proof,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// The lease was proven.
    KeepAlive(Proof),
    Disarm,
    /// Answered when everything before it is done.
    Settle(oneshot::Sender<()>),
}

/// The leader key was ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    sent: Boot,
    /// How long the store lets the session live without another.
    granted: Duration,
}

impl Proof {
    pub fn of(lease: &Lease) -> Proof {
        Proof { sent: lease.sent, granted: lease.granted }
    }

    /// A keepalive that is sent now is over before `ttl` is, counted from the proof: what waited in the queue of a device that hung must not
    /// keep a machine alive whose lease is long over.
    pub fn is_fresh(&self, now: Boot, wish: &Wish) -> bool {
        now.since(self.sent) <= wish.margin()
    }

    /// ZooKeeper gives a session that lives on no longer time-out than at its creation.
    fn warn_of_shorter_session(&self, wish: &Wish) {
        if self.granted < wish.ttl() {
            tracing::warn!(
                "the store has granted this agent's session {} s and ttl is {} s: until the agent is started again its lease may end before \
                 the watchdog resets the machine",
                self.granted.as_secs(),
                wish.ttl().as_secs()
            );
        }
    }
}

#[derive(Debug)]
struct Armed {
    device: Device,
    timeout: Duration,
    /// What the device was set up for.
    wish: Arc<Wish>,
}

pub(super) fn run(orders: &Receiver<Order>, shared: &Shared) {
    let mut armed: Option<Armed> = None;
    while let Ok(order) = orders.recv() {
        match order {
            Order::Arm { proof, reply } => {
                let result = arm(&mut armed, shared, proof);
                let told = result.is_ok();
                // Whoever asked has given up waiting: the decision was made that it does not work.
                if reply.send(result).is_err() && told {
                    disarm(&mut armed, shared);
                }
            }
            Order::KeepAlive(proof) => keep_alive(&mut armed, shared, proof),
            Order::Disarm => disarm(&mut armed, shared),
            // Whoever asked may have given up waiting.
            Order::Settle(reply) => drop(reply.send(())),
        }
    }
    disarm(&mut armed, shared);
}

fn arm(armed: &mut Option<Armed>, shared: &Shared, proof: Proof) -> Result<(), String> {
    let wish = shared.wish.load_full();
    if armed.is_some() {
        return Ok(());
    }
    if let Some(refusal) = wish.refusal() {
        return Err(refusal);
    }
    if !proof.is_fresh(boot_now(), &wish) {
        return Err(format!("watchdog {} was not started while the lease was fresh", wish.device.display()));
    }
    let mut device = Device::open(&wish.device, wish.driver).map_err(|error| error.to_string())?;
    let timeout = match set_up(&mut device, &wish) {
        Ok(timeout) => timeout,
        Err(error) => {
            stop(device);
            return Err(error);
        }
    };
    tracing::info!(
        "watchdog {} ({}) activated with {} second timeout, timing slack {} seconds",
        wish.device.display(),
        device.identity,
        timeout.as_secs(),
        timeout.saturating_sub(wish.loop_wait()).as_secs()
    );
    if !device.stops {
        tracing::warn!(
            "watchdog {} cannot be stopped (nowayout): the machine is reset after this node has ceased to lead",
            wish.device.display()
        );
    }
    proof.warn_of_shorter_session(&wish);
    shared.set_timeout(Some(timeout));
    *armed = Some(Armed { device, timeout, wish });
    Ok(())
}

/// The time-out that is in force. One that is longer than wanted may be over after the lease is, so it protects nobody; one that is
/// shorter than a round resets a healthy machine.
fn set_up(device: &mut Device, wish: &Wish) -> Result<Duration, String> {
    let (wanted, path) = (wish.timeout(), wish.device.display());
    let found = device.set_timeout(wanted).map_err(|error| error.to_string())?;
    let timeout = Duration::from_secs(found);
    if timeout < wish.loop_wait().max(Duration::from_secs(1)) {
        return Err(format!("watchdog {path} has a timeout of {found} s and takes no other: shorter than loop_wait"));
    }
    if found > wanted {
        let text = format!(
            "watchdog {path} has a timeout of {found} s and takes no other: the lease may be over after {wanted} s"
        );
        match wish.mode {
            Demand::Required => return Err(format!("{text}; raise ttl to {} s or more", wish.ttl_for(found))),
            Demand::Automatic | Demand::Off => tracing::warn!("{text}"),
        }
    }
    Ok(timeout)
}

fn keep_alive(armed: &mut Option<Armed>, shared: &Shared, proof: Proof) {
    let Some(running) = armed else { return };
    if !proof.is_fresh(boot_now(), &running.wish) {
        tracing::debug!("no keepalive for the watchdog: the proof of the lease is too old");
        return;
    }
    let wish = shared.wish.load_full();
    let result =
        running.device.keep_alive().map_err(|error| error.to_string()).and_then(|()| match *wish != *running.wish {
            true => renew(running, shared, wish, proof),
            false => Ok(()),
        });
    if let Err(error) = result {
        shared.fail(error);
        disarm(armed, shared);
    }
}

/// The times have changed.
fn renew(running: &mut Armed, shared: &Shared, wish: Arc<Wish>, proof: Proof) -> Result<(), String> {
    if let Some(refusal) = wish.refusal() {
        return Err(refusal);
    }
    if wish.timeout() == running.wish.timeout() {
        running.wish = wish;
        return Ok(());
    }
    running.timeout = set_up(&mut running.device, &wish)?;
    shared.set_timeout(Some(running.timeout));
    tracing::info!(
        "watchdog {} updated with {} second timeout, timing slack {} seconds",
        wish.device.display(),
        running.timeout.as_secs(),
        running.timeout.saturating_sub(wish.loop_wait()).as_secs()
    );
    proof.warn_of_shorter_session(&wish);
    running.wish = wish;
    Ok(())
}

fn disarm(armed: &mut Option<Armed>, shared: &Shared) {
    if let Some(running) = armed.take() {
        tracing::info!("watchdog {} deactivated", running.wish.device.display());
        stop(running.device);
    }
    shared.set_timeout(None);
}

fn stop(device: Device) {
    if let Err(error) = device.stop() {
        tracing::error!("{error}");
    }
}
