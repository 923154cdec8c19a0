//! Requests to move the leader: every refusal, and how a request is followed to its end.

use pgherd_dcs::Outcome;
use pgherd_ha::{FailoverKey, Versioned, View};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::Command;
use super::fixture::*;

/// A member's REST API that answers every request with this body; returns its api_url.
pub async fn peer(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(format!("HTTP/1.0 503 Service Unavailable\r\n\r\n{body}").as_bytes()).await;
        }
    });
    format!("http://{address}/patroni")
}

const GOOD: &str = r#"{"xlog": {"received_location": 5}, "role": "replica"}"#;

async fn view_with_peer(body: &'static str) -> View {
    let mut view = view();
    view.members[1].api_url = peer(body).await;
    view
}

fn config(text: &str) -> Option<Versioned<serde_json::Map<String, serde_json::Value>>> {
    Some(Versioned { value: object(text), version: 1 })
}

#[tokio::test]
async fn requests_that_cannot_be_carried_out_are_refused_in_order() {
    let cases = [
        ("/failover", "{}", r#"{"leader": "n1"}"#, 400, "Failover could be performed only to a specific candidate"),
        (
            "/switchover",
            "{}",
            r#"{"candidate": "n2"}"#,
            400,
            "Switchover could be performed only from a specific leader",
        ),
        ("/switchover", "{}", r#"{"leader": 1}"#, 400, "`leader` should be the name of a member"),
        ("/failover", "{}", r#"{"candidate": "n2", "scheduled_at": "x"}"#, 400, "Failover can't be scheduled"),
        (
            "/switchover",
            r#"{"pause": true}"#,
            r#"{"leader": "n1", "scheduled_at": "x"}"#,
            400,
            "Can't schedule switchover in the paused state",
        ),
        (
            "/switchover",
            "{}",
            r#"{"leader": "n1", "scheduled_at": "2999-01-01T00:00:00"}"#,
            400,
            "Timezone information is mandatory for the scheduled switchover",
        ),
        (
            "/switchover",
            "{}",
            r#"{"leader": "n1", "scheduled_at": "2001-01-01T00:00:00Z"}"#,
            422,
            "Cannot schedule switchover in the past",
        ),
        (
            "/switchover",
            r#"{"pause": true}"#,
            r#"{"leader": "n1"}"#,
            400,
            "Switchover is possible only to a specific candidate in a paused state",
        ),
        ("/switchover", "{}", r#"{"leader": "n1", "member": "n1"}"#, 400, "Switchover target and source are the same"),
        ("/switchover", "{}", r#"{"leader": "n2"}"#, 412, "leader name does not match"),
        ("/switchover", "{}", r#"{"leader": "n1", "candidate": "n9"}"#, 412, "candidate does not exists"),
        (
            "/switchover",
            r#"{"synchronous_mode": true}"#,
            r#"{"leader": "n1", "candidate": "n2"}"#,
            412,
            "candidate name does not match with sync_standby",
        ),
        (
            "/failover",
            r#"{"synchronous_mode": true}"#,
            r#"{"leader": "n1", "candidate": "n2"}"#,
            412,
            "candidate name does not match with sync_standby",
        ),
        (
            "/failover",
            r#"{"synchronous_mode": true}"#,
            r#"{"candidate": "n2"}"#,
            412,
            "failover is not possible: no good candidates have been found",
        ),
        (
            "/switchover",
            r#"{"synchronous_mode": true}"#,
            r#"{"leader": "n1"}"#,
            412,
            "switchover is not possible: can not find sync_standby",
        ),
        (
            "/switchover",
            r#"{"synchronous_mode": "quorum"}"#,
            r#"{"leader": "n1"}"#,
            412,
            "switchover is not possible: no good candidates have been found",
        ),
    ];
    for (path, dynamic, request, status, text) in cases {
        let view = View { config: config(dynamic), ..view_with_peer(r#"{"state": "stopped"}"#).await };
        let fixture = Fixture::new(view);
        let (seen, _, body) = fixture.call("POST", path, request).await;
        assert_eq!((seen.as_u16(), body.as_str()), (status, text), "{path} {request}");
        assert_eq!(fixture.store.view().failover, None, "{path} {request}");
    }
    let fixture = Fixture::new(View { members: vec![member("n1")], ..view() });
    let (_, _, body) = fixture.call("POST", "/switchover", r#"{"leader": "n1"}"#).await;
    assert_eq!(body, "switchover is not possible: cluster does not have members except leader");
}

#[tokio::test]
async fn a_member_that_must_not_be_promoted_is_no_candidate() {
    for body in [
        r#"{"xlog": {"received_location": 5}, "tags": {"nofailover": true}}"#,
        r#"{"xlog": {"received_location": 5}, "tags": {"failover_priority": 0}}"#,
        r#"{"xlog": {"received_location": 5}, "watchdog_failed": true}"#,
        "not JSON",
    ] {
        let fixture = Fixture::new(view_with_peer(body).await);
        let (status, _, _) = fixture.call("POST", "/switchover", r#"{"leader": "n1"}"#).await;
        assert_eq!(status.as_u16(), 412, "{body}");
    }
}

/// How other members answer a request: applied to the store as soon as the request is there.
type Reaction = fn(&mut View);

#[tokio::test]
async fn a_request_is_followed_to_its_end() {
    let cleared: Reaction = |view| view.failover.as_mut().expect("requested").value = FailoverKey::default();
    let to_n2: Reaction = |view| view.leader = Some(leader("n2"));
    let to_n3: Reaction = |view| view.leader = Some(leader("n3"));
    let request = r#"{"leader": "n1", "candidate": "n2"}"#;
    let cases = [
        ("/switchover", request, to_n2, 200, r#"Successfully switched over to "n2""#),
        ("/switchover", r#"{"leader": "n1"}"#, to_n3, 200, r#"Successfully switched over to "n3""#),
        ("/switchover", request, to_n3, 200, r#"Switched over to "n3" instead of "n2""#),
        ("/switchover", request, cleared, 503, "Switchover failed"),
        ("/failover", r#"{"candidate": "n2"}"#, to_n2, 200, r#"Successfully failed over to "n2""#),
        ("/failover", r#"{"candidate": "n2"}"#, to_n3, 200, r#"Failed over to "n3" instead of "n2""#),
        ("/failover", r#"{"candidate": "n2"}"#, cleared, 503, "Failover failed"),
    ];
    for (path, request, reaction, status, text) in cases {
        let mut fixture = Fixture::new(view_with_peer(GOOD).await);
        let store = fixture.store.clone();
        let mut commands = std::mem::replace(&mut fixture.commands, tokio::sync::mpsc::channel(1).1);
        let others = async {
            let woken = commands.recv().await;
            assert!(matches!(woken, Some(Command::Wake)));
            assert!(store.view().failover_request().is_some());
            store.change(reaction);
        };
        let ((seen, _, body), ()) = tokio::join!(fixture.call("POST", path, request), others);
        assert_eq!((seen.as_u16(), body.as_str()), (status, text), "{path} {request}");
    }
}

#[tokio::test]
async fn a_request_that_was_cleared_by_the_new_leader_is_a_success() {
    let mut fixture = Fixture::new(view_with_peer(GOOD).await);
    let store = fixture.store.clone();
    let mut commands = std::mem::replace(&mut fixture.commands, tokio::sync::mpsc::channel(1).1);
    let others = async {
        commands.recv().await.expect("woken");
        store.change(|view| view.leader = None);
        tokio::task::yield_now().await;
        store.change(|view| {
            view.leader = Some(leader("n2"));
            view.failover.as_mut().expect("requested").value = FailoverKey::default();
        });
    };
    let request = r#"{"leader": "n1", "candidate": "n2"}"#;
    let ((status, _, body), ()) = tokio::join!(fixture.call("POST", "/switchover", request), others);
    assert_eq!((status.as_u16(), body.as_str()), (200, r#"Successfully switched over to "n2""#));
}

#[tokio::test]
async fn a_request_that_nobody_takes_up_ends_as_unknown() {
    let fixture = Fixture::new(view_with_peer(GOOD).await);
    let request = fixture.call("POST", "/switchover", r#"{"leader": "n1", "candidate": "n2"}"#);
    let pass_time = async {
        while fixture.store.view().failover.is_none() {
            tokio::task::yield_now().await;
        }
        tokio::time::pause();
    };
    let ((status, _, body), ()) = tokio::join!(request, pass_time);
    let text = "Switchover status unknown after 20 seconds; operation may still be in progress";
    assert_eq!((status.as_u16(), body.as_str()), (503, text));
}

#[tokio::test]
async fn a_scheduled_switchover_is_kept_and_can_be_deleted() {
    let mut fixture = Fixture::new(view());
    let request = r#"{"leader": "n1", "scheduled_at": "2999-01-01T02:00:00+02:00"}"#;
    let (status, _, body) = fixture.call("POST", "/switchover", request).await;
    assert_eq!((status.as_u16(), body.as_str()), (202, "Switchover scheduled"));
    assert!(matches!(fixture.commands.try_recv(), Ok(Command::Wake)));
    let cluster = fixture.call("GET", "/cluster", "").await.2;
    assert!(
        cluster.contains(r#""scheduled_switchover": {"at": "2999-01-01T00:00:00+00:00", "from": "n1"}"#),
        "{cluster}"
    );

    let (status, _, body) = fixture.call("DELETE", "/switchover", "").await;
    assert_eq!((status.as_u16(), body.as_str()), (200, "scheduled switchover deleted"));
    let (status, _, body) = fixture.call("DELETE", "/switchover", "").await;
    assert_eq!((status.as_u16(), body.as_str()), (404, "no switchover is scheduled"));
}

#[tokio::test]
async fn a_store_that_fails_is_an_answer_too() {
    let fixture = Fixture::new(view());
    fixture.store.fail(Outcome::NotDone);
    for (method, path, body) in [("POST", "/switchover", r#"{"leader": "n1"}"#), ("DELETE", "/switchover", "")] {
        assert_eq!(fixture.call(method, path, body).await.0.as_u16(), 503, "{method} {path}");
    }
}
