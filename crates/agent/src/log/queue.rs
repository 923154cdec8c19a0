//! Between whoever logs and the sink: a bounded queue and one thread that writes.
//!
//! Whoever logs waits for no disk and no terminal: where the thread does not keep up, lines are lost, counted, and told of. Not here: the form of
//! a line, and where it goes (`sink`). Tested below.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::sink::{Destination, Sink};

/// Where no bound was asked for: more than can come together before anybody looks.
const MANY: usize = 100_000;

/// The queue of the process.
#[derive(Clone, Debug)]
pub struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Waited for by the thread that writes: there is something to do.
    work: Condvar,
    /// Waited for by `drain`: nothing is left.
    idle: Condvar,
}

#[derive(Debug)]
struct State {
    lines: VecDeque<String>,
    limit: usize,
    lost: u64,
    /// Of those, how many nobody has been told of.
    untold: u64,
    writing: bool,
    destination: Option<Destination>,
}

impl Queue {
    /// Starts the thread. `told` logs what is to be said of the log itself; it is called by that thread, and never inside a lock.
    pub fn start(told: fn(&str)) -> io::Result<Queue> {
        let state =
            State { lines: VecDeque::new(), limit: MANY, lost: 0, untold: 0, writing: false, destination: None };
        let queue = Queue(Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), idle: Condvar::new() }));
        let writer = queue.clone();
        thread::Builder::new().name("pgherd-log".into()).spawn(move || writer.write(Sink::default(), told))?;
        Ok(queue)
    }

    /// From the next line on. `limit`: how many lines may wait; 0: as many as memory bears.
    pub fn configure(&self, destination: Destination, limit: usize) {
        let mut state = self.state();
        state.limit = if limit == 0 { MANY } else { limit.min(MANY) };
        state.destination = Some(destination);
    }

    /// Waits for nothing.
    pub fn push(&self, line: String) {
        let mut state = self.state();
        if state.lines.len() >= state.limit {
            state.lost += 1;
            state.untold += 1;
            return;
        }
        state.lines.push_back(line);
        self.0.work.notify_one();
    }

    /// Waits until everything is written, for so long at most. `false`: it is not.
    pub fn drain(&self, within: Duration) -> bool {
        let end = Instant::now() + within;
        let mut state = self.state();
        while state.writing || !state.lines.is_empty() {
            let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return false;
            };
            state = self.0.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// How many lines wait, and how many were lost since the start.
    pub fn figures(&self) -> (usize, u64) {
        let state = self.state();
        (state.lines.len(), state.lost)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic leaves behind is a queue all the same.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut sink: Sink, told: fn(&str)) {
        let mut current = Destination::default();
        let mut state = self.state();
        loop {
            let Some(line) = state.lines.pop_front() else {
                self.0.idle.notify_all();
                state = self.0.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.writing = true;
            let wanted = state.destination.take().filter(|wanted| *wanted != current);
            let lost = if state.lines.len() < state.limit { std::mem::take(&mut state.untold) } else { 0 };
            drop(state);
            if let Some(wanted) = wanted {
                sink = Sink::new(wanted.clone());
                current = wanted;
            }
            if let Some(news) = sink.write(&line) {
                told(&news);
            }
            if lost > 0 {
                told(&format!(
                    "{lost} lines of the log were lost, for they came faster than they could be written; `log.max_queue_size` \
                     is how many may wait"
                ));
            }
            state = self.state();
            state.writing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_in_their_order_at_the_place_of_then() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let queue = Queue::start(|_| ()).expect("a thread");
        let to = |name: &str| {
            let dir = directory.path().join(name);
            std::fs::create_dir(&dir).expect("a new directory");
            Destination { dir: Some(dir), ..Destination::default() }
        };
        let read =
            |name: &str| std::fs::read_to_string(directory.path().join(name).join("patroni.log")).expect("a log");
        queue.configure(to("a"), 10);
        queue.push("one".into());
        queue.push("two".into());
        assert!(queue.drain(Duration::from_secs(20)));
        queue.configure(to("b"), 10);
        queue.push("three".into());
        assert!(queue.drain(Duration::from_secs(20)));
        assert_eq!((read("a"), read("b")), ("one\ntwo\n".into(), "three\n".into()));
        assert_eq!(queue.figures(), (0, 0));
    }

    #[test]
    fn a_sink_that_hangs_holds_up_nobody_and_what_is_lost_is_counted() {
        // Nobody writes: a queue without its thread.
        let state = State { lines: VecDeque::new(), limit: 2, lost: 0, untold: 0, writing: false, destination: None };
        let queue = Queue(Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), idle: Condvar::new() }));
        for number in 0..5 {
            queue.push(number.to_string());
        }
        assert_eq!(queue.figures(), (2, 3));
        assert!(!queue.drain(Duration::from_millis(20)));
    }
}
