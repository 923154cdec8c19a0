//! The shared mapping behind the permit page: the one place that turns a file descriptor into a reference.

#![allow(unsafe_code)]

use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::io;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::page::Layout;

/// The page's file is this long, whatever the version of its layout: room to grow without another mapping.
pub(super) const LENGTH: usize = 4096;

/// A [`Layout`] shared with another process.
#[derive(Debug)]
pub(super) struct Mapping {
    at: NonNull<Layout>,
}

// SAFETY: every field of `Layout` is an atomic, so references to it may cross threads and be shared between them.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a sealed memory file. One that is too short, or could still shrink under the mapping, is refused.
    pub(super) fn of(file: BorrowedFd<'_>) -> io::Result<Mapping> {
        let long_enough = fstat(file)?.st_size >= LENGTH as i64;
        if !long_enough || !fcntl_get_seals(file)?.contains(SealFlags::SHRINK) {
            return Err(io::Errno::INVAL);
        }
        // SAFETY: a new shared mapping at an address that the kernel chooses aliases nothing of ours.
        let at = unsafe { mmap(null_mut(), LENGTH, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)? };
        NonNull::new(at.cast()).map(|at| Mapping { at }).ok_or(io::Errno::FAULT)
    }
}

const _: () = assert!(size_of::<Layout>() <= LENGTH);

impl Deref for Mapping {
    type Target = Layout;

    fn deref(&self) -> &Layout {
        // SAFETY: the mapping is page-aligned, at least `LENGTH` long (checked, and sealed against shrinking), lives
        // as long as `self`, and any bit pattern is a valid `Layout`, as all its fields are atomic integers.
        unsafe { self.at.as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` with this length; no reference outlives `self`.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), LENGTH) };
    }
}
