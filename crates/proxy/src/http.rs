//! As much of HTTP as asking an agent takes: one request on one connection, the head of the answer.
//!
//! Requests are HTTP/1.0 unless the configuration says otherwise, so a body ends with the connection and is never chunked.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::agent_link::Stream;

/// The head of an answer of a health check or of a route stream is a few hundred bytes.
const LONGEST_HEAD: usize = 16 * 1024;

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// In small letters, without parameters.
    pub content_type: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    #[error("the answer is not HTTP")]
    NotHttp,
    #[error("the head of the answer is longer than {LONGEST_HEAD} bytes")]
    TooLong,
}

/// Sends `request` and reads the head of the answer; what was read of the body comes with it.
pub async fn ask(stream: &mut dyn Stream, request: &str) -> Result<(Head, Vec<u8>), HttpError> {
    stream.write_all(request.as_bytes()).await?;
    let mut read = Vec::with_capacity(1024);
    loop {
        // Some servers answer a bare status line and close.
        let ended = stream.read_buf(&mut read).await? == 0;
        if let Some((head, length)) = parse_head(&read, ended)? {
            read.drain(..length);
            return Ok((head, read));
        }
        if read.len() > LONGEST_HEAD {
            return Err(HttpError::TooLong);
        }
    }
}

/// The head at the start of `bytes` and its length; `None` while it is not complete.
pub(super) fn parse_head(bytes: &[u8], ended: bool) -> Result<Option<(Head, usize)>, HttpError> {
    let prefix = b"HTTP/1.";
    if !bytes.iter().zip(prefix).all(|(found, expected)| found == expected) || ended && bytes.len() < prefix.len() {
        return Err(HttpError::NotHttp);
    }
    let mut lines = vec![];
    let mut start = 0;
    for (end, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        let line = bytes[start..end].trim_ascii_end();
        start = end + 1;
        if line.is_empty() {
            return Ok(Some((head(&lines)?, start)));
        }
        lines.push(line);
    }
    if ended && !lines.is_empty() {
        return Ok(Some((head(&lines)?, start)));
    }
    if ended { Err(HttpError::NotHttp) } else { Ok(None) }
}

fn head(lines: &[&[u8]]) -> Result<Head, HttpError> {
    let (first, fields) = lines.split_first().ok_or(HttpError::NotHttp)?;
    let code = first.split(|byte| *byte == b' ').nth(1).and_then(|code| std::str::from_utf8(code).ok());
    let status = code.filter(|code| code.len() == 3).and_then(|code| code.parse().ok()).ok_or(HttpError::NotHttp)?;
    let content_type = fields.iter().find_map(|line| {
        let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        let value = value.split(';').next().unwrap_or_default();
        name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_ascii_lowercase())
    });
    Ok(Head { status, content_type })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads() {
        let parse = |text: &str, ended| match parse_head(text.as_bytes(), ended) {
            Ok(Some((head, length))) => format!("{} {:?} {length}", head.status, head.content_type),
            Ok(None) => "more".into(),
            Err(error) => error.to_string(),
        };
        for (text, ended, expected) in [
            ("HTTP/1.0 200 OK\r\n\r\nbody", false, "200 None 19"),
            ("HTTP/1.0 200 OK\r\n", false, "more"),
            ("HTTP/1.0 503 Service Unavailable\r\n", true, "503 None 34"),
            (
                "HTTP/1.1 200 OK\r\nCONTENT-type: Application/X-NDJSON; a=b\r\n\r\n",
                false,
                r#"200 Some("application/x-ndjson") 60"#,
            ),
            ("HTT", false, "more"),
            ("HTT", true, "the answer is not HTTP"),
            ("", true, "the answer is not HTTP"),
            ("SSH-2.0-OpenSSH", false, "the answer is not HTTP"),
            ("HTTP/1.0 20 OK\r\n\r\n", false, "the answer is not HTTP"),
            ("HTTP/1.0 2000 OK\r\n\r\n", false, "the answer is not HTTP"),
        ] {
            assert_eq!(parse(text, ended), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, ended: bool) {
            let _ = parse_head(&bytes, ended);
            let _ = parse_head(&[b"HTTP/1.0 ", &bytes[..], b"\r\n\r\n"].concat(), ended);
        }
    }
}
