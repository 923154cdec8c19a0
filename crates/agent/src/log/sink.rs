//! Where lines end up: standard error, or Patroni's log file with its rotation by size.
//!
//! Nothing here fails for the caller. What a file does not take goes to standard error, the trouble is said there, and the file is tried
//! again; it is also opened anew when somebody has moved or removed it. Used by the one thread that writes (`queue`). Tested below.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Patroni's name of it.
const FILE: &str = "patroni.log";

/// A file that could not be opened or written is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// A rotation that failed is tried again after this time; until then the file grows.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);

/// What `log` in the configuration says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// `None`: standard error.
    pub dir: Option<PathBuf>,
    /// Permissions of the file; `None`: those that the umask leaves.
    pub mode: Option<u32>,
    /// Bytes after which the file is rotated; 0: never.
    pub file_size: u64,
    /// How many rotated files are kept; 0: it is never rotated.
    pub file_num: u32,
}

/// What takes lines.
#[derive(Debug, Default)]
pub struct Sink {
    file: Option<LogFile>,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    wanted: Destination,
    open: Option<Open>,
    /// Since when it takes nothing, and how many lines went elsewhere.
    trouble: Option<(Instant, u64)>,
    rotate_from: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    /// Device and number, to notice that the path leads to another file.
    identity: (u64, u64),
}

impl Sink {
    pub fn new(wanted: Destination) -> Sink {
        let file = wanted.dir.as_ref().map(|dir| LogFile {
            path: dir.join(FILE),
            wanted: wanted.clone(),
            open: None,
            trouble: None,
            rotate_from: None,
        });
        Sink { file }
    }

    /// Takes one line. What is to be said of the sink itself, if there is news.
    pub fn write(&mut self, line: &str) -> Option<String> {
        match &mut self.file {
            None => {
                to_standard_error(line);
                None
            }
            Some(file) => file.write(line),
        }
    }
}

/// Where it goes nobody can be told that it did not get there.
pub fn to_standard_error(line: &str) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

impl LogFile {
    fn write(&mut self, line: &str) -> Option<String> {
        let path = self.path.display().to_string();
        if let Some((since, lines)) = &mut self.trouble
            && since.elapsed() < AGAIN
        {
            *lines += 1;
            to_standard_error(line);
            return None;
        }
        match self.try_write(line) {
            Ok(rotation) => {
                let elsewhere = self.trouble.take().map(|(_, lines)| {
                    format!("the log file {path} is written again; {lines} lines went to standard error meanwhile")
                });
                elsewhere.or_else(|| {
                    rotation.err().map(|error| format!("the log file {path} cannot be rotated and grows: {error}"))
                })
            }
            Err(error) => {
                self.open = None;
                to_standard_error(line);
                let lines = self.trouble.take().map_or(0, |(_, lines)| lines);
                self.trouble = Some((Instant::now(), lines + 1));
                (lines == 0).then(|| {
                    format!(
                        "the log file {path} cannot be written ({error}): lines go to standard error until it can; \
                         look at `log.dir`, its owner and the space there"
                    )
                })
            }
        }
    }

    /// The inner result is that of a rotation.
    fn try_write(&mut self, line: &str) -> io::Result<io::Result<()>> {
        let bytes = format!("{line}\n").into_bytes();
        let length = bytes.len() as u64;
        if self.open.as_ref().is_some_and(|open| identity(&self.path) != Some(open.identity)) {
            self.open = None;
        }
        let mut rotation = Ok(());
        if self.is_full(length) {
            rotation = self.rotate();
            self.rotate_from = rotation.is_err().then(|| Instant::now() + ROTATE_AGAIN);
        }
        let open = self.opened()?;
        if let Err(error) = open.file.write_all(&bytes) {
            // Half a line would spoil the next one, too.
            let _ = open.file.set_len(open.size);
            return Err(error);
        }
        open.size += length;
        Ok(rotation)
    }

    fn is_full(&mut self, more: u64) -> bool {
        let Destination { file_size, file_num, .. } = self.wanted;
        if file_size == 0 || file_num == 0 || self.rotate_from.is_some_and(|from| Instant::now() < from) {
            return false;
        }
        let size = self.opened().map(|open| open.size).unwrap_or(0);
        size > 0 && size + more >= file_size
    }

