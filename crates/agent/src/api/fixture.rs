//! What the tests of this module share: a snapshot of a healthy node, a store in memory, and the API over both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use pgherd_dcs::layout::decode_failover;
use pgherd_dcs::{Acquired, Expect, Key, Outcome, Store, StoreError, Written, boot_now};
use pgherd_ha::{
    Boot, Epoch, Leader, LeaderOwner, Lease, Lsn, Member, MemberState, NodeRoute, Permit, Role, Status, SyncKey,
    SystemId, Timeline, Versioned, View,
};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use super::access::{BasicAuth, Client};
use super::router::router;
use super::snapshot::*;
use super::{ApiState, Command, FAILSAFE_QUEUE, FailsafeQuestion, PeerClient, QUEUE, RouteSource, Settings};

pub const EPOCH: Epoch = Epoch(7);

pub fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).expect("a JSON object")
}

/// A running primary `n1` without the leader key, in a cluster with `n2`, at the instant `now`.
pub fn snapshot(now: Boot) -> Snapshot {
    Snapshot {
        scope: "batman".into(),
        name: "n1".into(),
        state: MemberState::Running,
        role: Role::Primary,
        leader: None,
        clients_held: false,
        observation: Some(observation(now, WalPosition::Primary { flushed: Lsn(0x300_0088) })),
        view: Some(LoadedView { view: Arc::new(view()), loaded: now }),
        paused: false,
        settled: false,
        left_out: Vec::new(),
        failsafe_until: None,
        failsafe_members: BTreeMap::new(),
        dcs_last_seen: 1_763_800_000,
        tags: Map::new(),
        system_id: Some(SystemId(7_123_456_789_012_345_678)),
        pending_restart: None,
        scheduled_restart: None,
        watchdog_failed: false,
        next_round: now,
        dynamic: DynamicSettings {
            ttl: Duration::from_secs(8),
            loop_wait: Duration::from_secs(1),
            maximum_lag_on_failover: 1 << 20,
            standby_cluster: false,
            synchronous: SynchronousMode::Off,
            failsafe_mode: false,
        },
    }
}

pub fn observation(now: Boot, wal: WalPosition) -> Observation {
    let standby = matches!(wal, WalPosition::Standby { .. });
    Observation {
        taken: now,
        postmaster_start_time: "2026-11-23T08:00:00.5Z".parse().expect("a moment"),
        server_version: 150_018,
        wal,
        timeline: Some(Timeline(2)),
        replication_state: standby.then(|| "streaming".to_owned()),
        walsenders: Vec::new(),
    }
}

/// A standby that is `behind` bytes behind the leader of [`view`].
pub fn standby(behind: u64) -> WalPosition {
    let replayed = Lsn(view().status.optime.0 - behind);
    WalPosition::Standby { received: replayed, replayed, replayed_at: None, replay_paused: false, latest_end: None }
}

pub fn member(name: &str) -> Member {
    Member {
        name: name.into(),
        conn_url: format!("postgres://{name}:5432/postgres"),
        api_url: format!("http://{name}:8008/patroni"),
        state: MemberState::Running,
        role: Role::Replica,
        version: PATRONI_VERSION.into(),
        pgherd: None,
        tags: Map::new(),
        xlog_location: None,
        replay_lsn: None,
        receive_lsn: None,
        replication_state: None,
        timeline: Some(Timeline(2)),
        checkpoint_after_promote: None,
        pending_restart: false,
        pause: false,
        extra: Map::new(),
    }
}

