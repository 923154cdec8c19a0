//! The requests of Linux's watchdog devices (`Documentation/watchdog/watchdog-api.rst` of the kernel), as safe functions.

#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;

use rustix::io::Result;
use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};

/// `struct watchdog_info`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    pub options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

impl Info {
    /// What the driver calls itself.
    pub fn identity(&self) -> String {
        let end = self.identity.iter().position(|byte| *byte == 0).unwrap_or(self.identity.len());
        String::from_utf8_lossy(&self.identity[..end]).into_owned()
    }
}

/// A time-out can be set.
pub(super) const SETS_TIMEOUT: u32 = 0x0080;
/// `V` before the close stops it.
pub(super) const STOPS: u32 = 0x0100;

const GROUP: u8 = b'W';
const GET_SUPPORT: Opcode = opcode::read::<Info>(GROUP, 0);
const SET_TIMEOUT: Opcode = opcode::read_write::<i32>(GROUP, 6);
const GET_TIMEOUT: Opcode = opcode::read::<i32>(GROUP, 7);

pub(super) fn support(device: BorrowedFd<'_>) -> Result<Info> {
    // SAFETY: the request writes one `Info`, every bit pattern of which is a valid one.
    unsafe { ioctl(device, Getter::<GET_SUPPORT, Info>::new()) }
}

pub(super) fn timeout(device: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: the request writes one `int`.
    unsafe { ioctl(device, Getter::<GET_TIMEOUT, i32>::new()) }
}

/// The driver may take another value than the wanted one; ask with [`timeout`].
pub(super) fn set_timeout(device: BorrowedFd<'_>, mut seconds: i32) -> Result<()> {
    // SAFETY: the request reads and writes one `int`.
    unsafe { ioctl(device, Updater::<SET_TIMEOUT, i32>::new(&mut seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_have_the_kernels_numbers() {
        // From <linux/watchdog.h>, on the architectures whose ioctls have the common layout (x86, arm).
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            assert_eq!((GET_SUPPORT, SET_TIMEOUT, GET_TIMEOUT), (0x8028_5700, 0xc004_5706, 0x8004_5707));
        }
    }
}
