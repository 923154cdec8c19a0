//! The table of the contract: every situation of a node × every endpoint.

use std::sync::Arc;
use std::time::Duration;

use pgherd_ha::{Boot, MemberState, Permit, Role};
use proptest::prelude::*;
use serde_json::json;

use super::fixture::{EPOCH, object, observation, snapshot, standby, sync_key, view};
use super::health::{Facts, health, liveness, readiness};
use super::query::Query;
use super::snapshot::*;

const NOW: Boot = Boot(Duration::from_secs(1_000));
const HELD: Permit = Permit::Until { epoch: EPOCH, deadline: Boot(Duration::from_secs(1_006)) };

const PATHS: [&str; 13] = [
    "/",
    "/leader",
    "/standby-leader",
    "/replica",
    "/read-only",
    "/health",
    "/async",
    "/sync",
    "/quorum",
    "/read-only-sync",
    "/read-only-quorum",
    "/primary",
    "/nothing",
];

fn leading() -> Snapshot {
    let until = NOW + Duration::from_secs(6);
    Snapshot { leader: Some(LeaderBelief { epoch: EPOCH, until }), ..snapshot(NOW) }
}

fn replica() -> Snapshot {
    Snapshot { role: Role::Replica, observation: Some(observation(NOW, standby(0))), ..snapshot(NOW) }
}

/// `n1` is named in the `sync` key while `n2` leads.
fn synchronous(mode: SynchronousMode) -> Snapshot {
    let mut snapshot = replica();
    snapshot.dynamic.synchronous = mode;
    let view = pgherd_ha::View { sync: Some(sync_key("N1")), ..view() };
    snapshot.view = Some(LoadedView { view: Arc::new(view), loaded: NOW });
    snapshot
}

fn standby_leader() -> Snapshot {
    let mut snapshot = Snapshot { role: Role::StandbyLeader, observation: replica().observation, ..leading() };
    snapshot.dynamic.standby_cluster = true;
    snapshot
}

fn down(mut snapshot: Snapshot) -> Snapshot {
    snapshot.state = MemberState::Stopped;
    snapshot.observation = None;
    snapshot
}

fn without_store(mut snapshot: Snapshot) -> Snapshot {
    snapshot.view = None;
    snapshot
}

fn paused(mut snapshot: Snapshot) -> Snapshot {
    snapshot.paused = true;
    snapshot
}

fn held(mut snapshot: Snapshot) -> Snapshot {
    snapshot.clients_held = true;
    snapshot
}