/// `n1` leads, `n2` is the other member.
pub fn view() -> View {
    View {
        config: Some(Versioned { value: object(r#"{"ttl": 30, "postgresql": {"use_slots": true}}"#), version: 3 }),
        leader: Some(leader("n1")),
        members: vec![member("n1"), member("n2")],
        status: Status { optime: Lsn(0x300_0088), ..Status::default() },
        ..View::default()
    }
}

pub fn leader(name: &str) -> Leader {
    Leader { name: name.into(), epoch: EPOCH, owner: LeaderOwner::Other }
}

pub fn sync_key(standby: &str) -> Versioned<SyncKey> {
    Versioned {
        value: SyncKey { leader: Some("n1".into()), quorum: 0, sync_standby: vec![standby.into()] },
        version: 0,
    }
}

pub fn node_route() -> NodeRoute {
    NodeRoute {
        name: "n1".into(),
        scope: "batman".into(),
        address: "n1:5432".into(),
        running: true,
        in_recovery: Some(false),
        epoch: Some(EPOCH),
        permit_ms: None,
        stopping_ms: None,
        paused: false,
        timeline: Some(Timeline(2)),
        lsn: Some(Lsn(1)),
        lag: None,
        noloadbalance: false,
        standby_leader: false,
        state: "running".into(),
    }
}

/// A store in memory. A test changes what it shows with [`FakeStore::change`], as other members would.
#[derive(Debug)]
pub struct FakeStore {
    view: Mutex<View>,
    changes: watch::Sender<u64>,
    down: Mutex<Option<Outcome>>,
}

impl FakeStore {
    pub fn new(view: View) -> FakeStore {
        FakeStore { view: Mutex::new(view), changes: watch::Sender::new(0), down: Mutex::new(None) }
    }

    pub fn view(&self) -> View {
        self.view.lock().expect("no test panics while it holds this").clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock().expect("no test panics while it holds this"));
        self.changes.send_modify(|count| *count += 1);
    }

    /// From now on everything fails with this outcome.
    pub fn fail(&self, outcome: Outcome) {
        *self.down.lock().expect("no test panics while it holds this") = Some(outcome);
    }

    fn check(&self, operation: &str) -> Result<(), StoreError> {
        match *self.down.lock().expect("no test panics while it holds this") {
            None => Ok(()),
            Some(outcome) => Err(StoreError {
                store: "fake".into(),
                operation: operation.into(),
                cause: "it is down".into(),
                outcome,
                retry: true,
            }),
        }
    }
}

fn meets(expect: Expect, current: Option<i64>) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Absent => current.is_none(),
        Expect::Version(version) => current == Some(version),
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn load(&self) -> Result<View, StoreError> {
        self.check("load").map(|()| self.view())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn acquire(&self) -> Result<Acquired, StoreError> {
        self.check("acquire").map(|()| Acquired::Taken)
    }

    async fn renew(&self, _: Epoch) -> Result<Option<Lease>, StoreError> {
        self.check("renew").map(|()| None)
    }

    async fn release(&self, _: Epoch) -> Result<bool, StoreError> {
        self.check("release").map(|()| false)
    }

    async fn write_member(&self, _: &[u8]) -> Result<(), StoreError> {
        self.check("write member")
    }

    async fn write(&self, key: Key, value: &[u8], expect: Expect) -> Result<Written, StoreError> {
        self.check("write")?;
        let text = std::str::from_utf8(value).expect("the API writes ASCII");
        let mut written = Written::Conflict;
        self.change(|view| match key {
            Key::Config if meets(expect, view.config.as_ref().map(|key| key.version)) => {
                let version = view.config.as_ref().map_or(0, |key| key.version + 1);
                view.config = Some(Versioned { value: object(text), version });
                written = Written::Done { version };
            }
            Key::Failover if meets(expect, view.failover.as_ref().map(|key| key.version)) => {
                let version = view.failover.as_ref().map_or(0, |key| key.version + 1);
                view.failover = Some(Versioned { value: decode_failover(value), version });
                written = Written::Done { version };
            }
            _ => {}
        });
        Ok(written)
    }

    async fn delete(&self, _: Key, _: Expect) -> Result<bool, StoreError> {
        self.check("delete").map(|()| false)
    }

    async fn delete_cluster(&self) -> Result<(), StoreError> {
        self.check("delete")
    }

    async fn ready(&self, _: Duration) -> Result<(), StoreError> {
        self.check("connect")
    }

    fn set_ttl(&self, _: Duration) {}

    fn reconfigure(&self, _: &pgherd_dcs::Servers) {}

    fn suspend(&self) {}

    async fn close(&self) -> Result<(), StoreError> {
        self.check("close")
    }

    async fn clusters(&self) -> Result<Vec<String>, StoreError> {
        self.check("list").map(|()| Vec::new())
    }
}

/// The API of `n1` over a store in memory, and the daemon's ends of its channels.
pub struct Fixture {
    pub store: Arc<FakeStore>,
    pub api: ApiState,
    pub commands: mpsc::Receiver<Command>,
    pub questions: mpsc::Receiver<FailsafeQuestion>,
    pub route: watch::Sender<Arc<NodeRoute>>,
}

pub fn peer_client(auth: Option<&BasicAuth>) -> PeerClient {
    let tls = pgherd_tls::client(&pgherd_tls::ClientOptions::UNCHECKED).expect("no files");
    PeerClient::new(auth, tls, Duration::from_secs(1)).expect("a client")
}

impl Fixture {
    pub fn new(view: View) -> Fixture {
        // The second time it is installed already.
        let store = Arc::new(FakeStore::new(view));
        let (sender, commands) = mpsc::channel(QUEUE);
        let (failsafe, questions) = mpsc::channel(FAILSAFE_QUEUE);
        let (route, mut node) = watch::channel(Arc::new(node_route()));
        node.mark_changed();
        let api = ApiState {
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot(boot_now()))),
            permit: Arc::new(ArcSwap::from_pointee(Permit::None)),
            route: RouteSource::new(node),
            commands: sender,
            failsafe,
            store: store.clone(),
            peers: peer_client(None),
            settings: Arc::new(ArcSwap::from_pointee(Settings::default())),
        };
        Fixture { store, api, commands, questions, route }
    }

    pub fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.api.snapshot.load());
        change(&mut snapshot);
        self.api.snapshot.store(Arc::new(snapshot));
    }

    /// Gives `n1` the leader key and a permit for a minute.
    pub fn lead(&self) {
        let until = boot_now() + Duration::from_secs(60);
        self.change(|snapshot| snapshot.leader = Some(LeaderBelief { epoch: EPOCH, until }));
        self.api.permit.store(Arc::new(Permit::Until { epoch: EPOCH, deadline: until }));
    }

    pub async fn call(&self, method: &str, path: &str, body: &str) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path);
        if !body.is_empty() {
            request = request.header("content-length", body.len());
        }
        self.send(request.body(Body::from(body.to_owned())).expect("a request")).await
    }

    pub async fn send(&self, mut request: Request<Body>) -> (StatusCode, HeaderMap, String) {
        request.extensions_mut().insert(Client { address: [127, 0, 0, 1].into(), certified: false });
        let response = router(self.api.clone()).oneshot(request).await.expect("the router cannot fail");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.expect("a body");
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }
}
