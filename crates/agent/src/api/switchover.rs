//! `POST /switchover`, `POST /failover`, `DELETE /switchover`: an operator's request to move the leader.
//!
//! The request is checked, written to the `failover` key, and followed until the store shows how it ended. Not here:
//! carrying it out (`pgherd_ha` decides at the leader and at the candidate). The checks and their order are the
//! interface.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use pgherd_dcs::layout::encode_failover;
use pgherd_dcs::{Expect, Key, Outcome, Written};
use pgherd_ha::{FailoverKey, View, Wall};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::cluster::{is_quorum_mode, is_synchronous_mode};
use super::command::Command;
use super::schedule::{self, ScheduleError};
use super::snapshot::names;
use super::{ApiState, reply};

/// How long a candidate may take to answer before it counts as none.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a change of the store is waited for before it is read all the same: a watch is a hint, and hints get lost.
const READ_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Switchover,
    Failover,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Switchover => "switchover",
            Action::Failover => "failover",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Action::Switchover => "Switchover",
            Action::Failover => "Failover",
        }
    }

    /// `switched over to "a"`
    fn past(self) -> &'static str {
        match self {
            Action::Switchover => "switched",
            Action::Failover => "failed",
        }
    }
}

/// Why a request is refused; the texts are the interface.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("Failover could be performed only to a specific candidate")]
    NoCandidate,
    #[error("Switchover could be performed only from a specific leader")]
    NoLeader,
    #[error("Failover can't be scheduled")]
    FailoverScheduled,
    #[error("Can't schedule switchover in the paused state")]
    ScheduledInPause,
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error("Switchover is possible only to a specific candidate in a paused state")]
    PausedWithoutCandidate,
    #[error("Switchover target and source are the same")]
    SameMember,
    #[error("`{0}` should be the name of a member")]
    NotAName(&'static str),
    #[error("leader name does not match")]
    OtherLeader,
    #[error("candidate name does not match with sync_standby")]
    NotSynchronous,
    #[error("candidate does not exists")]
    UnknownCandidate,
    #[error("{0} is not possible: can not find sync_standby")]
    NoSynchronousStandby(&'static str),
    #[error("{0} is not possible: cluster does not have members except leader")]
    LeaderOnly(&'static str),
    #[error("{0} is not possible: no good candidates have been found")]
    NoGoodCandidate(&'static str),
}

impl Refused {
    fn status(&self) -> StatusCode {
        match self {
            Refused::Schedule(error) => error.status(),
            Refused::OtherLeader
            | Refused::NotSynchronous
            | Refused::UnknownCandidate
            | Refused::NoSynchronousStandby(_)
            | Refused::LeaderOnly(_)
            | Refused::NoGoodCandidate(_) => StatusCode::PRECONDITION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// A request that makes sense in itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    action: Action,
    key: FailoverKey,
}

pub async fn request(api: &ApiState, action: Action, request: &Map<String, Value>) -> Response {
    let view = match api.store.load().await {
        Ok(view) => view,
        Err(error) => return reply::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    let order = match parse(action, request, view.is_paused(), Wall::now()) {
        Ok(order) => order,
        Err(refused) => return reply::text(refused.status(), refused.to_string()),
    };
    if order.key.scheduled_at.is_none()
        && let Err(refused) = check_possible(api, &order, &view).await
    {
        return reply::text(refused.status(), refused.to_string());
    }
    tracing::info!(action = order.action.name(), leader = order.key.leader, candidate = order.key.member, "requested");
    let mut changes = api.store.changes();
    if !write(api, &order.key, &view).await {
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, "failed to write failover key into DCS");
    }
    api.tell(Command::Wake);
    if order.key.scheduled_at.is_some() {
        return reply::text(StatusCode::ACCEPTED, format!("{} scheduled", order.action.title()));
    }
    follow(api, &order, view.leader.as_ref().map(|leader| leader.name.as_str()), &mut changes).await
}

pub async fn delete(api: &ApiState) -> Response {
    let view = match api.store.load().await {
        Ok(view) => view,
        Err(error) => return reply::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    let Some(key) = view.failover.filter(|key| key.value.scheduled_at.is_some()) else {
        return reply::text(StatusCode::NOT_FOUND, "no switchover is scheduled");
    };
    match api.store.write(Key::Failover, b"{}", Expect::Version(key.version)).await {
        Ok(Written::Done { .. }) => {
            api.tell(Command::Wake);
            reply::text(StatusCode::OK, "scheduled switchover deleted")
        }
        Ok(Written::Conflict) => reply::plain_error(StatusCode::CONFLICT),
        Err(error) => reply::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// What can be told from the request alone.
pub(super) fn parse(action: Action, request: &Map<String, Value>, paused: bool, now: Wall) -> Result<Order, Refused> {
    let leader = name(request, "leader")?;
    let candidate = name(request, "candidate")?.or(name(request, "member")?);
    let scheduled = request.get("scheduled_at").filter(|value| !value.is_null() && **value != json!(""));
    match action {
        Action::Failover if candidate.is_none() => return Err(Refused::NoCandidate),
        Action::Switchover if leader.is_none() => return Err(Refused::NoLeader),
        Action::Failover if scheduled.is_some() => return Err(Refused::FailoverScheduled),
        _ if scheduled.is_some() && paused => return Err(Refused::ScheduledInPause),
        _ => {}
    }
    let scheduled_at = scheduled
        .map(|value| schedule::parse(value.as_str().ok_or(ScheduleError::Unreadable)?, action.name(), now))
        .transpose()?;
    if paused && candidate.is_none() {
        return Err(Refused::PausedWithoutCandidate);
    }
    if leader == candidate {
        return Err(Refused::SameMember);
    }
    // A failover that names the leader it leaves is a switchover.
    let action = if leader.is_some() { Action::Switchover } else { action };
    Ok(Order { action, key: FailoverKey { leader, member: candidate, scheduled_at } })
}

fn name(request: &Map<String, Value>, key: &'static str) -> Result<Option<String>, Refused> {
    match request.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => Ok(Some(name.clone()).filter(|name| !name.is_empty())),
        Some(_) => Err(Refused::NotAName(key)),
    }
}

/// Whether somebody could take over. Asks the candidates themselves.
async fn check_possible(api: &ApiState, order: &Order, view: &View) -> Result<(), Refused> {
    let urls = candidates(order, view)?;
    let answers = api.peers.poll(&urls, PEER_TIMEOUT).await;
    let good = answers.iter().filter_map(|answer| answer.status()).any(|status| status.may_be_promoted());
    if good { Ok(()) } else { Err(Refused::NoGoodCandidate(order.action.name())) }
}

/// The api_url of everybody who may take over, by what the store says.
fn candidates(order: &Order, view: &View) -> Result<Vec<String>, Refused> {
    let action = order.action.name();
    let leader = view.leader.as_ref().map(|leader| leader.name.as_str());
    if order.key.leader.is_some() && order.key.leader.as_deref() != leader {
        return Err(Refused::OtherLeader);
    }
    let priority_mode = is_synchronous_mode(view) && !is_quorum_mode(view);
    let synchronous = |name: &str| view.sync.as_ref().is_some_and(|sync| names(&sync.value, name));
    let urls = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        view.members.iter().filter(|member| wanted(&member.name)).map(|member| member.api_url.clone()).collect()
    };
    let (urls, none) = match &order.key.member {
        Some(candidate) if order.action == Action::Switchover && priority_mode && !synchronous(candidate) => {
            return Err(Refused::NotSynchronous);
        }
        Some(candidate) => (urls(&|name| name == candidate), Refused::UnknownCandidate),
        None if priority_mode => (urls(&synchronous), Refused::NoSynchronousStandby(action)),
        None => (urls(&|name| Some(name) != leader), Refused::LeaderOnly(action)),
    };
    if urls.is_empty() { Err(none) } else { Ok(urls) }
}

/// Whether the request is, or may be, in the store. An unknown outcome is followed like a written one: the store will
/// show.
async fn write(api: &ApiState, key: &FailoverKey, view: &View) -> bool {
    let expect = view.failover.as_ref().map_or(Expect::Absent, |key| Expect::Version(key.version));
    match api.store.write(Key::Failover, &encode_failover(key), expect).await {
        Ok(Written::Done { .. }) => true,
        Ok(Written::Conflict) => false,
        Err(error) => {
            tracing::warn!(%error, "the failover key");
            error.outcome == Outcome::Unknown
        }
    }
}

/// How a request stands, by one load of the store.
enum Progress {
    MovedTo(String),
    Cleared,
    Waiting,
}

/// Follows the request until the leader has changed or the request is gone.
async fn follow(
    api: &ApiState,
    order: &Order,
    leader: Option<&str>,
    changes: &mut tokio::sync::watch::Receiver<u64>,
) -> Response {
    let limit = api.snapshot.load().dynamic.loop_wait.max(Duration::from_secs(10)) * 2;
    let deadline = Instant::now() + limit;
    // A load is not a snapshot: one that began before the new leader cleared the request may show the old leader and no
    // request. Only the load after it tells a failure from a success.
    let mut was_cleared = false;
    while Instant::now() < deadline {
        match progress(api, leader).await {
            Progress::MovedTo(new) => return moved(order, &new),
            Progress::Cleared if was_cleared => {
                return reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("{} failed", order.action.title()));
            }
            Progress::Cleared => was_cleared = true,
            Progress::Waiting => {
                was_cleared = false;
                let until = deadline.min(Instant::now() + READ_AGAIN);
                // A store that is being shut down reports no changes any more; then the time-out alone drives this.
                if let Ok(Err(_)) = tokio::time::timeout_at(until, changes.changed()).await {
                    tokio::time::sleep_until(until).await;
                }
            }
        }
    }
    let seconds = limit.as_secs();
    let title = order.action.title();
    reply::text(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("{title} status unknown after {seconds} seconds; operation may still be in progress"),
    )
}

async fn progress(api: &ApiState, leader: Option<&str>) -> Progress {
    let Ok(view) = api.store.load().await else { return Progress::Waiting };
    match &view.leader {
        Some(new) if Some(new.name.as_str()) != leader => Progress::MovedTo(new.name.clone()),
        // Between two leaders the one who clears the request has taken the lead by then, and the next load shows it.
        _ if view.failover_request().is_none() => Progress::Cleared,
        _ => Progress::Waiting,
    }
}

fn moved(order: &Order, new: &str) -> Response {
    let past = order.action.past();
    let text = match &order.key.member {
        Some(candidate) if candidate != new => {
            let past = if order.action == Action::Switchover { "Switched" } else { "Failed" };
            format!("{past} over to \"{new}\" instead of \"{candidate}\"")
        }
        _ => format!("Successfully {past} over to \"{new}\""),
    };
    reply::text(StatusCode::OK, text)
}
