//! ZooKeeper's wire format (jute): requests to bytes, bytes to replies. Pure; nothing a server sends can make it panic.
//!
//! Source: `zookeeper.jute` and `ZooDefs.java` of ZooKeeper 3.8. Only what this crate uses is here.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::session_file::Password;

/// A frame of a server is at most this long: its own limit (`jute.maxbuffer`, 1 MB by default) with room for a raised one.
pub const MAX_FRAME: usize = 16 << 20;

/// The largest value we send: a server drops the connection on a request of more than 1 MB.
pub const MAX_VALUE: usize = 1_000_000;

pub const XID_NOTIFICATION: i32 = -1;
pub const XID_PING: i32 = -2;
pub const XID_AUTH: i32 = -4;

/// The code of a refused credential.
pub const AUTH_FAILED: i32 = -115;

/// One entry of a key's access list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// ZooKeeper's bits: 1 read, 2 write, 4 create below, 8 delete below, 16 change the list.
    pub permissions: i32,
    /// `world`, `digest`, `x509`, …
    pub scheme: String,
    pub id: String,
}

/// `mzxid` and so on are left out: nothing here reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The transaction that created the node: a number that only grows.
    pub czxid: i64,
    pub version: i32,
    /// The session that the node lives with; 0 if it is persistent.
    pub owner: i64,
}

const STAT_LEN: usize = 68;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    Create {
        path: &'a str,
        value: &'a [u8],
        ephemeral: bool,
        /// Empty: everybody may do everything, as Patroni creates its keys without `set_acls`.
        acl: &'a [Acl],
    },
    /// `version` -1 is any.
    Delete {
        path: &'a str,
        version: i32,
    },
    Exists {
        path: &'a str,
        watch: bool,
    },
    Get {
        path: &'a str,
        watch: bool,
    },
    /// `version` -1 is any.
    Set {
        path: &'a str,
        value: &'a [u8],
        version: i32,
    },
    Children {
        path: &'a str,
        watch: bool,
    },
    CloseSession,
}

impl Request<'_> {
    /// The request with its header and length, ready to be sent.
    pub fn encode(&self, xid: i32, out: &mut BytesMut) {
        framed(out, |out| {
            out.put_i32(xid);
            match self {
                Request::Create { path, value, ephemeral, acl } => {
                    out.put_i32(15);
                    put_text(out, path);
                    put_bytes(out, value);
                    put_acl(out, acl);
                    out.put_i32(i32::from(*ephemeral));
                }
                Request::Delete { path, version } => {
                    out.put_i32(2);
                    put_text(out, path);
                    out.put_i32(*version);
                }
                Request::Exists { path, watch } => put_read(out, 3, path, *watch),
                Request::Get { path, watch } => put_read(out, 4, path, *watch),
                Request::Children { path, watch } => put_read(out, 12, path, *watch),
                Request::Set { path, value, version } => {
                    out.put_i32(5);
                    put_text(out, path);
                    put_bytes(out, value);
                    out.put_i32(*version);
                }
                Request::CloseSession => out.put_i32(-11),
            }
        });
    }
}

/// A heartbeat: a header and nothing else.
pub fn encode_ping(out: &mut BytesMut) {
    framed(out, |out| {
        out.put_i32(XID_PING);
        out.put_i32(11);
    });
}

/// A credential of one of the server's schemes.
pub fn encode_auth(scheme: &str, credential: &[u8], out: &mut BytesMut) {
    framed(out, |out| {
        out.put_i32(XID_AUTH);
        out.put_i32(100);
        out.put_i32(0);
        put_text(out, scheme);
        put_bytes(out, credential);
    });
}

/// A step of a SASL exchange.
pub fn encode_sasl(xid: i32, token: &[u8], out: &mut BytesMut) {
    framed(out, |out| {
        out.put_i32(xid);
        out.put_i32(102);
        put_bytes(out, token);
    });
}

