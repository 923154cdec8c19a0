//! The forms of an answer: text, JSON, a bare status, and the small HTML page of an error that Patroni's tools know.

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use hyper::ext::ReasonPhrase;
use serde::Serialize;

use super::json;

pub fn text(status: StatusCode, body: impl Into<String>) -> Response {
    with_type(status, "text/html", body.into())
}

pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    with_type(status, "application/json", json::spaced(body))
}

/// For Prometheus.
pub fn plain(body: String) -> Response {
    with_type(StatusCode::OK, "text/plain", body)
}

/// Only the status line; load balancers read nothing more.
pub fn bare(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An error with what went wrong, and a hint where the status alone would leave the caller guessing.
pub fn error(status: StatusCode, message: &str) -> Response {
    let code = status.as_u16();
    let explanation = match code {
        400 => "Bad request syntax or unsupported method",
        409 => "Request conflict",
        411 => "Client must specify Content-Length",
        413 => "Entity is too large",
        501 => "Server does not support this operation",
        502 => "Invalid responses from another server/proxy",
        503 => "The server cannot process the request due to a high load",
        _ => status.canonical_reason().unwrap_or("Error"),
    };
    let message = escaped(message);
    let page = format!(
        "<!DOCTYPE HTML>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Error response</title></head>\n\
         <body>\n<h1>Error response</h1>\n<p>Error code: {code}</p>\n<p>Message: {message}.</p>\n\
         <p>Error code explanation: {code} - {explanation}.</p>\n</body>\n</html>\n"
    );
    let mut response = with_type(status, "text/html;charset=utf-8", page);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// An error with only its name for a message.
pub fn plain_error(status: StatusCode) -> Response {
    error(status, status.canonical_reason().unwrap_or("Error"))
}

/// A method that nothing here answers; tools recognise it by its body and try an older call.
pub fn unsupported(method: &str) -> Response {
    let message = format!("Unsupported method ('{method}')");
    let mut response = error(StatusCode::NOT_IMPLEMENTED, &message);
    if let Ok(reason) = ReasonPhrase::try_from(message.into_bytes()) {
        response.extensions_mut().insert(reason);
    }
    response
}

/// The message may repeat what the caller sent.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
