//! Bytes that nobody sensible sends, at every port of a running cluster: no process ends, and nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::cluster::Cluster;

/// Long enough for an answer; a server that waits for the rest of a message is left alone.
const PATIENCE: Duration = Duration::from_millis(500);

/// Deterministic noise.
fn noise(length: usize, mut seed: u32) -> Vec<u8> {
    let mut next = || {
        // Numerical Recipes' linear congruential generator.
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn messages() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..20).map(|seed| noise(1 + 97 * seed as usize, seed)).collect();
    all.extend([
        Vec::new(),
        vec![0; 8],
        vec![0xff; 64 * 1024],
        // A start-up message of no length, of one byte too few, of two gigabytes, of another protocol, without an end.
        b"\0\0\0\0\0\x03\0\0".to_vec(),
        b"\0\0\0\x07\0\x03\0".to_vec(),
        b"\x7f\xff\xff\xff\0\x03\0\0user\0postgres\0\0".to_vec(),
        b"\0\0\0\x08\0\x02\0\0".to_vec(),
        b"\0\0\0\x12\0\x03\0\0user\0post".to_vec(),
        // Cancels nobody; asks for TLS and then says something else.
        b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02".to_vec(),
        b"\0\0\0\x08\x04\xd2\x16\x2fGET / HTTP/1.0\r\n\r\n".to_vec(),
        // HTTP that is none.
        b"GET\r\n\r\n".to_vec(),
        b"GET /\xff\xfe HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /%zz%00?lag=%ff&lag=-1 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"GET /replica?lag=99999999999999999999999TB HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(),
        b"POST /switchover HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{".to_vec(),
        b"POST /restart HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{".to_vec(),
        b"PATCH /config HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'y'; 256 * 1024], b"\r\n\r\n".to_vec()].concat(),
    ]);
    all
}

fn send(port: u16, message: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    // It may be cut off in the middle.
    let _ = stream.write_all(message).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let _ = stream.read(&mut [0; 1024]);
}

#[test]
fn garbage_at_any_port_ends_no_process() {
    let cluster = Cluster::start(2);
    let leader = cluster.leader();
    let node = cluster.node(&leader);
    let before =
        (cluster.entry(), node.agent, cluster.postmaster(&leader), cluster.guard(&leader), cluster.epoch(&leader));
    for port in [cluster.entry_port(), cluster.stats_port(), node.rest_port] {
        for message in messages() {
            send(port, &message);
        }
        // Many that say nothing, at once.
        let silent: Vec<_> = (0..64).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("it listens")).collect();
        drop(silent);
    }
    cluster.wait_healthy();
    assert_eq!(cluster.write("SELECT 1"), ["1"]);
    let after =
        (cluster.entry(), node.agent, cluster.postmaster(&leader), cluster.guard(&leader), cluster.epoch(&leader));
    assert_eq!(after, before);
    assert!(before.0.is_alive() && before.1.is_alive());
    for log in [cluster.log(&leader), cluster.entry_log()] {
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn malformed_requests_are_refused_and_change_nothing() {
    let cluster = Cluster::start(1);
    let node = cluster.leader();
    let config = cluster.rest(&node, "GET", "/config", "").expect("an answer");
    let deep = "[".repeat(100_000);
    for (method, path, body) in [
        ("PATCH", "/config", "{"),
        ("PATCH", "/config", ""),
        ("PATCH", "/config", "[1, 2]"),
        ("PATCH", "/config", "\u{0}"),
        ("PATCH", "/config", deep.as_str()),
        ("PUT", "/config", "null"),
        ("POST", "/switchover", "[]"),
        ("POST", "/switchover", r#"{"leader": 7}"#),
        ("POST", "/switchover", r#"{"leader": "nobody", "candidate": {}}"#),
        ("POST", "/failover", "{}"),
        ("POST", "/restart", r#"{"timeout": "forever and a day"}"#),
        ("POST", "/restart", r#"{"schedule": "yesterday"}"#),
        ("POST", "/reinitialize", "{{"),
    ] {
        let (status, text) = cluster.rest(&node, method, path, body).expect("an answer");
        let shown: String = body.chars().take(40).collect();
        assert!((400..600).contains(&status), "{method} {path} {shown}: {status} {text}");
    }
    assert_eq!(cluster.rest(&node, "GET", "/config", "").expect("an answer"), config);
    cluster.wait_healthy();
    assert_eq!(cluster.write("SELECT 1"), ["1"]);
}
