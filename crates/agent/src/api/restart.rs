//! `POST /restart` and `DELETE /restart`: reading the filters, and the answers.
//!
//! Not here: the restart itself (the daemon).

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use pgherd_ha::{Role, Wall};
use serde_json::{Map, Value};

use super::command::{Command, PostgresVersion, RestartFilter, RestartOutcome, ScheduledRestart, VersionError};
use super::query::parse_seconds;
use super::schedule::{self, ScheduleError};
use super::{ApiState, reply};

/// A request that cannot be carried out; the texts are the interface.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestartError {
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error("PostgreSQL role should be either primary, standby_leader, or replica")]
    Role,
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error("Timeout should be a positive number of seconds")]
    Timeout,
    #[error("Unknown filter for the scheduled restart: {0}")]
    UnknownFilter(String),
}

impl RestartError {
    fn status(&self) -> StatusCode {
        match self {
            RestartError::Schedule(error) => error.status(),
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

pub async fn restart(api: &ApiState, request: &Map<String, Value>) -> Response {
    if request.contains_key("schedule") && api.snapshot.load().paused {
        return reply::text(StatusCode::INTERNAL_SERVER_ERROR, "Can't schedule restart in the paused state");
    }
    match parse(request, Wall::now()) {
        Err(error) => reply::text(error.status(), error.to_string()),
        Ok((Some(at), filter)) => schedule_restart(api, ScheduledRestart { at, filter }).await,
        Ok((None, filter)) => restart_now(api, filter).await,
    }
}

pub async fn delete_restart(api: &ApiState) -> Response {
    match api.ask(|reply| Command::DeleteScheduledRestart { reply }).await {
        Ok(true) => reply::text(StatusCode::OK, "scheduled restart deleted"),
        Ok(false) => reply::text(StatusCode::NOT_FOUND, "no restarts are scheduled"),
        Err(refused) => refused,
    }
}

async fn restart_now(api: &ApiState, filter: RestartFilter) -> Response {
    match api.ask(|reply| Command::Restart { filter, reply }).await {
        Ok(outcome @ RestartOutcome::Done) => reply::text(StatusCode::OK, outcome.to_string()),
        Ok(outcome) => reply::text(StatusCode::SERVICE_UNAVAILABLE, outcome.to_string()),
        Err(refused) => refused,
    }
}

async fn schedule_restart(api: &ApiState, restart: ScheduledRestart) -> Response {
    match api.ask(|reply| Command::ScheduleRestart { restart, reply }).await {
        Ok(true) => reply::text(StatusCode::ACCEPTED, "Restart scheduled"),
        Ok(false) => reply::text(StatusCode::CONFLICT, "Another restart is already scheduled"),
        Err(refused) => refused,
    }
}

/// The first wrong field, in the order of the request, is the one that is reported.
pub(super) fn parse(request: &Map<String, Value>, now: Wall) -> Result<(Option<Wall>, RestartFilter), RestartError> {
    let mut filter = RestartFilter::default();
    let mut at = None;
    for (key, value) in request {
        match key.as_str() {
            "schedule" => {
                let text = value.as_str().ok_or(ScheduleError::Unreadable)?;
                at = Some(schedule::parse(text, "restart", now)?);
            }
            "role" => filter.role = Some(role(value)?),
            "postgres_version" => filter.postgres_version = Some(version(value)?),
            "timeout" => filter.timeout = Some(timeout(value)?),
            "restart_pending" => filter.restart_pending = true,
            "unordered" => filter.unordered = true,
            _ => return Err(RestartError::UnknownFilter(key.clone())),
        }
    }
    Ok((at, filter))
}

fn role(value: &Value) -> Result<Role, RestartError> {
    match value.as_str() {
        Some("primary") => Ok(Role::Primary),
        Some("standby_leader") => Ok(Role::StandbyLeader),
        Some("replica") => Ok(Role::Replica),
        _ => Err(RestartError::Role),
    }
}

fn timeout(value: &Value) -> Result<Duration, RestartError> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let seconds = parse_seconds(&text).and_then(|seconds| u64::try_from(seconds).ok());
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or(RestartError::Timeout)
}

fn version(value: &Value) -> Result<PostgresVersion, VersionError> {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned).parse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn filters_are_read_and_the_first_wrong_one_is_named() {
        let now: Wall = "2026-11-23T08:00:00Z".parse().expect("a moment");
        let good = [
            ("{}", "None None None false None"),
            (r#"{"role": "replica", "timeout": 5, "restart_pending": false}"#, "None Some(Replica) None true Some(5s)"),
            (r#"{"schedule": "2026-11-23T09:00:00Z"}"#, "Some(2026-11-23T09:00:00Z) None None false None"),
            (r#"{"postgres_version": "15.2", "timeout": "1min"}"#, "None None Some(150002) false Some(60s)"),
            (r#"{"postgres_version": "9.6.24"}"#, "None None Some(90624) false None"),
        ];
        for (request, expected) in good {
            let (at, filter) = parse(&serde_json::from_str(request).expect("an object"), now).expect(request);
            let version = filter.postgres_version.map(|version| version.number);
            let seen = format!("{at:?} {:?} {version:?} {} {:?}", filter.role, filter.restart_pending, filter.timeout);
            assert_eq!(seen, expected, "{request}");
        }
        let bad = [
            (
                r#"{"schedule": "2026-11-23T09:00:00"}"#,
                400,
                "Timezone information is mandatory for the scheduled restart",
            ),
            (r#"{"schedule": "2026-11-23T07:00:00Z"}"#, 422, "Cannot schedule restart in the past"),
            (
                r#"{"schedule": null}"#,
                422,
                "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
            ),
            (r#"{"role": "master"}"#, 400, "PostgreSQL role should be either primary, standby_leader, or replica"),
            (r#"{"postgres_version": "9.6"}"#, 400, "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 9.6"),
            (r#"{"postgres_version": "15.x"}"#, 400, "Invalid PostgreSQL version: 15.x"),
            (r#"{"timeout": 0}"#, 400, "Timeout should be a positive number of seconds"),
            (r#"{"timeout": "x", "role": "x"}"#, 400, "Timeout should be a positive number of seconds"),
            (r#"{"when": 1}"#, 400, "Unknown filter for the scheduled restart: when"),
        ];
        for (request, status, text) in bad {
            let error = parse(&serde_json::from_str(request).expect("an object"), now).expect_err(request);
            assert_eq!((error.status().as_u16(), error.to_string().as_str()), (status, text), "{request}");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(text in ".*|[0-9]{0,12}[.][0-9]{0,12}", number: f64) {
            for value in [Value::from(text), Value::from(number)] {
                let _ = (role(&value), timeout(&value), version(&value));
            }
        }
    }
}
