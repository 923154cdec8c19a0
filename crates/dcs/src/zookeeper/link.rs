//! A live connection as the operations see it: requests go in, in order, and each gets exactly one answer.
//!
//! A request belongs to one connection and dies with it. It is never queued while there is none and never sent again by
//! itself, so an operation that was given up cannot happen minutes later.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pgherd_ha::{Boot, SignsOfLife};
use tokio::sync::{mpsc, oneshot};

use super::wire::{self, Acl, Garbled, Request, Stat};
use crate::clock::boot_now;
use crate::member_key::StillRacing;
use crate::operation::Failure;

/// Requests that wait to be written to the socket. A load of the largest cluster we know of (some tens of members) is
/// well under a hundred.
pub const QUEUE: usize = 1024;

/// What the server says instead of doing what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoNode,
    NodeExists,
    BadVersion,
    NotEmpty,
    SessionExpired,
    Other(i32),
}

impl Refusal {
    fn from_code(code: i32) -> Refusal {
        match code {
            -101 => Refusal::NoNode,
            -103 => Refusal::BadVersion,
            -110 => Refusal::NodeExists,
            -111 => Refusal::NotEmpty,
            -112 => Refusal::SessionExpired,
            other => Refusal::Other(other),
        }
    }

    /// Codes up to -100 are failures inside the server or on its way to the quorum: no verdict.
    fn is_verdict(self) -> bool {
        !matches!(self, Refusal::Other(code) if code > -100)
    }
}

/// Why a request has no good answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It never left this process.
    #[error("{0}")]
    NotSent(String),
    /// It was sent, and the connection ended before the answer.
    #[error("{0}")]
    Lost(String),
    #[error("{}", refusal_text(*.0))]
    Refused(Refusal),
}

fn refusal_text(refusal: Refusal) -> String {
    match refusal {
        Refusal::NoNode => "the key does not exist".into(),
        Refusal::NodeExists => "the key exists".into(),
        Refusal::BadVersion => "the key has another version".into(),
        Refusal::NotEmpty => "the key has keys below it".into(),
        Refusal::SessionExpired => "the session has expired".into(),
        Refusal::Other(-102) => {
            "not authorised: the access list of the key (or of the one above it) does not allow it to who we are; check \
             `zookeeper.auth_data` and `zookeeper.set_acls`"
                .into()
        }
        Refusal::Other(-114) => {
            "the server does not take the access list of `zookeeper.set_acls`: it knows a scheme not, or we have no \
             identity of it"
                .into()
        }
        Refusal::Other(-118) => "the session has moved to another connection; is this node running twice?".into(),
        Refusal::Other(-127) => "the server is overloaded and turned the request away".into(),
        Refusal::Other(code) => format!("the server answered with error {code}"),
    }
}

impl Failure for CallError {
    fn is_lost(&self) -> bool {
        matches!(self, CallError::Lost(_))
    }

    /// Not after a verdict, unless it is one on the session (a new one is on its way) or on the server's load.
    fn may_pass(&self) -> bool {
        match self {
            CallError::NotSent(_) | CallError::Lost(_) => true,
            CallError::Refused(refusal) => matches!(refusal, Refusal::SessionExpired | Refusal::Other(-127)),
        }
    }
}

impl From<StillRacing> for CallError {
    fn from(racing: StillRacing) -> CallError {
        CallError::Lost(racing.to_string())
    }
}

impl From<Garbled> for CallError {
    fn from(garbled: Garbled) -> CallError {
        CallError::Lost(garbled.to_string())
    }
}

/// A request on its way to the connection's task; `reply` closed means that nobody waits any more.
#[derive(Debug)]
pub struct Call {
    /// Encoded with xid 0; the task puts the real one in.
    pub frame: BytesMut,
    pub reply: oneshot::Sender<Result<Bytes, CallError>>,
}

impl Call {
    pub fn answer(self, error: i32, body: Bytes) {
        let answer = match error {
            0 => Ok(body),
            code if Refusal::from_code(code).is_verdict() => Err(CallError::Refused(Refusal::from_code(code))),
            code => Err(CallError::Lost(refusal_text(Refusal::Other(code)))),
        };
        // Nobody waits any more: the caller's deadline has passed.
        let _ = self.reply.send(answer);
    }

    pub fn fail(self, error: CallError) {
        let _ = self.reply.send(Err(error));
    }
}

/// One established connection. Sent by any thread; served by the connection's task; ends when that task does.
#[derive(Debug)]
pub struct Link {
    calls: mpsc::Sender<Call>,
    /// The session that everything on this connection happens in.
    pub session: i64,
    /// The time-out that may be relied on: what the server granted, never more than at the session's creation.
    pub granted: Duration,
    /// Of what we create.
    acl: Arc<[Acl]>,
    signs: Signs,
}

