//! The server over real sockets: old clients, stream of routes, garbage, and clients that take their time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pgherd_ha::{NodeRoute, Permit, RouteMessage};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use pgherd_tls::{AskClients, Check, ClientOptions, Identity, ServerOptions};

use super::fixture::*;
use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn start(fixture: &Fixture) -> (ServerHandle, SocketAddr) {
    let handle = serve(&[([127, 0, 0, 1], 0).into()], fixture.api.clone()).expect("a server");
    let address = handle.addresses()[0];
    (handle, address)
}

/// Sends the bytes and returns everything until the server closes the connection.
async fn talk(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // A server that refuses early may close before it has read everything; its answer counts.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the server ends the connection");
    answer
}

async fn first_line(address: SocketAddr, request: &str) -> String {
    let answer = talk(address, request.as_bytes()).await;
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn old_and_new_clients_are_served() {
    let fixture = Fixture::new(view());
    fixture.lead();
    let (_handle, address) = start(&fixture);
    let cases = [
        ("OPTIONS / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK"),
        ("HEAD /replica HTTP/1.0\r\n\r\n", "HTTP/1.0 503 Service Unavailable"),
        ("OPTIONS / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK"),
        ("GET /primary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 503 Service Unavailable"),
        ("POST /x HTTP/1.0\r\n\r\n", "HTTP/1.0 501 Unsupported method ('POST')"),
        ("PATCH /config HTTP/1.0\r\n\r\n", "HTTP/1.0 411 Length Required"),
    ];
    for (request, expected) in cases {
        assert_eq!(first_line(address, request).await, expected, "{request:?}");
    }
    let answer = talk(address, b"OPTIONS / HTTP/1.0\r\n\r\n").await;
    assert!(answer.ends_with(b"\r\n\r\n"), "no body for a load balancer");
}

#[tokio::test]
async fn several_requests_share_a_connection_and_pipelined_ones_too() {
    let fixture = Fixture::new(view());
    fixture.lead();
    let (_handle, address) = start(&fixture);
    let requests = "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
    let answer = talk(address, requests.as_bytes()).await;
    assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 200 OK").count(), 3);
}

#[tokio::test]
async fn garbage_gets_an_error_and_the_server_goes_on() {
    let fixture = Fixture::new(view());
    fixture.lead();
    let (_handle, address) = start(&fixture);
    let long_header = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(1 << 20));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(5_000));
    let cases: [&[u8]; 9] = [
        b"",
        b"\r\n\r\n\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /restart HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"PATCH /config HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        long_header.as_bytes(),
        many_headers.as_bytes(),
    ];
    for bytes in cases {
        let answer = talk(address, bytes).await;
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
        assert!(answer.is_empty() || shown.starts_with("HTTP/1.1 4"), "{shown}");
        assert_eq!(first_line(address, "OPTIONS / HTTP/1.0\r\n\r\n").await, "HTTP/1.0 200 OK");
    }
}

#[test]
fn no_bytes_bring_the_server_down() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let fixture = Fixture::new(view());
        fixture.lead();
        let (_handle, address) = start(&fixture);
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(64));
        let line = "(GET|POST|PATCH|OPTIONS|X) [!-~]{0,30} HTTP/1.[01]\r\n";
        let shape = (line, "([a-zA-Z-]{0,12}: ?[ -~]{0,20}\r\n){0,4}", prop::collection::vec(any::<u8>(), 0..100));
        for _ in 0..64 {
            let (line, headers, body) = shape.new_tree(&mut runner).expect("a value").current();
            let mut bytes = format!("{line}{headers}Connection: close\r\n\r\n").into_bytes();
            bytes.extend(body);
            talk(address, &bytes).await;
        }
        assert_eq!(first_line(address, "OPTIONS / HTTP/1.0\r\n\r\n").await, "HTTP/1.0 200 OK");
    });
}

#[tokio::test]
async fn a_slow_client_is_cut_off() {
    let fixture = Fixture::new(view());
    let (_handle, address) = start(&fixture);
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.expect("sent");
    // The server must have read the start before the clock is stopped and runs ahead.
    tokio::task::yield_now().await;
    tokio::time::pause();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
    ended.expect("the server ends the connection").expect("in order");
}

