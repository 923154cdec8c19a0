//! `POST /failsafe`, both ends: a primary that has lost the store asks the other members whether it may go on.
//!
//! The words are Patroni's, so members of either kind agree with each other. What to answer is the loop's to say
//! (`pgherd_ha`), between two decisions. Tested below over sockets.

use std::time::Duration;

use axum::http::header::HeaderName;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use pgherd_ha::{FailsafeAnswer, FailsafeAsk};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::peer::root_cause;
use super::snapshot::WalPosition;
use super::{ApiState, PeerClient, reply};

/// The answer that agrees, to the letter.
const ACCEPTED: &str = "Accepted";

/// An honest answer is one word, or the page of an error.
const LARGEST_ANSWER: usize = 16 << 10;

/// Who asks gives up after 2 s at most; an answer that is later binds this member for nothing.
const ANSWER: Duration = Duration::from_secs(2);

/// How many questions may wait for the loop. One primary asks once a second; more than a few waiting means that the loop hangs, and then
/// no answer is the right one.
pub const FAILSAFE_QUEUE: usize = 4;

/// A question for the loop.
#[derive(Debug)]
pub struct FailsafeQuestion {
    pub ask: FailsafeAsk,
    pub reply: oneshot::Sender<FailsafeAnswer>,
}

/// What the primary tells of itself.
#[derive(Clone, Debug)]
pub struct FailsafeRequest {
    pub name: String,
    pub conn_url: String,
    pub api_url: String,
    /// The positions of its replication slots, which a Patroni keeps its own slots up to date with.
    pub slots: Map<String, Value>,
    /// How long whoever agrees is to be bound. A Patroni does not read it and takes its own `ttl`.
    pub ttl: Duration,
}

impl FailsafeRequest {
    fn body(&self) -> Value {
        let mut body = Map::new();
        for (key, text) in [("name", &self.name), ("conn_url", &self.conn_url), ("api_url", &self.api_url)] {
            body.insert(key.into(), text.as_str().into());
        }
        body.insert("slots".into(), Value::Object(self.slots.clone()));
        body.insert("ttl".into(), self.ttl.as_secs_f64().into());
        Value::Object(body)
    }
}

pub(super) async fn answer(api: &ApiState, object: &Map<String, Value>) -> Response {
    let Some(ask) = read(object) else {
        return reply::text(
            StatusCode::BAD_REQUEST,
            "expected {\"name\": the primary's, \"ttl\": seconds, or nothing of that}",
        );
    };
    let (sender, receiver) = oneshot::channel();
    let busy = || reply::text(StatusCode::SERVICE_UNAVAILABLE, "This member's agent is busy");
    if api.failsafe.try_send(FailsafeQuestion { ask, reply: sender }).is_err() {
        return busy();
    }
    match tokio::time::timeout(ANSWER, receiver).await {
        Ok(Ok(FailsafeAnswer::Accepted)) => accepted(api),
        Ok(Ok(FailsafeAnswer::Off)) => reply::plain_error(StatusCode::BAD_GATEWAY),
        Ok(Ok(FailsafeAnswer::Leads)) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, "Running as a leader"),
        Ok(Ok(FailsafeAnswer::Other(name))) => {
            reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("Following another leader: {name}"))
        }
        Ok(Ok(FailsafeAnswer::Nonsense)) => {
            reply::text(StatusCode::BAD_REQUEST, "Nobody agrees to itself, or for more than ten minutes")
        }
        Ok(Err(_)) | Err(_) => busy(),
    }
}

/// With the last position that this member knows of.
fn accepted(api: &ApiState) -> Response {
    let mut response = reply::text(StatusCode::OK, ACCEPTED);
    let lsn = match api.snapshot.load().observation.as_ref().map(|seen| seen.wal) {
        Some(WalPosition::Standby { received, replayed, .. }) => received.max(replayed).0,
        Some(WalPosition::Primary { flushed }) => flushed.0,
        None => return response,
    };
    response.headers_mut().insert(HeaderName::from_static("lsn"), HeaderValue::from(lsn));
    response
}

