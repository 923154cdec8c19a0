//! One connection to one server: who we are (`handshake`), then requests out, answers and watch events in, heartbeats.
//!
//! Not here: what happens when it ends (`session`). Its time-outs are fractions of the session's, so that a hung server is
//! left while the session can still be saved on another.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use pgherd_ha::Boot;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::link::{Call, CallError, Calls, Signs};
use super::sasl::SaslError;
use super::wire::{self, Garbled};
use crate::boot_now;

/// Bytes that wait for a server that does not read; beyond it no further request is taken from the queue.
const MAX_UNWRITTEN: usize = 4 << 20;

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Garbled(#[from] Garbled),
    #[error("nobody answered within {} ms", .0.as_millis())]
    Silent(Duration),
    /// At the handshake: it is not serving (no quorum), or behind what this client has seen.
    #[error("the server closed the connection")]
    Closed,
    /// At the handshake: it does not believe that we are who we say.
    #[error("the server refuses our credentials of {0}")]
    Unauthenticated(String),
    #[error("SASL: {0}; check `zookeeper.sasl`")]
    Sasl(#[from] SaslError),
    /// The client's own doing: nobody holds the link any more.
    #[error("the connection was given up")]
    GivenUp,
}

/// A stream in the clear or through TLS.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Socket for T {}

/// A server that knows who we are.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: Box<dyn Socket>,
    pub(super) inbox: BytesMut,
}

impl Connection {
    /// Serves `calls` until the connection breaks or nobody can call any more. Every call that has no answer by then fails.
    pub async fn serve(
        mut self,
        calls: Calls,
        granted: Duration,
        last_zxid: &mut i64,
        on_event: impl FnMut(),
    ) -> Broken {
        let Calls { queue: mut calls, signs } = calls;
        let mut traffic = Traffic::new(granted, signs, last_zxid, on_event);
        let broken = match traffic.run(&mut self, &mut calls).await {
            Ok(()) => Broken::GivenUp,
            Err(broken) => broken,
        };
        calls.close();
        for (_, _, call) in traffic.sent.drain(..) {
            call.fail(CallError::Lost(broken.to_string()));
        }
        while let Ok(call) = calls.try_recv() {
            call.fail(CallError::NotSent(broken.to_string()));
        }
        broken
    }
}

/// The state of a served connection.
struct Traffic<'a, F> {
    /// Written, or about to be, and not answered, oldest first; the server answers in order.
    sent: VecDeque<(i32, Boot, Call)>,
    next_xid: i32,
    outbox: BytesMut,
    last_zxid: &'a mut i64,
    on_event: F,
    /// A heartbeat is sent after this time without a request. A follower tells the quorum's leader which sessions live
    /// every half tick, so ours must have been heard of shortly before each renewal.
    heartbeat: Duration,
    /// A server that owes an answer for this long is left. A third of the session leaves time for another one.
    patience: Duration,
    last_sent: Instant,
    pings: u32,
    ping_sent: Boot,
    signs: Signs,
    /// Since when an answer is owed; counted from the last sign of life, so that our own pauses are not the server's.
    owed_since: Option<Instant>,
}

impl<'a, F: FnMut()> Traffic<'a, F> {
    fn new(granted: Duration, signs: Signs, last_zxid: &'a mut i64, on_event: F) -> Self {
        Traffic {
            sent: VecDeque::new(),
            next_xid: 1,
            outbox: BytesMut::with_capacity(4096),
            last_zxid,
            on_event,
            heartbeat: (granted / 16).clamp(Duration::from_millis(100), Duration::from_millis(500)),
            patience: granted / 3,
            last_sent: Instant::now(),
            pings: 0,
            ping_sent: Boot::ZERO,
            signs,
            owed_since: None,
        }
    }

    async fn run(&mut self, connection: &mut Connection, calls: &mut mpsc::Receiver<Call>) -> Result<(), Broken> {
        let Connection { stream, inbox } = connection;
        let (mut reader, mut writer) = tokio::io::split(stream);
        // What TLS has taken may be on its way to the socket still.
        let mut unflushed = false;
        self.receive(inbox)?;
        loop {
            let due = match self.owed_since {
                Some(since) => (since + self.patience).min(self.last_sent + self.heartbeat),
                None => self.last_sent + self.heartbeat,
            };
            tokio::select! {
                // Reading first: after a pause of this process the answers are there before any verdict on the server.
                biased;
                read = reader.read_buf(inbox) => {
                    if read? == 0 {
                        return Err(Broken::Closed);
                    }
                    self.receive(inbox)?;
                }
                written = push(&mut writer, &mut self.outbox), if unflushed || !self.outbox.is_empty() => {
                    unflushed = written?;
                }
                call = calls.recv(), if self.outbox.len() < MAX_UNWRITTEN => match call {
                    Some(call) => self.send(call),
                    None => return Ok(()),
                },
                () = sleep_until(due) => self.beat()?,
            }
        }
    }