#[tokio::test]
async fn when_all_places_are_taken_the_next_client_waits_for_one() {
    let fixture = Fixture::new(view());
    fixture.lead();
    let (_handle, address) = start(&fixture);
    let mut taken = Vec::new();
    for _ in 0..128 {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(b"OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.expect("an answer");
        taken.push(stream);
    }
    let next = first_line(address, "OPTIONS / HTTP/1.0\r\n\r\n");
    let mut next = std::pin::pin!(next);
    assert!(tokio::time::timeout(Duration::from_millis(100), next.as_mut()).await.is_err(), "there was a place left");
    taken.pop();
    assert_eq!(next.await, "HTTP/1.0 200 OK");
}

async fn listen_to_route(address: SocketAddr) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"GET /pgherd/route HTTP/1.0\r\n\r\n").await.expect("sent");
    BufReader::new(stream)
}

/// The next line of JSON; headers before the first are passed over.
async fn next_message(stream: &mut BufReader<TcpStream>) -> RouteMessage {
    loop {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_line(&mut line)).await;
        assert_ne!(read.expect("a line in time").expect("a line"), 0, "the stream ended");
        if line.starts_with('{') {
            return serde_json::from_str(&line).expect("a message");
        }
    }
}

#[tokio::test]
async fn the_route_is_pushed_to_an_old_client_too() {
    let fixture = Fixture::new(view());
    fixture.lead();
    let (_handle, address) = start(&fixture);
    let mut stream = listen_to_route(address).await;
    let first = next_message(&mut stream).await;
    assert_eq!((first.node.name.as_str(), first.node.epoch), ("n1", Some(EPOCH)));
    assert!(first.node.permit_ms.is_some_and(|left| (50_000..=60_000).contains(&left)), "{first:?}");

    fixture.route.send_replace(Arc::new(NodeRoute { state: "stopping".into(), ..node_route() }));
    assert_eq!(next_message(&mut stream).await.node.state, "stopping");

    fixture.api.permit.store(Arc::new(Permit::None));
    let heartbeat = next_message(&mut stream).await;
    assert_eq!((heartbeat.node.epoch, heartbeat.node.permit_ms), (None, None));
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_daemon() {
    let fixture = Fixture::new(view());
    let (_handle, address) = start(&fixture);
    let mut streams = Vec::new();
    for _ in 0..64 {
        let mut stream = listen_to_route(address).await;
        next_message(&mut stream).await;
        streams.push(stream);
    }
    assert_eq!(first_line(address, "GET /pgherd/route HTTP/1.0\r\n\r\n").await, "HTTP/1.0 429 Too Many Requests");
    let Fixture { route, .. } = fixture;
    drop(route);
    for mut stream in streams {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        ended.expect("the stream ends").expect("in order");
    }
}

#[tokio::test]
async fn shutting_down_lets_a_request_end_and_frees_the_port() {
    let mut fixture = Fixture::new(view());
    let (mut handle, address) = start(&fixture);
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(b"POST /restart HTTP/1.0\r\n\r\n").await.expect("sent");
    let Some(Command::Restart { reply, .. }) = fixture.commands.recv().await else { panic!("no restart") };
    let shutdown = tokio::spawn(async move { handle.stop().await });
    tokio::task::yield_now().await;
    reply.send(RestartOutcome::Done).expect("somebody waits");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.ends_with("restarted successfully"), "{answer}");
    shutdown.await.expect("no panic");
    serve(&[address], fixture.api.clone()).expect("the port is free again");
}

#[tokio::test]
async fn what_cannot_be_served_is_said_at_start() {
    let fixture = Fixture::new(view());
    let (_handle, address) = start(&fixture);
    let error = serve(&[address], fixture.api.clone()).expect_err("the port is taken");
    assert!(error.to_string().contains("restapi.listen"), "{error}");
}

