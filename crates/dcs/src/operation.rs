//! One operation of a store's client: its deadline, and what is known of it when it fails. The same on every store.

use std::fmt::Display;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::{Outcome, StoreError};

/// Whether an operation whose answer is lost may have changed something.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Read,
    Write,
}

/// Why a store's client has no good answer.
pub trait Failure: Display {
    /// It was sent, and no verdict came back.
    fn is_lost(&self) -> bool;

    /// Whether the same can succeed later.
    fn may_pass(&self) -> bool;
}

/// The operations of one client.
#[derive(Debug)]
pub struct Operations {
    /// The store and its addresses, for messages.
    store: String,
    limit: Duration,
    suspended: AtomicBool,
}

impl Operations {
    pub fn new(store: String, limit: Duration) -> Operations {
        Operations { store, limit, suspended: AtomicBool::new(false) }
    }

    pub fn store(&self) -> &str {
        &self.store
    }

    /// By when one that begins now is to be over.
    pub fn until(&self) -> Instant {
        Instant::now() + self.limit
    }

    /// From now on they all fail.
    pub fn suspend(&self) {
        self.suspended.store(true, Ordering::SeqCst);
    }

    /// Runs one within its deadline and says of a failure what is known.
    pub async fn run<T, E: Failure>(
        &self,
        kind: Kind,
        name: impl Fn() -> String,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, StoreError> {
        let (cause, is_lost, retry) = if self.suspended.load(Ordering::SeqCst) {
            ("this client was suspended".to_owned(), false, true)
        } else {
            match timeout(self.limit, work).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => (error.to_string(), error.is_lost(), error.may_pass()),
                Err(_) => (format!("no answer within {} ms", self.limit.as_millis()), true, true),
            }
        };
        let outcome = match kind {
            Kind::Write if is_lost => Outcome::Unknown,
            _ => Outcome::NotDone,
        };
        Err(StoreError { store: self.store.clone(), operation: name(), cause, outcome, retry })
    }

    /// The store cannot be used; nothing was asked of it yet.
    pub fn cannot_connect(&self, cause: String, retry: bool) -> StoreError {
        let (store, operation) = (self.store.clone(), "connect".to_owned());
        StoreError { store, operation, cause, outcome: Outcome::NotDone, retry }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[derive(Clone, Copy, Debug, thiserror::Error)]
    #[error("a cause")]
    struct Failed {
        is_lost: bool,
        may_pass: bool,
    }

    impl Failure for Failed {
        fn is_lost(&self) -> bool {
            self.is_lost
        }

        fn may_pass(&self) -> bool {
            self.may_pass
        }
    }

    fn operations() -> Operations {
        Operations::new("store a:1".into(), Duration::from_millis(1))
    }

    async fn fails(operations: &Operations, kind: Kind, work: impl Future<Output = Result<(), Failed>>) -> StoreError {
        operations.run(kind, || "write /key".into(), work).await.expect_err("it fails")
    }

    #[tokio::test]
    async fn only_a_write_that_was_sent_may_have_been_done() {
        let operations = operations();
        for (kind, is_lost, expected) in [
            (Kind::Read, false, Outcome::NotDone),
            (Kind::Read, true, Outcome::NotDone),
            (Kind::Write, false, Outcome::NotDone),
            (Kind::Write, true, Outcome::Unknown),
        ] {
            let error = fails(&operations, kind, ready(Err(Failed { is_lost, may_pass: false }))).await;
            assert_eq!((error.outcome, error.retry), (expected, false), "{kind:?}");
        }
    }

    #[tokio::test]
    async fn what_takes_too_long_is_given_up_and_may_have_been_done() {
        let error = fails(&operations(), Kind::Write, pending()).await;
        assert_eq!((error.outcome, error.retry), (Outcome::Unknown, true));
        assert_eq!(error.to_string(), "store a:1: write /key failed: no answer within 1 ms (it may have been done)");
    }

    #[tokio::test]
    async fn nothing_is_begun_after_the_end() {
        let operations = operations();
        operations.suspend();
        let error = fails(&operations, Kind::Write, async { panic!("it is not begun") }).await;
        assert_eq!((error.outcome, error.retry), (Outcome::NotDone, true));
        assert_eq!(error.to_string(), "store a:1: write /key failed: this client was suspended");
    }
}
