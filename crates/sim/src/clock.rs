//! The clocks of one machine: one for leases, which runs a little fast or slow and counts while the machine is suspended; and the wall
//! clock, which somebody may set.

use std::time::Duration;

use pgherd_ha::{Boot, Now, Wall};

use crate::rng::Rng;

/// How far a clock may be off: 100 parts in a million, twice what a cheap crystal is allowed. Two machines then differ by 200 at most, as
/// `crates/proxy/src/subscribe.rs` assumes.
const DRIFT_PPM: u64 = 100;

const MILLION: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub struct Clock {
    /// `CLOCK_BOOTTIME` at the beginning of the world.
    offset: Duration,
    /// Ticks of this clock in a million true microseconds.
    rate: u64,
    pub wall_offset_ms: i64,
}

impl Clock {
    pub fn new(rng: &mut Rng) -> Clock {
        let offset = rng.millis(1_000_000, 100_000_000);
        Clock { offset, rate: MILLION - DRIFT_PPM + rng.below(2 * DRIFT_PPM + 1), wall_offset_ms: 0 }
    }

    pub fn boot(&self, now: Duration) -> Boot {
        Boot(self.offset + scaled(now, self.rate, MILLION))
    }

    /// How long it truly takes until this clock has counted `local`, rounded up: a timer is never early.
    pub fn takes(&self, local: Duration) -> Duration {
        scaled(local, MILLION, self.rate) + Duration::from_micros(1)
    }

    pub fn read(&self, now: Duration) -> Now {
        let millis = i64::try_from(now.as_millis()).expect("a run lasts minutes");
        let wall = 1_750_000_000_000 + millis + self.wall_offset_ms;
        Now { boot: self.boot(now), wall: Wall::from_millisecond(wall).expect("a time of this century") }
    }
}

fn scaled(time: Duration, by: u64, of: u64) -> Duration {
    let micros = u64::try_from(time.as_micros()).expect("a run lasts minutes");
    Duration::from_micros(micros * by / of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_of_any_clock_is_not_early_and_hardly_late() {
        let mut rng = Rng::new(3);
        for _ in 0..100 {
            let clock = Clock::new(&mut rng);
            let (begun, local) = (rng.millis(0, 100_000), rng.millis(1, 30_000));
            let counted = clock.boot(begun + clock.takes(local)).since(clock.boot(begun));
            assert!(counted >= local && counted <= local + Duration::from_micros(3), "{clock:?}: {counted:?}");
        }
    }
}
