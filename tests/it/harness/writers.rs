//! The oracle on the clients' side: who was told that a row is there, by which server, and when.
//!
//! Every client inserts one row per transaction as fast as it is answered, from a thread of its own, whatever the test waits
//! for. Afterwards: was there ever more than one writer, was everybody served, and is everything there that was acknowledged?
//! The machine has one clock, so the times of different clients compare.
//!
//! `pgherd drill` has one of its own (`crates/cli/src/drill`), in a binary that no test can depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

use super::cluster::{Cluster, LONG};
use super::eventually;

/// The rows are told apart by their writer and its count.
pub const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS acknowledged (writer int, sequence bigint, PRIMARY KEY (writer, sequence))";
/// Asks for all of them, a line each.
pub const ACKNOWLEDGED: &str = "SELECT writer || ' ' || sequence FROM acknowledged";
/// The server says itself who it is, and its timeline (the first eight digits of the name of its WAL file).
const INSERT: &str = "INSERT INTO acknowledged (writer, sequence) VALUES ($1, $2) RETURNING \
    host(inet_server_addr()), inet_server_port(), left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)";

/// The client of one server; those through an entrypoint count from 1.
const DIRECT: i32 = 0;
const THROUGH_ENTRYPOINT: [i32; 3] = [1, 2, 3];
/// Longer than any test waits for a client to be served, so that a session which hangs is not given up before it is noticed.
const ANSWER: Duration = LONG.saturating_mul(2);
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// A row that a server acknowledged: all of the answer was there, commit included.
#[derive(Clone, Debug)]
pub struct Row {
    pub writer: i32,
    pub sequence: i64,
    pub term: Term,
    pub sent: Instant,
    pub acknowledged: Instant,
}

/// One server in one term as primary: where it listens, and the timeline that it writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    pub server: SocketAddr,
    pub timeline: String,
}

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub rows: Vec<Row>,
    /// By writer, with the messages.
    pub errors: BTreeMap<i32, BTreeMap<String, usize>>,
}

/// The running clients. Dropped, they end.
#[derive(Debug, Default)]
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    record: Mutex<Record>,
}

impl Shared {
    fn look<T>(&self, at: impl FnOnce(&mut Record) -> T) -> T {
        at(&mut self.record.lock().expect("no writer panics"))
    }
}

impl Writers {
    /// Makes the table in a cluster, and starts clients of its entrypoint and one of this node. Returns when all of them write.
    pub fn start(cluster: &Cluster, direct: &str) -> Writers {
        cluster.write(TABLE);
        let mut writers = Writers::default();
        writers.add(DIRECT, 0, cluster.connection_to(cluster.node(direct).postgres_port), || ());
        let entry = cluster.connection_to(cluster.entry_port());
        THROUGH_ENTRYPOINT.iter().for_each(|writer| writers.add(*writer, 0, entry.clone(), || ()));
        writers.wait_for_rows_of(&[&[DIRECT][..], &THROUGH_ENTRYPOINT].concat());
        writers
    }

    /// One more client. `writer` and the number `before` its first row make its rows different from all others; `enter` is the
    /// first that its thread does.
    pub fn add(
        &mut self,
        writer: i32,
        before: i64,
        config: tokio_postgres::Config,
        enter: impl FnOnce() + Send + 'static,
    ) {
        let shared = Arc::clone(&self.shared);
        self.threads.push(std::thread::spawn(move || {
            enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
            runtime.block_on(write_until_stopped(&shared, writer, before, &config));
        }));
    }

    pub fn look<T>(&self, at: impl FnOnce(&Record) -> T) -> T {
        self.shared.look(|record| at(record))
    }

    /// Waits until a server on another port than this one acknowledges.
    pub fn wait_for_another(&self, port: u16) {
        eventually("another server acknowledges", LONG, || {
            let by_another = self.look(|record| record.rows.iter().any(|row| row.term.server.port() != port));
            if by_another { Ok(()) } else { Err("none yet".to_owned()) }
        });
    }

    /// Waits until every client of the entrypoint has been told of a row that it sent from now on.
    pub fn wait_for_more(&self) {
        self.wait_for_rows_of(&THROUGH_ENTRYPOINT);
    }

    fn wait_for_rows_of(&self, writers: &[i32]) {
        let begun = Instant::now();
        eventually("every client is served", LONG, || {
            self.look(|record| {
                let unserved: Vec<i32> = record.unserved(writers, |row| row.sent >= begun);
                if unserved.is_empty() { Ok(()) } else { Err(format!("not {unserved:?}; {:?}", record.errors)) }
            })
        });
    }

    /// Ends the clients; what they were told.
    pub fn finish(mut self) -> Record {
        self.end();
        self.shared.look(std::mem::take)
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // A panic of a thread is seen by the lock.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// A failed test, too, waits for them: they may hold the networks of its hosts.
impl Drop for Writers {
    fn drop(&mut self) {
        self.end();
    }
}

impl Record {
    pub fn of(&self, writers: &[i32]) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| writers.contains(&row.writer))
    }

