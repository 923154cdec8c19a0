//! Listens to the route that an agent pushes on `GET /pgherd/route`, for as long as the entrypoint runs.
//!
//! Not here: what a route means (`route`). A broken stream comes back by itself; an agent that pushes nothing is asked again
//! every few seconds, because it may be replaced by one that does. The other way round it takes an answer that only a plain
//! Patroni gives: whoever is taken for one is trusted without a permit. Tested below.

use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, RouteMessage};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::agent_link::{AgentAddress, LinkError, Stream};
use crate::control::Event;
use crate::http::{self, Head, HttpError};
use crate::route::AgentId;

/// Agents send a line at least every second; three missed ones are a lost stream.
const SILENCE: Duration = Duration::from_secs(3);

/// To connect and to get the head of the answer.
const ANSWER: Duration = Duration::from_secs(3);

/// A stream is opened anew this often: an instant on it is counted from its request with two clocks, whose rates differ by up to
/// 200 parts in a million; in a minute that is 12 ms, well within the margin that a permit keeps.
const REOPEN: Duration = Duration::from_secs(60);

/// A request that waited longer for its first line (the agent hung, or its machine was busy) makes every permit on the stream look
/// shorter by as much. Such a stream is opened anew once the agent answers in time.
const LATE: Duration = Duration::from_millis(250);

/// Pauses between attempts at a lost stream, doubled from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// Between questions to an agent that pushes nothing.
const PLAIN_AGAIN: Duration = Duration::from_secs(5);

/// A line is some 400 bytes; so is Patroni's status, with some 200 more for each of its standbys.
const LONGEST_LINE: usize = 64 * 1024;

/// The answer of an agent that pushes to as many entrypoints as it may.
const NO_PLACE: u16 = 429;

/// An agent to listen to.
#[derive(Debug)]
pub struct Subscriber {
    pub agent: AgentId,
    pub address: AgentAddress,
}

/// Why a stream ended.
#[derive(Debug)]
enum Ended {
    /// It was old enough; nothing is wrong.
    Old,
    /// Its request was answered late, so its instants are too early.
    Late,
    Lost(String),
    /// It answers, not with a route, and nothing says that it ever would.
    Plain,
    /// The entrypoint ends.
    NobodyListens,
}

impl Subscriber {
    pub async fn run(self, events: mpsc::Sender<Event>) {
        let mut backoff = BACKOFF.0;
        let mut pushed_before = false;
        loop {
            let opened = Instant::now();
            let ended = self.listen(&events, &mut pushed_before).await;
            let (event, pause) = match ended {
                Ended::NobodyListens => return,
                Ended::Old => continue,
                Ended::Late => {
                    sleep(BACKOFF.0).await;
                    continue;
                }
                Ended::Plain => {
                    pushed_before = false;
                    (Event::Plain { agent: self.agent }, PLAIN_AGAIN)
                }
                Ended::Lost(why) => {
                    tracing::debug!(agent = %self.address.host, port = self.address.port, why, "no route from this agent");
                    // A stream that lived a while starts the back-off anew.
                    backoff = if opened.elapsed() > BACKOFF.1 { BACKOFF.0 } else { (backoff * 2).min(BACKOFF.1) };
                    (Event::StreamLost { agent: self.agent }, backoff)
                }
            };
            if events.send(event).await.is_err() {
                return;
            }
            sleep(pause).await;
        }
    }

    async fn listen(&self, events: &mpsc::Sender<Event>, pushed_before: &mut bool) -> Ended {
        let mut stream = match self.address.connect(ANSWER).await {
            Ok(stream) => stream,
            Err(LinkError::Tls(error)) => return Ended::Lost(format!("no TLS connection to it: {error}")),
            Err(error) => return Ended::Lost(error.to_string()),
        };
        let request = "GET /pgherd/route HTTP/1.0\r\nAccept: application/x-ndjson\r\nUser-Agent: pgherd-proxy\r\n\r\n";
        // Before it is sent: what the agent counts from the receipt is then never later than the truth.
        let requested = boot_now();
        let buffer = match timeout(ANSWER, http::ask(&mut *stream, request)).await {
            Ok(Ok((head, body))) if head.status == 200 && is_json(&head) => body,
            Ok(Ok((head, _))) if head.status == NO_PLACE => {
                return Ended::Lost("it has no place for another stream".into());
            }
            Ok(Err(HttpError::Broken(error))) => return Ended::Lost(error.to_string()),
            // It took the connection, and nothing that ever came from it speaks of routes.
            _ if !*pushed_before => return Ended::Plain,
            Ok(Ok((head, body))) => {
                let plain = is_status_of_patroni(stream, body).await;
                return if plain {
                    Ended::Plain
                } else {
                    Ended::Lost(format!("it answers {} and no route", head.status))
                };
            }
            Ok(Err(error)) => return Ended::Lost(error.to_string()),
            Err(_) => return Ended::Lost(format!("no answer within {ANSWER:?}")),
        };
        self.read_lines(stream, buffer, requested, events, pushed_before).await
    }

