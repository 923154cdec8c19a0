//! Every reader of what comes from outside the agent: its configuration, the cluster's, requests, PostgreSQL's files and the output of its
//! programs. For the fuzzer in `fuzz/`, which is not part of the product.

use std::hint::black_box;

use pgherd_dcs::fuzz::Target;
use pgherd_ha::Wall;
use serde_json::{Map, Value};

use crate::api::fuzz as api;
use crate::config::fuzz as config;
use crate::postgres::fuzz as postgres;

pub const TARGETS: &[Target] = &[
    Target::new(
        "config_file",
        config::file,
        &[include_str!("config/testdata/postgres1.yml"), include_str!("config/testdata/full.yml")],
    ),
    Target::new(
        "dynamic_config",
        |bytes| with_object(bytes, config::dynamic),
        &[
            r#"{"ttl":"30","loop_wait":1e1,"synchronous_mode":"quorum","slots":{"a":{"type":"logical","database":"d","plugin":"p"}},
              "standby_cluster":{"host":"a,b","port":"1,2"},"postgresql":{"parameters":{"max_connections":"0x64"},"pg_hba":["local all all trust"]}}"#,
        ],
    ),
    Target::new(
        "scalar",
        |bytes| config::scalar(&text(bytes)),
        &["0x1F", "1_000.5e+3", "2001-12-14t21:59:43.10-05:00", "190:20:30", "~", "Yes"],
    ),
    Target::new(
        "request",
        |bytes| with_object(bytes, |object| api::request(object, Wall::UNIX_EPOCH)),
        &[
            r#"{"leader":"a","candidate":"b","scheduled_at":"2026-01-01T00:00:00+00:00"}"#,
            r#"{"schedule":"2026-01-01 00:00","role":"primary","postgres_version":"15.2","timeout":"10min","restart_pending":true}"#,
            r#"{"name":"a","ttl":8.5,"slots":{"b":67108960},"api_url":"http://h:8008"}"#,
        ],
    ),
    Target::new(
        "query_string",
        |bytes| api::query(&text(bytes)),
        &["lag=16MB&tag_k=v&replication_state=streaming", "lag=%31&lag=2&&=&a=b=c"],
    ),
    Target::new("network", |bytes| api::network(&text(bytes)), &["10.0.0.0/8", "fe80::1/64", "h"]),
    Target::new(
        "peer_status",
        api::peer_status,
        &[
            r#"{"state":"running","role":"replica","server_version":150018,"xlog":{"received_location":5,"replayed_location":5,"paused":false},
              "timeline":1,"patroni":{"version":"4.1.5","scope":"s","name":"a"},"tags":{"nofailover":true}}"#,
        ],
    ),
    Target::new(
        "control_data",
        |bytes| postgres::control_data(&text(bytes)),
        &[
            "pg_control version number:            1300\nDatabase system identifier:           7300000000000000001\nDatabase cluster \
           state:               in production\nLatest checkpoint location:           0/3000110\nLatest checkpoint's \
           TimeLineID:       1\nwal_log_hints setting:                on\nmax_connections setting:              100\n",
        ],
    ),
    Target::new(
        "timeline_history",
        |bytes| postgres::timeline_history(&text(bytes)),
        &["1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tx\n"],
    ),
    Target::new(
        "postmaster_pid",
        |bytes| postgres::postmaster_pid(&text(bytes)),
        &["17\n/data\n1700000000\n5432\n/run\n*\n  1 2\nready   \n"],
    ),
    Target::new(
        "access_rules",
        |bytes| postgres::access_rules(&text(bytes)),
        &["host all \"a b\",+c 10.0.0.0/8 scram-sha-256 # x", "local all all peer map=m"],
    ),
    Target::new(
        "output_of_programs",
        |bytes| postgres::output(&text(bytes)),
        &[
            "1024/2048 kB (50%), 0/1 tablespace",
            "rmgr: XLOG        len (rec/tot):    114/   114, tx: 0, lsn: 0/03000028, prev 0/02000110, desc: CHECKPOINT_SHUTDOWN",
            "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
            "LOG:  invalid value for parameter \"wal_level\": \"x\"\nHINT:  Available values: minimal, replica, logical.",
        ],
    ),
    Target::new(
        "process_stat",
        |bytes| {
            black_box(crate::proc_stat::parse(&text(bytes)));
        },
        &["7 (a) Z (b)) R 4 7 7 0"],
    ),
    Target::new(
        "user_command",
        |bytes| {
            black_box(crate::user_command::UserCommand::parse(&text(bytes)));
        },
        &["/bin/sh -c 'echo \"a b\" \\' x'"],
    ),
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn with_object(bytes: &[u8], read: impl FnOnce(&Map<String, Value>)) {
    if let Ok(Value::Object(object)) = serde_json::from_slice(bytes) {
        read(&object);
    }
}
