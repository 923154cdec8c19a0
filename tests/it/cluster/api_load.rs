//! Many clients of the REST API, well-behaved ones and others, while the lease is renewed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::cluster::Cluster;
use crate::harness::notes;

/// Half of what the server takes at once.
const CONNECTIONS: usize = 64;
const STALLED: usize = 16;
/// How long, in seconds; 30 says the most.
const SECONDS: &str = "PGHERD_LOAD_SECONDS";

/// With the status that a primary answers.
const PATHS: [(&str, u16); 8] = [
    ("/", 200),
    ("/primary", 200),
    ("/replica?lag=1MB", 503),
    ("/patroni", 200),
    ("/cluster", 200),
    ("/config", 200),
    ("/metrics", 200),
    ("/no/such/thing", 503),
];

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the port listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    stream
}

/// The whole answer to one request on a connection that stays open; its status.
fn ask(stream: &mut TcpStream, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let length = stream.read(&mut chunk).expect("an answer in time");
        assert_ne!(length, 0, "{path}: the connection was closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let announced =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= announced.unwrap_or(0) {
            return head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        }
    }
}

/// What is left of the permit, as the first line of the route says.
fn permit_left(port: u16) -> Option<Duration> {
    let mut stream = connect(port);
    stream.write_all(b"GET /pgherd/route HTTP/1.0\r\n\r\n").expect("sent");
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    let line = loop {
        let length = stream.read(&mut chunk).expect("a line in time");
        assert_ne!(length, 0, "the route ended");
        text.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&text);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Some((line, _)) = body.split_once('\n')
        {
            break line.to_owned();
        }
    };
    let message: pgherd_ha::RouteMessage = serde_json::from_str(&line).expect("a line of a route");
    message.node.permit_ms.map(Duration::from_millis)
}

fn percentile(latencies: &mut [Duration], percent: usize) -> Duration {
    latencies.sort_unstable();
    latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default()
}

/// Requests that never end, that are too long, that are none.
fn misbehave(port: u16, stop: &AtomicBool) {
    let stalled: Vec<TcpStream> = (0..STALLED)
        .map(|number| {
            let mut stream = connect(port);
            // From a connection that says nothing to a request without its last byte.
            let _ = stream.write_all(&b"GET / HTTP/1.1\r\nHost: a\r\n\r"[..number]);
            stream
        })
        .collect();
    let huge = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'y'; 64 << 10], b"\r\n\r\n".to_vec()].concat();
    while !stop.load(Ordering::Relaxed) {
        for bytes in [
            &huge[..],
            b"\0\xff\x16\x03 nothing\r\n\r\n",
            b"PATCH /config HTTP/1.0\r\nContent-Length: 9\r\n\r\n{{{{{{{{{",
        ] {
            let mut stream = connect(port);
            // It may be cut off in the middle.
            let _ = stream.write_all(bytes);
            let _ = stream.read(&mut [0; 1024]);
        }
    }
    drop(stalled);
}

#[test]
fn a_crowd_at_the_rest_api_costs_the_lease_nothing() {
    let cluster = Cluster::start(1);
    let port = cluster.node("node1").rest_port;
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut least = Duration::MAX;
    let mut checks = Vec::new();
    let full = permit_left(port).expect("it leads");
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || {
                let mut stream = connect(port);
                for (path, expected) in PATHS.iter().cycle().skip(number) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    assert_eq!(ask(&mut stream, path), *expected, "{path}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| misbehave(port, &stop));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(seconds) {
            let asked = Instant::now();
            let left = permit_left(port);
            checks.push(asked.elapsed());
            least = least.min(left.unwrap_or_default());
        }
        stop.store(true, Ordering::Relaxed);
    });
    // A renewal comes every half second; of a permit of 5.5 s a third may be gone before anybody need worry.
    assert!(least > full / 2, "only {least:?} of {full:?} were left at one time");
    assert_eq!(cluster.leader(), "node1");
    assert!(!cluster.log("node1").contains("lost"), "{}", cluster.log("node1"));
    let rate = answered.load(Ordering::Relaxed) / seconds;
    notes::note(&format!(
        "REST API, {CONNECTIONS} connections for {seconds} s with {STALLED} half-open ones and garbage: {rate} answers/s, a new connection's first \
         line in {:.1} ms (p50), {:.1} ms (p99); least that was left of a permit of {:.1} s: {:.2} s\n",
        percentile(&mut checks, 50).as_secs_f64() * 1e3,
        percentile(&mut checks, 99).as_secs_f64() * 1e3,
        5.5,
        least.as_secs_f64(),
    ));
}
