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

/// For a server to answer while another would have the client, doubled each time that one did not: reverse look-ups of names
/// before a server's first answer may take this long on all of them.
const PATIENCE: Duration = Duration::from_secs(3);

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
    let mut failed = vec![];
    let (mut backoff, mut patience) = (BACKOFF.0, PATIENCE);
    let attempts = async {
        loop {
            let ticket_and_server = match reuse.take() {
                Some((server, ticket)) => (ticket, Some(server)),
                None => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    (entry.admit(&failed, left).await.ok_or(NotOpened::NoServer)?, None)
                }
            };
            let (ticket, server) = ticket_and_server;
            if let Some((server, answer)) = attempt(&ticket, server, packet, expect, &mut patience).await {
                return Ok(Opened { server, ticket, answer });
            }
            failed.retain(|earlier| *earlier != ticket.server);
            failed.push(ticket.server);
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

/// One server, once. `None`: it failed, or may not be used any more, or says nothing though another server would have the client.
async fn attempt(
    ticket: &Ticket,
    server: Option<TcpStream>,
    packet: &[u8],
    expect: Expect,
    patience: &mut Duration,
) -> Option<(TcpStream, Vec<u8>)> {
    let talk = async {
        let mut server = match server {
            Some(server) => server,
            None => dial(ticket).await?,
        };
        server.write_all(packet).await.ok()?;
        let answer = async {
            match expect {
                Expect::Nothing => Some(vec![]),
                Expect::OneByte => server.read_u8().await.ok().map(|byte| vec![byte]),
                Expect::Message => first_message(&mut server).await,
            }
        };
        let answer = tokio::select! {
            biased;
            answer = answer => answer?,
            () = silence(ticket, patience) => return None,
        };
        Some((server, answer))
    };
    tokio::select! {
        biased;
        _ = poll_fn(|cx| ticket.poll_shut(cx)) => None,
        talked = talk => talked,
    }
}

/// Ready when a server has been silent for too long, and there is another to try.
async fn silence(ticket: &Ticket, patience: &mut Duration) {
    loop {
        sleep(*patience).await;
        if ticket.has_alternative() {
            *patience *= 2;
            return;
        }
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
    use pgherd_ha::Boot;
    use tokio::net::TcpListener;

    use super::super::farewell::error_response;
    use super::*;
    use crate::haproxy_cfg;
    use crate::route::Access;

    #[test]
    fn the_code_of_an_error_is_found_and_not_its_text() {
        assert!(has_code(&error_response("57P03", "the database system is starting up", "")[5..], CANNOT_CONNECT_NOW));
        assert!(!has_code(&error_response("28P01", "C57P03", "")[5..], CANNOT_CONNECT_NOW));
        assert!(!has_code(&[], CANNOT_CONNECT_NOW));
    }

    /// A server that answers everybody after a time.
    async fn server(delay: Duration) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut session, _)) = listener.accept().await {
                tokio::spawn(async move {
                    sleep(delay).await;
                    session.write_all(b"R\0\0\0\x08\0\0\0\0").await
                });
            }
        });
        port
    }

    /// The clock moves only while everybody waits.
    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_left_only_for_another() {
        const NEVER: u64 = 1_000;
        // (seconds after which each server answers, the one that the client gets, after how many seconds)
        for (delays, expected) in [
            (&[0, 0][..], Some((0, 0))),
            (&[NEVER, 0], Some((1, 3))),
            (&[NEVER, NEVER, 0], Some((2, 9))),
            // The only one is waited for, and all that are slow get their time in the end.
            (&[20], Some((0, 20))),
            (&[5, 5], Some((1, 8))),
            (&[10, 10], Some((0, 19))),
            (&[NEVER, NEVER], None),
        ] {
            let mut text = "listen l\nbind *:1\nbalance first\n".to_owned();
            for (index, delay) in delays.iter().enumerate() {
                let port = server(Duration::from_secs(*delay)).await;
                text.push_str(&format!("server s{index} 127.0.0.1:{port}\n"));
            }
            let config = haproxy_cfg::parse("f", &text, &|_| None).expect("a listener").config;
            let entry = Entry::new(config.listeners[0].clone(), config.maxconn);
            entry.apply(&vec![Access::Open { epoch: None, until: Boot::NEVER }; delays.len()]);
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("an address");
            let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (_client, (client, _)) = (near.expect("connected"), far.expect("accepted"));
            let begun = Instant::now();
            let deadline = begun + entry.config.timeouts.hold();
            let found = open(&entry, &client, b"packet", Expect::Message, deadline, None).await.ok();
            let found = found.map(|opened| (opened.ticket.server, begun.elapsed().as_secs()));
            assert_eq!(found, expected, "{delays:?}");
        }
    }
}