/// The first frame of a connection. `session` 0 and an empty password ask for a new session.
pub fn encode_connect(last_zxid: i64, timeout_ms: i32, session: i64, password: &Password, out: &mut BytesMut) {
    framed(out, |out| {
        out.put_i32(0);
        out.put_i64(last_zxid);
        out.put_i32(timeout_ms);
        out.put_i64(session);
        if password.0.is_empty() {
            put_bytes(out, &[0; 16])
        } else {
            put_bytes(out, &password.0)
        }
        // Never a read-only server: it is cut off from its quorum.
        out.put_u8(0);
    });
}

/// The answer to the first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    pub timeout_ms: i32,
    /// 0: the session that was asked for is gone.
    pub session: i64,
    pub password: Password,
}

/// The frame is cut off or not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent something that is not ZooKeeper's protocol")]
pub struct Garbled;

/// Takes the next whole frame out of `buffer`; `None` until it has arrived.
pub fn take_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, Garbled> {
    let Some(header) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*header)).map_err(|_| Garbled)?;
    if length > MAX_FRAME {
        return Err(Garbled);
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

pub fn decode_connected(mut frame: Bytes) -> Result<Connected, Garbled> {
    let _protocol = frame.try_get_i32().map_err(|_| Garbled)?;
    let timeout_ms = frame.try_get_i32().map_err(|_| Garbled)?;
    let session = frame.try_get_i64().map_err(|_| Garbled)?;
    let password = Password(take_bytes(&mut frame)?.to_vec());
    Ok(Connected { timeout_ms, session, password })
}

/// The header of every later frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    pub xid: i32,
    pub zxid: i64,
    pub error: i32,
}

/// Splits a frame into its header and its body.
pub fn decode_reply(mut frame: Bytes) -> Result<(ReplyHeader, Bytes), Garbled> {
    let xid = frame.try_get_i32().map_err(|_| Garbled)?;
    let zxid = frame.try_get_i64().map_err(|_| Garbled)?;
    let error = frame.try_get_i32().map_err(|_| Garbled)?;
    Ok((ReplyHeader { xid, zxid, error }, frame))
}

/// The body of a reply to `Create`.
pub fn decode_created(mut body: Bytes) -> Result<Stat, Garbled> {
    take_bytes(&mut body)?;
    take_stat(&mut body)
}

/// The body of a reply to `Set` and `Exists`.
pub fn decode_stat(mut body: Bytes) -> Result<Stat, Garbled> {
    take_stat(&mut body)
}

/// The body of a reply to `Get`.
pub fn decode_value(mut body: Bytes) -> Result<(Bytes, Stat), Garbled> {
    let value = take_bytes(&mut body)?;
    Ok((value, take_stat(&mut body)?))
}

/// The body of a reply to a step of a SASL exchange.
pub fn decode_sasl(mut body: Bytes) -> Result<Bytes, Garbled> {
    take_bytes(&mut body)
}

/// The body of a reply to `Children`. A name that is not UTF-8 cannot be asked for and is left out.
pub fn decode_children(mut body: Bytes) -> Result<Vec<String>, Garbled> {
    let count = body.try_get_i32().map_err(|_| Garbled)?;
    let mut names = Vec::new();
    for _ in 0..count.max(0) {
        let name = take_bytes(&mut body)?;
        names.extend(std::str::from_utf8(&name).ok().map(str::to_owned));
    }
    Ok(names)
}

