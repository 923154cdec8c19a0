//! Both directions of one session, byte for byte, with one eye on the messages.
//!
//! One poll does what can be done without waiting: it reads into a buffer that all sessions of the thread share and writes it on.
//! Only what the other side does not take at once is kept, so an idle session owns no buffer, and a side that does not read
//! stops the other (back-pressure). Before every write the gate is asked whether forwarding is still allowed.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::frames::{ClientSide, ServerSide};
use crate::entry::{Ticket, lock};
use crate::route::Reason;

/// Large enough that a big result costs few system calls, small enough to stay in the processor's cache.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client left, or the server closed after saying why, or after the client said goodbye.
    Done,
    /// The server's connection ended without a word.
    ServerLost,
    /// Nothing may be forwarded any more.
    Shut(Reason),
    /// A read-write session was connected to a standby.
    HotStandby,
    /// Not a byte for too long.
    Idle,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    /// Read and not written yet; at most one buffer.
    pending: Vec<u8>,
    written: usize,
    /// The end was read.
    ended: bool,
    /// The end was passed on.
    closed: bool,
    /// Nothing is read any more after `pending`.
    stopped: bool,
}

/// A session at work.
#[derive(Debug)]
pub struct Relay {
    pub client: TcpStream,
    server: TcpStream,
    ticket: Ticket,
    up: Pipe,
    down: Pipe,
    /// `None` on an encrypted stream.
    sides: Option<Box<(ClientSide, ServerSide)>>,
    refuse_standby: bool,
    idle: Option<Idle>,
}

#[derive(Debug)]
struct Idle {
    limit: Duration,
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

/// Why a direction stands still for good, before its end was passed on.
enum Stop {
    Shut(Reason),
    Broken,
    /// The message that forbids to go on was passed on.
    Standby,
}

impl Relay {
    /// `readable`: the stream is not encrypted and its messages can be seen. `first` is what the server has sent already.
    pub fn new(client: TcpStream, server: TcpStream, ticket: Ticket, readable: bool, first: Vec<u8>) -> Relay {
        let refuse_standby = ticket.entry.config.role == crate::config::Role::ReadWrite;
        let idle = ticket.entry.config.timeouts.idle().map(|limit| Idle {
            limit,
            last: Instant::now(),
            timer: Box::pin(sleep(limit)),
        });
        let sides = readable.then(Box::default);
        let (up, down) = (Pipe::default(), Pipe::default());
        let mut relay = Relay { client, server, ticket, up, down, sides, refuse_standby, idle };
        let kept = relay.inspect_down(&first).unwrap_or(first.len());
        relay.down.stopped = kept < first.len() || relay.hot_standby();
        relay.down.pending.extend_from_slice(&first[..kept]);
        relay
    }

