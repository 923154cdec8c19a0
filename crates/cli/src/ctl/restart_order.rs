//! In which order members restart, where a setting changes of which standbys need as much as their primary.
//!
//! A raise goes to the standbys first, else their replay would pause; a lower value to the primary first, and a standby takes it once it has
//! replayed that the primary has. PostgreSQL allows both in one restart of each node only with a pause: it does not start a standby with less than
//! its control file says, which is what the primary had. So where some are raised and some lowered, the standbys are restarted twice, and the
//! primary, which is what clients notice, once.

use std::time::{Duration, Instant};

use pgherd_agent::postgres::parameters::BINDING;
use pgherd_ha::{Member, View};
use reqwest::Method;
use serde_json::Value;

use super::context::Context;
use super::rest;

/// Between two looks at how far a standby is.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A standby that has not replayed what its restarted primary wrote first after this time is restarted all the same.
const REPLAY: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By their names.
    Any,
    StandbysFirst,
    /// And each standby once more, once it has replayed what the primary wrote first.
    StandbysTwice,
    /// And each standby once it has replayed what the primary wrote first.
    PrimaryFirst,
}

/// What the members show decides.
pub fn order(members: &[Member]) -> Order {
    let changes: Vec<(u64, u64)> = members.iter().flat_map(limits).collect();
    let (raised, lowered) = (changes.iter().any(|(from, to)| to > from), changes.iter().any(|(from, to)| to < from));
    match (raised, lowered) {
        (true, true) => Order::StandbysTwice,
        (true, false) => Order::StandbysFirst,
        (false, true) => Order::PrimaryFirst,
        (false, false) => Order::Any,
    }
}

pub fn sort(members: &mut [Member], order: Order, view: &View) {
    let leader = view.leader.as_ref().map(|leader| leader.name.as_str());
    let leads = |member: &Member| Some(member.name.as_str()) == leader;
    match order {
        Order::Any => {}
        Order::StandbysFirst | Order::StandbysTwice => members.sort_by_key(leads),
        Order::PrimaryFirst => members.sort_by_key(|member| !leads(member)),
    }
}

/// Of the five settings, what runs and what is configured.
fn limits(member: &Member) -> Vec<(u64, u64)> {
    let reasons = member.extra.get("pending_restart_reason").and_then(Value::as_object);
    let number =
        |value: Option<&Value>| value.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    let change = |reason: &Value| Some((number(reason.get("old_value"))?, number(reason.get("new_value"))?));
    let limits = reasons.into_iter().flatten().filter(|(name, _)| BINDING.contains(&name.as_str()));
    limits.filter_map(|(_, reason)| change(reason)).collect()
}

/// Waits until `standby` has replayed all that `primary` has written so far.
pub async fn wait_for_replay(context: &mut Context, primary: &Member, standby: &Member) -> anyhow::Result<()> {
    let written = position(context, primary, "location").await?.unwrap_or_default();
    let begun = Instant::now();
    loop {
        let replayed = position(context, standby, "replayed_location").await?;
        if replayed.is_some_and(|replayed| replayed >= written) {
            return Ok(());
        }
        if begun.elapsed() >= REPLAY {
            tracing::warn!("{} has not replayed what {} wrote since its restart", standby.name, primary.name);
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn position(context: &mut Context, member: &Member, field: &str) -> anyhow::Result<Option<u64>> {
    let reply = context.rest.call(member, Method::GET, "/patroni", None, rest::SHORT).await?;
    let status: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    Ok(status["xlog"][field].as_u64())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ctl::fake::view;

    #[test]
    fn the_order_follows_from_what_waits() {
        let cluster = |setting: &str, old: &str, new: &str| {
            let member = json!({"conn_url": "postgres://h/p", "role": "replica",
                "pending_restart_reason": {setting: {"old_value": old, "new_value": new}}});
            view(&json!({"leader": "n2", "members/n1": member, "members/n2": member, "members/n3": member}))
        };
        for (setting, old, new, expected) in [
            ("max_connections", "100", "200", "n1 n3 n2"),
            ("max_worker_processes", "20", "8", "n2 n1 n3"),
            ("shared_buffers", "128MB", "1GB", "n1 n2 n3"),
            ("port", "1", "2", "n1 n2 n3"),
            ("max_connections", "100", "?", "n1 n2 n3"),
        ] {
            let view = cluster(setting, old, new);
            let mut members = view.members.clone();
            let order = order(&members);
            sort(&mut members, order, &view);
            let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            assert_eq!(names.join(" "), expected, "{setting}: {old} -> {new}");
        }
        let both = json!({"conn_url": "postgres://h/p", "role": "replica", "pending_restart_reason": {
            "max_connections": {"old_value": "100", "new_value": "200"}, "max_worker_processes": {"old_value": "8", "new_value": "6"}}});
        let view = view(&json!({"leader": "n1", "members/n1": both, "members/n2": both}));
        assert_eq!(order(&view.members), Order::StandbysTwice);
    }
}
