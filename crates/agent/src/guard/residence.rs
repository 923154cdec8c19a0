//! Keeps in memory what the guard's loop uses: on a hung disk, code that was paged out would never come back.
//!
//! Locking the whole binary would cost more than everything else the guard does. So what lies around the loop's code is
//! brought in, one pass of the work is rehearsed, and then the pages that are present are locked, and no others.

use std::fs::File;
use std::io::BufRead;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::scan::Scanner;
use super::sys;
use super::watch::Watch;

/// How far around the start of a function its code and that of what it calls is brought in. The loop and the scan are a
/// few kilobytes; the rest is margin for how the linker lays them out.
const AROUND: usize = 64 << 10;

/// More mappings than a guard has (some dozens).
const MAPPINGS_AT_MOST: usize = 1024;

/// Whether everything that the loop uses is locked now.
pub(super) fn lock(scanner: &Scanner) -> bool {
    let code = [Watch::run as *const () as usize, Scanner::kill_round as *const () as usize];
    let Ok(mappings) = mappings() else { return false };
    // The code that only runs when something is to be killed, which a rehearsal cannot touch.
    let brought_in = code.into_iter().all(|start| {
        let window = start - AROUND..start + AROUND;
        mappings.iter().filter_map(|mapping| overlap(mapping, &window)).all(|part| sys::bring_in_and_lock(part).is_ok())
    });
    let _ = scanner.visit(|_| {});
    brought_in && lock_present_pages(&mappings).is_ok()
}

fn mappings() -> std::io::Result<Vec<Range<usize>>> {
    let lines = std::io::BufReader::new(File::open("/proc/self/maps")?).lines().take(MAPPINGS_AT_MOST);
    lines.filter_map(|line| line.map(|line| lockable(&line)).transpose()).collect()
}

fn lock_present_pages(mappings: &[Range<usize>]) -> std::io::Result<()> {
    let page = rustix::param::page_size();
    let pagemap = File::open("/proc/self/pagemap")?;
    for addresses in mappings {
        let mut entries = vec![0u8; addresses.len() / page * 8];
        pagemap.read_exact_at(&mut entries, (addresses.start / page * 8) as u64)?;
        for run in present_runs(&entries) {
            sys::lock_present(addresses.start + run.start * page..addresses.start + run.end * page)?;
        }
    }
    Ok(())
}

/// What two ranges have in common, in whole pages.
fn overlap(mapping: &Range<usize>, window: &Range<usize>) -> Option<Range<usize>> {
    let page = rustix::param::page_size();
    let common = mapping.start.max(window.start / page * page)..mapping.end.min(window.end.next_multiple_of(page));
    (!common.is_empty()).then_some(common)
}

/// The addresses of one line of `/proc/self/maps`; `None` for what the kernel itself maps, and keeps.
fn lockable(line: &str) -> Option<Range<usize>> {
    if line.ends_with("[vvar]") || line.ends_with("[vdso]") || line.ends_with("[vsyscall]") || line.contains("[vvar_") {
        return None;
    }
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// Runs of present pages, counted in pages; bit 63 of an entry says "in memory".
fn present_runs(entries: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, entry) in entries.chunks_exact(8).enumerate() {
        if entry[7] & 0x80 == 0 {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_the_kernel_are_left_alone() {
        assert_eq!(lockable("1000-3000 r-xp 00000000 08:01 7  /usr/bin/pgherd"), Some(0x1000..0x3000));
        assert_eq!(lockable("7000-8000 r-xp 00000000 00:00 0  [vdso]"), None);
        assert_eq!(lockable("nonsense"), None);
    }

    #[test]
    fn windows_end_where_the_mapping_does() {
        let mapping = 0x10000..0x20000;
        assert_eq!(overlap(&mapping, &(0x0f123..0x11001)), Some(0x10000..0x12000));
        assert_eq!(overlap(&mapping, &(0x1f123..0x31001)), Some(0x1f000..0x20000));
        assert_eq!(overlap(&mapping, &(0x20000..0x21000)), None);
    }

    #[test]
    fn present_pages_are_locked_in_runs() {
        let entries: Vec<u8> = [1, 1, 0, 1, 0u64].iter().flat_map(|present| (present << 63).to_le_bytes()).collect();
        assert_eq!(present_runs(&entries), [0..2, 3..4]);
    }
}