    /// Which of these writers have no such row.
    pub fn unserved(&self, writers: &[i32], is_one: impl Fn(&Row) -> bool) -> Vec<i32> {
        let served: BTreeSet<i32> = self.of(writers).filter(|row| is_one(row)).map(|row| row.writer).collect();
        writers.iter().copied().filter(|writer| !served.contains(writer)).collect()
    }

    /// The longest time between two acknowledged rows, over all these writers.
    pub fn outage(&self, writers: &[i32]) -> Duration {
        let mut times: Vec<Instant> = self.of(writers).map(|row| row.acknowledged).collect();
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    pub fn errors_of(&self, writers: &[i32]) -> usize {
        writers.iter().filter_map(|writer| self.errors.get(writer)).flat_map(BTreeMap::values).sum()
    }

    /// When a server acknowledged its first and its last row.
    pub fn span_of(&self, server: impl Into<IpAddr>) -> Option<(Instant, Instant)> {
        let server = server.into();
        let times = || self.rows.iter().filter(|row| row.term.server.ip() == server).map(|row| row.acknowledged);
        times().min().zip(times().max())
    }

    /// How many acknowledged rows of these writers are missing.
    pub fn lost(&self, writers: &[i32], found: &BTreeSet<(i32, i64)>) -> usize {
        self.of(writers).filter(|row| !found.contains(&(row.writer, row.sequence))).count()
    }

    /// Servers acknowledged one after the other: of no two terms of different servers the times overlap.
    pub fn assert_one_writer_at_a_time(&self) {
        let mut spans: BTreeMap<&Term, (Instant, Instant)> = BTreeMap::new();
        for row in &self.rows {
            let span = spans.entry(&row.term).or_insert((row.acknowledged, row.acknowledged));
            *span = (span.0.min(row.acknowledged), span.1.max(row.acknowledged));
        }
        for (one, (one_first, one_last)) in &spans {
            for (other, (other_first, other_last)) in spans.iter().filter(|(other, _)| other.server > one.server) {
                let overlap = (*one_last.min(other_last)).saturating_duration_since(*one_first.max(other_first));
                assert!(overlap.is_zero(), "{one:?} and {other:?} both acknowledged for {overlap:?}");
            }
        }
    }

    /// Every acknowledged row is on the primary of now.
    pub fn assert_nothing_lost(&self, cluster: &Cluster) {
        self.assert_all_among(cluster.write(ACKNOWLEDGED));
    }

    /// The same for what a server answered to [`ACKNOWLEDGED`].
    pub fn assert_all_among(&self, found: Vec<String>) {
        let found: BTreeSet<String> = found.into_iter().collect();
        let lost = |row: &&Row| !found.contains(&format!("{} {}", row.writer, row.sequence));
        let lost: Vec<_> = self.rows.iter().filter(lost).collect();
        assert!(lost.is_empty(), "{} rows were acknowledged and are lost, the first is {:?}", lost.len(), lost[0]);
    }
}

async fn write_until_stopped(shared: &Shared, writer: i32, before: i64, config: &tokio_postgres::Config) {
    let stopped = async {
        while !shared.stop.load(Ordering::SeqCst) {
            sleep(AFTER_ERROR).await;
        }
    };
    let writing = async {
        let mut sequence = before;
        loop {
            let ended = write_in_one_session(shared, writer, &mut sequence, config).await;
            let error = ended.expect_err("a session ends by an error only");
            shared.look(|record| *record.errors.entry(writer).or_default().entry(words(&*error)).or_default() += 1);
            sleep(AFTER_ERROR).await;
        }
    };
    // A row that is cut off here is one whose outcome nobody was told.
    tokio::select! { () = stopped => {}, () = writing => {} }
}

type Error = Box<dyn std::error::Error>;

async fn write_in_one_session(
    shared: &Shared,
    writer: i32,
    sequence: &mut i64,
    config: &tokio_postgres::Config,
) -> Result<std::convert::Infallible, Error> {
    let (client, connection) = timeout(ANSWER, config.connect(NoTls)).await??;
    // Ended when this session is dropped, however that happens.
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(connection);
    let statement = timeout(ANSWER, client.prepare(INSERT)).await??;
    loop {
        *sequence += 1;
        let sent = Instant::now();
        let row = timeout(ANSWER, client.query_one(&statement, &[&writer, &*sequence])).await??;
        let acknowledged = Instant::now();
        let address: IpAddr = row.try_get::<_, &str>(0)?.parse()?;
        let server = SocketAddr::new(address, u16::try_from(row.try_get::<_, i32>(1)?)?);
        let term = Term { server, timeline: row.try_get(2)? };
        let row = Row { writer, sequence: *sequence, term, sent, acknowledged };
        shared.look(|record| record.rows.push(row));
    }
}

/// The server's own words where there are some.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::as_db_error) {
        Some(told) => format!("{}: {}", told.code().code(), told.message()),
        None => error.to_string(),
    }
}