    async fn read_lines(
        &self,
        mut stream: Box<dyn Stream>,
        mut buffer: Vec<u8>,
        requested: Boot,
        events: &mpsc::Sender<Event>,
        pushed_before: &mut bool,
    ) -> Ended {
        let opened = Instant::now();
        let late = boot_now().since(requested) > LATE;
        loop {
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let message = match serde_json::from_slice::<RouteMessage>(&line) {
                    Ok(message) => message,
                    Err(error) if *pushed_before => return Ended::Lost(format!("a line cannot be read: {error}")),
                    Err(_) => return Ended::Plain,
                };
                *pushed_before = true;
                if events.send(Event::Pushed { agent: self.agent, message, requested }).await.is_err() {
                    return Ended::NobodyListens;
                }
                if late {
                    return Ended::Late;
                }
            }
            if opened.elapsed() > REOPEN {
                return Ended::Old;
            }
            if buffer.len() > LONGEST_LINE {
                return Ended::Lost(format!("a line is longer than {LONGEST_LINE} bytes"));
            }
            match timeout(SILENCE, stream.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => return Ended::Lost("the stream ended".into()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Ended::Lost(error.to_string()),
                Err(_) => return Ended::Lost(format!("silent for {SILENCE:?}")),
            }
        }
    }
}

fn is_json(head: &Head) -> bool {
    head.content_type.as_ref().is_some_and(|kind| kind.ends_with("json"))
}

/// To a path that it does not know a Patroni answers with its status, in which it names itself. `body`: what has come of it.
async fn is_status_of_patroni(stream: Box<dyn Stream>, mut body: Vec<u8>) -> bool {
    let mut rest = stream.take(LONGEST_LINE as u64);
    // A body that is cut off is no JSON.
    let _ = timeout(ANSWER, rest.read_to_end(&mut body)).await;
    serde_json::from_slice::<serde_json::Value>(&body).is_ok_and(|status| status["patroni"].is_object())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const STATUS: &str = r#"{"state": "running", "role": "replica", "patroni": {"version": "4.1.4", "scope": "s"}}"#;
    const LINE: &str = r#"{"elapsed_ms":1,"name":"n","scope":"s","address":"h:1","running":true,"in_recovery":true,"epoch":null,
        "permit_ms":null,"paused":false,"timeline":1,"lsn":1,"lag":0,"noloadbalance":false,"state":"running"}"#;

    /// What becomes of an agent that answers `answer` and closes, and whether a line of its stream was passed on.
    async fn outcome(answer: &str, mut pushed_before: bool) -> (&'static str, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let subscriber = Subscriber { agent: 0, address: AgentAddress { host: "127.0.0.1".into(), port, tls: None } };
        let (events, mut received) = mpsc::channel(1);
        let agent = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.read_buf(&mut Vec::with_capacity(1024)).await.expect("a request");
            stream.write_all(answer.as_bytes()).await.expect("an answer");
        };
        let (ended, ()) = tokio::join!(subscriber.listen(&events, &mut pushed_before), agent);
        let word = match ended {
            Ended::Lost(_) => "lost",
            Ended::Plain => "plain",
            Ended::Old | Ended::Late | Ended::NobodyListens => "else",
        };
        (word, received.try_recv().is_ok())
    }

    #[tokio::test]
    async fn who_has_pushed_is_plain_only_by_patronis_own_answer() {
        let json = "Content-Type: application/json\r\n";
        let patroni = |status: &str| format!("HTTP/1.0 {status}\r\n{json}\r\n{STATUS}");
        // (answer, what it means for an agent that never pushed, for one that did)
        for (answer, new, known) in [
            (patroni("503 Service Unavailable"), "plain", "plain"),
            ("HTTP/1.0 503 Service Unavailable\r\n\r\n64 entrypoints listen already".into(), "plain", "lost"),
            (format!("HTTP/1.0 503 Service Unavailable\r\n{json}\r\n{{\"state\": \"running\"}}"), "plain", "lost"),
            (format!("HTTP/1.0 503 Service Unavailable\r\n{json}\r\n{}", &STATUS[..70]), "plain", "lost"),
            ("HTTP/1.0 500 Internal Server Error\r\n\r\n".into(), "plain", "lost"),
            ("HTTP/1.0 404 Not Found\r\n\r\n".into(), "plain", "lost"),
            ("HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\nfine".into(), "plain", "lost"),
            ("SSH-2.0-OpenSSH\r\n".into(), "plain", "lost"),
            ("HTTP/1.0 429 Too Many Requests\r\n\r\n64 entrypoints listen already".into(), "lost", "lost"),
            (format!("HTTP/1.0 200 OK\r\n{json}\r\n"), "lost", "lost"),
            (format!("HTTP/1.0 200 OK\r\n{json}\r\n{STATUS}\n"), "plain", "lost"),
        ] {
            for (pushed_before, expected) in [(false, new), (true, known)] {
                let found = outcome(&answer, pushed_before).await;
                assert_eq!(found, (expected, false), "pushed before: {pushed_before}, {answer}");
            }
        }
        let route = format!("HTTP/1.0 200 OK\r\n{json}\r\n{}\n", LINE.replace('\n', ""));
        assert_eq!(outcome(&route, false).await, ("lost", true), "a stream that ends");
    }
}
