//! One client from its first byte to its last: what it wants, a server for it, the relay, the last words.
//!
//! | client sends | answer |
//! |---|---|
//! | StartupMessage | held until a server takes it; then relayed, its messages watched |
//! | SSLRequest, GSSENCRequest | held; the server's own answer; encrypted streams are relayed as bytes |
//! | a TLS handshake | held; relayed as bytes |
//! | CancelRequest | passed to the server of that session |
//! | anything else | a protocol violation, and the connection is closed |
//!
//! Not here: which server (`entry`, `route`). Tested in `tests/it/proxy/` against real servers.

mod cancel;
mod farewell;
pub(crate) mod frames;
mod open;
mod relay;
pub(crate) mod startup;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::config::LOGIN_TIMEOUT;
use crate::control::Event;
use crate::entry::{Entry, Ticket};
use farewell::{ADMIN_SHUTDOWN, CANNOT_CONNECT_NOW, IDLE_TIMEOUT, PROTOCOL_VIOLATION, error_response};
use open::{Expect, NotOpened, Opened, open};
use relay::{End, Relay};
use startup::Hello;

/// A client's session.
#[derive(Debug)]
pub struct Client {
    pub stream: TcpStream,
    /// The place of this listener's configuration.
    pub listener: usize,
    pub entry: Arc<Entry>,
    pub events: mpsc::Sender<Event>,
}

impl Client {
    /// Serves the client to its end.
    pub async fn serve(mut self) {
        match self.hello().await {
            Some(Hello::Startup(packet)) => {
                let deadline = self.deadline();
                self.plain(&packet, deadline, None).await;
            }
            Some(Hello::Encryption(packet)) => self.encryption(&packet).await,
            Some(Hello::DirectTls(bytes)) => self.opaque(&bytes).await,
            Some(Hello::Cancel(packet)) => cancel::forward(&self.entry, &packet).await,
            None => {}
        }
    }

    /// The first packet; a client that sends none in time, or another protocol's, is let go.
    async fn hello(&mut self) -> Option<Hello> {
        match timeout(LOGIN_TIMEOUT, startup::read(&mut self.stream)).await {
            Ok(Ok(hello)) => Some(hello),
            Ok(Err(startup::StartupError::Broken(_))) | Err(_) => None,
            Ok(Err(error)) => {
                tracing::debug!(listener = self.entry.config.name, %error, "a client was turned away");
                let words = error_response(PROTOCOL_VIOLATION, &error.to_string(), "");
                // Without waiting for it to close: a flood of these must cost nothing.
                let _ = self.stream.try_write(&words);
                None
            }
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.entry.config.timeouts.hold()
    }

    async fn plain(self, packet: &[u8], deadline: Instant, reuse: Option<(TcpStream, Ticket)>) {
        match open(&self.entry, &self.stream, packet, Expect::Message, deadline, reuse).await {
            Ok(mut opened) => {
                opened.ticket.replicates = startup::replicates(packet);
                self.relay(opened, true).await;
            }
            Err(NotOpened::NoServer) => self.refuse().await,
            Err(NotOpened::ClientGone) => {}
        }
    }

    /// SSLRequest or GSSENCRequest, and whatever follows.
    async fn encryption(mut self, packet: &[u8]) {
        let mut deadline = self.deadline();
        let mut packet = packet.to_vec();
        let mut reuse = None;
        // A client may ask for GSS, then for TLS, then go on in plain text; a fourth question is none of PostgreSQL's.
        for _ in 0..3 {
            match open(&self.entry, &self.stream, &packet, Expect::OneByte, deadline, reuse.take()).await {
                Ok(opened) if opened.answer == *b"N" => reuse = Some((opened.server, opened.ticket)),
                Ok(opened) => return self.relay(opened, false).await,
                Err(NotOpened::ClientGone) => return,
                // The client cannot read a reason yet: decline, and tell it when it has sent its start-up.
                Err(NotOpened::NoServer) => deadline = Instant::now(),
            }
            if !matches!(self.stream.try_write(b"N"), Ok(1)) {
                return;
            }
            match self.hello().await {
                Some(Hello::Startup(packet)) => return self.plain(&packet, deadline, reuse).await,
                Some(Hello::Encryption(next)) => packet = next,
                Some(Hello::Cancel(packet)) => return cancel::forward(&self.entry, &packet).await,
                Some(Hello::DirectTls(_)) | None => return,
            }
        }
    }

    async fn opaque(self, bytes: &[u8]) {
        // Without a server there is nobody who speaks TLS: the connection is closed without words.
        if let Ok(opened) = open(&self.entry, &self.stream, bytes, Expect::Nothing, self.deadline(), None).await {
            self.relay(opened, false).await;
        }
    }

    /// No server would have it in time.
    async fn refuse(self) {
        self.entry.refused.fetch_add(1, Relaxed);
        let held = self.entry.config.timeouts.hold();
        let message =
            format!("pgherd: no server for {} within {held:?} ({})", self.entry.config.name, self.entry.why_not());
        tracing::warn!(listener = self.entry.config.name, message, "a client was refused");
        let hint = "Try again; if it lasts, `pgherd list` shows the state of the cluster.";
        farewell::close(self.stream, &error_response(CANNOT_CONNECT_NOW, &message, hint)).await;
    }

    async fn relay(self, opened: Opened, readable: bool) {
        let Opened { server, ticket, answer } = opened;
        let (entry, index) = (Arc::clone(&ticket.entry), ticket.server);
        let name = &entry.servers[index].config.name;
        let mut relay = Relay::new(self.stream, server, ticket, readable, answer);
        let end = relay.run().await;
        let hint = "Connect again: new sessions go to a server that may take them.";
        let words = match end {
            End::Done => return,
            End::ServerLost => {
                let message = format!("pgherd: the connection to server {name} was lost");
                error_response(ADMIN_SHUTDOWN, &message, hint)
            }
            End::Shut(reason) => {
                let message =
                    format!("pgherd: this session's server {name} may not be used any more: {}", reason.words());
                error_response(ADMIN_SHUTDOWN, &message, hint)
            }
            End::HotStandby => {
                let event = Event::HotStandby { listener: self.listener, server: index };
                // A full channel means that news is coming anyway.
                let _ = self.events.try_send(event);
                error_response(CANNOT_CONNECT_NOW, &format!("pgherd: server {name} is still a standby"), hint)
            }
            End::Idle => error_response(IDLE_TIMEOUT, "pgherd: this session was idle for too long", ""),
        };
        entry.servers[index].lost.fetch_add(1, Relaxed);
        tracing::debug!(server = name, ?end, "a session was ended");
        let boundary = relay.at_boundary();
        // The server's side ends first, whatever the client does with its last words.
        let client = relay.into_client();
        if boundary {
            farewell::close(client, &words).await;
        }
    }
}
