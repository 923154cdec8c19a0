//! What the tests share: the built binary, users, servers.

pub mod agent;
pub mod binary;
pub mod built_in;
pub mod certificates;
pub mod cluster;
pub mod content;
pub mod cut;
pub mod dns;
pub mod etcd;
pub mod notes;
pub mod patroni;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod script;
pub mod site;
pub mod store_process;
pub mod user;
pub mod writers;
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

/// The same where nothing asynchronous runs: asks until the answer is `Ok`; fails with the last answer at the deadline.
pub fn eventually<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(value) => return value,
            Err(answer) => assert!(begun.elapsed() < within, "waited {within:?} in vain: {what} ({answer})"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
