//! Finds the messages in a stream: a type byte, an Int32 length that counts itself, the body.
//!
//! Works on chunks as they come and copies nothing but the few short messages that somebody wants to read. A stream that breaks
//! the format is no longer scanned: it goes on as bytes.

/// Bodies longer than this are not kept, whoever wants them.
const LONGEST_KEPT: usize = 1024;

/// The position in one direction of a session.
#[derive(Debug, Default)]
pub struct Frames {
    header: [u8; 5],
    /// Bytes of `header` that are there.
    have: usize,
    /// Bytes of the body that are still to come.
    remaining: usize,
    /// The body so far, if it is wanted.
    kept: Option<Vec<u8>>,
    broken: bool,
}

/// Goes on, or stops after the message that was just seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Continue,
    Stop,
}

impl Frames {
    /// Nothing is half sent: a message of our own may be put in here.
    pub fn at_boundary(&self) -> bool {
        !self.broken && self.have == 0
    }

    /// Scans `chunk`. `wants` says by type whether a body is to be kept; `on` gets the type of every message and, at its end, its
    /// body if it was kept (else an empty one). If `on` stops, the length up to the end of that message is returned.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        wants: impl Fn(u8) -> bool,
        mut on: impl FnMut(u8, &[u8]) -> Next,
    ) -> Option<usize> {
        let mut at = 0;
        while at < chunk.len() && !self.broken {
            if self.have < self.header.len() {
                let take = (self.header.len() - self.have).min(chunk.len() - at);
                self.header[self.have..self.have + take].copy_from_slice(&chunk[at..at + take]);
                self.have += take;
                at += take;
                if self.have < self.header.len() || !self.begin(&wants) {
                    continue;
                }
            }
            let take = self.remaining.min(chunk.len() - at);
            if let Some(kept) = &mut self.kept {
                kept.extend_from_slice(&chunk[at..at + take]);
            }
            self.remaining -= take;
            at += take;
            if self.remaining == 0 {
                self.have = 0;
                let next = on(self.header[0], self.kept.take().as_deref().unwrap_or_default());
                if next == Next::Stop {
                    return Some(at);
                }
            }
        }
        None
    }

    /// Reads a complete header; `false` if it is none.
    fn begin(&mut self, wants: &impl Fn(u8) -> bool) -> bool {
        let [kind, length @ ..] = self.header;
        // PostgreSQL's lengths are signed; a body may reach 1 GB.
        match usize::try_from(i32::from_be_bytes(length)).ok().and_then(|length| length.checked_sub(4)) {
            Some(body) if kind.is_ascii_graphic() => {
                self.remaining = body;
                self.kept = (body <= LONGEST_KEPT && wants(kind)).then(Vec::new);
                true
            }
            _ => {
                self.broken = true;
                false
            }
        }
    }
}

/// What the server's side has said so far.
#[derive(Debug, Default)]
pub struct ServerSide {
    pub frames: Frames,
    /// ReadyForQuery was seen: the start-up is over.
    pub started: bool,
    /// Of the last ReadyForQuery: `I` idle, `T` in a transaction, `E` in a failed one; 0 before the first.
    pub transaction: u8,
    /// The process id and key of BackendKeyData, until somebody takes it.
    pub cancel_key: Option<Vec<u8>>,
    /// The type of the last message. At the end of a stream an error is the server's own farewell.
    pub last: u8,
    /// ParameterStatus during start-up said that the server is a standby.
    pub hot_standby: bool,
}

impl ServerSide {
    /// Scans what the server sent. If it turns out to be a standby and `refuse_standby`, returns the length up to the end of the
    /// message that says so; nothing after it may be forwarded.
    pub fn feed(&mut self, chunk: &[u8], refuse_standby: bool) -> Option<usize> {
        let Self { frames, started, transaction, cancel_key, last, hot_standby } = self;
        let starting = !*started;
        frames.feed(
            chunk,
            |kind| kind == b'Z' || starting && matches!(kind, b'S' | b'K'),
            |kind, body| {
                *last = kind;
                match kind {
                    b'Z' => {
                        *transaction = body.first().copied().unwrap_or_default();
                        *started = true;
                    }
                    b'K' if !*started => *cancel_key = Some(body.to_vec()),
                    b'S' if !*started && body == b"in_hot_standby\0on\0" => {
                        *hot_standby = true;
                        return if refuse_standby { Next::Stop } else { Next::Continue };
                    }
                    _ => {}
                }
                Next::Continue
            },
        )
    }
}