    pub async fn run(&mut self) -> End {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The place at the server is given back and its connection closed; the client's socket is left for last words.
    pub fn into_client(self) -> TcpStream {
        self.client
    }

    /// A message of our own can be put into the stream to the client here.
    pub fn at_boundary(&self) -> bool {
        let whole = self.down.pending.is_empty();
        whole && self.sides.as_ref().is_some_and(|sides| sides.1.frames.at_boundary())
    }

    fn hot_standby(&self) -> bool {
        self.refuse_standby && self.sides.as_ref().is_some_and(|sides| sides.1.hot_standby)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Poll::Ready(reason) = self.ticket.poll_shut(cx) {
            return Poll::Ready(End::Shut(reason));
        }
        match self.poll_up(cx) {
            Poll::Ready(Err(Stop::Shut(reason))) => return Poll::Ready(End::Shut(reason)),
            // The server does not take it: what it still has to say comes down, then its end.
            Poll::Ready(Err(Stop::Broken)) => self.up.stopped = true,
            // A client that only closed its sending side still waits for answers; one that is gone breaks the other direction.
            Poll::Ready(Ok(()) | Err(Stop::Standby)) | Poll::Pending => {}
        }
        match self.poll_down(cx) {
            Poll::Ready(Err(Stop::Shut(reason))) => Poll::Ready(End::Shut(reason)),
            Poll::Ready(Err(Stop::Standby)) => Poll::Ready(End::HotStandby),
            Poll::Ready(Err(Stop::Broken)) => Poll::Ready(End::Done),
            Poll::Ready(Ok(())) => Poll::Ready(self.server_ended()),
            Poll::Pending => self.poll_idle(cx),
        }
    }

    fn server_ended(&self) -> End {
        match self.sides.as_deref() {
            _ if self.up.closed => End::Done,
            Some((client, server)) if client.terminated || server.last == b'E' => End::Done,
            // A walsender that has sent everything says `COPY 0` and leaves.
            Some((_, server)) if self.ticket.replicates && server.last == b'C' => End::Done,
            _ => End::ServerLost,
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Some(idle) = &mut self.idle else { return Poll::Pending };
        while Future::poll(idle.timer.as_mut(), cx).is_ready() {
            let until = idle.last + idle.limit;
            if until <= Instant::now() {
                return Poll::Ready(End::Idle);
            }
            idle.timer.as_mut().reset(until);
        }
        Poll::Pending
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        if self.up.stopped || self.up.closed {
            return Poll::Pending;
        }
        loop {
            ready!(self.up.poll_flush(&mut self.server, &self.ticket, cx)?);
            if self.up.ended {
                self.up.closed = true;
                let _ = ready!(Pin::new(&mut self.server).poll_shutdown(cx));
                return Poll::Ready(Ok(()));
            }
            ready!(BUFFER.with_borrow_mut(|buffer| {
                // Reset by the client: the server learns that by the end of the stream.
                let count = ready!(poll_read(&mut self.client, buffer, cx)).unwrap_or(0);
                self.touch();
                if count == 0 {
                    self.up.ended = true;
                    return Poll::Ready(Ok(()));
                }
                if let Some(sides) = &mut self.sides {
                    sides.0.feed(&buffer[..count]);
                }
                self.ticket.session.bytes_in.fetch_add(count as u64, Relaxed);
                self.up.poll_pass(&buffer[..count], &mut self.server, &self.ticket, cx)
            })?);
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        loop {
            ready!(self.down.poll_flush(&mut self.client, &self.ticket, cx)?);
            if self.down.stopped {
                return Poll::Ready(Err(Stop::Standby));
            }
            if self.down.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(BUFFER.with_borrow_mut(|buffer| {
                let count = ready!(poll_read(&mut self.server, buffer, cx)).unwrap_or(0);
                self.touch();
                if count == 0 {
                    self.down.ended = true;
                    return Poll::Ready(Ok(()));
                }
                let kept = self.inspect_down(&buffer[..count]).unwrap_or(count);
                self.down.stopped = self.hot_standby();
                self.ticket.session.bytes_out.fetch_add(kept as u64, Relaxed);
                self.down.poll_pass(&buffer[..kept], &mut self.client, &self.ticket, cx)
            })?);
        }
    }

    /// Looks at what the server sent; a length up to which it may be forwarded, if not all of it.
    fn inspect_down(&mut self, chunk: &[u8]) -> Option<usize> {
        let side = &mut self.sides.as_mut()?.1;
        let stop = side.feed(chunk, self.refuse_standby);
        if let Some(key) = side.cancel_key.take() {
            *lock(&self.ticket.session.cancel_key) = Some(key);
        }
        stop
    }

    fn touch(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.last = Instant::now();
        }
    }
}

impl Pipe {
    /// Writes what was kept.
    fn poll_flush(&mut self, to: &mut TcpStream, ticket: &Ticket, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        while self.written < self.pending.len() {
            self.written += ready!(poll_write(to, &self.pending[self.written..], ticket, cx)?);
        }
        // The memory is given back: most sessions never keep anything again.
        if !self.pending.is_empty() {
            (self.pending, self.written) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes `bytes`, and keeps what is not taken at once.
    fn poll_pass(
        &mut self,
        mut bytes: &[u8],
        to: &mut TcpStream,
        ticket: &Ticket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stop>> {
        while !bytes.is_empty() {
            match poll_write(to, bytes, ticket, cx)? {
                Poll::Ready(count) => bytes = &bytes[count..],
                Poll::Pending => {
                    self.pending.extend_from_slice(bytes);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn poll_read(from: &mut TcpStream, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}

/// Writes, if forwarding is still allowed at this very moment.
fn poll_write(to: &mut TcpStream, bytes: &[u8], ticket: &Ticket, cx: &mut Context<'_>) -> Poll<Result<usize, Stop>> {
    if let Some(reason) = ticket.shut() {
        return Poll::Ready(Err(Stop::Shut(reason)));
    }
    match ready!(Pin::new(to).poll_write(cx, bytes)) {
        Ok(count) if count > 0 => Poll::Ready(Ok(count)),
        _ => Poll::Ready(Err(Stop::Broken)),
    }
}
