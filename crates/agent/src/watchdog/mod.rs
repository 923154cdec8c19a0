//! The machine's watchdog: resets it when this node may still have a writer and nobody proves its lease any more, the kernel being hung,
//! say. The guard is quicker and gentler wherever the kernel still runs processes.
//!
//! A [`Watchdog`] may be used from anywhere: nothing here waits for the device but [`Watchdog::arm`] and [`Watchdog::settle`], and those for a
//! second at most. When it runs is decided in `pgherd_ha`. Tested in `tests/it/cluster/watchdog.rs`, with the testing driver.

mod device;
mod keeper;
mod sys;
mod wish;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, Lease};
use tokio::sync::oneshot;

use self::keeper::{Order, Proof};
pub use self::wish::Wish;
use crate::config::Demand;

/// A device answers in microseconds; one that needs longer than this does not work.
const ANSWER: Duration = Duration::from_secs(1);

/// A device that failed is tried again after this time: somebody may have mended it, and each attempt to lead costs others a round.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Room for an order of each kind, and for the keepalives of a device that is slow for two seconds. One that is slower misses some,
/// which is what a watchdog is for.
const QUEUE: usize = 8;

#[derive(Debug)]
pub struct Watchdog {
    orders: SyncSender<Order>,
    shared: Arc<Shared>,
}

/// What the keeper's thread and the others share; read and written without waiting.
#[derive(Debug)]
struct Shared {
    wish: ArcSwap<Wish>,
    /// Of the device that runs, in milliseconds; 0: none runs.
    timeout: AtomicU64,
    failure: ArcSwapOption<Failure>,
}

#[derive(Debug)]
struct Failure {
    at: Boot,
    why: String,
}

impl Shared {
    fn set_timeout(&self, timeout: Option<Duration>) {
        let millis = timeout.map_or(0, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        self.timeout.store(millis, Ordering::SeqCst);
    }

    /// Said once where the watchdog is only wanted; the loop says it again and again where it is required.
    fn fail(&self, why: String) {
        if self.wish.load().mode == Demand::Automatic {
            tracing::warn!("going on without a watchdog: {why}");
        }
        self.failure.store(Some(Arc::new(Failure { at: boot_now(), why })));
    }
}

impl Watchdog {
    /// Starts the keeper's thread; the device is left alone until it is armed.
    pub fn start(wish: Wish) -> io::Result<Watchdog> {
        let (orders, receiver) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            wish: ArcSwap::from_pointee(wish),
            timeout: AtomicU64::new(0),
            failure: ArcSwapOption::empty(),
        });
        let kept = shared.clone();
        std::thread::Builder::new().name("watchdog".into()).spawn(move || keeper::run(&receiver, &kept))?;
        Ok(Watchdog { orders, shared })
    }

    /// What is wanted has changed. New times reach the device with the next keepalive.
    pub fn configure(&self, wish: Wish) {
        let before = self.shared.wish.load_full();
        if *before == wish {
            return;
        }
        let moved = !before.is_same_device(&wish) || wish.mode == Demand::Off;
        self.shared.wish.store(Arc::new(wish));
        self.shared.failure.store(None);
        if moved && let Err(error) = self.disarm() {
            tracing::error!("{error}");
        }
    }

    /// How long the machine lives without a keepalive, while the device runs.
    pub fn timeout(&self) -> Option<Duration> {
        match self.shared.timeout.load(Ordering::SeqCst) {
            0 => None,
            millis => Some(Duration::from_millis(millis)),
        }
    }

    /// For the decision; and why it does not work, where it is required.
    pub fn state(&self, now: Boot) -> (pgherd_ha::Watchdog, Option<String>) {
        use pgherd_ha::Watchdog::{Armed, Failed, Idle, Unused};
        let wish = self.shared.wish.load();
        let failure = self.shared.failure.load();
        let fails = match failure.as_deref() {
            Some(failure) if wish.mode == Demand::Automatic || now.since(failure.at) < TRY_AGAIN => {
                Some(failure.why.clone())
            }
            _ if self.timeout().is_some() => None,
            _ if wish.mode == Demand::Required => unfit(&wish),
            _ => None,
        };
        match (wish.mode, fails) {
            (Demand::Off, _) | (Demand::Automatic, Some(_)) => (Unused, None),
            (Demand::Required, Some(why)) => (Failed, Some(why)),
            (_, None) if self.timeout().is_some() => (Armed, None),
            (_, None) => (Idle, None),
        }
    }

    /// Starts the device under a lease that was just proven. Where it is only wanted, a failure is no error.
    pub async fn arm(&self, lease: &Lease) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let proof = Proof::of(lease);
        // Not the device's fault.
        if !proof.is_fresh(boot_now(), &self.shared.wish.load()) {
            return Err("the lease was not proven lately enough to start the watchdog; trying again".into());
        }
        let asked = self.orders.try_send(Order::Arm { proof, reply });
        let answer = match asked {
            Ok(()) => tokio::time::timeout(ANSWER, answer).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        let wish = self.shared.wish.load();
        let late = || Err(format!("{} does not answer within {} s", wish.device.display(), ANSWER.as_secs()));
        match answer.unwrap_or_else(late) {
            Ok(()) => Ok(()),
            Err(why) => {
                self.shared.fail(why.clone());
                match wish.mode {
                    Demand::Required => Err(format!("the watchdog is required and could not be activated: {why}")),
                    Demand::Automatic | Demand::Off => Ok(()),
                }
            }
        }
    }

    /// The lease (or a round of failsafe) was proven: the only reason to keep the machine alive. Never waits.
    pub fn keep_alive(&self, lease: &Lease) {
        if self.timeout().is_some() {
            // A device that hangs has its queue full of them.
            let _ = self.orders.try_send(Order::KeepAlive(Proof::of(lease)));
        }
    }

    /// Never waits.
    pub fn disarm(&self) -> Result<(), String> {
        self.orders.try_send(Order::Disarm).map_err(|_| {
            let device = self.shared.wish.load().device.display().to_string();
            format!("the watchdog {device} hangs and cannot be stopped: it may reset the machine")
        })
    }

    /// Waits until what was ordered is done, for a second at most.
    pub async fn settle(&self) {
        let (reply, answer) = oneshot::channel();
        if self.orders.try_send(Order::Settle(reply)).is_ok() {
            // One that hangs is not waited for.
            let _ = tokio::time::timeout(ANSWER, answer).await;
        }
    }
}

/// Why it cannot be armed, as far as can be seen without starting it.
fn unfit(wish: &Wish) -> Option<String> {
    let denied = || {
        let error = rustix::fs::access(&wish.device, rustix::fs::Access::WRITE_OK).err()?;
        Some(device::DeviceError::Open { path: wish.device.clone(), source: error.into() }.to_string())
    };
    wish.refusal().or_else(denied)
}

#[cfg(test)]
mod tests;
