//! The loop in this process, on processes that only look like a server: `sleep`, by the name of postgres. The watched one
//! counts as adopted, so that the loop buries no other test's children.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::process::{Child, Command};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, pidfd_open};

use super::*;
use crate::guard::page::State;
use pgherd_ha::Boot;

/// Counts what each thread asks for.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more, and nobody who reads it.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: hands everything on to the system's allocator; the default `realloc` and `alloc_zeroed` come through `alloc`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: as for the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Processes called postgres that work in `data_dir`; the first stands for the postmaster.
fn server(data_dir: &Path, processes: usize) -> Vec<Child> {
    let program = data_dir.join("postgres");
    std::fs::copy("/bin/sleep", &program).expect("a copy of sleep");
    let start = |_| loop {
        match Command::new(&program).arg("60").current_dir(data_dir).spawn() {
            Ok(child) => return child,
            // Another test's fork may still hold the copy open for writing.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
            Err(error) => panic!("{error}"),
        }
    };
    (0..processes).map(start).collect()
}

fn watch(data_dir: &Path, postmaster: &Child, deadline: u64) -> (Watch, OwnedFd) {
    let (page, _file) = Page::create(deadline).expect("a memory file");
    let scanner = Scanner::new(data_dir).expect("a directory");
    let pid = Pid::from_raw(postmaster.id() as i32).expect("positive");
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("a child");
    let (read, write) = pipe_with(PipeFlags::NONBLOCK).expect("a pipe");
    let postmaster = Postmaster { pid, process, child: false };
    (Watch::new(page, scanner, postmaster, read).expect("a timer"), write)
}

/// How often the thread allocated or freed while the loop ran to its end.
fn allocations_of(watch: &mut Watch) -> u64 {
    let before = ALLOCATIONS.get();
    assert!(before > 0, "the counter does not count");
    watch.run();
    ALLOCATIONS.get() - before
}

fn all_killed(children: Vec<Child>) -> bool {
    use std::os::unix::process::ExitStatusExt;
    children.into_iter().all(|mut child| child.wait().expect("a child").signal() == Some(9))
}

#[test]
fn the_end_of_a_permit_kills_every_process_and_allocates_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let children = server(directory.path(), 20);
    let soon = nanos(boot_now() + Duration::from_millis(50));
    let (mut watch, _wake) = watch(directory.path(), &children[0], soon);
    assert_eq!(allocations_of(&mut watch), 0);
    let fate = watch.page.fate().expect("done");
    assert_eq!((fate.cause, fate.killed), (Cause::PermitEnded, 20));
    assert!(fate.ended_at >= Boot(Duration::from_nanos(soon)), "not before the deadline");
    assert!(all_killed(children));
}

#[test]
fn the_end_of_a_postmaster_kills_its_orphans_and_allocates_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut children = server(directory.path(), 20);
    let (mut watch, _wake) = watch(directory.path(), &children[0], NO_END);
    children[0].kill().expect("a child");
    assert_eq!(allocations_of(&mut watch), 0);
    let fate = watch.page.fate().expect("done");
    assert_eq!(fate.cause, Cause::PostmasterExit);
    assert!((19..=20).contains(&fate.killed), "{fate:?}");
    assert!(watch.page.set_no_end().is_err(), "a page without a server gives no permit");
    assert!(all_killed(children));
}

#[test]
fn processes_of_another_directory_and_of_another_name_are_spared() {
    let (ours, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (children, mut neighbours) = (server(ours.path(), 2), server(other.path(), 1));
    let visitor = Command::new("/bin/sleep").arg("60").current_dir(ours.path()).spawn().expect("sleep");
    neighbours.push(visitor);
    let (mut watch, _wake) = watch(ours.path(), &children[0], nanos(boot_now()));
    watch.run();
    assert_eq!(watch.page.state(), State::Done);
    assert!(all_killed(children));
    for mut neighbour in neighbours {
        assert!(neighbour.try_wait().expect("a child").is_none(), "a neighbour was killed");
        neighbour.kill().expect("a child");
        neighbour.wait().expect("a child");
    }
}
