//! Every reader of what a store sends, or another member has written there: for the fuzzer in `fuzz/`, which is not part of the product.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};

use crate::etcd::wire as etcd;
use crate::layout::{keys, member, timelines};
use crate::zookeeper::wire as zookeeper;

/// A reader of outside data, and well-formed inputs to begin with.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    pub read: fn(&[u8]),
    pub examples: &'static [&'static str],
}

impl Target {
    pub const fn new(name: &'static str, read: fn(&[u8]), examples: &'static [&'static str]) -> Target {
        Target { name, read, examples }
    }
}

pub const TARGETS: &[Target] = &[
    Target::new(
        "layout",
        layout,
        &[
            r#"{"optime":67108960,"slots":{"a":67108960},"retain_slots":["b"]}"#,
            r#"[[1,67108960,"no recovery target specified","2026-01-01T00:00:00+00:00","a"],[2,67109000,"x"]]"#,
            r#"{"leader":"a","sync_standby":"b,c","quorum":1}"#,
            r#"{"leader":"a","member":"b","scheduled_at":"2026-01-01T00:00:00+00:00"}"#,
            r#"{"a":"http://h:8008/patroni"}"#,
            r#"{"conn_url":"postgres://h:5432/postgres","api_url":"http://h:8008/patroni","state":"running","role":"replica","version":"4.1","xlog_location":67108960,"timeline":1,"tags":{"nofailover":true}}"#,
        ],
    ),
    Target::new(
        "zookeeper",
        zookeeper,
        &["\0\0\0\x08\0\0\0\0\0\0\x1f\x40", "\0\0\0\x10\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0"],
    ),
    Target::new(
        "etcd",
        etcd,
        &[
            r#"{"header":{"cluster_id":"1","revision":"9"},"kvs":[{"key":"L2E=","value":"Yg==","mod_revision":"9","lease":"5"}]}"#,
            r#"{"succeeded":true,"responses":[{"response_range":{"header":{},"kvs":[]}}]}"#,
            r#"{"result":{"header":{"revision":"9"},"created":true,"events":[{"type":"DELETE","kv":{"key":"L2E="}}]}}"#,
            r#"{"result":{"ID":"5","TTL":"8"}}"#,
            r#"{"error":"etcdserver: requested lease not found","code":5}"#,
        ],
    ),
    Target::new(
        "built_in_store",
        built_in,
        &[
            "\x02\0\0\0\x43\x3c\x51\x17{}",
            r#"{"renew":{"lease":7,"holds":["/service/a/leader",5]}}"#,
            r#"{"write":{"write":{"expect":[{"absent":{"key":"a"}}],"then":[{"put":{"key":"a","value":"Yg==","lease":7}}]}}}"#,
            r#"{"contents":{"revision":9,"keys":[["a",{"value":"Yg==","created":3,"modified":9,"lease":7}]]}}"#,
            r#"{"revision":9,"keys":{"a":{"value":"Yg==","created":3,"modified":9}},"leases":{"7":3000}}"#,
        ],
    ),
];

fn layout(bytes: &[u8]) {
    black_box((keys::decode_status(bytes), keys::decode_history(bytes), keys::decode_sync(bytes)));
    black_box((keys::decode_failover(bytes), keys::decode_failsafe(bytes), keys::decode_config(bytes)));
    black_box((member::decode_member("a", bytes), timelines::decode_reservation(bytes)));
}

fn zookeeper(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(frame)) = zookeeper::take_frame(&mut buffer) {
        black_box(zookeeper::decode_connected(frame.clone()).ok());
        let Ok((_, body)) = zookeeper::decode_reply(frame) else { continue };
        readings_of_a_reply(&body);
    }
    readings_of_a_reply(&Bytes::copy_from_slice(bytes));
}

fn readings_of_a_reply(body: &Bytes) {
    black_box((zookeeper::decode_created(body.clone()).ok(), zookeeper::decode_stat(body.clone()).ok()));
    black_box((zookeeper::decode_value(body.clone()).ok(), zookeeper::decode_children(body.clone()).ok()));
}

fn etcd(bytes: &[u8]) {
    black_box(serde_json::from_slice::<etcd::RangeAnswer>(bytes).ok());
    black_box(serde_json::from_slice::<etcd::TxnAnswer>(bytes).ok());
    black_box(serde_json::from_slice::<etcd::GrantAnswer>(bytes).ok());
    black_box(serde_json::from_slice::<etcd::KeepAliveAnswer>(bytes).ok());
    black_box(serde_json::from_slice::<etcd::MembersAnswer>(bytes).ok());
    black_box(serde_json::from_slice::<etcd::WatchLine>(bytes).ok());
    black_box(serde_json::from_slice::<etcd::Refusal>(bytes).ok());
}

fn built_in(bytes: &[u8]) {
    black_box(pgherd_store::log::only_record(bytes).ok());
    black_box(serde_json::from_slice::<pgherd_store::wire::Question>(bytes).ok());
    black_box(serde_json::from_slice::<pgherd_store::wire::Reply>(bytes).ok());
    black_box(serde_json::from_slice::<pgherd_store::wire::Hello>(bytes).ok());
    black_box(serde_json::from_slice::<pgherd_store::kv::Contents>(bytes).ok());
}
