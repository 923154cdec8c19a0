//! One question over a connection of its own, byte by byte as written, and the answer as it came.
//!
//! Not a library's client: what is asked here no library lets one ask, and a library would mend what is to be compared.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A restart of a server, and a switchover, are answered when they are over.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// `None`: no body, and no word of its length.
    pub body: Option<String>,
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        self.headers.iter().try_for_each(|(name, value)| write!(f, " [{name}: {value}]"))?;
        self.body.iter().try_for_each(|body| write!(f, " {body}"))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// What follows the number.
    pub reason: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

pub fn ask(port: u16, question: &Question) -> Result<Answer, String> {
    let mut head = format!("{} {} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n", question.method, question.path);
    question.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    if let Some(body) = &question.body {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let text = head + "\r\n" + question.body.as_deref().unwrap_or_default();
    let answer = exchange(port, text.as_bytes()).map_err(|error| format!("{question}: {error}"))?;
    parse(&answer).ok_or_else(|| format!("{question}: no answer of HTTP: {answer:?}"))
}

/// Whatever these bytes are answered with until the other side closes.
fn exchange(port: u16, bytes: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // Python closes without reading what it refuses; what it has said before has come.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset && !answer.is_empty() => {}
        other => drop(other?),
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let (version, rest) = lines.next()?.split_once(' ')?;
    version.starts_with("HTTP/1.").then_some(())?;
    let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Some(Answer { status: status.parse().ok()?, reason: reason.to_owned(), headers, body: body.to_owned() })
}
