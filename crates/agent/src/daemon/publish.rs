//! What the REST API and the entrypoints are shown: replaced whole after each round.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use arc_swap::ArcSwap;
use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, Decision, Lease, Local, Member, MemberState, NodeRoute, Permit, Role, View};
use tokio::sync::watch;

use super::member;
use super::node::Node;
use super::round::Memory;
use super::settings::Current;
use super::tls;
use crate::api::{
    Access, BasicAuth, LeaderBelief, LoadedView, Network, Observation, RouteSource, ScheduledRestart, Settings,
    Snapshot, WalPosition, Walsender,
};
use crate::config::{Config, VerifyClient};
use crate::postgres;

#[derive(Debug)]
pub struct Publisher {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    route: watch::Sender<Arc<NodeRoute>>,
    /// The route is one that a round has seen.
    published: AtomicBool,
    pub settings: Arc<ArcSwap<Settings>>,
}

/// One round's facts.
#[derive(Debug)]
pub struct Facts<'a> {
    pub current: &'a Current,
    pub local: &'a Local,
    pub node: &'a Node,
    pub memory: &'a Memory,
    pub member: &'a Member,
    pub decision: &'a Decision,
    pub lease: Option<Lease>,
    /// Until when failsafe mode is active here.
    pub failsafe_until: Option<Boot>,
    pub scheduled: Option<&'a ScheduledRestart>,
}

impl Publisher {
    /// Before the first round nothing is known, and every health check says no.
    pub async fn new(current: &Current) -> anyhow::Result<Publisher> {
        let route = NodeRoute {
            name: current.identity.name.clone(),
            scope: current.identity.scope.clone(),
            address: current.identity.address.clone(),
            running: false,
            in_recovery: None,
            epoch: None,
            permit_ms: None,
            stopping_ms: None,
            paused: false,
            timeline: None,
            lsn: None,
            lag: None,
            noloadbalance: false,
            standby_leader: false,
            state: MemberState::Stopped.as_str().into(),
        };
        Ok(Publisher {
            snapshot: Arc::new(ArcSwap::from_pointee(nothing_known(current))),
            route: watch::Sender::new(Arc::new(route)),
            published: AtomicBool::new(false),
            settings: Arc::new(ArcSwap::from_pointee(settings(&current.config).await?)),
        })
    }

    pub fn route_source(&self) -> RouteSource {
        RouteSource::new(self.route.subscribe())
    }

    /// The section `restapi` was read again; where it listens is not ours.
    pub async fn reconfigure(&self, config: &Config) {
        match settings(config).await {
            Ok(settings) => self.settings.store(Arc::new(settings)),
            Err(error) => tracing::error!("the settings of the REST API stay as they were: {error:#}"),
        }
    }

    pub fn publish(&self, facts: &Facts<'_>) {
        self.snapshot.store(Arc::new(snapshot(facts)));
        let view = facts.memory.view.as_deref();
        let route = member::route(&facts.current.identity, facts.local, facts.node, view, facts.decision);
        let first = !self.published.swap(true, Ordering::Relaxed);
        self.route.send_if_modified(|old| {
            let news = first || is_news(old, &route);
            if **old != route {
                *old = Arc::new(route);
            }
            news
        });
    }
}

/// Positions and lag go along with the next line; only what changes the choice of a server is pushed at once.
fn is_news(old: &NodeRoute, new: &NodeRoute) -> bool {
    let without_position = |route: &NodeRoute| NodeRoute { lsn: None, lag: None, ..route.clone() };
    without_position(old) != without_position(new)
}

async fn settings(config: &Config) -> anyhow::Result<Settings> {
    let restapi = &config.restapi;
    let login = restapi.authentication.as_ref();
    let mut extra_headers = Vec::new();
    let of_https = restapi.https_extra_headers.iter().filter(|_| restapi.tls.is_some());
    for (name, value) in restapi.http_extra_headers.iter().chain(of_https) {
        let wrong = || format!("restapi.http_extra_headers, https_extra_headers: {name}: {value:?} is not a header");
        extra_headers.push((name.parse().with_context(wrong)?, value.parse().with_context(wrong)?));
    }
    let tls = restapi.tls.as_ref().map(tls::of_server).transpose().context("restapi.certfile")?;
    let verify_client = restapi.tls.as_ref().map_or(VerifyClient::None, |tls| tls.verify_client);
    Ok(Settings {
        access: Access {
            auth: login.map(|login| BasicAuth::new(&login.username, login.password.expose())),
            allowlist: allowlist(&restapi.allowlist).await,
            include_members: restapi.allowlist_include_members,
            certificate: verify_client != VerifyClient::None,
        },
        extra_headers,
        server_tokens: restapi.server_tokens,
        tls: tls.map(Arc::new),
    })
}