    fn opened(&mut self) -> io::Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) => open,
            None => open(&self.path, self.wanted.mode)?,
        };
        Ok(self.open.insert(open))
    }

    /// `patroni.log` becomes `patroni.log.1`, that one `.2`, and the last is gone.
    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        let numbered = |number: u32| match number {
            0 => self.path.clone(),
            number => PathBuf::from(format!("{}.{number}", self.path.display())),
        };
        for number in (0..self.wanted.file_num).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn open(path: &Path, mode: Option<u32>) -> io::Result<Open> {
    // A pipe or a terminal in its place would hold up the log until somebody reads.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = OpenOptions::new().append(true).create(true).mode(mode.unwrap_or(0o666)).open(path)?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    let found = file.metadata()?;
    Ok(Open { file, size: found.len(), identity: (found.dev(), found.ino()) })
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(dir: &Path) -> Destination {
        Destination { dir: Some(dir.to_owned()), mode: Some(0o640), file_size: 30, file_num: 2 }
    }

    fn read(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap_or_else(|error| format!("{name}: {error}"))
    }

    #[test]
    fn a_file_that_would_be_full_is_rotated_and_so_many_are_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut sink = Sink::new(destination(dir.path()));
        for number in 1..=7 {
            assert_eq!(sink.write(&format!("line {number} of 12")), None);
        }
        // Two lines of 13 bytes fit below 30.
        assert_eq!(read(dir.path(), "patroni.log"), "line 7 of 12\n");
        assert_eq!(read(dir.path(), "patroni.log.1"), "line 5 of 12\nline 6 of 12\n");
        assert_eq!(read(dir.path(), "patroni.log.2"), "line 3 of 12\nline 4 of 12\n");
        assert!(!dir.path().join("patroni.log.3").exists());
        let mode = fs::metadata(dir.path().join("patroni.log")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        // What is longer than a file is one.
        assert_eq!(sink.write(&"x".repeat(40)), None);
        assert_eq!(read(dir.path(), "patroni.log").len(), 41);
    }

    #[test]
    fn without_a_size_or_a_number_nothing_is_rotated() {
        for (file_size, file_num) in [(0, 2), (30, 0)] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let mut sink = Sink::new(Destination { file_size, file_num, ..destination(dir.path()) });
            for _ in 0..5 {
                sink.write("line of twelve");
            }
            assert_eq!(read(dir.path(), "patroni.log").lines().count(), 5);
            assert!(!dir.path().join("patroni.log.1").exists());
        }
    }

    #[test]
    fn what_cannot_be_written_is_said_once_and_tried_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let gone = dir.path().join("gone");
        let mut sink = Sink::new(destination(&gone));
        let told = sink.write("one").expect("news");
        assert!(told.contains("gone/patroni.log cannot be written (No such file or directory"), "{told}");
        assert_eq!(sink.write("two"), None);
        fs::create_dir(&gone).expect("a new directory");
        let file = sink.file.as_mut().expect("a file was asked for");
        // As if the pause before the next attempt were over.
        let (since, lines) = file.trouble.expect("it is in trouble");
        file.trouble = Some((since.checked_sub(AGAIN).expect("the machine is up for longer"), lines));
        let told = sink.write("three").expect("news");
        assert!(told.contains("is written again; 2 lines went to standard error"), "{told}");
        assert_eq!(read(&gone, "patroni.log"), "three\n");
    }

    #[test]
    fn a_file_that_was_moved_is_opened_anew() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut sink = Sink::new(destination(dir.path()));
        sink.write("one");
        fs::rename(dir.path().join("patroni.log"), dir.path().join("moved")).expect("moved");
        sink.write("two");
        assert_eq!((read(dir.path(), "moved"), read(dir.path(), "patroni.log")), ("one\n".into(), "two\n".into()));
    }

    #[test]
    fn a_full_disk_takes_no_half_lines() {
        // The device that is always full, in the place of the open file.
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut sink = Sink::new(destination(dir.path()));
        sink.write("one");
        let file = sink.file.as_mut().expect("a file was asked for");
        let full = OpenOptions::new().append(true).open("/dev/full").expect("every Linux has it");
        file.open.as_mut().expect("it was written").file = full;
        let told = sink.write("two").expect("news");
        assert!(told.contains("No space left on device"), "{told}");
        assert_eq!(read(dir.path(), "patroni.log"), "one\n");
    }

    #[test]
    fn a_pipe_in_the_place_of_the_file_holds_nobody_up() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("patroni.log");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).expect("a pipe");
        let told = Sink::new(destination(dir.path())).write("one").expect("news");
        assert!(told.contains("it is not a regular file"), "{told}");
    }
}
