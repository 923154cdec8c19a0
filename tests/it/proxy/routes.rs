//! Who gets a session and whose session ends.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::lab::{Entrypoint, FakeAgent, TcpServer, code, port_behind};
use crate::harness::ports::free_port;
use crate::harness::user::passed_as_postgres;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_held_client_is_let_in_as_soon_as_a_primary_is_pushed() {
    if passed_as_postgres("proxy::routes::a_held_client_is_let_in_as_soon_as_a_primary_is_pushed") {
        return;
    }
    let server = TcpServer::start("");
    let agent = FakeAgent::start().await;
    let entry = Entrypoint::start(&[(server.port, agent.port)], "");
    let connect = async { entry.connect().await.expect("a session after a wait") };
    let lead = async {
        entry.wait_stat("BACKEND", "qcur", "1").await;
        agent.lead(1, LONG);
        Instant::now()
    };
    let ((client, _connection), told) = tokio::join!(connect, lead);
    let waited = told.elapsed();
    assert!(waited < Duration::from_secs(1), "let in {waited:?} after the push");
    assert_eq!(port_behind(&client).await, server.port);
    entry.wait_stat("BACKEND", "qcur", "0").await;
}

#[tokio::test]
async fn a_client_that_nobody_can_serve_gets_an_error_and_no_reset() {
    if passed_as_postgres("proxy::routes::a_client_that_nobody_can_serve_gets_an_error_and_no_reset") {
        return;
    }
    let agent = FakeAgent::start().await;
    let entry = Entrypoint::start(&[(free_port(), agent.port)], "timeout queue 300ms");
    let error = entry.connect().await.expect_err("nobody is the primary");
    assert_eq!(code(&error), "57P03");
    // libpq asks for TLS first: held, declined, then told.
    let port = entry.address.port().to_string();
    let output = std::process::Command::new("psql")
        .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c", "select 1"])
        .env("PGSSLMODE", "prefer")
        .output()
        .expect("psql");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("FATAL:  pgherd: no server for postgres within 300ms"), "{text}");
    assert!(text.contains("HINT:"), "{text}");
}

#[tokio::test]
async fn a_greater_epoch_elsewhere_ends_the_old_sessions_and_takes_the_new() {
    if passed_as_postgres("proxy::routes::a_greater_epoch_elsewhere_ends_the_old_sessions_and_takes_the_new") {
        return;
    }
    let (one, two) = (TcpServer::start(""), TcpServer::start(""));
    let (agent_one, agent_two) = (FakeAgent::start().await, FakeAgent::start().await);
    let entry = Entrypoint::start(&[(one.port, agent_one.port), (two.port, agent_two.port)], "");
    agent_one.lead(5, LONG);
    // Never asked anything: the driver gives the error to whatever it has under way, be it the closing of a statement.
    let (_idle, idle_end) = entry.connect().await.expect("a session");
    let (busy, _busy_end) = entry.connect().await.expect("a session");
    let watcher = server_client(one.port).await;
    assert_eq!(port_behind(&busy).await, one.port);
    // The same server under a new epoch: nobody is cut.
    agent_one.lead(6, LONG);
    let begun = Instant::now();
    while !entry.get("/").await.contains("epoch 0x6") {
        assert!(begun.elapsed() < Duration::from_secs(10), "the new epoch is not seen");
    }
    assert_eq!(port_behind(&busy).await, one.port);
    let sleeping = async { busy.execute("select pg_sleep(60)", &[]).await };
    let switch = async {
        let begun = Instant::now();
        while busy_sessions(&watcher).await == 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "the query never began");
        }
        agent_two.lead(7, LONG);
        Instant::now()
    };
    let (slept, switched) = tokio::join!(sleeping, switch);
    assert_eq!(code(&slept.expect_err("cut")), "57P01");
    assert_eq!(code(&idle_end.await.expect("no panic").expect_err("cut")), "57P01");
    assert!(switched.elapsed() < Duration::from_secs(1), "{:?}", switched.elapsed());
    let (client, _connection) = entry.connect().await.expect("a session");
    assert_eq!(port_behind(&client).await, two.port);
    assert_eq!(entry.stat("s0", "scur").await, "0");
    let page = entry.get("/").await;
    assert!(page.contains("epoch 0x7") && page.contains("another server is the primary"), "{page}");
}

async fn busy_sessions(client: &tokio_postgres::Client) -> i64 {
    let text = "select count(*) from pg_stat_activity where query like '%pg_sleep%' and pid <> pg_backend_pid()";
    client.query_one(text, &[]).await.expect("a query").get(0)
}

#[tokio::test]
async fn nothing_is_forwarded_after_the_permit() {
    if passed_as_postgres("proxy::routes::nothing_is_forwarded_after_the_permit") {
        return;
    }
    writes_end_with_the_permit("").await;
}

