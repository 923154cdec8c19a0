//! Whether another server would let this node in to replicate.
//!
//! `pg_hba.conf` has rules of its own for that, and the client library does not speak that protocol. So only its first step is made here,
//! which needs no password: the server looks for a rule before it asks for one. Not here: the password (`connection`).

use std::time::Duration;

use pgherd_ha::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Error, Server, Upstream};

/// A server that has not answered by then says nothing about its rules.
const LIMIT: Duration = Duration::from_secs(3);

/// An error message takes some hundred bytes; what is longer is none.
const LONGEST_ANSWER: u32 = 16 * 1024;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Version 3.0 of the protocol.
const PROTOCOL: [u8; 4] = [0, 3, 0, 0];

/// Fails with the server's own words if it refuses a replication connection as such. Where it cannot be asked so (no answer; TLS, which
/// has rules of its own again; a socket), nothing is known and nothing is said.
pub(super) async fn try_replication_login(server: &Server, upstream: &Upstream) -> Result<(), Error> {
    let asked = tokio::time::timeout(LIMIT, refusal(&server.replication.username, upstream)).await;
    match asked.ok().and_then(Result::ok).flatten() {
        Some(words) => Err(Error::Refused(format!("{upstream} refuses the replication connection: {words}"))),
        None => Ok(()),
    }
}

async fn refusal(user: &str, upstream: &Upstream) -> std::io::Result<Option<String>> {
    let Some(Address { host, port }) = upstream.addresses.first() else { return Ok(None) };
    let mut stream = TcpStream::connect((host.as_str(), *port)).await?;
    // As the standby does by default: with TLS where there is some.
    stream.write_all(&SSL_REQUEST).await?;
    if stream.read_u8().await? != b'N' {
        return Ok(None);
    }
    stream.write_all(&startup(user)).await?;
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?.saturating_sub(4);
    if kind != b'E' || length > LONGEST_ANSWER {
        return Ok(None);
    }
    let mut fields = Vec::new();
    stream.take(length.into()).read_to_end(&mut fields).await?;
    Ok(message(&fields))
}

fn startup(user: &str) -> Vec<u8> {
    let mut body = PROTOCOL.to_vec();
    for word in ["user", user, "replication", "true", ""] {
        body.extend_from_slice(word.as_bytes());
        body.push(0);
    }
    // The bound on names (a page of YAML at most) is far below 4 GB.
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [length.to_be_bytes().to_vec(), body].concat()
}

/// The field `M` of an ErrorResponse: a letter and a text each, ended by zero.
fn message(fields: &[u8]) -> Option<String> {
    let mut texts = fields.split(|byte| *byte == 0).filter_map(|field| field.split_first());
    texts.find(|(kind, _)| **kind == b'M').map(|(_, text)| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_found_among_the_fields() {
        let fields = b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry\0Fauth.c\0\0";
        assert_eq!(message(fields).as_deref(), Some("no pg_hba.conf entry"));
        assert_eq!(message(b"SFATAL\0\0"), None);
    }

    #[test]
    fn a_startup_asks_for_replication() {
        let expected = b"\0\0\0\x23\0\x03\0\0user\0bob\0replication\0true\0\0";
        assert_eq!(startup("bob"), expected);
        assert_eq!(usize::from(expected[3]), expected.len());
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            message(&bytes);
        }
    }
}
