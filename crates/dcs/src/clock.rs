//! The two clocks of `pgherd_ha`, read from the kernel.

use std::time::Duration;

use pgherd_ha::{Boot, Now};
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME`: also counts the time that the machine was suspended.
pub fn boot_now() -> Boot {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Boot(Duration::new(seconds, nanos))
}

pub fn now() -> Now {
    Now { boot: boot_now(), wall: pgherd_ha::Wall::now() }
}