/// `None`: everybody may.
async fn allowlist(entries: &[String]) -> Option<Vec<Network>> {
    if entries.is_empty() { None } else { Some(Network::resolve(entries).await) }
}

fn nothing_known(current: &Current) -> Snapshot {
    Snapshot {
        scope: current.identity.scope.clone(),
        name: current.identity.name.clone(),
        state: MemberState::Stopped,
        role: Role::Uninitialized,
        leader: None,
        clients_held: false,
        observation: None,
        view: None,
        paused: false,
        settled: false,
        failsafe_until: None,
        failsafe_members: Default::default(),
        dcs_last_seen: 0,
        tags: current.identity.tags.clone(),
        system_id: None,
        pending_restart: None,
        left_out: Vec::new(),
        scheduled_restart: None,
        watchdog_failed: false,
        next_round: Boot::ZERO,
        dynamic: current.dynamic.for_api(),
    }
}

fn snapshot(facts: &Facts<'_>) -> Snapshot {
    let Facts { current, local, node, memory, .. } = facts;
    let view: Option<&Arc<View>> = memory.view.as_ref().filter(|_| memory.reachable);
    let leader = match (facts.decision.permit, facts.lease) {
        (Permit::Until { epoch, .. } | Permit::Paused { epoch: Some(epoch) }, Some(lease)) => {
            Some(LeaderBelief { epoch, until: lease.end() })
        }
        // A standby leader has no writer and so no permit.
        (Permit::None, Some(lease)) if facts.decision.standby_leader => {
            Some(LeaderBelief { epoch: lease.epoch, until: lease.end() })
        }
        // The members have given it, and the lease is lost.
        (Permit::Until { epoch, deadline }, None) => Some(LeaderBelief { epoch, until: deadline }),
        _ => None,
    };
    Snapshot {
        scope: current.identity.scope.clone(),
        name: current.identity.name.clone(),
        state: facts.member.state,
        role: facts.member.role,
        leader,
        clients_held: !facts.decision.admits,
        observation: node.seen.as_ref().filter(|_| local.running().is_some()).map(|seen| observation(node, seen)),
        view: view.map(|view| LoadedView { view: view.clone(), loaded: memory.view_loaded }),
        paused: memory.view.as_ref().is_some_and(|view| view.is_paused()),
        settled: local.following.is_none()
            && node
                .seen
                .as_ref()
                .and_then(|seen| seen.standby.as_ref())
                .is_some_and(postgres::observation::Standby::is_final),
        failsafe_until: facts.failsafe_until,
        failsafe_members: memory.view.as_ref().map(|view| view.failsafe.clone()).unwrap_or_default(),
        dcs_last_seen: memory.seen_seconds,
        tags: member::tags(&current.identity, node),
        system_id: local.control().map(|control| control.system_id),
        pending_restart: member::pending_restart(node),
        left_out: current.not_in_force(facts.member.role),
        scheduled_restart: facts.scheduled.cloned(),
        watchdog_failed: local.watchdog == pgherd_ha::Watchdog::Failed,
        next_round: boot_now() + current.dynamic.timing.loop_wait,
        dynamic: current.dynamic.for_api(),
    }
}

fn observation(node: &Node, seen: &postgres::Observation) -> Observation {
    let wal = match &seen.standby {
        None => WalPosition::Primary { flushed: seen.flush_lsn.unwrap_or_default() },
        Some(standby) => WalPosition::Standby {
            received: standby.receive_lsn.or(standby.replay_lsn).unwrap_or_default(),
            replayed: standby.replay_lsn.unwrap_or_default(),
            replayed_at: standby.replay_timestamp,
            replay_paused: standby.replay_paused,
            latest_end: standby.receiver.as_ref().and_then(|receiver| receiver.latest_end_lsn),
        },
    };
    Observation {
        taken: node.seen_at,
        postmaster_start_time: seen.postmaster_start_time,
        server_version: seen.server_version,
        wal,
        timeline: node.timeline(),
        replication_state: seen.replication_state().map(Into::into),
        walsenders: seen.walsenders.iter().map(walsender).collect(),
    }
}

fn walsender(row: &postgres::observation::Walsender) -> Walsender {
    Walsender {
        usename: row.usename.clone(),
        application_name: Some(row.application_name.clone()),
        client_addr: row.client_addr.clone(),
        state: row.state.clone(),
        sync_state: row.sync_state.clone(),
        sync_priority: Some(row.sync_priority),
    }
}