#[tokio::test]
async fn nothing_is_written_after_the_permit_through_a_read_only_listener() {
    if passed_as_postgres("proxy::routes::nothing_is_written_after_the_permit_through_a_read_only_listener") {
        return;
    }
    writes_end_with_the_permit("option httpchk OPTIONS /read-only").await;
}

/// A session of replication, spoken by hand: the client library has none.
struct Replication(TcpStream);

impl Replication {
    /// `value` is what is said of `replication`; the server trusts.
    async fn connect(entry: &Entrypoint, value: &str) -> Replication {
        let parameters = format!("user\0postgres\0database\0postgres\0replication\0{value}\0\0");
        let mut stream = TcpStream::connect(entry.address).await.expect("the entrypoint listens");
        let length = parameters.len() as u32 + 8;
        stream.write_all(&[&length.to_be_bytes(), &[0, 3, 0, 0], parameters.as_bytes()].concat()).await.expect("taken");
        let mut session = Replication(stream);
        assert_eq!(session.until_ready().await, None, "it is let in");
        session
    }

    /// Reads up to the server's next ReadyForQuery. Else the session is over: `Some`, with the type of its last message.
    async fn until_ready(&mut self) -> Option<u8> {
        let mut last = 0;
        loop {
            let mut head = [0; 5];
            if self.0.read_exact(&mut head).await.is_err() {
                return Some(last);
            }
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let mut body = vec![0; length - 4];
            self.0.read_exact(&mut body).await.expect("a whole message");
            last = head[0];
            if last == b'Z' {
                return None;
            }
        }
    }

    async fn asks(&mut self) -> Option<u8> {
        let query = b"IDENTIFY_SYSTEM\0";
        let length = query.len() as u32 + 4;
        // Where nobody takes it the answer says so.
        let _ = self.0.write_all(&[b"Q", &length.to_be_bytes()[..], query].concat()).await;
        self.until_ready().await
    }
}

#[tokio::test]
async fn physical_replication_goes_on_while_its_server_is_stopped_in_order_and_no_longer() {
    if passed_as_postgres(
        "proxy::routes::physical_replication_goes_on_while_its_server_is_stopped_in_order_and_no_longer",
    ) {
        return;
    }
    let server = TcpServer::start("");
    let agent = FakeAgent::start().await;
    let entry = Entrypoint::start(&[(server.port, agent.port)], "timeout queue 200ms");
    agent.lead(5, LONG);
    let (_client, client_end) = entry.connect().await.expect("a session");
    let mut logical = Replication::connect(&entry, "database").await;
    let mut physical = Replication::connect(&entry, "true").await;
    agent.stop_in_order(LONG);
    assert_eq!(code(&client_end.await.expect("no panic").expect_err("cut")), "57P01");
    assert_eq!(logical.until_ready().await, Some(b'E'), "it could write");
    assert_eq!(physical.asks().await, None, "it goes on");
    assert!(entry.connect().await.is_err(), "nobody new is let in");
    agent.stop_in_order(Duration::from_millis(500));
    assert_eq!(physical.until_ready().await, Some(b'E'), "the permit has ended");
}

async fn writes_end_with_the_permit(check: &str) {
    let server = TcpServer::start("");
    let agent = FakeAgent::start().await;
    let entry = Entrypoint::keeping(&[(server.port, agent.port)], &format!("timeout queue 200ms\n{check}"));
    agent.lead(5, LONG);
    entry.wait_stat("s0", "status", "UP").await;
    let (client, end) = entry.connect().await.expect("a session");
    client.batch_execute("create table t (n int)").await.expect("a table");
    // Its agent hangs: the permit of the last line runs out, though checks passed a moment ago.
    let permit = Duration::from_millis(800);
    agent.lead(5, permit);
    let given = Instant::now();
    entry.wait_stat("s0", "status", "UP").await;
    agent.freeze();
    let mut written = 0i64;
    let refused = loop {
        // In simple protocol: no closing of a statement is under way that could swallow the error.
        match client.batch_execute("insert into t values (1)").await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(given.elapsed() < permit + Duration::from_secs(1), "written after the permit");
    };
    assert!(given.elapsed() >= permit - Duration::from_millis(100), "cut too early: {:?}", given.elapsed());
    // Between two statements the error meets the connection, else the statement.
    let ended = end.await.expect("no panic");
    let codes = [Some(&refused), ended.as_ref().err()].into_iter().flatten().map(code).collect::<Vec<_>>();
    assert!(codes.iter().any(|code| code == "57P01"), "{codes:?}");
    assert_eq!(code(&entry.connect().await.expect_err("no proof, no session")), "57P03");
    let direct = server_client(server.port).await;
    let rows: i64 = direct.query_one("select count(*) from t", &[]).await.expect("a count").get(0);
    assert!(rows == written || rows == written + 1, "{rows} rows, {written} acknowledged");
}

