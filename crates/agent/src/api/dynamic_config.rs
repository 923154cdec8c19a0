//! `/config`: the dynamic configuration in the store, read fresh, changed by compare-and-set.

use axum::http::StatusCode;
use axum::response::Response;
use pgherd_dcs::layout::compact;
use pgherd_dcs::{Expect, Key, Written};
use serde_json::{Map, Value};

use super::command::Command;
use super::{ApiState, reply};
use crate::config;

/// A store that cannot be reached answers with what the daemon last saw.
pub async fn get(api: &ApiState) -> Response {
    match api.view().await.and_then(|view| view.config.clone()) {
        Some(config) => reply::json(StatusCode::OK, &config.value),
        None => reply::plain_error(StatusCode::BAD_GATEWAY),
    }
}

pub async fn patch(api: &ApiState, change: &Map<String, Value>) -> Response {
    let view = match api.store.load().await {
        Ok(view) => view,
        Err(error) => return reply::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    let Some(current) = view.config else { return reply::plain_error(StatusCode::SERVICE_UNAVAILABLE) };
    let mut config = current.value;
    if config::patch(&mut config, change) {
        let value = compact(&Value::Object(config.clone()));
        match api.store.write(Key::Config, &value, Expect::Version(current.version)).await {
            Ok(Written::Done { .. }) => {}
            Ok(Written::Conflict) => return reply::plain_error(StatusCode::CONFLICT),
            Err(error) => return reply::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        }
    }
    api.tell(Command::Wake);
    reply::json(StatusCode::OK, &config)
}

/// Replaces the whole, unless it is the same already.
pub async fn put(api: &ApiState, config: &Map<String, Value>) -> Response {
    let current = match api.store.load().await {
        Ok(view) => view.config,
        Err(error) => return reply::error(StatusCode::BAD_GATEWAY, &error.to_string()),
    };
    if current.is_none_or(|current| current.value != *config) {
        let value = compact(&Value::Object(config.clone()));
        if let Err(error) = api.store.write(Key::Config, &value, Expect::Any).await {
            return reply::error(StatusCode::BAD_GATEWAY, &error.to_string());
        }
        api.tell(Command::Wake);
    }
    reply::json(StatusCode::OK, config)
}