#[test]
fn each_node_answers_each_path_as_the_contract_says() {
    let failsafe = Snapshot { failsafe_until: Some(Boot::NEVER), ..without_store(leading()) };
    let mut noloadbalance = replica();
    noloadbalance.tags = object(r#"{"noloadbalance": true}"#);
    let stale = Snapshot { observation: Some(observation(Boot::ZERO, standby(0))), ..replica() };
    let promoting = Snapshot { observation: replica().observation, ..leading() };
    // One column a path, in the order of PATHS: `x` is 200, `.` is 503.
    let cases = [
        ("primary with the lock", leading(), HELD, "xx..xx...xxx."),
        ("primary whose permit ran out", leading(), Permit::Until { epoch: EPOCH, deadline: NOW }, ".....x......."),
        ("primary whose permit was withdrawn", leading(), Permit::None, ".....x......."),
        ("primary without the lock", snapshot(NOW), Permit::None, ".....x......."),
        ("being promoted", promoting.clone(), HELD, "xx.xxxx..xxx."),
        ("primary that holds its clients", held(leading()), HELD, ".....x......."),
        ("primary that holds its clients, members agree", held(failsafe.clone()), HELD, ".....x......."),
        (
            "primary that holds its clients, paused",
            held(paused(without_store(leading()))),
            Permit::None,
            ".....x.......",
        ),
        ("being promoted, clients are held", held(promoting.clone()), HELD, ".....x......."),
        ("replica", replica(), Permit::None, "...xxxx......"),
        ("replica tagged noloadbalance", noloadbalance, Permit::None, ".....x......."),
        ("replica seen long ago", stale, Permit::None, "............."),
        ("replica without the store", without_store(replica()), Permit::None, "...xxx......."),
        ("synchronous standby", synchronous(SynchronousMode::Priority), Permit::None, "...xxx.x.x..."),
        ("quorum standby", synchronous(SynchronousMode::Quorum), Permit::None, "...xxx..x.x.."),
        ("standby leader", standby_leader(), Permit::None, ".xx.xx...xx.."),
        ("PostgreSQL down, lock held", down(leading()), HELD, "xx..x....xxx."),
        ("PostgreSQL down", down(replica()), Permit::None, "............."),
        ("primary, store down, failsafe", failsafe, HELD, "xx..xx.....x."),
        ("paused without the store, primary", paused(without_store(snapshot(NOW))), Permit::None, "xx..xx.....x."),
        ("paused, primary without the lock", paused(snapshot(NOW)), Permit::Paused { epoch: None }, ".....x......."),
        ("paused, primary with the lock", paused(leading()), Permit::Paused { epoch: Some(EPOCH) }, "xx..xx...xxx."),
    ];
    for (situation, snapshot, permit, expected) in cases {
        let facts = Facts::of(&snapshot, &permit, NOW);
        let seen: String = PATHS
            .iter()
            .map(|path| if health(path, &Query::default(), &facts).is_success() { 'x' } else { '.' })
            .collect();
        assert_eq!(seen, expected, "{situation}: {PATHS:?}");
    }
}

#[test]
fn paths_match_by_their_parts() {
    let primary = leading();
    let replica = replica();
    let standby_leader = standby_leader();
    let cases = [
        ("/replicafoo", &replica, true),
        ("/replica/x", &replica, true),
        ("/x/replica", &replica, true),
        ("/master", &primary, true),
        ("/read-write", &primary, true),
        ("/standby_leader", &standby_leader, true),
        ("/standby_leader", &primary, false),
        ("/leader/replica", &primary, true),
        ("/asynchronous", &replica, true),
        ("/async/", &replica, false),
        ("//", &primary, false),
        ("", &primary, false),
        ("*", &primary, false),
    ];
    for (path, snapshot, expected) in cases {
        let permit = if snapshot.leader.is_some() { HELD } else { Permit::None };
        let code = health(path, &Query::default(), &Facts::of(snapshot, &permit, NOW));
        assert_eq!(code.is_success(), expected, "{path}");
    }
}

#[test]
fn parameters_narrow_the_answer() {
    let mut lagging = replica();
    lagging.observation = Some(observation(NOW, standby(2_000)));
    lagging.tags = object(r#"{"key": "Value", "number": 1.4, "flag": true, "nothing": null}"#);
    let cases = [
        ("/replica", true),
        ("/replica?lag=1999", false),
        ("/replica?lag=2000", true),
        ("/replica?lag=1kB", false),
        ("/replica?lag=2kB", true),
        ("/replica?lag=nonsense", true),
        ("/replica?lag=", true),
        ("/read-only?lag=1", false),
        ("/async?lag=1", false),
        ("/health?lag=1", true),
        ("/replica?replication_state=streaming", true),
        ("/replica?replication_state=archive", false),
        ("/replica?tag_key=Value", true),
        ("/replica?tag_key=value", false),
        ("/replica?tag_number=1.4&tag_flag=true", true),
        ("/replica?tag_flag=True", false),
        ("/replica?tag_other=1", false),
        ("/replica?tag_nothing=null", false),
        ("/health?tag_key=x", false),
    ];
    for (target, expected) in cases {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let code = health(path, &Query::parse(query), &Facts::of(&lagging, &Permit::None, NOW));
        assert_eq!(code.is_success(), expected, "{target}");
    }
    let mut primary = leading();
    primary.tags = json!({"key": "a"}).as_object().expect("an object").clone();
    let code = health("/primary", &Query::parse("tag_key=b"), &Facts::of(&primary, &HELD, NOW));
    assert!(code.is_success(), "a tag does not narrow /primary");
}

#[test]
fn the_furthest_known_position_of_the_leader_counts_for_lag() {
    let mut snapshot = replica();
    let WalPosition::Standby { received, replayed, .. } = standby(0) else { unreachable!() };
    let latest_end = Some(pgherd_ha::Lsn(replayed.0 + 100));
    let wal = WalPosition::Standby { received, replayed, replayed_at: None, replay_paused: false, latest_end };
    snapshot.observation = Some(observation(NOW, wal));
    for snapshot in [snapshot.clone(), without_store(snapshot)] {
        let facts = Facts::of(&snapshot, &Permit::None, NOW);
        assert!(!health("/replica", &Query::parse("lag=99"), &facts).is_success());
        assert!(health("/replica", &Query::parse("lag=100"), &facts).is_success());
    }
}

#[test]
fn readiness_is_for_leaders_and_streaming_standbys_within_the_lag() {
    let mut archive = replica();
    archive.observation.as_mut().expect("seen").replication_state = Some("in archive recovery".into());
    let behind = |bytes| Snapshot { observation: Some(observation(NOW, standby(bytes))), ..replica() };
    let failsafe = Snapshot { failsafe_until: Some(Boot::NEVER), ..without_store(replica()) };
    let cases = [
        ("leader", leading(), HELD, "", true),
        ("leader down", down(leading()), HELD, "", true),
        ("primary without the lock", snapshot(NOW), Permit::None, "", false),
        ("streaming", replica(), Permit::None, "", true),
        ("archive", archive, Permit::None, "", false),
        ("behind", behind((1 << 20) + 1), Permit::None, "", false),
        ("behind by the default", behind(1 << 20), Permit::None, "", true),
        ("behind the parameter", behind(11), Permit::None, "lag=10", false),
        ("behind in writing", behind(11), Permit::None, "lag=11&mode=write", true),
        ("no store", without_store(replica()), Permit::None, "", false),
        ("failsafe", failsafe, Permit::None, "", true),
        ("down", down(replica()), Permit::None, "", false),
    ];
    for (situation, snapshot, permit, query, expected) in cases {
        let code = readiness(&Query::parse(query), &Facts::of(&snapshot, &permit, NOW));
        assert_eq!(code.is_success(), expected, "{situation}");
    }
}

#[test]
fn liveness_waits_longer_for_a_replica_and_for_ever_in_pause() {
    // ttl is 8 s.
    for (late, snapshot, expected) in [
        (7, snapshot(NOW), true),
        (8, snapshot(NOW), false),
        (8, down(snapshot(NOW)), true),
        (15, replica(), true),
        (16, replica(), false),
        (600, paused(snapshot(NOW)), true),
    ] {
        assert_eq!(liveness(&snapshot, NOW + Duration::from_secs(late)).is_success(), expected, "{late} s late");
    }
}

proptest! {
    #[test]
    fn no_path_and_no_query_panics(path in ".*", query in "(lag|tag_.|mode)=.*", lsn: u64, replayed: u64) {
        let snapshot = replica();
        let facts = Facts { leader_lsn: lsn, replayed_lsn: replayed, ..Facts::of(&snapshot, &Permit::None, NOW) };
        let query = Query::parse(&query);
        let _ = (health(&path, &query, &facts), readiness(&query, &facts));
    }
}
