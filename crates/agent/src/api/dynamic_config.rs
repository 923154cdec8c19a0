//! `/config`: the dynamic configuration in the store, read fresh, changed by compare-and-set.

use axum::http::StatusCode;
use axum::response::Response;
use pgherd_dcs::layout::{compact, same_value};
use pgherd_dcs::{Expect, Key, Written};
use serde_json::{Map, Value};

use super::command::Command;
use super::{ApiState, reply};

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
    if merge(&mut config, change) {
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

/// `null` deletes, objects merge, and what reads the same as text is left as it is. Whether anything changed.
fn merge(config: &mut Map<String, Value>, change: &Map<String, Value>) -> bool {
    let mut changed = false;
    for (key, new) in change {
        match (config.get_mut(key), new) {
            (Some(_), Value::Null) => changed |= config.shift_remove(key).is_some(),
            (None, Value::Null) => {}
            (Some(Value::Object(old)), Value::Object(new)) => changed |= merge(old, new),
            (Some(old), new) if same_value(old, new) => {}
            (_, new) => {
                config.insert(key.clone(), new.clone());
                changed = true;
            }
        }
    }
    changed
}
