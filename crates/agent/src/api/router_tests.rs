//! Requests to the router and its answers, without a network.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request};
use pgherd_dcs::{Outcome, boot_now};
use pgherd_ha::{HistoryLine, Lsn, Permit, Role, Timeline, Versioned, View};
use serde_json::Value;
use std::sync::Arc;

use super::fixture::*;
use super::snapshot::{LoadedView, Walsender};
use super::*;
use crate::config::ServerTokens;

#[tokio::test]
async fn the_method_and_the_first_segment_decide() {
    let fixture = Fixture::new(view());
    fixture.lead();
    let cases = [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("OPTIONS", "/", 200),
        ("OPTIONS", "/replica", 503),
        ("GET", "/patroni/x/y?z", 200),
        // Only GET knows these; other ways of reading are health checks of a path that matches nothing.
        ("HEAD", "/patroni", 503),
        ("OPTIONS", "/liveness", 503),
        ("GET", "/liveness", 200),
        ("GET", "/readiness", 200),
        ("GET", "/config/x", 200),
        ("GET", "/metrics", 200),
        ("GET", "/failsafe", 502),
        ("GET", "/nothing", 503),
        ("GET", "/pgherd", 503),
        ("POST", "/nothing", 501),
        ("POST", "/", 501),
        ("PUT", "/patroni", 501),
        ("DELETE", "/config", 501),
        ("BREW", "/restart", 501),
        ("POST", "/citus", 501),
        ("POST", "/sigterm", 202),
        ("POST", "/failsafe", 502),
    ];
    for (method, path, expected) in cases {
        let (status, headers, body) = fixture.call(method, path, "").await;
        assert_eq!(status.as_u16(), expected, "{method} {path}");
        if ["HEAD", "OPTIONS"].contains(&method) || path == "/liveness" {
            assert_eq!((body.as_str(), headers.contains_key("content-type")), ("", false), "{method} {path}");
        }
        if expected == 501 {
            assert!(body.contains("Server does not support this operation"), "{body}");
        }
    }
}

