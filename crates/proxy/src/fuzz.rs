//! Every reader of what clients, servers, agents and the configuration send: for the fuzzer in `fuzz/`, which is not part of the product.

use std::hint::black_box;

use futures::FutureExt as _;
use pgherd_dcs::fuzz::Target;
use pgherd_ha::RouteMessage;

use crate::http;
use crate::session::frames::{Next, ServerSide};
use crate::session::{frames::Frames, startup};

pub const TARGETS: &[Target] = &[
    Target::new(
        "haproxy_cfg",
        haproxy_cfg,
        &[
            "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout queue 30s\nlisten pg\n  bind *:5000\n  option httpchk OPTIONS /\n  \
           http-check expect status 200\n  default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions\n  \
           server a 127.0.0.1:5432 maxconn 100 check port 8008\n",
        ],
    ),
    Target::new(
        "http",
        http,
        &["HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}", "HTTP/1.1 503 Service Unavailable\n\n"],
    ),
    Target::new("startup", startup, &["\0\0\0\x17\0\x03\0\0user\0a\0\0\0\0\0\0", "\0\0\0\x08\x04\u{d2}\x16\x2f"]),
    Target::new(
        "frames",
        frames,
        &["R\0\0\0\x08\0\0\0\0S\0\0\0\x15in_hot_standby\0on\0Z\0\0\0\x05I", "Q\0\0\0\x0dselect 1\0X\0\0\0\x04"],
    ),
    Target::new(
        "route",
        route,
        &[
            r#"{"elapsed_ms":3,"name":"a","scope":"s","address":"h:5432","running":true,"in_recovery":false,"epoch":7,"permit_ms":5000,"paused":false,"timeline":1,"lsn":67108960,"lag":null,"noloadbalance":false,"state":"running"}"#,
        ],
    ),
];

fn haproxy_cfg(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    black_box(crate::haproxy_cfg::parse("haproxy.cfg", &text, &|name| (name == "A").then(|| "b".to_owned())).ok());
}

fn http(bytes: &[u8]) {
    for ended in [false, true] {
        if let Ok(Some((_, length))) = http::parse_head(bytes, ended) {
            assert!(length <= bytes.len(), "a head of {length} bytes in {}", bytes.len());
        }
    }
}

fn startup(bytes: &[u8]) {
    let mut stream = bytes;
    // All of it is there, so nothing waits.
    if let Some(Ok(hello)) = startup::read(&mut stream).now_or_never() {
        black_box(hello);
    }
    black_box(startup::replicates(bytes));
}

/// Whole and in pieces must be the same.
fn frames(bytes: &[u8]) {
    let scan = |size: usize| {
        let (mut frames, mut seen) = (Frames::default(), Vec::new());
        for chunk in bytes.chunks(size) {
            frames.feed(
                chunk,
                |kind| kind == b'K',
                |kind, body| {
                    seen.push((kind, body.to_vec()));
                    Next::Continue
                },
            );
        }
        (seen, frames.at_boundary())
    };
    let whole = scan(bytes.len().max(1));
    for size in [1, 2, 5, 7] {
        assert_eq!(scan(size), whole, "in pieces of {size}");
    }
    if let Some(end) = ServerSide::default().feed(bytes, true) {
        assert!(end <= bytes.len(), "{end} of {}", bytes.len());
    }
}

fn route(bytes: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<RouteMessage>(bytes) {
        black_box(message.permit_deadline(pgherd_ha::Boot::from_millis(1)));
    }
}
