//! The first packet of a client: what it wants before anything is known of it.
//!
//! Format: an Int32 length that counts itself, an Int32 code, the rest. A TLS ClientHello in its place is direct TLS
//! (PostgreSQL 17, `sslnegotiation=direct`).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// PostgreSQL's own limit (MAX_STARTUP_PACKET_LENGTH).
const LONGEST: usize = 10_000;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const TLS_HANDSHAKE: u8 = 0x16;

/// A first packet, with its bytes as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A StartupMessage of protocol 3.
    Startup(Vec<u8>),
    /// SSLRequest or GSSENCRequest: one byte is the answer.
    Encryption(Vec<u8>),
    /// The beginning of a TLS handshake.
    DirectTls(Vec<u8>),
    /// The whole packet; the process id and the key are what follows the first eight bytes.
    Cancel(Vec<u8>),
}

/// Why there is no first packet.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    #[error("the connection broke before its first packet was complete")]
    Broken(#[from] io::Error),
    #[error("the first packet is not PostgreSQL's: {0}")]
    NotPostgres(&'static str),
}

/// Reads the first packet and nothing beyond it.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Hello, StartupError> {
    let mut head = [0; 8];
    stream.read_exact(&mut head[..5]).await?;
    if head[0] == TLS_HANDSHAKE {
        return Ok(Hello::DirectTls(head[..5].to_vec()));
    }
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if !(8..=LONGEST).contains(&length) {
        return Err(StartupError::NotPostgres("its length is not that of a start-up packet"));
    }
    stream.read_exact(&mut head[5..]).await?;
    let mut packet = vec![0; length];
    packet[..8].copy_from_slice(&head);
    stream.read_exact(&mut packet[8..]).await?;
    kind(packet).ok_or(StartupError::NotPostgres("its protocol is not known"))
}

/// A StartupMessage asks for physical replication, in which PostgreSQL runs no SQL. Not `replication=database`: that is for logical
/// replication, and runs any.
pub fn replicates(packet: &[u8]) -> bool {
    let mut words = packet.get(8..).unwrap_or_default().split(|byte| *byte == 0);
    let mut replicates = false;
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        match name {
            // The end.
            b"" => break,
            // The server heeds all that there are: one that is not plainly physical makes a session like any other.
            b"replication" if !is_true(value) => return false,
            b"replication" => replicates = true,
            _ => {}
        }
    }
    replicates
}

/// PostgreSQL's `parse_bool`: its words may be cut short as long as they can be told apart.
fn is_true(value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    let begins = |word: &[u8]| !value.is_empty() && word.starts_with(&value);
    begins(b"true") || begins(b"yes") || value == b"on" || value == b"1"
}

fn kind(packet: Vec<u8>) -> Option<Hello> {
    let code = u32::from_be_bytes(packet.get(4..8)?.try_into().ok()?);
    match code {
        SSL | GSS if packet.len() == 8 => Some(Hello::Encryption(packet)),
        // A process id and a key of 4 bytes; up to 256 from protocol 3.2 on.
        CANCEL if (16..=8 + 4 + 256).contains(&packet.len()) => Some(Hello::Cancel(packet)),
        // Minor versions are for the server to negotiate.
        _ if code >> 16 == 3 => Some(Hello::Startup(packet)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_now(mut bytes: &[u8]) -> Result<(Hello, usize), StartupError> {
        // Reading from memory never waits.
        let hello = futures::FutureExt::now_or_never(read(&mut bytes)).expect("memory is ready")?;
        Ok((hello, bytes.len()))
    }

    #[test]
    fn first_packets() {
        let packet = |code: u32, rest: &[u8]| {
            let length = (8 + rest.len()) as u32;
            [&length.to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
        };
        let startup = packet(3 << 16, b"user\0me\0\0");
        for (bytes, expected) in [
            (startup.clone(), Some(Hello::Startup(startup.clone()))),
            (packet(3 << 16 | 2, b"\0"), Some(Hello::Startup(packet(3 << 16 | 2, b"\0")))),
            (packet(SSL, b""), Some(Hello::Encryption(packet(SSL, b"")))),
            (packet(GSS, b""), Some(Hello::Encryption(packet(GSS, b"")))),
            (packet(SSL, b"x"), None),
            (packet(CANCEL, b"12345678"), Some(Hello::Cancel(packet(CANCEL, b"12345678")))),
            (packet(CANCEL, b"1234"), None),
            (packet(2 << 16, b""), None),
            (b"GET / HTTP/1.1\r\n".to_vec(), None),
            (vec![0x16, 3, 1, 0, 5, 1], Some(Hello::DirectTls(vec![0x16, 3, 1, 0, 5]))),
            (b"\0\0\0\x08".to_vec(), None),
            (b"".to_vec(), None),
        ] {
            assert_eq!(read_now(&bytes).ok().map(|(hello, _)| hello), expected, "{bytes:?}");
        }
        let two = [startup.clone(), b"more".to_vec()].concat();
        assert_eq!(read_now(&two).ok(), Some((Hello::Startup(startup), 4)));
    }

    #[test]
    fn physical_replication_is_told_from_what_can_run_sql() {
        for (parameters, expected) in [
            ("user\0me\0replication\0true\0\0", true),
            ("replication\0ON\0user\0me\0\0", true),
            ("replication\x001\0\0", true),
            ("replication\0y\0\0", true),
            ("replication\0database\0\0", false),
            ("replication\0database\0replication\0true\0\0", false),
            ("replication\0true\0replication\0database\0\0", false),
            ("replication\0true\0replication\0off\0\0", false),
            ("replication\0off\0\0", false),
            ("replication\0\0\0", false),
            ("user\0replication\0database\0true\0\0", false),
            ("user\0me\0\0replication\0true\0\0", false),
            ("replication\0", false),
            ("replication\0tru", true),
            ("", false),
        ] {
            let packet = [&[0, 0, 0, 0, 0, 3, 0, 0][..], parameters.as_bytes()].concat();
            assert_eq!(replicates(&packet), expected, "{parameters:?}");
        }
        assert!(!replicates(b"\0"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = (read_now(&bytes), replicates(&bytes));
        }
    }
}