async fn server_client(port: u16) -> tokio_postgres::Client {
    let config = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.expect("the server");
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn plain_patroni_is_served_by_checks_alone() {
    if passed_as_postgres("proxy::routes::plain_patroni_is_served_by_checks_alone") {
        return;
    }
    let (one, two) = (TcpServer::start(""), TcpServer::start(""));
    let (agent_one, agent_two) = (FakeAgent::start().await, FakeAgent::start().await);
    agent_one.plain(200);
    agent_two.plain(503);
    let entry = Entrypoint::start(&[(one.port, agent_one.port), (two.port, agent_two.port)], "");
    let (client, end) = entry.connect().await.expect("a session");
    assert_eq!(port_behind(&client).await, one.port);
    agent_one.plain(503);
    agent_two.plain(200);
    assert_eq!(code(&end.await.expect("no panic").expect_err("cut when marked down")), "57P01");
    let (client, _end) = entry.connect().await.expect("a session");
    assert_eq!(port_behind(&client).await, two.port);
}

#[tokio::test]
async fn a_standby_is_never_delivered_for_writing() {
    if passed_as_postgres("proxy::routes::a_standby_is_never_delivered_for_writing") {
        return;
    }
    let server = TcpServer::prepared("", |data_dir| {
        std::fs::write(data_dir.join("standby.signal"), "").expect("a signal file");
    });
    let agent = FakeAgent::start().await;
    let entry = Entrypoint::start(&[(server.port, agent.port)], "");
    // The agent is wrong, or a moment early.
    agent.lead(5, LONG);
    let error = match entry.connect().await {
        Err(error) => error,
        Ok((_client, end)) => end.await.expect("no panic").expect_err("refused"),
    };
    assert_eq!(code(&error), "57P03");
    server.server.run("pg_ctl", ["promote", "--wait", "--silent", "-D"], &[server.server.data_dir()]);
    let begun = Instant::now();
    while entry.connect().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "never delivered after its promotion");
    }
}

#[tokio::test]
async fn a_session_of_a_killed_server_ends_with_a_code_and_the_next_waits_for_its_return() {
    if passed_as_postgres(
        "proxy::routes::a_session_of_a_killed_server_ends_with_a_code_and_the_next_waits_for_its_return",
    ) {
        return;
    }
    let server = TcpServer::start("");
    let agent = FakeAgent::start().await;
    let entry = Entrypoint::start(&[(server.port, agent.port)], "");
    agent.lead(5, LONG);
    let (_client, end) = entry.connect().await.expect("a session");
    server.stop("immediate");
    assert_eq!(code(&end.await.expect("no panic").expect_err("the server is gone")), "57P01");
    // The agent has not noticed: dials fail, the client is held and sees nothing of it.
    let connect = async { entry.connect().await.expect("a session after a wait") };
    let restart = async {
        while entry.stat("s0", "econ").await == "0" {
            tokio::task::yield_now().await;
        }
        let data_dir = server.server.data_dir();
        let log = server.server.socket_dir().join("log");
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories={}",
            server.port,
            server.server.socket_dir().display()
        );
        let args: [&std::path::Path; 5] = [&data_dir, "-l".as_ref(), &log, "-o".as_ref(), options.as_ref()];
        server.server.run("pg_ctl", ["start", "--wait", "--silent", "-D"], &args);
    };
    let ((client, _), ()) = tokio::join!(connect, restart);
    assert_eq!(port_behind(&client).await, server.port);
}

#[tokio::test]
async fn read_only_sessions_are_spread_over_the_standbys() {
    if passed_as_postgres("proxy::routes::read_only_sessions_are_spread_over_the_standbys") {
        return;
    }
    let (one, two) = (TcpServer::start(""), TcpServer::start(""));
    let (agent_one, agent_two) = (FakeAgent::start().await, FakeAgent::start().await);
    let entry =
        Entrypoint::start(&[(one.port, agent_one.port), (two.port, agent_two.port)], "option httpchk OPTIONS /replica");
    entry.wait_stat("s0", "status", "UP").await;
    entry.wait_stat("s1", "status", "UP").await;
    let mut sessions = vec![];
    for _ in 0..6 {
        sessions.push(entry.connect().await.expect("a session"));
    }
    assert_eq!((entry.stat("s0", "scur").await, entry.stat("s1", "scur").await), ("3".into(), "3".into()));
    // One becomes the primary: the other takes all that come.
    agent_one.lead(5, LONG);
    entry.wait_stat("s0", "status", "DOWN").await;
    let (client, _end) = entry.connect().await.expect("a session");
    assert_eq!(port_behind(&client).await, two.port);
}
