//! Listens to the route that an agent pushes on `GET /pgherd/route`, for as long as the entrypoint runs.
//!
//! Not here: what a route means (`route`). A broken stream comes back by itself; an agent that pushes nothing is asked again
//! every few seconds, because it may be replaced by one that does.

use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, RouteMessage};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::control::Event;
use crate::route::AgentId;
use crate::{http, net};

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

/// A line is some 400 bytes.
const LONGEST_LINE: usize = 64 * 1024;

/// An agent to listen to.
#[derive(Debug)]
pub struct Subscriber {
    pub agent: AgentId,
    pub host: String,
    pub port: u16,
}

/// Why a stream ended.
#[derive(Debug)]
enum Ended {
    /// It was old enough; nothing is wrong.
    Old,
    /// Its request was answered late, so its instants are too early.
    Late,
    Lost(String),
    /// It answers, and not with a route.
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
                    tracing::debug!(agent = %self.host, port = self.port, why, "no route from this agent");
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
        let mut stream = match net::dial(&self.host, self.port, ANSWER).await {
            Ok(stream) => stream,
            Err(error) => return Ended::Lost(error.to_string()),
        };
        let request = "GET /pgherd/route HTTP/1.0\r\nAccept: application/x-ndjson\r\nUser-Agent: pgherd-proxy\r\n\r\n";
        // Before it is sent: what the agent counts from the receipt is then never later than the truth.
        let requested = boot_now();
        let buffer = match timeout(ANSWER, http::ask(&mut stream, request)).await {
            Ok(Ok((head, body))) if head.status == 200 && is_json(head.content_type.as_deref()) => body,
            Ok(Ok(_) | Err(http::HttpError::NotHttp | http::HttpError::TooLong)) => return Ended::Plain,
            Ok(Err(error)) => return Ended::Lost(error.to_string()),
            // It took the connection and the request, and never pushed before: nothing here speaks of routes.
            Err(_) if !*pushed_before => return Ended::Plain,
            Err(_) => return Ended::Lost(format!("no answer within {ANSWER:?}")),
        };
        self.read_lines(stream, buffer, requested, events, pushed_before).await
    }

    async fn read_lines(
        &self,
        mut stream: TcpStream,
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

fn is_json(content_type: Option<&str>) -> bool {
    content_type.is_some_and(|kind| kind.ends_with("json"))
}