    fn send(&mut self, mut call: Call) {
        if call.reply.is_closed() {
            return;
        }
        let xid = self.next_xid;
        // Positive only: the negative ones have meanings of their own.
        self.next_xid = xid % i32::MAX + 1;
        call.frame[4..8].copy_from_slice(&xid.to_be_bytes());
        self.outbox.extend_from_slice(&call.frame);
        call.frame = BytesMut::new();
        self.sent.push_back((xid, boot_now(), call));
        self.owe();
    }

    fn beat(&mut self) -> Result<(), Broken> {
        let now = Instant::now();
        if self.owed_since.is_some_and(|since| now >= since + self.patience) {
            return Err(Broken::Silent(self.patience));
        }
        if now >= self.last_sent + self.heartbeat {
            self.last_sent = now;
            // One at a time: a second one would say nothing new.
            if self.pings == 0 {
                self.pings = 1;
                self.ping_sent = boot_now();
                wire::encode_ping(&mut self.outbox);
                self.owe();
            }
        }
        Ok(())
    }

    fn owe(&mut self) {
        self.last_sent = Instant::now();
        self.owed_since.get_or_insert(self.last_sent);
    }

    fn receive(&mut self, inbox: &mut BytesMut) -> Result<(), Broken> {
        while let Some(frame) = wire::take_frame(inbox)? {
            let (header, body) = wire::decode_reply(frame)?;
            match header.xid {
                wire::XID_NOTIFICATION => (self.on_event)(),
                wire::XID_PING => {
                    self.pings = 0;
                    self.signs.answered(self.ping_sent);
                }
                xid => {
                    let (_, sent, call) =
                        self.sent.pop_front().filter(|(expected, ..)| xid == *expected).ok_or(Garbled)?;
                    self.signs.answered(sent);
                    *self.last_zxid = header.zxid.max(*self.last_zxid);
                    call.answer(header.error, body);
                }
            }
        }
        let waiting = !self.sent.is_empty() || self.pings > 0;
        self.owed_since = waiting.then(Instant::now);
        Ok(())
    }
}

