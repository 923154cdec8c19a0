//! What the configuration wants of the watchdog, as numbers.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Demand, Watchdog as Section, WatchdogDriver};

/// The section `watchdog` with the times of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub mode: Demand,
    pub device: PathBuf,
    pub driver: WatchdogDriver,
    safety_margin: Option<u64>,
    ttl: Duration,
    loop_wait: Duration,
}

impl Wish {
    pub fn new(section: &Section, ttl: Duration, loop_wait: Duration) -> Wish {
        Wish {
            mode: section.mode,
            device: section.device.clone(),
            driver: section.driver,
            safety_margin: section.safety_margin,
            ttl,
            loop_wait,
        }
    }

    /// No watchdog is wanted.
    #[cfg(test)]
    pub fn off() -> Wish {
        Wish {
            mode: Demand::Off,
            device: PathBuf::new(),
            driver: WatchdogDriver::Default,
            safety_margin: None,
            ttl: Duration::ZERO,
            loop_wait: Duration::ZERO,
        }
    }

    /// After this many seconds without a keepalive the machine is to be reset: before its lease is over.
    pub fn timeout(&self) -> u64 {
        let ttl = self.ttl.as_secs();
        self.safety_margin.map_or(ttl / 2, |margin| ttl.saturating_sub(margin))
    }

    /// Why no watchdog can be run with these times. A keepalive comes with each proof of the lease, which the loop may hold up for one round.
    pub fn refusal(&self) -> Option<String> {
        let (timeout, loop_wait) = (Duration::from_secs(self.timeout()), self.loop_wait);
        (timeout < loop_wait.max(Duration::from_secs(1))).then(|| {
            format!(
                "ttl ({} s) less watchdog.safety_margin leaves the watchdog {} s, which is less than loop_wait ({} s): raise ttl, or set \
                 watchdog.safety_margin to -1 for half of it",
                self.ttl.as_secs(),
                self.timeout(),
                loop_wait.as_secs()
            )
        })
    }

    /// How old the proof may be that a keepalive rests on. At least a second, for two of them come in each `loop_wait`.
    pub fn margin(&self) -> Duration {
        self.ttl.saturating_sub(Duration::from_secs(self.timeout())).max(Duration::from_secs(1))
    }

    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    pub fn loop_wait(&self) -> Duration {
        self.loop_wait
    }

    /// The `ttl` in seconds with which this time-out would be right.
    pub fn ttl_for(&self, timeout: u64) -> u64 {
        self.safety_margin.map_or(timeout.saturating_mul(2), |margin| timeout.saturating_add(margin))
    }

    /// The same device, spoken to in the same way.
    pub fn is_same_device(&self, other: &Wish) -> bool {
        (&self.device, self.driver) == (&other.device, other.driver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_out_is_the_ttl_less_the_margin_and_not_shorter_than_a_round() {
        // (ttl, safety_margin, loop_wait, time-out, refused)
        for (ttl, margin, loop_wait, timeout, refused) in [
            (21, Some(5), 10, 16, false),
            (20, Some(5), 10, 15, false),
            (30, None, 10, 15, false),
            (15, Some(5), 10, 10, false),
            (14, Some(5), 10, 9, true),
            (8, Some(5), 1, 3, false),
            (4, Some(5), 1, 0, true),
            (5, None, 2, 2, false),
        ] {
            let section = Section {
                mode: Demand::Required,
                device: "/d".into(),
                safety_margin: margin,
                driver: WatchdogDriver::Default,
            };
            let wish = Wish::new(&section, Duration::from_secs(ttl), Duration::from_secs(loop_wait));
            assert_eq!((wish.timeout(), wish.refusal().is_some()), (timeout, refused), "ttl {ttl}, margin {margin:?}");
        }
    }
}
