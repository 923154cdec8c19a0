//! Asking members that answer well, badly, late or not at all.

use std::time::Duration;

use pgherd_ha::{Lsn, Role, Timeline};
use proptest::prelude::*;
use tokio::net::TcpListener;

use super::access::BasicAuth;
use super::fixture::peer_client;
use super::peer::*;
use super::switchover_tests::peer;

fn client() -> PeerClient {
    peer_client(Some(&BasicAuth::new("a", "b")))
}

#[test]
fn answers_are_read_as_old_and_new_members_write_them() {
    // body -> (in_recovery, position, timeline)
    let cases = [
        (r#"{"xlog": {"location": 9}, "role": "primary", "timeline": 3}"#, Some((false, 0, 3))),
        (r#"{"xlog": {"received_location": 9, "replayed_location": 8}, "timeline": null}"#, Some((true, 9, 0))),
        (r#"{"wal": {"received_location": null, "replayed_location": 8}, "role": "replica"}"#, Some((true, 8, 0))),
        (r#"{"xlog": {"location": 0}, "role": "master"}"#, Some((false, 0, 0))),
        (r#"{"xlog": {"received_location": -1}, "timeline": -4}"#, Some((true, 0, 0))),
        (r#"{"state": "stopped", "role": "replica"}"#, None),
        (r#"{"xlog": 5}"#, None),
        ("[]", None),
        ("", None),
    ];
    for (body, expected) in cases {
        let seen = PeerStatus::parse(body.as_bytes());
        let seen = seen
            .map(|status| (status.in_recovery, status.position.0, status.timeline.map_or(0, |timeline| timeline.0)));
        assert_eq!(seen, expected, "{body}");
    }
}

#[tokio::test]
async fn members_are_asked_at_once_and_answer_in_the_order_of_the_question() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its address");
    let urls = [
        format!("http://{}/patroni", silent.local_addr().expect("its address")),
        peer(r#"{"xlog": {"received_location": 7}, "role": "replica", "timeline": 2, "patroni": {"name": "n2"}}"#)
            .await,
        format!("http://{closed}/patroni"),
        "nonsense".to_owned(),
        peer("not JSON").await,
    ];
    let answers = client().poll(&urls, Duration::from_secs(2)).await;
    let status = answers[1].status().expect("an answer");
    assert_eq!((status.name.as_deref(), status.position, status.timeline), (Some("n2"), Lsn(7), Some(Timeline(2))));
    assert_eq!((status.role, status.in_recovery, status.may_be_promoted()), (Role::Replica, true, true));
    for (index, part) in [(0, "no answer within 2000 ms"), (2, "refused"), (3, "nonsense"), (4, "no WAL position")] {
        let PeerAnswer::Unreachable { reason } = &answers[index] else { panic!("{:?}", answers[index]) };
        assert!(reason.contains(part), "{reason}");
    }
}

proptest! {
    #[test]
    fn no_answer_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = PeerStatus::parse(&body);
    }

    #[test]
    fn no_shape_of_an_answer_panics(value in "(null|-?[0-9]{1,25}|[0-9.e]{1,9}|\"x\"|\\[\\]|\\{\\})") {
        for key in ["wal", "timeline", "tags", "role", "state", "watchdog_failed", "patroni"] {
            let _ = PeerStatus::parse(format!("{{\"xlog\":{{\"location\":{value}}},\"{key}\":{value}}}").as_bytes());
        }
    }
}
