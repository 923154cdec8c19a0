//! Hints to load again: one stream of the changes under the prefix, opened anew whenever it ends.
//!
//! It is no log. A stream begins with what happens from now on and gives a hint when it has begun, so whatever was missed in between
//! (an outage, a compaction) is in the load that follows. A stream over a dead connection is silent; it is left when calls to its
//! server fail, which the lease makes several times a second.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use tracing::debug;

use super::Client;
use super::verdict::CallError;
use super::wire::{Event, EventKind, WatchLine, keys_below};
use crate::Key;
use crate::layout::Layout;

/// Between two streams: a server that accepts and hangs up must not make us spin.
const PAUSE: Duration = Duration::from_millis(100);

/// One line is one transaction's changes, or some of them.
const LONGEST_LINE: usize = 16 << 20;

/// Runs until it is aborted.
pub async fn run(client: Arc<Client>) {
    client.watched.notified().await;
    let mut server = client.gateway.server();
    loop {
        let now = server.borrow_and_update().clone();
        let mut begun = false;
        tokio::select! {
            error = stream(&client, &now, &mut begun) => {
                debug!("etcd: the watch has ended: {error}");
                client.gateway.leave(&now);
            }
            _ = server.changed() => {}
        }
        if begun {
            // What has become of the connection is for the reader to see.
            client.hint();
        }
        sleep(PAUSE).await;
    }
}

/// One stream until its end. `begun`: from now on it tells of changes.
async fn stream(client: &Client, server: &Arc<str>, begun: &mut bool) -> CallError {
    match read(client, server, begun).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn read(client: &Client, server: &Arc<str>, begun: &mut bool) -> Result<Infallible, CallError> {
    let range = keys_below(&format!("{}/", client.layout.base()));
    let mut response = client.gateway.open_watch(server, &json!({"create_request": range})).await?;
    let mut waiting = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| CallError::Lost(format!("{server}: {error}")))?;
        let chunk = chunk.ok_or_else(|| CallError::Lost(format!("{server}: the stream has ended")))?;
        waiting.extend_from_slice(&chunk);
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            *begun |= heard(client, server, &line)?;
        }
        if waiting.len() > LONGEST_LINE {
            return Err(CallError::Lost(format!("{server}: a line of the watch has no end")));
        }
    }
}

/// Whether it says that the watch has begun.
fn heard(client: &Client, server: &str, line: &[u8]) -> Result<bool, CallError> {
    let line: WatchLine = serde_json::from_slice(line)
        .map_err(|error| CallError::Lost(format!("{server}: a line of the watch: {error}")))?;
    let answer = line.result.ok_or_else(|| CallError::Lost(format!("{server}: the watch was refused")))?;
    if answer.canceled {
        client.gateway.forget_token();
        return Err(CallError::Lost(format!("{server}: the watch was ended: {}", answer.cancel_reason)));
    }
    if answer.created || answer.events.iter().any(|event| tells(event, &client.layout, client.leads())) {
        client.hint();
    }
    Ok(answer.created)
}

/// Whether a change is worth a load. What the members say of themselves changes several times a second and is read with every
/// load anyway; that they come and go is news.
fn tells(event: &Event, layout: &Layout, leading: bool) -> bool {
    let Ok(key) = std::str::from_utf8(&event.kv.key.0) else { return false };
    if key.strip_prefix(&layout.members()).is_some_and(|rest| rest.starts_with('/')) {
        return event.kind == EventKind::Delete || event.kv.create_revision == event.kv.mod_revision;
    }
    let told = [Key::Initialize, Key::Config, Key::Sync, Key::Failover];
    key == layout.leader()
        || told.into_iter().any(|told| key == layout.key(told))
        // Who writes the status need not be told of it.
        || (key == layout.key(Key::Status) && !leading)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::wire::{Base64, KeyValue};

    #[test]
    fn only_what_the_reader_waits_for_is_a_hint() {
        let layout = Layout::new("service", "c").expect("a layout");
        // (key, created at, changed at, deleted, told to a leader, told to others)
        for (key, created, changed, deleted, leader, others) in [
            ("leader", 1, 1, false, true, true),
            ("leader", 0, 2, true, true, true),
            ("members/a", 3, 3, false, true, true),
            ("members/a", 3, 4, false, false, false),
            ("members/a", 0, 5, true, true, true),
            ("membership", 3, 3, false, false, false),
            ("config", 1, 9, false, true, true),
            ("status", 1, 9, false, false, true),
            ("history", 9, 9, false, false, false),
            ("failsafe", 9, 9, false, false, false),
        ] {
            let key = Base64(format!("/service/c/{key}").into_bytes());
            let kv = KeyValue { key, create_revision: created, mod_revision: changed, ..KeyValue::default() };
            let event = Event { kind: if deleted { EventKind::Delete } else { EventKind::Put }, kv };
            assert_eq!((tells(&event, &layout, true), tells(&event, &layout, false)), (leader, others), "{event:?}");
        }
    }
}
