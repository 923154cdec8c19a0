//! A failed store request: who failed, what was tried, and whether it may have happened all the same.

/// What is known of a request that did not return a verdict of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was never sent, or the store refused it: nothing has changed.
    NotDone,
    /// It was sent and no verdict came back: it may have happened, or may still happen.
    Unknown,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("{store}: {operation} failed: {cause}{}", if self.outcome == Outcome::Unknown { " (it may have been done)" } else { "" })]
pub struct StoreError {
    /// The store and its addresses, as configured: `zookeeper zoo:2181`.
    pub store: String,
    /// What was tried, with its key: `create /service/my_cluster/leader`.
    pub operation: String,
    pub cause: String,
    pub outcome: Outcome,
    /// Trying again later can help (no connection, a time-out); `false` for wrong credentials, a bad path, ...
    pub retry: bool,
}

/// An error with its causes in one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