/// `None`: this is no question.
pub(super) fn read(object: &Map<String, Value>) -> Option<FailsafeAsk> {
    let from = object.get("name")?.as_str()?.to_owned();
    let ttl = match object.get("ttl") {
        None | Some(Value::Null) => None,
        Some(seconds) => Some(Duration::try_from_secs_f64(seconds.as_f64()?).ok()?),
    };
    // What is no position is none; the question counts all the same.
    let slots = object.get("slots").and_then(Value::as_object).into_iter().flatten();
    let slots = slots.filter_map(|(name, position)| Some((name.clone(), position.as_u64()?))).collect();
    Some(FailsafeAsk { from, ttl, slots })
}

impl PeerClient {
    /// Asks the member with this `api_url`; why it does not agree, if it does not within `patience`.
    pub async fn ask_failsafe(
        &self,
        api_url: &str,
        request: &FailsafeRequest,
        patience: Duration,
    ) -> Result<(), String> {
        let asked = tokio::time::timeout(patience, self.post_failsafe(api_url, request)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {} ms", patience.as_millis())))
    }

    async fn post_failsafe(&self, api_url: &str, request: &FailsafeRequest) -> Result<(), String> {
        let mut url = reqwest::Url::parse(api_url).map_err(|error| format!("its api_url {api_url:?}: {error}"))?;
        url.set_path("/failsafe");
        url.set_query(None);
        let body = serde_json::to_vec(&request.body()).map_err(|error| error.to_string())?;
        let call = self.http().post(url).header(CONTENT_TYPE, "application/json").body(body);
        let mut response = call.send().await.map_err(|error| root_cause(&error))?;
        let status = response.status();
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
            if answer.len() + chunk.len() > LARGEST_ANSWER {
                return Err(format!("{status}, with an answer larger than {LARGEST_ANSWER} bytes"));
            }
            answer.extend_from_slice(&chunk);
        }
        match (status, answer.as_slice()) {
            (StatusCode::OK, text) if text == ACCEPTED.as_bytes() => Ok(()),
            (StatusCode::BAD_GATEWAY, _) => Err("failsafe_mode is off there".into()),
            // The beginning says enough; what follows may be a page.
            (_, text) => Err(format!("{status}: {}", String::from_utf8_lossy(&text[..text.len().min(100)]).trim())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pgherd_dcs::boot_now;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::fixture::{Fixture, observation, peer_client, standby, view};
    use super::super::{BasicAuth, serve};
    use super::*;

    fn request() -> FailsafeRequest {
        FailsafeRequest {
            name: "n2".into(),
            conn_url: "postgres://n2:5432/postgres".into(),
            api_url: "http://n2:8008/patroni".into(),
            slots: Map::from_iter([("n1".to_owned(), json!(7))]),
            ttl: Duration::from_millis(8_500),
        }
    }

    fn client() -> PeerClient {
        peer_client(Some(&BasicAuth::new("a", "b")))
    }

    /// A member in the mode, whose loop answers each question with the next of `answers`.
    fn member(answers: Vec<FailsafeAnswer>) -> (Fixture, tokio::task::JoinHandle<Vec<FailsafeAsk>>) {
        let mut fixture = Fixture::new(view());
        fixture.change(|snapshot| {
            snapshot.dynamic.failsafe_mode = true;
            snapshot.observation = Some(observation(boot_now(), standby(8)));
        });
        let (_, closed) = tokio::sync::mpsc::channel(1);
        let mut questions = std::mem::replace(&mut fixture.questions, closed);
        let looping = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let Some(question) = questions.recv().await else { break };
                asked.push(question.ask);
                question.reply.send(answer).expect("somebody waits for it");
            }
            asked
        });
        (fixture, looping)
    }

