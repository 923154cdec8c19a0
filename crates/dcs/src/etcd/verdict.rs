//! What a server has said to a call, or what is known where it has said nothing.

use std::fmt::Write as _;

use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;

use super::wire::Refusal;
use crate::member_key::StillRacing;
use crate::operation::Failure;

/// A load of the largest cluster is some hundred kilobytes.
const LARGEST_ANSWER: usize = 16 << 20;

/// Why a call has no good answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It was not carried out, since no server was reached.
    #[error("{0}")]
    NotSent(String),
    /// It was sent, and no verdict came back.
    #[error("{0}")]
    Lost(String),
    #[error("the lease is gone")]
    NoLease,
    /// The credentials were not accepted, or the token that they gave is not good any more.
    #[error("{0}")]
    Unauthenticated(String),
    #[error("{0}")]
    Refused(String),
}

impl From<StillRacing> for CallError {
    fn from(racing: StillRacing) -> CallError {
        CallError::Lost(racing.to_string())
    }
}

impl Failure for CallError {
    fn is_lost(&self) -> bool {
        matches!(self, CallError::Lost(_))
    }

    /// Not after a verdict, unless it is on the lease (a new one is on its way).
    fn may_pass(&self) -> bool {
        matches!(self, CallError::NotSent(_) | CallError::Lost(_) | CallError::NoLease)
    }
}

impl CallError {
    /// What comes after a step that was carried out: the whole may have been.
    pub fn after_a_write(self) -> CallError {
        match self {
            CallError::NotSent(why) | CallError::Unauthenticated(why) | CallError::Refused(why) => CallError::Lost(why),
            CallError::NoLease => CallError::Lost(CallError::NoLease.to_string()),
            lost @ CallError::Lost(_) => lost,
        }
    }
}

/// What is known when no answer has come.
pub fn failed(server: &str, error: &reqwest::Error) -> CallError {
    let text = format!("{server}: {}", last_cause(error));
    if error.is_connect() || error.is_builder() { CallError::NotSent(text) } else { CallError::Lost(text) }
}

/// The last of the causes says what happened; those above it only where.
pub fn last_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// The body of a good answer, or what the server said instead.
pub async fn verdict(server: &str, mut response: Response) -> Result<Vec<u8>, CallError> {
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(server, &error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LARGEST_ANSWER {
            return Err(CallError::Refused(format!("{server}: the answer has more than {LARGEST_ANSWER} bytes")));
        }
    }
    if status == StatusCode::OK { Ok(bytes) } else { Err(refusal(server, status, &bytes)) }
}

/// The codes are gRPC's. Those of a failure inside the server or on its way to the quorum are no verdict.
fn refusal(server: &str, status: StatusCode, body: &[u8]) -> CallError {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let said = if refusal.message.is_empty() { refusal.error } else { refusal.message };
    let mut text = format!("{server}: ");
    // Writing to a text cannot fail.
    let _ = if said.is_empty() { write!(text, "HTTP status {status}") } else { write!(text, "{said}") };
    match (refusal.code, status) {
        (5, _) if said.contains("lease not found") => CallError::NoLease,
        (16, _) | (_, StatusCode::UNAUTHORIZED) => CallError::Unauthenticated(text),
        // Somebody has changed the users since our token was given.
        (3, _) if said.contains("auth store is old") || said.contains("auth token") => CallError::Unauthenticated(text),
        (3 | 5 | 6 | 7 | 8 | 9 | 11 | 12, _) => CallError::Refused(text),
        (0, StatusCode::NOT_FOUND) => {
            CallError::Refused(format!("{text}; it has no JSON gateway (--enable-grpc-gateway)"))
        }
        _ => CallError::Lost(text),
    }
}

pub fn read<A: DeserializeOwned>(server: &str, bytes: &[u8]) -> Result<A, CallError> {
    serde_json::from_slice(bytes)
        .map_err(|error| CallError::Lost(format!("{server}: its answer cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_verdict_is_taken_for_one() {
        let lost = CallError::Lost(String::new());
        let refused = CallError::Refused(String::new());
        let unauthenticated = CallError::Unauthenticated(String::new());
        for (status, body, expected) in [
            (503, r#"{"error":"etcdserver: request timed out","code":14}"#, &lost),
            (503, r#"{"error":"etcdserver: no leader","code":14}"#, &lost),
            (504, r#"{"message":"context deadline exceeded","code":4}"#, &lost),
            (500, r#"{"message":"x","code":13}"#, &lost),
            (502, "<html>", &lost),
            (400, r#"{"message":"etcdserver: request is too large","code":3}"#, &refused),
            (404, r#"{"message":"etcdserver: requested lease not found","code":5}"#, &CallError::NoLease),
            (404, "Not Found", &refused),
            (403, r#"{"message":"etcdserver: permission denied","code":7}"#, &refused),
            (401, r#"{"message":"etcdserver: invalid auth token","code":16}"#, &unauthenticated),
            (400, r#"{"message":"etcdserver: revision of auth store is old","code":3}"#, &unauthenticated),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let found = refusal("s", status, body.as_bytes());
            assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(expected), "{body}: {found:?}");
        }
    }
}
