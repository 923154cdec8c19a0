//! The REST API under load, while the lease is renewed: 64 connections that ask as fast as they are answered, and others that only cost.
//!
//! `PGHERD_LOAD_SECONDS` makes it longer than the few seconds of every run; the measured figures are notes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use crate::harness::cluster::Cluster;
use crate::harness::notes;

const CONNECTIONS: usize = 64;
/// What health checks, dashboards and entrypoints ask.
const PATHS: [&str; 8] =
    ["/", "/replica", "/read-only?lag=1MB", "/patroni", "/metrics", "/cluster", "/config", "/history"];
const SECONDS: &str = "PGHERD_LOAD_SECONDS";
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection, kept for as long as it lasts. Returns how many answers came and the longest wait for one.
fn ask_until(stop: &AtomicBool, port: u16, first: usize) -> (usize, Duration) {
    let (mut answers, mut longest) = (0, Duration::ZERO);
    let mut kept: Option<TcpStream> = None;
    while !stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let mut stream = kept.take().unwrap_or_else(|| connect(port));
        let path = PATHS[(first + answers) % PATHS.len()];
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
        assert!(answer(&mut stream), "no whole answer to {path} after {:?}", begun.elapsed());
        longest = longest.max(begun.elapsed());
        answers += 1;
        kept = Some(stream);
    }
    (answers, longest)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

/// Reads one answer of HTTP/1.1 with a `content-length`; whether all of it came.
fn answer(stream: &mut TcpStream) -> bool {
    let mut text = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let Ok(length @ 1..) = stream.read(&mut buffer) else { return false };
        text.extend_from_slice(&buffer[..length]);
        let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if text.len() >= end + 4 + length.expect("a length") {
            return head.starts_with("http/1.1 200") || head.starts_with("http/1.1 503");
        }
    }
}

/// Requests that never end, trickle, are far too large, or are none; each again as soon as it is cut off.
fn annoy<'scope>(scope: &'scope Scope<'scope, '_>, stop: &'scope AtomicBool, sent: &'scope AtomicUsize, port: u16) {
    let again = move |once: fn(TcpStream, &AtomicBool)| {
        scope.spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                once(connect(port), stop);
                sent.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    for _ in 0..8 {
        // Says nothing.
        again(wait_for_end);
        // Begins, and goes on byte by byte.
        again(|mut stream, stop| {
            for byte in b"GET / HTTP/1.1\r\nHost: slow\r\nX-Long: ".iter().chain(std::iter::repeat_n(&b'x', 1_000)) {
                std::thread::park_timeout(Duration::from_millis(20));
                if stop.load(Ordering::SeqCst) || stream.write_all(&[*byte]).is_err() {
                    return;
                }
            }
            wait_for_end(stream, stop);
        });
        // Promises a body that does not come.
        again(|mut stream, stop| {
            let _ = stream.write_all(b"PATCH /config HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{");
            wait_for_end(stream, stop);
        });
        // A head, and a body, larger than any.
        again(|mut stream, _| {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nX: ").and_then(|()| stream.write_all(&vec![b'x'; 1 << 20]));
            let _ = stream.read(&mut [0; 4096]);
        });
        again(|mut stream, _| {
            let _ = stream.write_all(b"PUT /config HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n");
            let _ = stream.write_all(&vec![b' '; 4 << 20]);
            let _ = stream.read(&mut [0; 4096]);
        });
        // No HTTP.
        again(|mut stream, _| {
            let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00 nonsense \xff\xfe\r\n\r\n");
            let _ = stream.read(&mut [0; 4096]);
        });
    }
}

/// Until the other side has had enough, or the test is over.
fn wait_for_end(mut stream: TcpStream, stop: &AtomicBool) {
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
    while !stop.load(Ordering::SeqCst) {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return,
            Err(error) if !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return;
            }
            _ => {}
        }
    }
}

/// What is left of the permit, at the moment when the agent says so.
fn permit_left(port: u16) -> Option<u64> {
    let mut stream = connect(port);
    stream.write_all(b"GET /pgherd/route HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
        text += &String::from_utf8_lossy(&buffer[..length]);
        let line = text.lines().find(|line| line.starts_with('{') && line.ends_with('}'));
        if let Some(line) = line {
            let message: pgherd_ha::RouteMessage = serde_json::from_str(line).expect("a line of a route");
            return message.node.permit_ms;
        }
    }
}

#[test]
fn the_lease_is_renewed_in_time_whatever_the_api_is_asked() {
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let cluster = Cluster::start(2);
    let leader = cluster.leader();
    let (epoch, port) = (cluster.epoch(&leader), cluster.node(&leader).rest_port);
    let (stop, annoyances) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (answers, longest, left) = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..CONNECTIONS)
            .map(|at| {
                scope.spawn({
                    let stop = &stop;
                    move || ask_until(stop, port, at)
                })
            })
            .collect();
        annoy(scope, &stop, &annoyances, port);
        let begun = Instant::now();
        let mut left = Vec::new();
        while begun.elapsed() < Duration::from_secs(seconds) {
            left.push(permit_left(port));
        }
        stop.store(true, Ordering::SeqCst);
        let asked: Vec<_> = asking.into_iter().map(|thread| thread.join().expect("it was answered")).collect();
        assert!(asked.iter().all(|(answers, _)| *answers > 0), "a connection was never served");
        let answers: usize = asked.iter().map(|(answers, _)| answers).sum();
        (answers, asked.iter().map(|(_, longest)| *longest).max().unwrap_or_default(), left)
    });
    let left: Vec<u64> = left.into_iter().map(|left| left.expect("the primary has a permit all the time")).collect();
    let (most, least) = (left.iter().max().expect("samples"), left.iter().min().expect("samples"));
    notes::note(&format!(
        "load: {CONNECTIONS} connections for {seconds} s: {} answers a second, the slowest after {} ms; beside {} slow, huge and malformed requests. The slowest \
         renewal of the lease came {} ms after the one before, with {least} ms of the permit left ({} samples)\n",
        answers / usize::try_from(seconds).expect("a number of seconds"),
        longest.as_millis(),
        annoyances.load(Ordering::SeqCst),
        most - least,
        left.len()
    ));
    assert!(*least > most / 2, "a renewal was late: of {most} ms only {least} were left");
    assert_eq!(cluster.epoch(&leader), epoch, "the leader has changed");
    cluster.wait_healthy();
}
