//! What makes a planned stop short: nobody is left to wait for. Not here: the stop itself (`daemon/jobs/stop.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Connection, Error};

/// A healthy standby answers new WAL within a millisecond or two.
const POLL: Duration = Duration::from_millis(10);

/// Terminates the walsenders whose standby does not answer, and returns how many: a fast stop would wait for each of
/// them until `wal_sender_timeout`.
///
/// Writes a little WAL, for which every healthy standby sends an answer at once; who has not answered it after
/// `limit` is silent. (The age of `reply_time` says less: it is on the standby's clock, and an idle standby reports
/// only once in a while.)
pub async fn terminate_silent_walsenders(connection: &mut Connection, limit: Duration) -> Result<usize, Error> {
    let mut silent: BTreeMap<i32, Waiting> = replies(connection, NEVER)
        .await?
        .into_iter()
        .map(|(pid, (reply, _))| (pid, Waiting { reply, heard: 0 }))
        .collect();
    if silent.is_empty() {
        return Ok(0);
    }
    const WRITE: &str = "SELECT pg_logical_emit_message(true, 'pgherd', '')";
    let written = connection.query_text("writing a message to the standbys", WRITE).await?.unwrap_or_default();
    let deadline = Instant::now() + limit;
    while !silent.is_empty() && Instant::now() < deadline {
        sleep(POLL).await;
        let now = replies(connection, &written).await?;
        silent.retain(|pid, waiting| match now.get(pid) {
            Some((reply, has_message)) => !has_message && !waiting.hear(reply),
            None => false,
        });
    }
    for pid in silent.keys() {
        let what = format!("terminating the walsender {pid} of a standby that does not answer");
        tracing::warn!("{what}");
        connection.execute(&what, &format!("SELECT pg_terminate_backend({pid})")).await?;
    }
    Ok(silent.len())
}

/// No position reaches it.
const NEVER: &str = "FFFFFFFF/FFFFFFFF";

/// A standby that has not flushed the message yet.
struct Waiting {
    reply: String,
    heard: u32,
}

impl Waiting {
    /// One that is busy catching up answers without having the message. Its first new reply may have been on the way
    /// since before it froze; the second was not.
    fn hear(&mut self, reply: &str) -> bool {
        if self.reply != reply {
            reply.clone_into(&mut self.reply);
            self.heard += 1;
        }
        self.heard >= 2
    }
}

/// Walsender to the time of its last reply (as text) and whether its standby has flushed `position`; those of base
/// backups never reply and are no matter.
async fn replies(connection: &mut Connection, position: &str) -> Result<BTreeMap<i32, (String, bool)>, Error> {
    let sql = format!(
        "SELECT coalesce(json_object_agg(pid, json_build_array(reply_time::text, \
         coalesce(flush_lsn >= '{position}', false))), '{{}}')::text \
         FROM pg_stat_replication WHERE state IN ('streaming', 'catchup') AND reply_time IS NOT NULL"
    );
    let text = connection.query_text("asking for the standbys' replies", &sql).await?.unwrap_or_default();
    serde_json::from_str(&text).map_err(|error| Error::answer("PostgreSQL", format!("{error} in {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_was_on_the_way_is_no_answer() {
        let mut waiting = Waiting { reply: "1".into(), heard: 0 };
        for (reply, answered) in [("1", false), ("2", false), ("2", false), ("3", true)] {
            assert_eq!(waiting.hear(reply), answered, "{reply}");
        }
    }
}