fn framed(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    body(out);
    let length = i32::try_from(out.len() - start - 4).expect("values are bounded by MAX_VALUE and paths are short");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn put_read(out: &mut BytesMut, operation: i32, path: &str, watch: bool) {
    out.put_i32(operation);
    put_text(out, path);
    out.put_u8(u8::from(watch));
}

fn put_acl(out: &mut BytesMut, acl: &[Acl]) {
    out.put_i32(i32::try_from(acl.len().max(1)).expect("a configured list is short"));
    let everybody = [(31, "world", "anyone")];
    let configured = acl.iter().map(|acl| (acl.permissions, acl.scheme.as_str(), acl.id.as_str()));
    for (permissions, scheme, id) in configured.chain(everybody.into_iter().filter(|_| acl.is_empty())) {
        out.put_i32(permissions);
        put_text(out, scheme);
        put_text(out, id);
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(i32::try_from(bytes.len()).expect("values are bounded by MAX_VALUE and paths are short"));
    out.put_slice(bytes);
}

/// Length and bytes; the length -1 stands for a null, read as empty.
fn take_bytes(from: &mut Bytes) -> Result<Bytes, Garbled> {
    let length = from.try_get_i32().map_err(|_| Garbled)?;
    let length = usize::try_from(length.max(0)).map_err(|_| Garbled)?;
    if from.len() < length {
        return Err(Garbled);
    }
    Ok(from.split_to(length))
}

fn take_stat(from: &mut Bytes) -> Result<Stat, Garbled> {
    if from.len() < STAT_LEN {
        return Err(Garbled);
    }
    let mut stat = from.split_to(STAT_LEN);
    let czxid = stat.get_i64();
    stat.advance(8 + 8 + 8);
    let version = stat.get_i32();
    stat.advance(4 + 4);
    Ok(Stat { czxid, version, owner: stat.get_i64() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_laid_out_as_the_server_reads_them() {
        let mut out = BytesMut::new();
        Request::Set { path: "/a", value: b"xy", version: 3 }.encode(7, &mut out);
        assert_eq!(&out[..], b"\0\0\0\x18\0\0\0\x07\0\0\0\x05\0\0\0\x02/a\0\0\0\x02xy\0\0\0\x03");
        let mut out = BytesMut::new();
        Request::Get { path: "/a", watch: true }.encode(8, &mut out);
        assert_eq!(&out[..], b"\0\0\0\x0f\0\0\0\x08\0\0\0\x04\0\0\0\x02/a\x01");
    }

    #[test]
    fn access_lists_and_credentials() {
        let create = |acl: &[Acl]| {
            let mut out = BytesMut::new();
            Request::Create { path: "/a", value: b"", ephemeral: true, acl }.encode(1, &mut out);
            out.split_off(12)
        };
        let head = b"\0\0\0\x02/a\0\0\0\0";
        assert_eq!(
            create(&[])[..],
            [&head[..], b"\0\0\0\x01\0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone\0\0\0\x01"].concat()
        );
        let acl = Acl { permissions: 1, scheme: "x".into(), id: "y".into() };
        assert_eq!(create(&[acl])[..], [&head[..], b"\0\0\0\x01\0\0\0\x01\0\0\0\x01x\0\0\0\x01y\0\0\0\x01"].concat());
        let mut out = BytesMut::new();
        encode_auth("digest", b"u:p", &mut out);
        assert_eq!(&out[..], b"\0\0\0\x1d\xff\xff\xff\xfc\0\0\0\x64\0\0\0\0\0\0\0\x06digest\0\0\0\x03u:p");
    }

    #[test]
    fn a_frame_is_taken_only_when_it_is_whole() {
        let mut buffer = BytesMut::from(&b"\0\0\0\x03ab"[..]);
        assert_eq!(take_frame(&mut buffer), Ok(None));
        buffer.put_slice(b"cd");
        assert_eq!(take_frame(&mut buffer), Ok(Some(Bytes::from_static(b"abc"))));
        assert_eq!(&buffer[..], b"d");
        assert_eq!(take_frame(&mut BytesMut::from(&b"\xff\xff\xff\xff"[..])), Err(Garbled));
        assert_eq!(take_frame(&mut BytesMut::from(&b"\x7f\xff\xff\xff"[..])), Err(Garbled));
    }

    proptest! {
        #[test]
        fn nothing_a_server_sends_makes_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            let _ = take_frame(&mut BytesMut::from(&bytes[..]));
            let frame = Bytes::from(bytes);
            let _ = decode_connected(frame.clone());
            let _ = decode_reply(frame.clone());
            let _ = decode_created(frame.clone());
            let _ = decode_stat(frame.clone());
            let _ = decode_value(frame.clone());
            let _ = decode_sasl(frame.clone());
            let _ = decode_children(frame);
        }
    }
}
