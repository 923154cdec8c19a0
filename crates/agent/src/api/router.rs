//! From a request to its answer: the method and the first segment of the path decide, what follows is ignored.
//!
//! Whatever is read with an unknown path is a health check; whatever would change something under an unknown path is
//! not supported. Tested in `router_tests` without a network, in `server_tests` over sockets.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, SERVER};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use pgherd_dcs::boot_now;
use pgherd_ha::HistoryLine;
use serde_json::{Map, Value, json};

use super::access::Client;
use super::body::Presence;
use super::command::Command;
use super::health::{Facts, health, is_true, liveness, readiness};
use super::query::Query;
use super::switchover::Action;
use super::{
    ApiState, body, cluster, dynamic_config, failsafe, metrics, reply, restart, route_stream, status, switchover,
};

pub fn router(state: ApiState) -> Router {
    Router::new().fallback(answer).with_state(state)
}

/// The path, whatever number of slashes it begins with.
fn path(parts: &Parts) -> &str {
    let path = parts.uri.path();
    let slashes = path.len() - path.trim_start_matches('/').len();
    &path[slashes.saturating_sub(1)..]
}

async fn answer(State(api): State<ApiState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut response = match parts.method {
        Method::GET => read(&api, &parts).await,
        Method::HEAD | Method::OPTIONS => reply::bare(health_of(&api, &parts)),
        _ => match Order::of(parts.method.as_str(), first_segment(parts.uri.path())) {
            Some(order) => carry_out(&api, order, &parts, body).await,
            None => reply::unsupported(parts.method.as_str()),
        },
    };
    if response.headers().contains_key(CONTENT_TYPE) {
        let settings = api.settings.load();
        let headers = response.headers_mut();
        headers.insert(SERVER, settings.server());
        headers.extend(settings.extra_headers.iter().cloned());
    }
    response
}

fn first_segment(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}

async fn read(api: &ApiState, parts: &Parts) -> Response {
    let now = boot_now();
    let snapshot = api.snapshot.load_full();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    match first_segment(parts.uri.path()) {
        "patroni" => {
            let seen = api.observed().await;
            reply::json(StatusCode::OK, &status::status(&seen, boot_now()))
        }
        "metrics" => reply::plain(metrics::metrics(&snapshot, now)),
        "liveness" => reply::bare(liveness(&snapshot, now)),
        "readiness" => reply::bare(readiness(&query, &Facts::of(&snapshot, &api.permit.load(), now))),
        "cluster" => match api.store.load().await {
            Ok(view) => reply::json(StatusCode::OK, &cluster::cluster(&view, &snapshot.scope)),
            Err(error) => reply::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        },
        "history" => {
            let lines = api.view().await.map(|view| view.history.iter().map(history_line).collect());
            reply::json(StatusCode::OK, &lines.unwrap_or(Value::Array(Vec::new())))
        }
        "config" => dynamic_config::get(api).await,
        // As the store last showed it: who is asked without a store is what one wants to know then.
        "failsafe" if snapshot.failsafe_members.is_empty() => reply::plain_error(StatusCode::BAD_GATEWAY),
        "failsafe" => reply::json(StatusCode::OK, &snapshot.failsafe_members),
        "pgherd" if path(parts) == "/pgherd/route" => route_stream::stream_route(api, now),
        _ => reply::json(health_of(api, parts), &status::status(&snapshot, now)),
    }
}

fn health_of(api: &ApiState, parts: &Parts) -> StatusCode {
    let snapshot = api.snapshot.load();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    health(path(parts), &query, &Facts::of(&snapshot, &api.permit.load(), boot_now()))
}

/// A line of the history as it is in the store: three, four or five elements.
fn history_line(line: &HistoryLine) -> Value {
    let mut elements = vec![json!(line.timeline), json!(line.switch_lsn), json!(line.reason)];
    elements.extend(line.timestamp.iter().chain(&line.new_leader).map(|text| json!(text)));
    Value::Array(elements)
}

/// The calls that change something, and so need permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    PatchConfig,
    PutConfig,
    Reload,
    Restart,
    DeleteRestart,
    Reinitialize,
    Switchover,
    Failover,
    DeleteSwitchover,
    Failsafe,
    Sigterm,
}

impl Order {
    fn of(method: &str, segment: &str) -> Option<Order> {
        let order = match (method, segment) {
            ("PATCH", "config") => Order::PatchConfig,
            ("PUT", "config") => Order::PutConfig,
            ("POST", "reload") => Order::Reload,
            ("POST", "restart") => Order::Restart,
            ("DELETE", "restart") => Order::DeleteRestart,
            ("POST", "reinitialize") => Order::Reinitialize,
            ("POST", "switchover") => Order::Switchover,
            ("POST", "failover") => Order::Failover,
            ("DELETE", "switchover") => Order::DeleteSwitchover,
            ("POST", "failsafe") => Order::Failsafe,
            ("POST", "sigterm") => Order::Sigterm,
            _ => return None,
        };
        Some(order)
    }

    /// Whether the call carries an object; `None`: what it carries is not read.
    fn body(self) -> Option<Presence> {
        match self {
            Order::PatchConfig | Order::PutConfig | Order::Switchover | Order::Failover | Order::Failsafe => {
                Some(Presence::Required)
            }
            Order::Restart | Order::Reinitialize => Some(Presence::Optional),
            _ => None,
        }
    }
}

async fn carry_out(api: &ApiState, order: Order, parts: &Parts, body: Body) -> Response {
    // Put there by the server.
    let client = parts.extensions.get::<Client>().copied();
    let view = api.snapshot.load().view.as_ref().map(|view| view.view.clone());
    let access = &api.settings.load_full().access;
    if let Err(refused) = access.check(client, &parts.headers, order != Order::Failsafe, view.as_deref()).await {
        return refused;
    }
    if order == Order::Failsafe && !api.snapshot.load().dynamic.failsafe_mode {
        return reply::plain_error(StatusCode::BAD_GATEWAY);
    }
    let object = match order.body() {
        None => Map::new(),
        Some(presence) => match body::object(&parts.headers, body, presence).await {
            Ok(object) => object,
            Err(refused) => return refused,
        },
    };
    match order {
        Order::PatchConfig => dynamic_config::patch(api, &object).await,
        Order::PutConfig => dynamic_config::put(api, &object).await,
        Order::Restart => restart::restart(api, &object).await,
        Order::DeleteRestart => restart::delete_restart(api).await,
        Order::Reinitialize => reinitialize(api, &object).await,
        Order::Switchover => switchover::request(api, Action::Switchover, &object).await,
        Order::Failover => switchover::request(api, Action::Failover, &object).await,
        Order::DeleteSwitchover => switchover::delete(api).await,
        Order::Failsafe => failsafe::answer(api, &object).await,
        Order::Reload => {
            api.tell(Command::Reload);
            reply::text(StatusCode::ACCEPTED, "reload scheduled")
        }
        // Only Patroni's own tests on Windows act on it.
        Order::Sigterm => reply::text(StatusCode::ACCEPTED, "shutdown scheduled"),
    }
}

async fn reinitialize(api: &ApiState, object: &Map<String, Value>) -> Response {
    let force = object.get("force").is_some_and(is_true);
    let from_leader = object.get("from_leader").is_some_and(is_true);
    match api.ask(|reply| Command::Reinitialize { force, from_leader, reply }).await {
        Ok(Ok(())) => reply::text(StatusCode::OK, "reinitialize started"),
        Ok(Err(reason)) => reply::text(StatusCode::SERVICE_UNAVAILABLE, reason.to_string()),
        Err(refused) => refused,
    }
}