/// What the connection's task serves: the requests, and where it notes that the server has answered.
#[derive(Debug)]
pub struct Calls {
    pub queue: mpsc::Receiver<Call>,
    pub signs: Signs,
}

/// The signs of life on one connection. The lock is held for some hundred nanoseconds, never across an await.
#[derive(Clone, Debug)]
pub struct Signs(Arc<Mutex<SignsOfLife>>);

impl Signs {
    /// A request that was sent at `sent` has been answered now.
    pub fn answered(&self, sent: Boot) {
        self.lock().answered(sent, boot_now());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SignsOfLife> {
        self.0.lock().expect("nobody panics while holding this lock")
    }
}

/// An answer that is on its way. The request is in the queue already: requests are handled in the order of the calls,
/// not of the awaits.
#[derive(Debug)]
pub struct Answer<T> {
    reply: Result<oneshot::Receiver<Result<Bytes, CallError>>, CallError>,
    decode: fn(Bytes) -> Result<T, Garbled>,
}

impl<T> Answer<T> {
    pub async fn get(self) -> Result<T, CallError> {
        let lost = || CallError::Lost("the connection ended".into());
        let body = self.reply?.await.map_err(|_| lost())??;
        Ok((self.decode)(body)?)
    }

    /// A key that is not there is an answer, too.
    pub async fn optional(self) -> Result<Option<T>, CallError> {
        match self.get().await {
            Ok(value) => Ok(Some(value)),
            Err(CallError::Refused(Refusal::NoNode)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Link {
    /// `opened`: before the server was asked to take the session over.
    pub fn new(session: i64, granted: Duration, opened: Boot, acl: Arc<[Acl]>) -> (Link, Calls) {
        let (calls, queue) = mpsc::channel(QUEUE);
        let signs = Signs(Arc::new(Mutex::new(SignsOfLife::new(opened))));
        (Link { calls, session, granted, acl, signs: signs.clone() }, Calls { queue, signs })
    }

    /// From when a lease counts that a write proves, which was sent at `sent` on this connection and acknowledged.
    pub fn counts_from(&self, sent: Boot, tick: Duration) -> Boot {
        self.signs.lock().counts_from(sent, tick)
    }

    pub fn create(&self, path: &str, value: &[u8], ephemeral: bool) -> Answer<Stat> {
        self.call(Request::Create { path, value, ephemeral, acl: &self.acl }, wire::decode_created)
    }

    /// `None` deletes any version.
    pub fn delete(&self, path: &str, version: Option<i32>) -> Answer<()> {
        self.call(Request::Delete { path, version: version.unwrap_or(-1) }, |_| Ok(()))
    }

    /// `None` replaces any version.
    pub fn set(&self, path: &str, value: &[u8], version: Option<i32>) -> Answer<Stat> {
        self.call(Request::Set { path, value, version: version.unwrap_or(-1) }, wire::decode_stat)
    }

    pub fn read(&self, path: &str) -> Answer<(Bytes, Stat)> {
        self.call(Request::Get { path, watch: false }, wire::decode_value)
    }

    pub fn stat(&self, path: &str) -> Answer<Stat> {
        self.call(Request::Exists { path, watch: false }, wire::decode_stat)
    }

    /// Asks for one event when the key is created, changed or deleted next, whether it is there now or not.
    pub fn watch(&self, path: &str) -> Answer<Stat> {
        self.call(Request::Exists { path, watch: true }, wire::decode_stat)
    }

    /// With `watch`, one event when a child comes or goes next.
    pub fn children(&self, path: &str, watch: bool) -> Answer<Vec<String>> {
        self.call(Request::Children { path, watch }, wire::decode_children)
    }

    pub fn close_session(&self) -> Answer<()> {
        self.call(Request::CloseSession, |_| Ok(()))
    }

    fn call<T>(&self, request: Request<'_>, decode: fn(Bytes) -> Result<T, Garbled>) -> Answer<T> {
        let reply = self.enqueue(request);
        Answer { reply, decode }
    }

    fn enqueue(&self, request: Request<'_>) -> Result<oneshot::Receiver<Result<Bytes, CallError>>, CallError> {
        if let Request::Create { value, .. } | Request::Set { value, .. } = &request
            && value.len() > wire::MAX_VALUE
        {
            let size = value.len();
            return Err(CallError::NotSent(format!("a value of {size} bytes is more than ZooKeeper takes")));
        }
        let mut frame = BytesMut::with_capacity(256);
        request.encode(0, &mut frame);
        let (reply, receiver) = oneshot::channel();
        match self.calls.try_send(Call { frame, reply }) {
            Ok(()) => Ok(receiver),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(CallError::NotSent(format!("{QUEUE} requests are waiting already; the server is too slow")))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(CallError::NotSent("the connection has ended".into())),
        }
    }
}