#[tokio::test]
async fn the_status_of_a_primary_is_written_in_order() {
    let fixture = Fixture::new(view());
    fixture.lead();
    fixture.change(|snapshot| {
        snapshot.tags = object(r#"{"clonefrom": true, "zone": "é"}"#);
        snapshot.observation.as_mut().expect("seen").walsenders.push(Walsender {
            usename: Some("replicator".into()),
            application_name: Some("n2".into()),
            client_addr: Some("10.0.0.2".into()),
            state: Some("streaming".into()),
            sync_state: Some("async".into()),
            sync_priority: Some(0),
        });
        snapshot.pending_restart = Some(object(r#"{"max_connections": {"old_value": "100", "new_value": "200"}}"#));
        snapshot.left_out = vec!["work_mem is left out".into()];
        snapshot.scheduled_restart = Some(ScheduledRestart {
            at: "2026-11-24T08:00:00Z".parse().expect("a moment"),
            filter: RestartFilter { role: Some(Role::Replica), restart_pending: true, ..RestartFilter::default() },
        });
    });
    let (status, headers, body) = fixture.call("GET", "/patroni", "").await;
    assert_eq!((status.as_u16(), headers["content-type"].to_str().ok()), (200, Some("application/json")));
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        r#"{"state": "running", "postmaster_start_time": "2026-11-23 08:00:00.500000+00:00", "role": "primary", "#,
        r#""server_version": 150018, "xlog": {"location": 50331784}, "timeline": 2, "replication": "#,
        r#"[{"usename": "replicator", "application_name": "n2", "client_addr": "10.0.0.2", "state": "streaming", "#,
        r#""sync_state": "async", "sync_priority": 0}], "dcs_last_seen": 1763800000, "#,
        r#""tags": {"clonefrom": true, "zone": "\u00e9"}, "database_system_identifier": "7123456789012345678", "#,
        r#""pending_restart": true, "pending_restart_reason": {"max_connections": {"old_value": "100", "#,
        r#""new_value": "200"}}, "patroni": {"version": "4.1.4", "scope": "batman", "name": "n1"}, "#,
        &format!(r#""pgherd": "{version}", "left_out": ["work_mem is left out"], "#),
        r#""scheduled_restart": {"schedule": "2026-11-24T08:00:00+00:00", "#,
        r#""role": "replica", "restart_pending": true}}"#,
    ]
    .concat();
    assert_eq!(body, expected);
}

#[tokio::test]
async fn the_status_of_a_standby_and_of_a_server_that_does_not_answer() {
    let fixture = Fixture::new(view());
    fixture.change(|snapshot| {
        snapshot.role = Role::Replica;
        snapshot.observation = Some(observation(boot_now(), standby(8)));
    });
    let (status, _, body) = fixture.call("GET", "/replica", "").await;
    assert_eq!(status.as_u16(), 200);
    let xlog = concat!(
        r#""role": "replica", "server_version": 150018, "xlog": {"received_location": 50331776, "#,
        r#""replayed_location": 50331776, "replayed_timestamp": null, "paused": false}, "timeline": 2, "#,
        r#""replication_state": "streaming", "dcs_last_seen""#
    );
    assert!(body.contains(xlog), "{body}");

    fixture.change(|snapshot| {
        snapshot.observation = None;
        snapshot.view = None;
        snapshot.paused = true;
        snapshot.watchdog_failed = true;
    });
    let (status, _, body) = fixture.call("GET", "/patroni", "").await;
    let start = r#"{"state": "unknown", "role": "replica", "pause": true, "cluster_unlocked": true, "dcs_last_seen": "#;
    assert!(status.as_u16() == 200 && body.starts_with(start), "{body}");
    assert!(body.ends_with(r#""watchdog_failed": true}"#), "{body}");
}

#[tokio::test]
async fn the_cluster_is_listed_member_by_member() {
    let mut shown = view();
    shown.config = Some(Versioned { value: object(r#"{"synchronous_mode": true, "pause": true}"#), version: 1 });
    shown.sync = Some(sync_key("n2"));
    let lagging = &mut shown.members[1];
    lagging.replication_state = Some("streaming".into());
    lagging.receive_lsn = Some(Lsn(0x300_0088));
    lagging.xlog_location = Some(Lsn(0x300_0080));
    lagging.tags = object(r#"{"nosync": false}"#);
    lagging.pending_restart = true;
    let fixture = Fixture::new(shown);
    let (status, _, body) = fixture.call("GET", "/cluster", "").await;
    let expected = [
        r#"{"members": [{"name": "n1", "role": "leader", "state": "running", "api_url": "http://n1:8008/patroni", "#,
        r#""host": "n1", "port": 5432, "timeline": 2}, {"name": "n2", "role": "sync_standby", "state": "streaming", "#,
        r#""api_url": "http://n2:8008/patroni", "host": "n2", "port": 5432, "timeline": 2, "pending_restart": true, "#,
        r#""tags": {"nosync": false}, "receive_lag": 0, "receive_lsn": "0/3000088", "replay_lsn": "unknown", "#,
        r#""replay_lag": "unknown", "lag": 8, "lsn": "0/3000080"}], "pause": true, "scope": "batman"}"#,
    ]
    .concat();
    assert_eq!((status.as_u16(), body), (200, expected));

    fixture.store.fail(Outcome::NotDone);
    assert_eq!(fixture.call("GET", "/cluster", "").await.0.as_u16(), 503);
}

#[tokio::test]
async fn the_history_has_lines_of_three_to_five_elements() {
    let line = HistoryLine {
        timeline: Timeline(1),
        switch_lsn: Lsn(25),
        reason: "no recovery target specified".into(),
        timestamp: Some("2026-11-23T00:23:21.389539+00:00".into()),
        new_leader: Some("n1".into()),
    };
    let bare = HistoryLine { timestamp: None, new_leader: None, ..line.clone() };
    let fixture = Fixture::new(View { history: vec![bare, line], ..view() });
    let expected = concat!(
        r#"[[1, 25, "no recovery target specified"], "#,
        r#"[1, 25, "no recovery target specified", "2026-11-23T00:23:21.389539+00:00", "n1"]]"#
    );
    assert_eq!(fixture.call("GET", "/history", "").await.2, expected);
    assert_eq!(Fixture::new(view()).call("GET", "/history", "").await.2, "[]");
}

#[tokio::test]
async fn the_configuration_is_patched_by_compare_and_set() {
    let mut fixture = Fixture::new(view());
    let cases = [
        ("{\"ttl\": \"30\"}", 200, r#"{"ttl": 30, "postgresql": {"use_slots": true}}"#),
        (r#"{"ttl": 20, "pause": true}"#, 200, r#"{"ttl": 20, "postgresql": {"use_slots": true}, "pause": true}"#),
        (
            r#"{"pause": null, "postgresql": {"parameters": {"a": "é"}}}"#,
            200,
            r#"{"ttl": 20, "postgresql": {"use_slots": true, "parameters": {"a": "\u00e9"}}}"#,
        ),
    ];
    for (change, status, expected) in cases {
        let (seen, _, body) = fixture.call("PATCH", "/config", change).await;
        assert_eq!((seen.as_u16(), body.as_str()), (status, expected), "{change}");
        assert!(matches!(fixture.commands.try_recv(), Ok(Command::Wake)));
    }
    let stored = fixture.store.view().config.expect("a configuration");
    assert_eq!(stored.version, 5, "a change that changes nothing is not written");
    assert_eq!(fixture.call("GET", "/config", "").await.2, cases[2].2);

    let (status, _, body) = fixture.call("PUT", "/config", r#"{"ttl": 5}"#).await;
    assert_eq!((status.as_u16(), body.as_str()), (200, r#"{"ttl": 5}"#));

    fixture.store.change(|view| view.config = None);
    assert_eq!(fixture.call("PATCH", "/config", r#"{"ttl": 5}"#).await.0.as_u16(), 503);
    assert_eq!(fixture.call("GET", "/config", "").await.0.as_u16(), 502);
    fixture.store.fail(Outcome::NotDone);
    assert_eq!(fixture.call("PUT", "/config", r#"{"ttl": 5}"#).await.0.as_u16(), 502);
    fixture.change(|snapshot| {
        snapshot.view = Some(LoadedView { view: Arc::new(view()), loaded: boot_now() });
    });
    assert_eq!(fixture.call("GET", "/config", "").await.0.as_u16(), 200, "the last load answers for a lost store");
}

#[tokio::test]
async fn bodies_are_checked_before_anything_is_done() {
    let fixture = Fixture::new(view());
    let cases = [
        ("PATCH", "/config", "", 411),
        ("PATCH", "/config", "{}", 400),
        ("PATCH", "/config", "[1]", 400),
        ("PUT", "/config", "{", 400),
        ("POST", "/switchover", "", 411),
        ("POST", "/failover", "{}", 400),
        ("POST", "/restart", "nonsense", 400),
        ("POST", "/restart", "[]", 400),
    ];
    for (method, path, body, expected) in cases {
        assert_eq!(fixture.call(method, path, body).await.0.as_u16(), expected, "{method} {path} {body}");
    }
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(fixture.call("PATCH", "/config", &large).await.0.as_u16(), 413);
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(fixture.call("PATCH", "/config", &deep).await.0.as_u16(), 400);
}

#[tokio::test]
async fn orders_reach_the_daemon_and_its_answer_the_caller() {
    let mut fixture = Fixture::new(view());
    let mut commands = std::mem::replace(&mut fixture.commands, tokio::sync::mpsc::channel(1).1);
    let daemon = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(command) = commands.recv().await {
            seen.push(format!("{command:?}").split([' ', '{']).next().map(str::to_owned));
            match command {
                Command::Restart { filter, reply } => {
                    let role = filter.role == Some(Role::Replica);
                    let busy = RestartOutcome::Busy("reinitialize".into());
                    let _ = reply.send(if role { busy } else { RestartOutcome::Done });
                }
                Command::ScheduleRestart { restart, reply } => drop(reply.send(restart.filter.role.is_none())),
                Command::DeleteScheduledRestart { reply } => drop(reply.send(false)),
                Command::Reinitialize { force, reply, .. } => {
                    drop(reply.send(if force { Ok(()) } else { Err(ReinitializeRefused::NoLeader) }));
                }
                Command::Reload | Command::Wake | Command::Observe { .. } => {}
            }
        }
        seen.len()
    });
    let cases = [
        ("POST", "/restart", "", 200, "restarted successfully"),
        ("POST", "/restart", r#"{"role": "replica"}"#, 503, "reinitialize already in progress"),
        ("POST", "/restart", r#"{"what": 1}"#, 400, "Unknown filter for the scheduled restart: what"),
        ("POST", "/restart", r#"{"schedule": "2999-01-01T00:00:00Z"}"#, 202, "Restart scheduled"),
        (
            "POST",
            "/restart",
            r#"{"schedule": "2999-01-01T00:00:00Z", "role": "replica"}"#,
            409,
            "Another restart is already scheduled",
        ),
        ("DELETE", "/restart", "", 404, "no restarts are scheduled"),
        ("POST", "/reload", "", 202, "reload scheduled"),
        ("POST", "/reinitialize", "", 503, "Cluster has no leader, can not reinitialize"),
        ("POST", "/reinitialize", r#"{"force": "on"}"#, 200, "reinitialize started"),
    ];
    for (method, path, body, status, text) in cases {
        let (seen, _, answer) = fixture.call(method, path, body).await;
        assert_eq!((seen.as_u16(), answer.as_str()), (status, text), "{method} {path} {body}");
    }
    fixture.change(|snapshot| snapshot.paused = true);
    let (status, _, body) = fixture.call("POST", "/restart", r#"{"schedule": "2999-01-01T00:00:00Z"}"#).await;
    assert_eq!((status.as_u16(), body.as_str()), (500, "Can't schedule restart in the paused state"));
    drop(fixture);
    assert_eq!(daemon.await.expect("no panic"), 8);
}

#[tokio::test]
async fn a_daemon_that_is_gone_takes_no_orders() {
    let mut fixture = Fixture::new(view());
    fixture.commands.close();
    let (status, _, body) = fixture.call("POST", "/restart", "").await;
    assert!(status.as_u16() == 503 && body.contains("takes no orders"), "{body}");
}

#[tokio::test]
async fn asking_how_things_are_leaves_room_for_orders() {
    let mut fixture = Fixture::new(view());
    let questions = (0..2 * QUEUE).map(|_| fixture.call("GET", "/patroni", ""));
    let order = async {
        tokio::task::yield_now().await;
        fixture.call("POST", "/reload", "").await.0.as_u16()
    };
    let (answers, order) = tokio::join!(futures::future::join_all(questions), order);
    assert!(order == 202 && answers.iter().all(|(status, ..)| status.is_success()));
    let mut waiting = Vec::new();
    while let Ok(command) = fixture.commands.try_recv() {
        waiting.push(matches!(command, Command::Reload));
    }
    assert_eq!((waiting.len(), waiting.last()), (QUEUE / 2 + 1, Some(&true)));
}

#[tokio::test]
async fn changes_need_permission_and_reading_does_not() {
    let fixture = Fixture::new(view());
    let with = |access: Access| {
        fixture.api.settings.store(Arc::new(Settings { access, ..Settings::default() }));
    };
    let call = async |header: Option<&str>| {
        let mut request = Request::post("/sigterm");
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        let (status, headers, body) = fixture.send(request.body(Body::empty()).expect("a request")).await;
        (status.as_u16(), headers.contains_key("www-authenticate"), body)
    };
    with(Access { auth: Some(BasicAuth::new("admin", "s3cret")), ..Access::default() });
    assert_eq!(call(None).await, (401, true, "no auth header received".into()));
    assert_eq!(call(Some("Basic YWRtaW46czNjcmVx")).await, (401, true, "not authenticated".into()));
    assert_eq!(call(Some("Basic YWRtaW46czNjcmV0")).await.0, 202);
    assert_eq!(fixture.call("GET", "/config", "").await.0.as_u16(), 200);

    with(Access { allowlist: Some(vec!["10.0.0.0/8".parse().expect("a network")]), ..Access::default() });
    assert_eq!(call(None).await, (403, false, "Access is denied".into()));
    with(Access { allowlist: Some(vec!["127.0.0.0/8".parse().expect("a network")]), ..Access::default() });
    assert_eq!(call(None).await.0, 202);
    with(Access { allowlist: Some(Vec::new()), ..Access::default() });
    assert_eq!(call(None).await.0, 403);

    let mut members = view();
    members.members[0].api_url = "http://127.0.0.1:8008/patroni".into();
    members.members[1].api_url = "nonsense".into();
    fixture.change(|snapshot| {
        snapshot.view = Some(LoadedView { view: Arc::new(members), loaded: boot_now() });
    });
    with(Access { include_members: true, ..Access::default() });
    assert_eq!(call(None).await.0, 202);
    fixture.change(|snapshot| snapshot.view = None);
    assert_eq!(call(None).await.0, 403);
}

#[tokio::test]
async fn the_server_names_itself_as_configured() {
    let fixture = Fixture::new(view());
    let extra = (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY"));
    for (tokens, expected) in [
        (ServerTokens::Original, concat!("pgherd/", env!("CARGO_PKG_VERSION"))),
        (ServerTokens::Minimal, "Patroni/4.1.4"),
        (ServerTokens::ProductOnly, "Patroni"),
    ] {
        let settings = Settings { server_tokens: tokens, extra_headers: vec![extra.clone()], ..Settings::default() };
        fixture.api.settings.store(Arc::new(settings));
        let headers = fixture.call("GET", "/", "").await.1;
        assert_eq!((headers["server"].to_str().ok(), &headers["x-frame-options"]), (Some(expected), &extra.1));
    }
}

#[tokio::test]
async fn the_body_of_every_health_check_is_json() {
    let fixture = Fixture::new(view());
    fixture.api.permit.store(Arc::new(Permit::None));
    for path in ["/", "/replica", "/nothing"] {
        let (status, _, body) = fixture.call("GET", path, "").await;
        assert_eq!(status.as_u16(), 503);
        assert!(serde_json::from_str::<Value>(&body).is_ok_and(|body| body["patroni"]["name"] == "n1"), "{body}");
    }
}