/// What the client's side has said after its start-up packet.
#[derive(Debug, Default)]
pub struct ClientSide {
    pub frames: Frames,
    /// It said goodbye: the server will close, and that is no loss.
    pub terminated: bool,
}

impl ClientSide {
    pub fn feed(&mut self, chunk: &[u8]) {
        let terminated = &mut self.terminated;
        self.frames.feed(
            chunk,
            |_| false,
            |kind, _| {
                *terminated = kind == b'X';
                Next::Continue
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = body.len() as i32 + 4;
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn a_start_up_is_understood_however_it_is_cut() {
        let stream = [
            message(b'R', &[0, 0, 0, 0]),
            message(b'S', b"in_hot_standby\0off\0"),
            message(b'K', b"\0\0\0\x01keys"),
            message(b'Z', b"I"),
            message(b'D', &[7; 3000]),
            message(b'Z', b"T"),
        ]
        .concat();
        for size in [1, 2, 5, 7, 100, stream.len()] {
            let mut side = ServerSide::default();
            for chunk in stream.chunks(size) {
                assert_eq!(side.feed(chunk, true), None);
            }
            assert!(side.frames.at_boundary() && side.started && !side.hot_standby);
            assert_eq!((side.transaction, side.cancel_key.as_deref()), (b'T', Some(&b"\0\0\0\x01keys"[..])));
        }
    }

    #[test]
    fn a_standby_stops_the_stream_after_the_message_that_says_so() {
        let first = [message(b'R', &[0; 4]), message(b'S', b"in_hot_standby\0on\0")].concat();
        let stream = [first.clone(), message(b'Z', b"I")].concat();
        assert_eq!(ServerSide::default().feed(&stream, true), Some(first.len()));
        let mut tolerant = ServerSide::default();
        assert_eq!(tolerant.feed(&stream, false), None);
        assert!(tolerant.hot_standby && tolerant.started);
        // Only during start-up: a row that looks like it is a row.
        let mut later = ServerSide { started: true, ..ServerSide::default() };
        assert_eq!(later.feed(&stream, true), None);
    }

    #[test]
    fn the_end_of_a_session_is_told_apart() {
        let mut server = ServerSide::default();
        server.feed(&message(b'E', b"SFATAL\0\0"), true);
        assert!(server.last == b'E' && server.frames.at_boundary());
        server.feed(&message(b'N', b"\0")[..3], true);
        assert!(!server.frames.at_boundary());
        let mut client = ClientSide::default();
        client.feed(&message(b'Q', b"select 1\0"));
        assert!(!client.terminated);
        client.feed(&message(b'X', b""));
        assert!(client.terminated);
    }

    #[test]
    fn what_is_no_message_is_never_a_boundary() {
        for bytes in [&[b'D', 0, 0, 0, 3][..], &[b'D', 0xff, 0, 0, 0], &[0, 0, 0, 0, 4]] {
            let mut side = ServerSide::default();
            side.feed(bytes, true);
            assert!(!side.frames.at_boundary(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(bodies in prop::collection::vec((prop::sample::select(&b"SKZEDR"[..]), prop::collection::vec(any::<u8>(), 0..40)), 0..20),
                                cuts in prop::collection::vec(1usize..50, 1..50)) {
            let stream: Vec<u8> = bodies.iter().flat_map(|(kind, body)| message(*kind, body)).collect();
            let mut whole = ServerSide::default();
            whole.feed(&stream, false);
            let mut cut = ServerSide::default();
            let mut rest = &stream[..];
            for size in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, after) = rest.split_at((*size).min(rest.len()));
                cut.feed(chunk, false);
                rest = after;
            }
            prop_assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
            prop_assert!(whole.frames.at_boundary());
        }

        #[test]
        fn no_bytes_panic(chunks: Vec<Vec<u8>>) {
            let (mut server, mut client) = (ServerSide::default(), ClientSide::default());
            for chunk in chunks {
                server.feed(&chunk, true);
                client.feed(&chunk);
            }
        }
    }
}
