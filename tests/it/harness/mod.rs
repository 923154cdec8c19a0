//! What the tests share: the built binary, users, servers.

pub mod binary;
pub mod postgres;
pub mod user;
pub mod zookeeper;

use std::time::{Duration, Instant};

/// Waits until the condition holds; fails the test with its name after `within`.
pub async fn wait_until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < within, "waited {within:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    begun.elapsed()
}
