//! From a client's first packet to a server that has answered it: hold, dial, ask, and start over if the server fails.
//!
//! Until the server's first answer nothing has reached the client, so a failure here is never the client's to see: it is held
//! again, until its time is up.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::farewell::CANNOT_CONNECT_NOW;
use crate::entry::{Entry, Ticket};
use crate::net;

/// Between attempts, doubled from the first to the second: short enough that a promotion is not waited out, long enough that
/// a thousand held clients do not drown a server that is starting.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The first answer of a server: an authentication request or an error.
const LONGEST_ANSWER: usize = 16 * 1024;

/// A server that has taken the client's packet.
#[derive(Debug)]
pub struct Opened {
    pub server: TcpStream,
    pub ticket: Ticket,
    /// What it has said so far.
    pub answer: Vec<u8>,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// The client went away while it waited.
    ClientGone,
    /// The time is up.
    NoServer,
}

/// What counts as the answer to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// To a request for encryption.
    OneByte,
    /// To a StartupMessage: a message that is no "try again later".
    Message,
    /// Whatever comes: the stream cannot be read.
    Nothing,
}

/// Sends `packet` to a server that will have the client. `reuse`: a connection that answered before, to be tried first.
pub async fn open(
    entry: &Arc<Entry>,
    client: &TcpStream,
    packet: &[u8],
    expect: Expect,
    deadline: Instant,
    mut reuse: Option<(TcpStream, Ticket)>,
) -> Result<Opened, NotOpened> {
    let mut avoid = None;
    let mut backoff = BACKOFF.0;
    let attempts = async {
        loop {
            let ticket_and_server = match reuse.take() {
                Some((server, ticket)) => (ticket, Some(server)),
                None => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    (entry.admit(avoid, left).await.ok_or(NotOpened::NoServer)?, None)
                }
            };
            let (ticket, server) = ticket_and_server;
            avoid = Some(ticket.server);
            if let Some((server, answer)) = attempt(&ticket, server, packet, expect).await {
                return Ok(Opened { server, ticket, answer });
            }
            ticket.server().retries.fetch_add(1, Relaxed);
            drop(ticket);
            let _held = entry.count_held();
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    };
    tokio::select! {
        biased;
        opened = attempts => opened,
        () = gone(client) => Err(NotOpened::ClientGone),
        () = tokio::time::sleep_until(deadline) => Err(NotOpened::NoServer),
    }
}

/// One server, once. `None`: it failed, or may not be used any more.
async fn attempt(
    ticket: &Ticket,
    server: Option<TcpStream>,
    packet: &[u8],
    expect: Expect,
) -> Option<(TcpStream, Vec<u8>)> {
    let talk = async {
        let mut server = match server {
            Some(server) => server,
            None => dial(ticket).await?,
        };
        server.write_all(packet).await.ok()?;
        let answer = match expect {
            Expect::Nothing => vec![],
            Expect::OneByte => vec![server.read_u8().await.ok()?],
            Expect::Message => first_message(&mut server).await?,
        };
        Some((server, answer))
    };
    tokio::select! {
        biased;
        _ = poll_fn(|cx| ticket.poll_shut(cx)) => None,
        talked = talk => talked,
    }
}

async fn dial(ticket: &Ticket) -> Option<TcpStream> {
    let server = ticket.server();
    let config = &server.config;
    match net::dial(&config.host, config.port, ticket.entry.config.timeouts.connect()).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            server.dial_errors.fetch_add(1, Relaxed);
            tracing::debug!(server = config.name, address = config.address(), %error, "a dial failed; the client is held");
            None
        }
    }
}

/// Reads until the first message can be judged; `None`: the server closed, or says that it cannot take sessions now.
async fn first_message(server: &mut TcpStream) -> Option<Vec<u8>> {
    let mut answer = Vec::with_capacity(512);
    loop {
        if server.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
        match answer.as_slice() {
            [b'E', a, b, c, d, body @ ..] => {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                if body.len() + 4 >= length || answer.len() > LONGEST_ANSWER {
                    return (!has_code(body, CANNOT_CONNECT_NOW)).then_some(answer);
                }
            }
            [b'E', ..] => {}
            _ => return Some(answer),
        }
    }
}

/// Looks for the SQLSTATE among the fields of an ErrorResponse.
fn has_code(body: &[u8], code: &str) -> bool {
    body.split(|byte| *byte == 0).any(|field| field.strip_prefix(b"C") == Some(code.as_bytes()))
}

/// Ready when the client has closed without sending anything more.
pub async fn gone(client: &TcpStream) {
    match client.peek(&mut [0]).await {
        // It waits with data of its own (the rest of a TLS handshake): only its time limits it.
        Ok(count) if count > 0 => std::future::pending().await,
        Ok(_) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::farewell::error_response;
    use super::*;

    #[test]
    fn the_code_of_an_error_is_found_and_not_its_text() {
        assert!(has_code(&error_response("57P03", "the database system is starting up", "")[5..], CANNOT_CONNECT_NOW));
        assert!(!has_code(&error_response("28P01", "C57P03", "")[5..], CANNOT_CONNECT_NOW));
        assert!(!has_code(&[], CANNOT_CONNECT_NOW));
    }
}
