//! Asking the other members: `GET api_url` of each at once, as the leader race and the checks before a switchover need.
//!
//! A member that does not answer in time, or not with what a Patroni says of its WAL, is unreachable; why is told for
//! the log. Not here: judging the answers (`pgherd_ha`). Tested in `peer_tests` against raw sockets.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::join_all;
use pgherd_ha::{Lsn, MemberState, Role, Timeline};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::{Map, Value};

use super::access::BasicAuth;
use super::health::is_true;
use super::snapshot::PATRONI_VERSION;

/// An honest answer has some kilobytes, most of them walsenders.
const LARGEST_ANSWER: usize = 256 << 10;

/// Calls to other members of the cluster. Cheap to clone; all clones share the connections, and what it is replaced by.
#[derive(Clone, Debug)]
pub struct PeerClient {
    http: Arc<ArcSwap<reqwest::Client>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the client for other members' REST API cannot be set up")]
pub struct PeerClientError(#[source] reqwest::Error);

impl From<&PeerStatus> for pgherd_ha::PeerAnswer {
    fn from(status: &PeerStatus) -> pgherd_ha::PeerAnswer {
        pgherd_ha::PeerAnswer {
            in_recovery: status.in_recovery,
            position: status.position,
            timeline: status.timeline,
            nofailover: status.nofailover(),
            failover_priority: status.failover_priority(),
            watchdog_failed: status.watchdog_failed,
            settled: status.settled,
        }
    }
}

/// What one member answered; the order is that of the question.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerAnswer {
    Status(PeerStatus),
    Unreachable { reason: String },
}

/// The part of a member's status that decisions read.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// Its name, absent from the answers of old versions.
    pub name: Option<String>,
    pub state: MemberState,
    pub role: Role,
    /// `false`: it has a position of its own to write at, or says that it is a primary.
    pub in_recovery: bool,
    /// In recovery the greater of received and replayed; otherwise 0, as nobody compares with a primary.
    pub position: Lsn,
    pub timeline: Option<Timeline>,
    pub tags: Map<String, Value>,
    pub watchdog_failed: bool,
    /// It receives nothing any more, and its position is its last word until it follows another leader. A plain Patroni does not cut its
    /// upstream: there it only streams no longer.
    pub settled: bool,
}

impl PeerAnswer {
    pub fn status(&self) -> Option<&PeerStatus> {
        match self {
            PeerAnswer::Status(status) => Some(status),
            PeerAnswer::Unreachable { .. } => None,
        }
    }
}

impl PeerStatus {
    pub fn nofailover(&self) -> bool {
        self.tags.get("nofailover").map_or(self.failover_priority() <= 0, is_true)
    }

    /// 1 unless it is tagged otherwise.
    pub fn failover_priority(&self) -> i64 {
        self.tags.get("failover_priority").and_then(Value::as_i64).unwrap_or(1)
    }

    /// Nothing that it says of itself forbids to promote it.
    pub fn may_be_promoted(&self) -> bool {
        !self.nofailover() && !self.watchdog_failed
    }

    /// Reads the body of an answer. `None`: not a status with a WAL position, so the member is not to be counted on.
    pub fn parse(body: &[u8]) -> Option<PeerStatus> {
        let Value::Object(body) = serde_json::from_slice(body).ok()? else { return None };
        let wal = body.get("wal").or_else(|| body.get("xlog"))?.as_object()?;
        let number = |key: &str| wal.get(key).and_then(Value::as_u64).unwrap_or(0);
        let text = |key: &str| body.get(key).and_then(Value::as_str);
        let role = Role::parse(text("role").unwrap_or_default());
        let in_recovery = number("location") == 0 && role != Role::Primary;
        let position = if in_recovery { number("received_location").max(number("replayed_location")) } else { 0 };
        let timeline = body.get("timeline").and_then(Value::as_u64).and_then(|timeline| timeline.try_into().ok());
        let timeline = timeline.filter(|timeline| *timeline > 0).map(Timeline);
        let name = body.get("patroni").and_then(|patroni| patroni.get("name")).and_then(Value::as_str);
        Some(PeerStatus {
            name: name.map(str::to_owned),
            state: MemberState::parse(text("state").unwrap_or_default()),
            role,
            in_recovery,
            position: Lsn(position),
            timeline,
            tags: body.get("tags").and_then(Value::as_object).cloned().unwrap_or_default(),
            watchdog_failed: body.get("watchdog_failed").is_some_and(is_true),
            settled: match body.contains_key("pgherd") {
                true => body.get("settled").is_some_and(is_true),
                false => text("replication_state") != Some("streaming"),
            },
        })
    }
}

impl PeerClient {
    /// `auth`: `ctl.authentication`, else `restapi.authentication`.
    pub fn new(
        auth: Option<&BasicAuth>,
        tls: rustls::ClientConfig,
        connect_timeout: Duration,
    ) -> Result<PeerClient, PeerClientError> {
        let headers = auth.map(|auth| HeaderMap::from_iter([(AUTHORIZATION, auth.header())])).unwrap_or_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .user_agent(format!("Patroni/{PATRONI_VERSION} pgherd/{}", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            // Members are asked when something has happened: a kept connection would as likely be dead as alive.
            .pool_max_idle_per_host(0)
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(PeerClientError)?;
        Ok(PeerClient { http: Arc::new(ArcSwap::from_pointee(http)) })
    }

    /// From the next call on all clones ask as this one does.
    pub fn replace(&self, new: &PeerClient) {
        self.http.store(new.http.load_full());
    }

    pub(super) fn http(&self) -> Arc<reqwest::Client> {
        self.http.load_full()
    }

    /// Asks all at once; returns when the last has answered or `timeout` is over.
    pub async fn poll(&self, api_urls: &[String], timeout: Duration) -> Vec<PeerAnswer> {
        join_all(api_urls.iter().map(|url| self.ask(url, timeout))).await
    }

    /// Whether anybody answers HTTP there at all.
    pub async fn answers(&self, url: &str, timeout: Duration) -> bool {
        tokio::time::timeout(timeout, self.http().get(url).send()).await.is_ok_and(|answer| answer.is_ok())
    }

    async fn ask(&self, url: &str, timeout: Duration) -> PeerAnswer {
        let answer = match tokio::time::timeout(timeout, self.get(url)).await {
            Ok(Ok(body)) => PeerStatus::parse(&body).ok_or_else(|| "its answer has no WAL position".to_owned()),
            Ok(Err(reason)) => Err(reason),
            Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
        };
        match answer {
            Ok(status) => PeerAnswer::Status(status),
            Err(reason) => PeerAnswer::Unreachable { reason: format!("GET {url}: {reason}") },
        }
    }

    /// The status code does not matter: health paths answer 503 with the same body.
    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let mut response = self.http().get(url).send().await.map_err(|error| root_cause(&error))?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(format!("its answer is larger than {LARGEST_ANSWER} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// reqwest wraps what happened several times over; the innermost says it.
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error).to_string()
}
