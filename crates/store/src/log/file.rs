//! The thread that writes: in the order that it was asked in, with one sync for all that has come meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

enum Job {
    /// To the end of the log.
    Append(Vec<u8>),
    /// The log has this content from now on.
    Replace(Vec<u8>),
    /// Another file, whole.
    Write(PathBuf, Vec<u8>),
}

/// The way to the thread, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Writer(Sender<(Job, Done)>);

impl Writer {
    /// `log` must exist. `held` is what keeps others out, for as long as this thread may write.
    pub fn start(log: &Path, held: File) -> io::Result<Writer> {
        let file = OpenOptions::new().append(true).open(log)?;
        let (jobs, queue) = channel();
        let log = log.to_owned();
        std::thread::Builder::new().name("store-disk".into()).spawn(move || {
            work(&log, file, &queue);
            drop(held);
        })?;
        Ok(Writer(jobs))
    }

    pub fn append(&self, bytes: Vec<u8>, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.send(Job::Append(bytes), Box::new(done));
    }

    pub fn replace(&self, bytes: Vec<u8>, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.send(Job::Replace(bytes), Box::new(done));
    }

    pub fn write(&self, path: PathBuf, bytes: Vec<u8>, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.send(Job::Write(path, bytes), Box::new(done));
    }

    fn send(&self, job: Job, done: Done) {
        if let Err(lost) = self.0.send((job, done)) {
            let (_, done) = lost.0;
            done(Err(io::Error::other("the thread that writes the store's log has ended")));
        }
    }
}

fn work(log: &Path, mut file: File, queue: &Receiver<(Job, Done)>) {
    // After a failed sync the kernel may have dropped what was to be written, and says so once: nothing may be written after it.
    let mut broken: Option<String> = None;
    while let Ok(first) = queue.recv() {
        let mut waiting: Vec<Done> = Vec::new();
        let mut next = Some(first);
        while let Some((job, done)) = next.take() {
            let result = match (&broken, job) {
                (Some(why), _) => Err(io::Error::other(why.clone())),
                (None, Job::Append(bytes)) => {
                    waiting.push(done);
                    if let Err(error) = file.write_all(&bytes) {
                        broken = Some(format!("{}: {error}", log.display()));
                    }
                    next = queue.try_recv().ok();
                    continue;
                }
                (None, job) => {
                    settle(log, &file, &mut waiting, &mut broken);
                    other(log, &mut file, job)
                }
            };
            if let (Err(error), None) = (&result, &broken) {
                broken = Some(error.to_string());
            }
            done(result);
            next = queue.try_recv().ok();
        }
        settle(log, &file, &mut waiting, &mut broken);
    }
}

/// Syncs what was appended, and says so.
fn settle(log: &Path, file: &File, waiting: &mut Vec<Done>, broken: &mut Option<String>) {
    if waiting.is_empty() {
        return;
    }
    if broken.is_none()
        && let Err(error) = file.sync_data()
    {
        *broken = Some(format!("{}: {error}", log.display()));
    }
    for done in waiting.drain(..) {
        done(broken.as_ref().map_or(Ok(()), |why| Err(io::Error::other(why.clone()))));
    }
}

fn other(log: &Path, file: &mut File, job: Job) -> io::Result<()> {
    match job {
        Job::Append(_) => Ok(()),
        Job::Write(path, bytes) => write_whole(&path, &bytes),
        Job::Replace(bytes) => {
            write_whole(log, &bytes)?;
            *file = OpenOptions::new().append(true).open(log)?;
            Ok(())
        }
    }
    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", log.display())))
}

/// In one step: after a crash the file is the old or the new one.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
