//! A CancelRequest: a connection of its own that asks to stop the query of another session.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::entry::Entry;
use crate::net;

/// A server closes the connection when it has signalled the backend, which takes no time; libpq waits for that close.
const PATIENCE: Duration = Duration::from_secs(5);

/// Passes the request to the server that has the session, and returns when it was taken. There is no answer to pass back.
pub async fn forward(entry: &Arc<Entry>, packet: &[u8]) {
    let key = packet.get(8..).unwrap_or_default();
    for index in entry.servers_of_key(key) {
        let server = &entry.servers[index].config;
        let ask = async {
            let mut stream = net::dial(&server.host, server.port, entry.config.timeouts.connect()).await?;
            stream.write_all(packet).await?;
            // A server says nothing and closes; what else comes is not read to its end.
            _ = stream.read(&mut [0]).await?;
            anyhow::Ok(())
        };
        match timeout(PATIENCE, ask).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(server = server.name, %error, "a cancel request was not taken"),
            Err(_) => tracing::debug!(server = server.name, "a cancel request was not taken in time"),
        }
    }
}
