//! One open watchdog device. Opening starts it: from then on the machine is reset unless it is kept alive in time, or closed in order.
//!
//! Every call may block for as long as the driver likes, so only the keeper's thread makes them. Not here: when to make them (`keeper`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::sys;
use crate::config::WatchdogDriver;

/// Until the kernel is told otherwise: the default of its own drivers. For the testing driver, which cannot be asked.
const UNTOLD: u64 = 60;

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("{} cannot be opened: {source}{}", path.display(), advice(path, source))]
    Open { path: PathBuf, source: io::Error },
    #[error("{} does not answer as a watchdog does ({request}): {source}; is it one? look at watchdog.device", path.display())]
    Request { path: PathBuf, request: &'static str, source: io::Error },
    #[error("{} does not take a keepalive: {source}", path.display())]
    KeepAlive { path: PathBuf, source: io::Error },
    #[error(
        "{} could not be stopped, and resets the machine soon: {source}", path.display()
    )]
    Stop { path: PathBuf, source: io::Error },
}

/// What to do about the commonest reasons.
fn advice(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "; let this user open it: `chown $(id -un) {path}` as root, or for good a udev rule such as KERNEL==\"watchdog\", \
             OWNER=\"postgres\", MODE=\"0600\""
        ),
        io::ErrorKind::NotFound => {
            "; load the driver of this machine's watchdog (or `modprobe softdog`), or set watchdog.device".into()
        }
        io::ErrorKind::ResourceBusy => {
            format!("; another process drives it (systemd's RuntimeWatchdogSec?): `fuser {path}` names it")
        }
        _ => String::new(),
    }
}

#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
    driver: WatchdogDriver,
    sets_timeout: bool,
    /// It can be stopped without a reset.
    pub stops: bool,
    /// As the driver calls itself.
    pub identity: String,
    /// What the testing driver was told.
    told: u64,
}

impl Device {
    /// Starts it.
    pub fn open(path: &Path, driver: WatchdogDriver) -> Result<Device, DeviceError> {
        // Not inherited by any child, or its end would not be the end of the device; and a FIFO that nobody reads is no reason to wait.
        let flags = OFlags::CLOEXEC | OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path);
        let file = file.map_err(|source| DeviceError::Open { path: path.to_owned(), source })?;
        let mut device = Device {
            file,
            path: path.to_owned(),
            driver,
            sets_timeout: true,
            stops: true,
            identity: "Watchdog test harness".into(),
            told: UNTOLD,
        };
        match device.ask_support() {
            Ok(()) => Ok(device),
            Err(error) => {
                // If it is a watchdog, it runs.
                let _ = device.stop();
                Err(error)
            }
        }
    }

    fn ask_support(&mut self) -> Result<(), DeviceError> {
        if self.driver == WatchdogDriver::Testing {
            return Ok(());
        }
        let info = sys::support(self.file.as_fd()).map_err(|errno| self.request("WDIOC_GETSUPPORT", errno))?;
        self.sets_timeout = info.options & sys::SETS_TIMEOUT != 0;
        self.stops = info.options & sys::STOPS != 0;
        self.identity = info.identity();
        Ok(())
    }

    /// Asks for a time-out in seconds; returns the one that is in force, which may be another.
    pub fn set_timeout(&mut self, seconds: u64) -> Result<u64, DeviceError> {
        if self.driver == WatchdogDriver::Testing {
            let written = self.file.write_all(format!("Ctimeout={seconds}\n").as_bytes());
            written.map_err(|source| DeviceError::KeepAlive { path: self.path.clone(), source })?;
            self.told = seconds;
            return Ok(self.told);
        }
        if self.sets_timeout {
            let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
            sys::set_timeout(self.file.as_fd(), seconds).map_err(|errno| self.request("WDIOC_SETTIMEOUT", errno))?;
        }
        let found = sys::timeout(self.file.as_fd()).map_err(|errno| self.request("WDIOC_GETTIMEOUT", errno))?;
        Ok(u64::try_from(found).unwrap_or(0))
    }

    fn request(&self, request: &'static str, errno: rustix::io::Errno) -> DeviceError {
        DeviceError::Request { path: self.path.clone(), request, source: errno.into() }
    }

    pub fn keep_alive(&mut self) -> Result<(), DeviceError> {
        self.file.write_all(b"1").map_err(|source| DeviceError::KeepAlive { path: self.path.clone(), source })
    }

    /// Stops it, where the driver lets it be stopped, and closes it.
    pub fn stop(mut self) -> Result<(), DeviceError> {
        self.file.write_all(b"V").map_err(|source| DeviceError::Stop { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn the_testing_driver_writes_what_a_watchdog_hears() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        let error = Device::open(&path, WatchdogDriver::Testing).expect_err("nobody reads");
        assert!(error.to_string().contains("fifo cannot be opened: "), "{error}");
        let mut reader = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&path);
        let reader = reader.as_mut().expect("a reader");
        let mut device = Device::open(&path, WatchdogDriver::Testing).expect("open");
        assert_eq!(device.set_timeout(16).expect("set"), 16);
        device.keep_alive().expect("alive");
        device.stop().expect("stopped");
        let mut heard = String::new();
        reader.read_to_string(&mut heard).expect("the writer has closed it");
        assert_eq!(heard, "Ctimeout=16\n1V");
    }

    #[test]
    fn what_is_no_watchdog_is_said_with_what_to_do() {
        let error = Device::open(Path::new("/dev/null"), WatchdogDriver::Default).expect_err("no watchdog");
        assert!(error.to_string().contains("WDIOC_GETSUPPORT") && error.to_string().contains("watchdog.device"));
        let error = Device::open(Path::new("/dev/no-such-device"), WatchdogDriver::Default).expect_err("absent");
        assert!(error.to_string().contains("modprobe softdog"), "{error}");
        let denied = DeviceError::Open { path: "/dev/watchdog".into(), source: io::ErrorKind::PermissionDenied.into() };
        assert!(denied.to_string().contains("chown $(id -un) /dev/watchdog"), "{denied}");
    }
}
