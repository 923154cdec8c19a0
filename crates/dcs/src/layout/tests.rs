use pgherd_ha::{FailoverKey, HistoryLine, Lsn, Member, MemberState, Role, Status, SyncKey, Timeline};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn member(name: &str) -> Member {
    Member {
        name: name.into(),
        conn_url: "postgres://pg-1:5432/postgres".into(),
        api_url: "http://pg-1:8008/patroni".into(),
        state: MemberState::Running,
        role: Role::Primary,
        version: "4.1.4".into(),
        pgherd: Some("0.1.0".into()),
        tags: Map::new(),
        xlog_location: Some(Lsn(67108960)),
        replay_lsn: None,
        receive_lsn: None,
        replication_state: None,
        timeline: Some(Timeline(1)),
        checkpoint_after_promote: None,
        pending_restart: false,
        pause: false,
        extra: Map::new(),
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

#[test]
fn paths() {
    for namespace in ["service", "/service", "/service/", "//service//"] {
        let layout = Layout::new(namespace, "my_cluster").expect("a good name");
        assert_eq!(layout.base(), "/service/my_cluster");
        assert_eq!(layout.namespace(), "/service");
        assert_eq!(layout.leader(), "/service/my_cluster/leader");
        assert_eq!(layout.key(Key::OptimeLeader), "/service/my_cluster/optime/leader");
        assert_eq!(layout.member("pg 1").as_deref(), Ok("/service/my_cluster/members/pg 1"));
        assert!(layout.member("a/b").is_err() && layout.member("..").is_err() && layout.member("").is_err());
    }
    assert_eq!(Layout::new("", "c").expect("a good name").namespace(), "/");
    assert!(Layout::new("service", "").is_err());
    assert!(Layout::new("../x", "c").is_err());
}

#[test]
fn a_member_is_written_byte_for_byte() {
    let plain = r#"{"conn_url":"postgres://pg-1:5432/postgres","api_url":"http://pg-1:8008/patroni","state":"running","role":"primary","version":"4.1.4","xlog_location":67108960,"timeline":1,"pgherd":"0.1.0"}"#;
    assert_eq!(text(encode_member(&member("pg-1"))), plain);

    let full = Member {
        state: MemberState::Starting,
        role: Role::Replica,
        pgherd: None,
        tags: json!({"nofailover": true, "näme": "1", "ratio": 1.4}).as_object().cloned().expect("an object"),
        replay_lsn: Some(Lsn(2)),
        receive_lsn: Some(Lsn(3)),
        replication_state: Some("streaming".into()),
        checkpoint_after_promote: Some(false),
        pending_restart: true,
        pause: true,
        extra:
            json!({"scheduled_restart": {"schedule": "x"}, "pending_restart_reason": {}, "proxy_url": "postgres://p",
                      "later": 1})
            .as_object()
            .cloned()
            .expect("an object"),
        ..member("pg-1")
    };
    let expected = concat!(
        r#"{"conn_url":"postgres://pg-1:5432/postgres","api_url":"http://pg-1:8008/patroni","state":"starting","#,
        r#""role":"replica","version":"4.1.4","proxy_url":"postgres://p","checkpoint_after_promote":false,"#,
        r#""tags":{"nofailover":true,"n\u00e4me":"1","ratio":1.4},"pending_restart":true,"pending_restart_reason":{},"#,
        r#""xlog_location":67108960,"replay_lsn":2,"receive_lsn":3,"replication_state":"streaming","timeline":1,"#,
        r#""scheduled_restart":{"schedule":"x"},"pause":true,"later":1}"#
    );
    assert_eq!(text(encode_member(&full)), expected);
    assert_eq!(decode_member("pg-1", expected.as_bytes()), Some(full));
}

#[test]
fn members_of_others_are_read_with_tolerance() {
    assert_eq!(decode_member("m", b"nonsense"), None);
    assert_eq!(decode_member("m", b"[1]"), None);
    assert_eq!(decode_member("m", b"\xff"), None);
    let odd = decode_member("m", br#"{"conn_url":1,"role":"master","timeline":"2","xlog_location":-5,"tags":[]}"#)
        .expect("an object");
    assert_eq!((odd.role, odd.timeline, odd.xlog_location), (Role::Primary, Some(Timeline(2)), None));
    let old = decode_member("m", b"postgres://a:b@h:5432/db?x=1&application_name=http%3A%2F%2Fh:8008/patroni")
        .expect("the legacy form");
    assert_eq!(old.conn_url, "postgres://a:b@h:5432/db");
    assert_eq!(old.api_url, "http://h:8008/patroni");
}

#[test]
fn status_in_its_three_forms() {
    let status = Status {
        optime: Lsn(67109200),
        slots: [("pg_2".to_owned(), 67109200)].into(),
        retain_slots: vec!["pg_2".into(), "pg_3".into()],
    };
    let object = r#"{"optime":67109200,"slots":{"pg_2":67109200},"retain_slots":["pg_2","pg_3"]}"#;
    assert_eq!(text(encode_status(&status)), object);
    assert_eq!(decode_status(object.as_bytes()), status);
    let packed = br#"{"optime":"67109200","slots":"{\"pg_2\":67109200}","retain_slots":"[\"pg_2\",\"pg_3\"]"}"#;
    assert_eq!(decode_status(packed), status);
    assert_eq!(decode_status(b"67109200"), Status { optime: Lsn(67109200), ..Status::default() });
    assert_eq!(decode_status(b"{"), Status::default());
    assert_eq!(text(encode_status(&decode_status(b"7"))), r#"{"optime":7}"#);
}

#[test]
fn history() {
    let bytes = concat!(
        r#"[[1,67108960,"no recovery target specified"],"#,
        r#"[2,67109200,"no recovery target specified","2026-11-23T00:23:21.389539+00:00","pg-2"]]"#
    );
    let lines = decode_history(bytes.as_bytes());
    let first = HistoryLine {
        timeline: Timeline(1),
        switch_lsn: Lsn(67108960),
        reason: "no recovery target specified".into(),
        timestamp: None,
        new_leader: None,
    };
    assert_eq!((lines.len(), &lines[0], lines[1].new_leader.as_deref()), (2, &first, Some("pg-2")));
    assert_eq!(text(encode_history(&lines)), bytes);
    assert_eq!(text(encode_history(&[])), "[]");
    assert!(decode_history(br#"{"a":1}"#).is_empty());
    assert_eq!(decode_history(br#"[1,["x"],[3,4,"r"]]"#).len(), 1);
}

#[test]
fn sync() {
    let key = SyncKey { leader: Some("a".into()), quorum: 0, sync_standby: vec!["c".into(), "b".into()] };
    let bytes = r#"{"leader":"a","quorum":0,"sync_standby":"b,c"}"#;
    assert_eq!(text(encode_sync(&key)), bytes);
    assert_eq!(decode_sync(bytes.as_bytes()).sync_standby, ["b", "c"]);
    let alone = SyncKey { leader: Some("a".into()), ..SyncKey::default() };
    assert_eq!(text(encode_sync(&alone)), r#"{"leader":"a","quorum":0,"sync_standby":null}"#);
    assert_eq!(text(encode_sync(&SyncKey::default())), "{}");
    for off in ["{}", "", "[]", r#"{"leader":null,"quorum":3,"sync_standby":"a"}"#, r#"{"leader":""}"#] {
        assert_eq!(decode_sync(off.as_bytes()), SyncKey::default(), "{off}");
    }
}

#[test]
fn failover() {
    let request = |leader: Option<&str>, member: Option<&str>, at: Option<&str>| FailoverKey {
        leader: leader.map(str::to_owned),
        member: member.map(str::to_owned),
        scheduled_at: at.map(|at| at.parse().expect("a time")),
    };
    let cases = [
        ("{}", request(None, None, None)),
        (r#"{"leader":"a"}"#, request(Some("a"), None, None)),
        (r#"{"member":"b"}"#, request(None, Some("b"), None)),
        (
            r#"{"leader":"a","member":"b","scheduled_at":"2026-11-23T10:00:00+00:00"}"#,
            request(Some("a"), Some("b"), Some("2026-11-23T10:00:00Z")),
        ),
        (
            r#"{"leader":"a","scheduled_at":"2026-11-23T10:00:00.000250+00:00"}"#,
            request(Some("a"), None, Some("2026-11-23T10:00:00.00025Z")),
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(decode_failover(bytes.as_bytes()), expected, "{bytes}");
        assert_eq!(text(encode_failover(&expected)), bytes);
    }
    for (bytes, expected) in [
        ("a:b", request(Some("a"), Some("b"), None)),
        (" a ", request(Some("a"), None, None)),
        (":b", request(None, Some("b"), None)),
        ("", request(None, None, None)),
        ("null", request(None, None, None)),
        (r#"{"leader":"a","member"#, request(None, None, None)),
        (r#"{"leader":"a","scheduled_at":"tomorrow"}"#, request(None, None, None)),
        (
            r#"{"leader":"a","member":"","scheduled_at":"2026-11-23T12:00:00+02:00"}"#,
            request(Some("a"), None, Some("2026-11-23T10:00:00Z")),
        ),
    ] {
        assert_eq!(decode_failover(bytes.as_bytes()), expected, "{bytes}");
    }
}

#[test]
fn json_is_compact_and_ascii() {
    let value = json!({"b": "é𝄞\"\\\n\u{1}/", "a": [1, 1.0, null, true]});
    assert_eq!(text(compact(&value)), r#"{"b":"\u00e9\ud834\udd1e\"\\\n\u0001/","a":[1,1.0,null,true]}"#);
}

#[test]
fn equal_leaves_are_equal_as_text() {
    for (old, new, same) in [
        (json!({"a": 1}), json!({"a": "1"}), true),
        (json!({"a": true}), json!({"a": "True"}), true),
        (json!({"a": true}), json!({"a": "true"}), false),
        (json!({"a": null}), json!({"a": "None"}), true),
        (json!({"a": {"b": 1, "c": 2}}), json!({"a": {"c": "2", "b": "1"}}), true),
        (json!({"a": 1}), json!({"a": 1, "b": 2}), false),
        (json!({"a": 1}), json!({"b": 1}), false),
        (json!({"a": [1]}), json!({"a": ["1"]}), false),
        (json!({"a": {}}), json!({"a": []}), false),
    ] {
        assert_eq!(same_value(&old, &new), same, "{old} {new}");
    }
}

proptest! {
    #[test]
    fn nothing_in_a_store_makes_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        decode_everything(&bytes);
    }

    #[test]
    fn nothing_that_looks_like_json_makes_a_decoder_panic(text in "[\\[{\"a-z:,0-9.\\-]{0,60}[\\]}\"%]{0,4}") {
        decode_everything(text.as_bytes());
        decode_everything(format!("postgres://{text}").as_bytes());
        decode_everything(format!(r#"{{"optime":{text},"slots":"{text}","leader":"{text}"}}"#).as_bytes());
    }

    #[test]
    fn what_is_written_is_ascii_and_reads_back(text in any::<String>()) {
        let value = Value::String(text);
        let bytes = compact(&value);
        prop_assert!(bytes.is_ascii());
        prop_assert_eq!(serde_json::from_slice::<Value>(&bytes).expect("JSON"), value);
    }
}

fn decode_everything(bytes: &[u8]) {
    if let Some(member) = decode_member("m", bytes) {
        encode_member(&member);
    }
    encode_status(&decode_status(bytes));
    encode_history(&decode_history(bytes));
    encode_sync(&decode_sync(bytes));
    encode_failover(&decode_failover(bytes));
    encode_failsafe(&decode_failsafe(bytes));
    decode_config(bytes);
}
