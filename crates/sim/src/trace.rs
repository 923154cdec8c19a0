//! What happened, one line an event: for the reader of a replay, and to compare two runs of one seed.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Lines that are kept to be shown after a violation.
const KEPT: usize = 200;

#[derive(Debug, Default)]
pub struct Trace {
    /// Each line goes to standard output at once.
    print: bool,
    digest: u64,
    last: VecDeque<String>,
}

impl Trace {
    pub fn new(print: bool) -> Trace {
        Trace { print, ..Trace::default() }
    }

    pub fn line(&mut self, at: Duration, who: &str, text: &str) {
        let line = format!("{:>12.6}  {who:<6}  {text}", at.as_secs_f64());
        let mut hasher = DefaultHasher::new();
        (self.digest, &line).hash(&mut hasher);
        self.digest = hasher.finish();
        if self.print {
            println!("{line}");
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// Equal for equal runs.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The last lines, oldest first.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}