    #[tokio::test]
    async fn the_answers_are_patronis() {
        use FailsafeAnswer::{Accepted, Leads, Nonsense, Off, Other};
        let answers = vec![Accepted, Off, Leads, Other("n3".into()), Nonsense];
        let (fixture, looping) = member(answers);
        let body = r#"{"name": "n2", "conn_url": "postgres://n2:5432/postgres", "api_url": "http://n2:8008/patroni"}"#;
        for (status, text) in
            [(200, "Accepted"), (502, "Bad Gateway"), (500, "Running as a leader"), (500, "n3"), (400, "Nobody")]
        {
            let (seen, headers, answer) = fixture.call("POST", "/failsafe", body).await;
            assert!(seen.as_u16() == status && answer.contains(text), "{seen} {answer}");
            let lsn = headers.get("lsn").map(|lsn| lsn.to_str().expect("digits").to_owned());
            assert_eq!(lsn, (status == 200).then(|| (view().status.optime.0 - 8).to_string()));
        }
        assert_eq!(fixture.call("POST", "/failsafe", body).await.0.as_u16(), 503, "the loop is gone");
        let asked = looping.await.expect("no panic");
        assert!(
            asked.iter().all(|ask| *ask == FailsafeAsk { from: "n2".into(), ttl: None, slots: BTreeMap::new() }),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn what_is_no_question_is_refused_before_the_loop_hears_of_it() {
        let (fixture, _looping) = member(Vec::new());
        for (body, status) in [
            (r#"{"conn_url": "x"}"#, 400),
            (r#"{"name": 5}"#, 400),
            (r#"{"name": "n2", "ttl": -1}"#, 400),
            (r#"{"name": "n2", "ttl": 1e300}"#, 400),
            (r#"{"name": "n2", "ttl": "8"}"#, 400),
            ("[]", 400),
            ("", 411),
        ] {
            assert_eq!(fixture.call("POST", "/failsafe", body).await.0.as_u16(), status, "{body}");
        }
        fixture.change(|snapshot| snapshot.dynamic.failsafe_mode = false);
        assert_eq!(fixture.call("POST", "/failsafe", "").await.0.as_u16(), 502, "the mode is off");
    }

    #[tokio::test]
    async fn one_member_asks_another() {
        let (fixture, looping) = member(vec![FailsafeAnswer::Accepted, FailsafeAnswer::Leads]);
        let server = serve(&["127.0.0.1:0".parse().expect("an address")], fixture.api.clone());
        let mut server = server.expect("a port is free");
        let url = format!("http://{}/patroni", server.addresses()[0]);
        assert_eq!(client().ask_failsafe(&url, &request(), ANSWER).await, Ok(()));
        let refused = client().ask_failsafe(&url, &request(), ANSWER).await.expect_err("it leads");
        assert!(refused.contains("500") && refused.contains("Running as a leader"), "{refused}");
        let asked = looping.await.expect("no panic");
        let slots = BTreeMap::from([("n1".to_owned(), 7)]);
        assert_eq!(asked[0], FailsafeAsk { from: "n2".into(), ttl: Some(Duration::from_millis(8_500)), slots });
        server.stop().await;
    }

    #[tokio::test]
    async fn only_the_very_word_agrees() {
        for (answer, why) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nAccepted", ""),
            ("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\naccepted", "200 OK: accepted"),
            ("HTTP/1.1 202 Accepted\r\ncontent-length: 8\r\n\r\nAccepted", "202"),
            ("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "failsafe_mode is off"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nAccepted", "end"),
            ("nonsense", "HTTP"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}/patroni?x", listener.local_addr().expect("its address"));
            let peer = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut heard = vec![0; 4_096];
                let mut length = 0;
                while !String::from_utf8_lossy(&heard[..length]).contains("\"ttl\":8.5}") {
                    length += stream.read(&mut heard[length..]).await.expect("a request");
                }
                stream.write_all(answer.as_bytes()).await.expect("the client listens");
                String::from_utf8_lossy(&heard[..length]).into_owned()
            });
            let agreed = client().ask_failsafe(&url, &request(), ANSWER).await;
            match agreed {
                Ok(()) => assert!(why.is_empty(), "{answer} was taken for an agreement"),
                Err(reason) => assert!(!why.is_empty() && reason.contains(why), "{answer}: {reason}"),
            }
            let heard = peer.await.expect("no panic");
            assert!(
                heard.starts_with("POST /failsafe HTTP/1.1\r\n") && heard.contains("authorization: Basic"),
                "{heard}"
            );
            let body = r#"{"name":"n2","conn_url":"postgres://n2:5432/postgres","api_url":"http://n2:8008/patroni","slots":{"n1":7},"ttl":8.5}"#;
            assert!(heard.ends_with(body), "{heard}");
        }
        let nobody = client().ask_failsafe("no url", &request(), ANSWER).await.expect_err("no url");
        assert!(nobody.contains("api_url"), "{nobody}");
    }
}
