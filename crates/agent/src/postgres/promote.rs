//! The fast promotion (`postgres-facts` 1 and 2): wait until nothing can make PostgreSQL sleep, then promote.

use std::time::Duration;

use pgherd_ha::Timeline;
use tokio::time::{Instant, sleep, timeout};

use super::{Connection, Error, Server, execute_alone};

/// Promotion takes 20 to 160 ms; each look costs well under a millisecond.
const POLL: Duration = Duration::from_millis(5);

/// Waits until the standby has stopped receiving and has replayed everything that it has: from now on its position is
/// its last word in a race, and a promotion does not sleep.
///
/// The caller has cleared `primary_conninfo` and reloaded before. The error at the end of `limit` does not forbid the
/// promotion: it only may take up to `wal_retrieve_retry_interval` longer.
pub async fn receiver_stopped(connection: &mut Connection, limit: Duration) -> Result<(), Error> {
    const AT_END: &str = "SELECT \
        NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver') AND \
        EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup' \
         AND wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream'))";
    let waiting = "waiting for the WAL receiver to stop and for the end of WAL";
    poll_until(connection, waiting, AT_END, "t", limit).await
}

/// Waits until the server has read that its commits are to wait for these names.
pub async fn names_in_force(connection: &mut Connection, names: &str, limit: Duration) -> Result<(), Error> {
    let sql = format!("SELECT current_setting('synchronous_standby_names') = {}", super::sql::literal(names));
    poll_until(connection, "waiting for the names of the synchronous standbys to be in force", &sql, "t", limit).await
}

/// Promotes, and returns when the server is out of recovery. `limit` is for all of it; whether the promotion has
/// happened after an error is unknown, for the server may still be at it.
pub async fn promote(connection: &mut Connection, limit: Duration) -> Result<(), Error> {
    // The function does what `pg_ctl promote` does (a file and a signal), only without a chance to meet another
    // process.
    connection.execute("promoting", "SELECT pg_promote(false)").await?;
    poll_until(connection, "waiting for the end of recovery", "SELECT pg_is_in_recovery()", "f", limit).await
}

/// The timeline that a promoted server writes.
pub async fn timeline(connection: &mut Connection) -> Result<Timeline, Error> {
    // The control file shows it only after the next checkpoint.
    const SQL: &str = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int::text";
    let text = connection.query_text("asking the promoted server for its timeline", SQL).await?.unwrap_or_default();
    text.parse().map(Timeline).map_err(|_| Error::answer("PostgreSQL", format!("`{text}` for its timeline")))
}

/// The checkpoint that a promotion leaves out; pg_rewind up to version 15 needs it to see the new timeline. Takes as
/// long as the disk does: off the critical path.
pub async fn checkpoint(server: &Server, limit: Duration) -> Result<(), Error> {
    execute_alone(server, "the checkpoint", "CHECKPOINT", limit).await
}

async fn poll_until(
    connection: &mut Connection,
    what: &str,
    sql: &str,
    expected: &str,
    limit: Duration,
) -> Result<(), Error> {
    let deadline = Instant::now() + limit;
    let late = || Error::Deadline { operation: what.to_owned(), limit };
    loop {
        let left = deadline.checked_duration_since(Instant::now()).ok_or_else(late)?;
        let answer = timeout(left, connection.query_text(what, sql)).await.map_err(|_| late())??;
        if answer.as_deref() == Some(expected) {
            return Ok(());
        }
        sleep(POLL).await;
    }
}