#[tokio::test]
async fn it_moves_to_other_addresses_while_a_request_is_in_progress() {
    let mut fixture = Fixture::new(view());
    fixture.lead();
    let (mut handle, address) = start(&fixture);
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(b"POST /restart HTTP/1.0\r\n\r\n").await.expect("sent");
    let Some(Command::Restart { reply, .. }) = fixture.commands.recv().await else { panic!("no restart") };

    // Where somebody else listens it does not go, and stays reachable.
    let (taken_by, taken) = start(&fixture);
    let error = handle.listen_on(&[taken]).await.expect_err("the port is taken");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    let [address] = handle.addresses()[..] else { panic!("one address") };
    drop(taken_by);

    let all_of = |address: SocketAddr| SocketAddr::from(([0, 0, 0, 0], address.port()));
    for wanted in [vec![taken], vec![taken, address], vec![all_of(taken)], vec![taken]] {
        // The one that has just been dropped may need a moment.
        while handle.listen_on(&wanted).await.is_err() {
            tokio::task::yield_now().await;
        }
        let mut addresses = handle.addresses();
        addresses.sort_unstable_by_key(|address| *address != taken);
        assert_eq!(addresses, wanted);
        assert_eq!(first_line(taken, "GET / HTTP/1.0\r\n\r\n").await, "HTTP/1.0 200 OK");
    }
    eventually_refused(address).await;
    reply.send(RestartOutcome::Done).expect("somebody waits");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.ends_with("restarted successfully"), "{answer}");
}

/// A listener's socket is closed a moment after it is given up.
async fn eventually_refused(address: SocketAddr) {
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("nobody listens there any more");
}

#[tokio::test]
async fn over_tls_with_one_certificate_for_everybody() {
    let fixture = Fixture::new(view());
    fixture.lead();
    let (_handle, address) = start(&fixture);
    assert_eq!(first_line(address, "GET / HTTP/1.0\r\n\r\n").await, "HTTP/1.0 200 OK");
    // Authority, server and client at once, as small installations have it.
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("own.pem");
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(&file, certificate.pem() + &key.serialize_pem()).expect("written");
    let identity = Identity { certificate: &file, key: None, key_password: None };
    let url = format!("https://{address}/sigterm");
    // (what the server asks of clients, whether the client has a certificate, whether it may order something)
    for (ask_clients, has_certificate, expected) in [
        (AskClients::No, false, Some(202)),
        (AskClients::Optional, false, Some(403)),
        (AskClients::Optional, true, Some(202)),
        (AskClients::Required, false, None),
        (AskClients::Required, true, Some(202)),
    ] {
        let tls = pgherd_tls::server(&ServerOptions { identity, ask_clients, authorities: Some(&file), ciphers: None });
        let access = Access { certificate: ask_clients != AskClients::No, ..Access::default() };
        let settings = Settings { tls: Some(Arc::new(tls.expect("TLS"))), access, ..Settings::default() };
        fixture.api.settings.store(Arc::new(settings));
        let options = ClientOptions {
            check: Check::Name,
            authorities: Some(&file),
            identity: has_certificate.then_some(identity),
            revoked: &[],
        };
        let client = pgherd_tls::client(&options).expect("TLS");
        let peers = PeerClient::new(None, client, PATIENCE).expect("a client");
        let answer = peers.http().post(&url).send().await;
        assert_eq!(answer.ok().map(|answer| answer.status().as_u16()), expected, "{ask_clients:?} {has_certificate}");
    }
    // Who does not speak TLS is sent away, and garbage is no trouble.
    assert_eq!(talk(address, b"GET / HTTP/1.0\r\n\r\n").await.first(), Some(&21), "an alert");
    talk(address, &[0x16; 300]).await;
}

#[tokio::test]
async fn addresses_to_listen_on_are_resolved() {
    for (text, expected) in [
        ("127.0.0.1:8008", &["127.0.0.1:8008"][..]),
        ("[::1]:8008", &["[::1]:8008"]),
        ("*:8008", &["[::]:8008", "0.0.0.0:8008"]),
        (":8008", &["[::]:8008", "0.0.0.0:8008"]),
    ] {
        let found = resolve_listen(text).await.expect(text);
        assert_eq!(found.iter().map(SocketAddr::to_string).collect::<Vec<_>>(), expected, "{text}");
    }
    for text in ["8008", "127.0.0.1:x", "127.0.0.1:99999", "no host:8008"] {
        assert!(resolve_listen(text).await.is_err(), "{text:?} was accepted");
    }
}
