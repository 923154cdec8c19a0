//! The last words to a client: an ErrorResponse that its driver understands, then an orderly close.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For a client to take the message and to close; a client that does not read cannot hold a place longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// `cannot_connect_now`: drivers and pools know it as "try again".
pub const CANNOT_CONNECT_NOW: &str = "57P03";
/// `admin_shutdown`: the session is over and the connection must be made anew.
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// `idle_session_timeout`
pub const IDLE_TIMEOUT: &str = "57P05";
/// `protocol_violation`
pub const PROTOCOL_VIOLATION: &str = "08P01";

/// An ErrorResponse of severity FATAL.
pub fn error_response(code: &str, message: &str, hint: &str) -> Vec<u8> {
    let mut body = vec![];
    // `V` is the severity that is never translated.
    for (field, text) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', message), (b'H', hint)] {
        if !text.is_empty() {
            body.push(field);
            body.extend(text.bytes().filter(|byte| *byte != 0));
            body.push(0);
        }
    }
    body.push(0);
    let length = i32::try_from(body.len() + 4).expect("our own messages are short");
    [&b"E"[..], &length.to_be_bytes(), &body].concat()
}

/// Sends `bytes` and closes. What the client still sends is read and dropped for a moment: closing with unread data makes the
/// kernel reset the connection, and the client might never see the message.
pub async fn close(mut client: TcpStream, bytes: &[u8]) {
    let goodbye = async {
        client.write_all(bytes).await?;
        client.shutdown().await?;
        let mut dropped = [0; 1024];
        while client.read(&mut dropped).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whatever fails here, the client is gone.
    let _ = timeout(PATIENCE, goodbye).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_postgresqls_format() {
        let bytes = error_response("57P03", "no primary", "");
        assert_eq!(bytes, b"E\0\0\0\x26SFATAL\0VFATAL\0C57P03\0Mno primary\0\0");
    }
}
