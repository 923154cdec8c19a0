//! What flows through a session, and clients that are none.

use std::process::Command;
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::lab::{Entrypoint, FakeAgent, TcpServer, code};
use crate::harness::certificates::self_signed;
use crate::harness::user::passed_as_postgres;

async fn lab(settings: &str, options: &str) -> (TcpServer, FakeAgent, Entrypoint) {
    let server = TcpServer::start(settings);
    let agent = FakeAgent::start().await;
    agent.lead(1, Duration::from_secs(600));
    let entry = Entrypoint::start(&[(server.port, agent.port)], options);
    (server, agent, entry)
}

#[tokio::test]
async fn copy_both_ways_and_a_large_result_arrive_whole() {
    if passed_as_postgres("proxy::streams::copy_both_ways_and_a_large_result_arrive_whole") {
        return;
    }
    let (_server, _agent, entry) = lab("", "").await;
    let (client, _end) = entry.connect().await.expect("a session");
    client.batch_execute("create table t (n int, pad text)").await.expect("a table");
    let sink = client.copy_in::<_, bytes::Bytes>("copy t from stdin").await.expect("copy in");
    let mut sink = std::pin::pin!(sink);
    let pad = "x".repeat(1_000);
    for block in 0..20 {
        let lines: String = (0..500).map(|line| format!("{}\t{pad}\n", block * 500 + line)).collect();
        sink.send(lines.into()).await.expect("a block");
    }
    assert_eq!(sink.finish().await.expect("the end"), 10_000);
    let rows = client.copy_out("copy t to stdout").await.expect("copy out");
    let bytes = rows.fold(0, |sum, block| async move { sum + block.expect("a block").len() }).await;
    assert_eq!(bytes, (0..10_000).map(|n: u32| n.to_string().len() + 1_002).sum::<usize>());
    // 100 MB in rows of 1 MB, read as they come.
    let text = "select repeat('y', 1000000) from generate_series(1, 100)";
    let rows = client.query_raw(text, Vec::<i32>::new()).await.expect("rows");
    let mut rows = std::pin::pin!(rows);
    let mut total = 0;
    while let Some(row) = rows.next().await {
        total += row.expect("a row").get::<_, &str>(0).len();
    }
    assert_eq!(total, 100_000_000);
}

#[tokio::test]
async fn a_cancel_request_reaches_the_server_of_its_session() {
    if passed_as_postgres("proxy::streams::a_cancel_request_reaches_the_server_of_its_session") {
        return;
    }
    let (_server, _agent, entry) = lab("", "").await;
    let (client, _end) = entry.connect().await.expect("a session");
    let (watcher, _end) = entry.connect().await.expect("a session");
    let token = client.cancel_token();
    let sleep = async { client.execute("select pg_sleep(60)", &[]).await };
    let cancel = async {
        // Asleep, and not still being prepared: a request that comes between the two cancels nothing.
        let running =
            "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and wait_event = 'PgSleep'";
        while watcher.query_one(running, &[]).await.expect("a query").get::<_, i64>(0) == 0 {}
        token.cancel_query(tokio_postgres::NoTls).await.expect("a request");
    };
    let (slept, ()) = tokio::join!(sleep, cancel);
    assert_eq!(code(&slept.expect_err("cancelled")), "57014");
    // The session goes on.
    client.execute("select 1", &[]).await.expect("a query");
}

#[tokio::test]
async fn tls_passes_through_to_the_server() {
    if passed_as_postgres("proxy::streams::tls_passes_through_to_the_server") {
        return;
    }
    let server = TcpServer::prepared("-c ssl=on", |data_dir| {
        // Certificate and key in one file, which goes for both.
        self_signed(&data_dir.join("server.crt"));
        std::fs::copy(data_dir.join("server.crt"), data_dir.join("server.key")).expect("copied");
    });
    let agent = FakeAgent::start().await;
    agent.lead(1, Duration::from_secs(600));
    let entry = Entrypoint::start(&[(server.port, agent.port)], "");
    let port = entry.address.port().to_string();
    let psql = move |mode: &str| {
        let output = Command::new("psql")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "postgres",
                "-Atc",
                "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
            ])
            .env("PGSSLMODE", mode)
            .output()
            .expect("psql");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
    };
    // The agent speaks on this thread: psql must not hold it up.
    let both = tokio::task::spawn_blocking(move || (psql("require"), psql("disable")));
    let (required, disabled) = both.await.expect("no panic");
    assert_eq!((required.as_str(), disabled.as_str()), ("t", "f"));
}

#[tokio::test]
async fn garbage_and_silence_delay_nobody() {
    if passed_as_postgres("proxy::streams::garbage_and_silence_delay_nobody") {
        return;
    }
    let (_server, _agent, entry) = lab("", "").await;
    let mut silent = vec![];
    for number in 0..200u32 {
        let mut stream = TcpStream::connect(entry.address).await.expect("accepted");
        match number % 4 {
            0 => {}
            1 => stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written"),
            2 => stream.write_all(&[0xff; 64]).await.expect("written"),
            // Half a start-up packet.
            _ => stream.write_all(&[0, 0, 1, 0, 0, 3, 0, 0, b'u']).await.expect("written"),
        }
        silent.push(stream);
    }
    let begun = Instant::now();
    let (client, _end) = entry.connect().await.expect("a session");
    client.execute("select 1", &[]).await.expect("a query");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // What is no PostgreSQL client gets an error in PostgreSQL's format and the end of the connection.
    let mut answer = vec![];
    // A reset after the error is fine: such a client is owed nothing.
    let _ = silent[1].read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"E"), "{answer:?}");
    // After its start-up a client may send what it likes: the server judges it, the others go on.
    let mut wild = TcpStream::connect(entry.address).await.expect("accepted");
    wild.write_all(b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0").await.expect("written");
    wild.write_all(&[0xee; 10_000]).await.expect("written");
    let _ = tokio::time::timeout(Duration::from_secs(5), wild.read_to_end(&mut answer)).await.expect("closed");
    client.execute("select 1", &[]).await.expect("a query");
}

#[tokio::test]
async fn above_maxconn_a_client_waits_for_its_turn() {
    if passed_as_postgres("proxy::streams::above_maxconn_a_client_waits_for_its_turn") {
        return;
    }
    let (_server, _agent, entry) = lab("", "default-server maxconn 1").await;
    let (first, first_end) = entry.connect().await.expect("a session");
    let second = async { entry.connect().await.expect("a session after the first") };
    let leave = async {
        entry.wait_stat("BACKEND", "qcur", "1").await;
        drop(first);
        first_end.await.expect("no panic").expect("a clean end");
    };
    let ((client, _end), ()) = tokio::join!(second, leave);
    client.execute("select 1", &[]).await.expect("a query");
}
