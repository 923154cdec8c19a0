//! Asks the agents (or the servers themselves) as HAProxy does, at HAProxy's intervals, and reports each answer.
//!
//! Not here: what the answers mean (`route::Health`).

use std::time::Duration;

use pgherd_dcs::boot_now;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::agent_link::{AgentAddress, LinkError};
use crate::config::{Check, CheckKind, HttpCheck, Timeouts, join_address};
use crate::control::Event;
use crate::http::{self, HttpError};
use crate::net::DialError;
use crate::route::Health;

/// The answer of one check, in HAProxy's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    pub passed: bool,
    /// `L7OK`, `L7STS`, `L7TOUT`, `L7RSP`, `L6OK`, `L6RSP`, `L6TOUT`, `L4OK`, `L4CON`, `L4TOUT`
    pub code: &'static str,
    pub status: Option<u16>,
    pub took: Duration,
}

/// A server to check for ever: where it stands in the configuration, and how.
#[derive(Debug)]
pub struct Checker {
    pub listener: usize,
    pub server: usize,
    pub check: Check,
    pub agent: AgentAddress,
    pub kind: CheckKind,
    pub timeouts: Timeouts,
}

impl Checker {
    /// Ends when nobody listens to the reports.
    pub async fn run(self, events: mpsc::Sender<Event>) {
        // The same counter as in the routes, here only for the interval.
        let mut health = Health::new(&self.check, boot_now());
        loop {
            let report = self.ask().await;
            health.on_check(report.passed, boot_now());
            let interval = health.interval(&self.check);
            let event = Event::Checked { listener: self.listener, server: self.server, report };
            if events.send(event).await.is_err() {
                return;
            }
            sleep(interval).await;
        }
    }

    async fn ask(&self) -> CheckReport {
        let started = Instant::now();
        let (passed, code, status) = self.answer().await;
        CheckReport { passed, code, status, took: started.elapsed() }
    }

    async fn answer(&self) -> (bool, &'static str, Option<u16>) {
        // As HAProxy: to connect within `timeout connect` and the interval, to answer within `timeout check`.
        let connect = self.timeouts.connect().min(self.check.inter);
        let mut stream = match self.agent.connect(connect).await {
            Ok(stream) => stream,
            Err(LinkError::Dial(DialError::Timeout(_))) => return (false, "L4TOUT", None),
            Err(LinkError::Dial(_)) => return (false, "L4CON", None),
            Err(LinkError::TlsTimeout(_)) => return (false, "L6TOUT", None),
            Err(LinkError::Tls(_)) => return (false, "L6RSP", None),
        };
        let CheckKind::Http(http) = &self.kind else {
            return (true, if self.agent.tls.is_some() { "L6OK" } else { "L4OK" }, None);
        };
        let request = request(http, &join_address(&self.check.host, self.check.port));
        let limit = self.timeouts.check.unwrap_or(self.check.inter);
        match timeout(limit, http::ask(&mut *stream, &request)).await {
            Ok(Ok((head, _))) => {
                let passed = http.expect.passes(head.status);
                (passed, if passed { "L7OK" } else { "L7STS" }, Some(head.status))
            }
            Ok(Err(HttpError::NotHttp | HttpError::TooLong | HttpError::Broken(_))) => (false, "L7RSP", None),
            Err(_) => (false, "L7TOUT", None),
        }
    }
}

fn request(check: &HttpCheck, host: &str) -> String {
    let mut request = format!("{} {} {}\r\nConnection: close\r\n", check.method, check.uri, check.version);
    let told = |header: &str| check.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header));
    // Older files put headers into the version: `HTTP/1.1\r\nHost:\ name`.
    if !told("host") && check.version.starts_with("HTTP/1.1") && !check.version.contains('\n') {
        request.push_str(&format!("Host: {host}\r\n"));
    }
    for (name, value) in &check.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request + "\r\n"
}
