//! What the user sees while something takes its time: on a terminal one line that is replaced when it is done, elsewhere
//! plain lines.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

/// Steps on standard error, so that standard output holds only the result.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    terminal: bool,
}

impl Progress {
    pub fn new() -> Progress {
        Progress { started: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    /// What is being done or waited for now.
    pub fn doing(&self, what: &str) {
        if self.terminal {
            self.write(&format!("\r\x1b[K  ... {what}"));
        } else {
            self.write(&format!("  ... {what}\n"));
        }
    }

    /// What has been reached, with the time since the beginning.
    pub fn done(&self, what: &str) {
        let line_start = if self.terminal { "\r\x1b[K" } else { "" };
        self.write(&format!("{line_start}{:5.1} s  {what}\n", self.started.elapsed().as_secs_f64()));
    }

    /// A closed standard error must not stop the work.
    fn write(&self, text: &str) {
        let mut error = std::io::stderr().lock();
        let _ = error.write_all(text.as_bytes()).and_then(|()| error.flush());
    }
}
