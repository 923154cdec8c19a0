//! Reading the JSON object that a call carries, with every way in which it can be wrong.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value};

use super::reply;

/// ZooKeeper keeps values up to 1 MiB: a larger configuration could not be stored anyway.
const LARGEST: usize = 1 << 20;
/// A body is sent in one piece by every tool; one that trickles in for longer holds a connection for nothing.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Required,
    Optional,
}

/// The object, or the answer that refuses it. An optional body may be missing or empty.
pub async fn object(headers: &HeaderMap, body: Body, presence: Presence) -> Result<Map<String, Value>, Response> {
    let optional = presence == Presence::Optional;
    if !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
        return if optional { Ok(Map::new()) } else { Err(reply::plain_error(StatusCode::LENGTH_REQUIRED)) };
    }
    let bytes = match tokio::time::timeout(PATIENCE, to_bytes(body, LARGEST)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return Err(reply::plain_error(StatusCode::PAYLOAD_TOO_LARGE)),
        Err(_) => return Err(reply::plain_error(StatusCode::REQUEST_TIMEOUT)),
    };
    if bytes.is_empty() && optional {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) if optional || !object.is_empty() => Ok(object),
        _ => Err(reply::plain_error(StatusCode::BAD_REQUEST)),
    }
}