/// One step of writing, which may be given up at any time; `false` when everything is on its way.
async fn push(writer: &mut (impl AsyncWrite + Unpin), outbox: &mut BytesMut) -> io::Result<bool> {
    if outbox.is_empty() {
        writer.flush().await?;
        return Ok(false);
    }
    writer.write_buf(outbox).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::{BufMut, Bytes};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::handshake::{Hello, Way, establish};
    use super::super::link::Link;
    use super::*;
    use crate::session_file::Password;

    const SESSION: Duration = Duration::from_millis(600);

    fn hello() -> Hello {
        Hello { last_zxid: 0, timeout: SESSION, session: 0, password: Password::default() }
    }

    /// A server that grants session 7 and then does as it is told.
    async fn server() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket").to_string();
        (listener, address)
    }

    async fn accept(listener: TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.expect("a client");
        read_frame(&mut stream).await;
        let mut answer = BytesMut::new();
        answer.put_i32(0);
        answer.put_i32(i32::try_from(SESSION.as_millis()).expect("a short time"));
        answer.put_i64(7);
        answer.put_i32(2);
        answer.put_slice(b"pw");
        write_frame(&mut stream, &answer).await;
        stream
    }

    async fn read_frame(stream: &mut TcpStream) -> Bytes {
        let length = stream.read_i32().await.expect("a frame");
        let mut frame = vec![0; usize::try_from(length).expect("a length")];
        stream.read_exact(&mut frame).await.expect("a whole frame");
        frame.into()
    }

    async fn write_frame(stream: &mut TcpStream, body: &[u8]) {
        stream.write_i32(i32::try_from(body.len()).expect("a short frame")).await.expect("a client");
        stream.write_all(body).await.expect("a client");
    }

    /// An answer without a body.
    async fn answer(stream: &mut TcpStream, xid: i32, error: i32) {
        let mut reply = BytesMut::new();
        reply.put_i32(xid);
        reply.put_i64(99);
        reply.put_i32(error);
        write_frame(stream, &reply).await;
    }

    /// A client that is connected to `behaviour`; what became of it, of its first and its second request,
    /// which the server has read when `behaviour` begins.
    async fn run<F: Future<Output = ()>>(
        behaviour: impl FnOnce(TcpStream) -> F,
    ) -> (Broken, Result<(), CallError>, Result<(), CallError>) {
        let (listener, address) = server().await;
        let client = async {
            let (connection, connected) =
                establish(&address, &Way::default(), &hello(), Duration::from_secs(5)).await.expect("it answers");
            assert_eq!((connected.session, connected.password), (7, Password(b"pw".to_vec())));
            let (link, calls) = Link::new(connected.session, SESSION, boot_now(), [].into());
            let (first, second) = (link.delete("/a", None), link.delete("/b", None));
            let mut last_zxid = 0;
            let serving = connection.serve(calls, SESSION, &mut last_zxid, || {});
            let (broken, first, second) = tokio::join!(serving, first.get(), second.get());
            (broken, first, second)
        };
        let serve = async {
            let mut stream = accept(listener).await;
            read_frame(&mut stream).await;
            read_frame(&mut stream).await;
            behaviour(stream).await;
        };
        let (outcome, ()) = tokio::join!(client, serve);
        outcome
    }

    #[tokio::test]
    async fn answers_go_to_their_requests_and_what_is_left_is_lost() {
        let (broken, first, second) = run(async |mut stream: TcpStream| {
            // Closed without an answer to the second.
            answer(&mut stream, 1, 0).await;
        })
        .await;
        assert!(matches!(broken, Broken::Closed), "{broken}");
        assert_eq!(first, Ok(()));
        assert!(matches!(second, Err(CallError::Lost(_))), "{second:?}");
    }

    #[tokio::test]
    async fn an_answer_to_another_request_ends_the_connection() {
        let (broken, first, second) = run(async |mut stream: TcpStream| {
            answer(&mut stream, 2, 0).await;
        })
        .await;
        assert!(matches!(broken, Broken::Garbled(_)), "{broken}");
        assert!(matches!((first, second), (Err(CallError::Lost(_)), Err(CallError::Lost(_)))));
    }

    #[tokio::test]
    async fn a_failure_inside_the_server_is_no_verdict() {
        let (_, first, second) = run(async |mut stream: TcpStream| {
            answer(&mut stream, 1, -4).await;
            answer(&mut stream, 2, -103).await;
        })
        .await;
        assert!(matches!(first, Err(CallError::Lost(_))), "{first:?}");
        assert!(matches!(second, Err(CallError::Refused(_))), "{second:?}");
    }

    #[tokio::test]
    async fn a_silent_server_is_left_after_a_third_of_the_session() {
        let begun = Instant::now();
        let (broken, first, _) = run(async |mut stream: TcpStream| {
            // Reads everything and says nothing until the client leaves.
            let mut sink = Vec::new();
            let _ = stream.read_to_end(&mut sink).await;
        })
        .await;
        assert!(matches!(broken, Broken::Silent(_)), "{broken}");
        assert!(matches!(first, Err(CallError::Lost(_))), "{first:?}");
        assert!(begun.elapsed() >= SESSION / 3 && begun.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn heartbeats_keep_an_idle_connection() {
        let (broken, _, _) = run(async |mut stream: TcpStream| {
            answer(&mut stream, 1, 0).await;
            answer(&mut stream, 2, 0).await;
            for _ in 0..5 {
                let ping = read_frame(&mut stream).await;
                assert_eq!(&ping[..], [0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11]);
                answer(&mut stream, wire::XID_PING, 0).await;
            }
        })
        .await;
        // Five heartbeats last longer than a silent server is given.
        assert!(matches!(broken, Broken::Closed), "{broken}");
    }

    #[tokio::test]
    async fn a_request_that_nobody_waits_for_is_not_sent() {
        let (listener, address) = server().await;
        let client = async {
            let (connection, _) =
                establish(&address, &Way::default(), &hello(), Duration::from_secs(5)).await.expect("it answers");
            let (link, calls) = Link::new(7, SESSION, boot_now(), [].into());
            drop(link.delete("/given-up", None));
            let wanted = link.delete("/wanted", None);
            let mut last_zxid = 0;
            let serving = connection.serve(calls, SESSION, &mut last_zxid, || {});
            let _ = tokio::join!(serving, wanted.get());
            assert_eq!(last_zxid, 99);
        };
        let serve = async {
            let mut stream = accept(listener).await;
            let request = read_frame(&mut stream).await;
            assert!(request.windows(7).any(|part| part == b"/wanted"));
            answer(&mut stream, 1, 0).await;
        };
        tokio::join!(client, serve);
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_or_says_nothing_at_the_handshake() {
        let (listener, address) = server().await;
        let hang_up = async { drop(listener.accept().await.expect("a client")) };
        let (hello, way) = (hello(), Way::default());
        let (outcome, ()) = tokio::join!(establish(&address, &way, &hello, Duration::from_secs(5)), hang_up);
        assert!(matches!(outcome, Err(Broken::Closed | Broken::Io(_))), "{outcome:?}");
        // The kernel still accepts for the listener; nobody answers.
        let (_listener, address) = server().await;
        let outcome = establish(&address, &Way::default(), &hello, Duration::from_millis(50)).await;
        assert!(matches!(outcome, Err(Broken::Silent(_))), "{outcome:?}");
    }
}
