//! Where the connections to a store live: the lease's thread. Whatever hangs in the thread of a caller delays no renewal.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};

/// Begins it there. Given up with the answer that is waited for.
pub fn at_home<T: Send + 'static>(
    home: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = Result<T, JoinError>> {
    // Of one task, because a set ends what it runs when it is dropped.
    let mut tasks = JoinSet::new();
    tasks.spawn_on(work, home);
    async move { tasks.join_next().await.expect("there is one") }
}
