//! The signals that ask a command to end: Ctrl-C, `kill` and `timeout`, a closed terminal. What was begun is put in order then.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// `timeout` signals its child and then its group, so one request can arrive as two signals. Nobody asks twice this fast.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// SIGINT, SIGTERM and SIGHUP, which from now on do not end the process by themselves.
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    /// When the last request came.
    last: Option<Instant>,
}

impl Interrupts {
    /// On a runtime with its I/O driver.
    pub fn new() -> io::Result<Interrupts> {
        Ok(Interrupts {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            last: None,
        })
    }

    /// Waits for the next request; the signal's name.
    pub async fn next(&mut self) -> &'static str {
        loop {
            let name = tokio::select! {
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.hang_up.recv() => "SIGHUP",
            };
            if self.last.is_none_or(|last| last.elapsed() > ONE_REQUEST) {
                self.last = Some(Instant::now());
                return name;
            }
        }
    }

    /// Does the work, unless a request comes first: then the work is dropped where it waits.
    pub async fn or<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            result = work => result,
            name = self.next() => Err(anyhow::anyhow!("interrupted by {name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use rustix::process::{Signal, getpid, kill_process};
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn two_signals_at_once_are_one_request_and_a_later_one_is_another() {
        let mut interrupts = Interrupts::new().expect("a runtime with its driver");
        let raise = |signal| kill_process(getpid(), signal).expect("our own process");
        raise(Signal::TERM);
        let ended = interrupts.or(pending::<anyhow::Result<()>>()).await.expect_err("a request");
        assert_eq!(ended.to_string(), "interrupted by SIGTERM");
        raise(Signal::HUP);
        // Work that outlasts the delivery of the signal by far, and ends before a second request would count.
        let work = async {
            sleep(ONE_REQUEST / 4).await;
            anyhow::Ok(())
        };
        interrupts.or(work).await.expect("the second signal belongs to the first request");
        let work = async {
            loop {
                raise(Signal::INT);
                sleep(ONE_REQUEST / 4).await;
            }
        };
        interrupts.or::<()>(work).await.expect_err("another request");
    }
}
