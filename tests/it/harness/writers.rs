//! The client-side oracle: clients that insert rows through the entrypoint, and one that keeps to one server directly.
//!
//! Each remembers what was acknowledged, by which server and when. They run on a thread of their own, whatever the test waits
//! for. Afterwards: was there ever more than one writer, and is everything there that was acknowledged?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

use super::cluster::{Cluster, LONG};
use super::eventually;

/// Writers through the entrypoint count from 1.
const DIRECT: i32 = 0;
const THROUGH_ENTRYPOINT: i32 = 3;
/// Longer than the entrypoint holds its clients.
const ANSWER: Duration = Duration::from_secs(30);
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// The server names itself and its timeline (the first eight digits of the name of its WAL file).
const INSERT: &str = "INSERT INTO acknowledged (writer, sequence) VALUES ($1, $2) \
    RETURNING inet_server_port(), left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)";

/// A row that a server acknowledged: all of the answer was there, commit included.
#[derive(Clone, Debug)]
struct Insert {
    writer: i32,
    sequence: i64,
    term: Term,
    at: Instant,
}

/// One server in one term as primary: where it listens, and the timeline that it writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Term {
    port: u16,
    timeline: String,
}

/// The running clients. Dropped, they end.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    inserts: Mutex<Vec<Insert>>,
}

impl Shared {
    fn inserts(&self) -> MutexGuard<'_, Vec<Insert>> {
        self.inserts.lock().expect("no writer panics")
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Writers {
    /// Makes the table, and starts the clients; the direct one writes to this node. Returns when both kinds write.
    pub fn start(cluster: &Cluster, direct: &str) -> Writers {
        cluster.write("CREATE TABLE acknowledged (writer int, sequence bigint, PRIMARY KEY (writer, sequence))");
        let port = cluster.node(direct).postgres_port;
        let entry = cluster.connection_to(cluster.entry_port());
        let mut clients = vec![(DIRECT, cluster.connection_to(port))];
        clients.extend((1..=THROUGH_ENTRYPOINT).map(|writer| (writer, entry.clone())));
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
            let write = |(writer, config)| write_until_stopped(writer, config, &for_thread);
            runtime.block_on(futures::future::join_all(clients.into_iter().map(write)));
        });
        let writers = Writers { shared, thread: Some(thread) };
        eventually("everybody writes", LONG, || {
            let inserts = writers.shared.inserts();
            let writing: BTreeSet<i32> = inserts.iter().map(|insert| insert.writer).collect();
            if writing.len() == 1 + THROUGH_ENTRYPOINT as usize { Ok(()) } else { Err(format!("only {writing:?}")) }
        });
        writers
    }

    /// Waits until a server on another port than this one acknowledges.
    pub fn wait_for_another(&self, port: u16) {
        eventually("another server acknowledges", LONG, || {
            let by_another = self.shared.inserts().iter().any(|insert| insert.term.port != port);
            if by_another { Ok(()) } else { Err("none yet".to_owned()) }
        });
    }

    /// Waits until a row is acknowledged from now on, by whomever.
    pub fn wait_for_more(&self) {
        let known = self.shared.inserts().len();
        // What was on its way does not count: as many as there are clients.
        let enough = known + 2 + THROUGH_ENTRYPOINT as usize;
        eventually("writing goes on", LONG, || {
            let now = self.shared.inserts().len();
            if now > enough { Ok(()) } else { Err(format!("{} rows more", now - known)) }
        });
    }

    /// Ends the clients; what they were told.
    pub fn finish(mut self) -> Record {
        self.end();
        let inserts = std::mem::take(&mut *self.shared.inserts());
        Record { inserts }
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is seen by the lock.
            let _ = thread.join();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.end();
    }
}

/// Everything that was acknowledged.
#[derive(Debug)]
pub struct Record {
    inserts: Vec<Insert>,
}

impl Record {
    /// Servers acknowledged one after the other: of no two terms of different servers the times overlap.
    pub fn assert_one_writer_at_a_time(&self) {
        let mut spans: BTreeMap<&Term, (Instant, Instant)> = BTreeMap::new();
        for insert in &self.inserts {
            let span = spans.entry(&insert.term).or_insert((insert.at, insert.at));
            *span = (span.0.min(insert.at), span.1.max(insert.at));
        }
        for (one, (one_first, one_last)) in &spans {
            for (other, (other_first, other_last)) in spans.iter().filter(|(other, _)| other.port > one.port) {
                let overlap = (*one_last.min(other_last)).saturating_duration_since(*one_first.max(other_first));
                assert!(overlap.is_zero(), "{one:?} and {other:?} both acknowledged for {overlap:?}");
            }
        }
    }

    /// Every acknowledged row is on the primary of now.
    pub fn assert_nothing_lost(&self, cluster: &Cluster) {
        let found: BTreeSet<String> =
            cluster.write("SELECT writer || ' ' || sequence FROM acknowledged").into_iter().collect();
        let lost = |insert: &&Insert| !found.contains(&format!("{} {}", insert.writer, insert.sequence));
        let lost: Vec<_> = self.inserts.iter().filter(lost).collect();
        assert!(lost.is_empty(), "{} rows were acknowledged and are lost, the first is {:?}", lost.len(), lost[0]);
    }
}

async fn write_until_stopped(writer: i32, config: tokio_postgres::Config, shared: &Shared) {
    let stopped = async {
        while !shared.stopping() {
            sleep(AFTER_ERROR).await;
        }
    };
    let writing = async {
        let mut sequence = 0;
        loop {
            // Whatever goes wrong is tried again, as a client would; what counts is what was acknowledged.
            let _ = write_in_one_session(writer, &config, &mut sequence, shared).await;
            sleep(AFTER_ERROR).await;
        }
    };
    tokio::select! { () = stopped => {}, () = writing => {} }
}

async fn write_in_one_session(
    writer: i32,
    config: &tokio_postgres::Config,
    sequence: &mut i64,
    shared: &Shared,
) -> Result<(), Box<dyn std::error::Error>> {
    let (client, connection) = timeout(ANSWER, config.connect(NoTls)).await??;
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(connection);
    let statement = timeout(ANSWER, client.prepare(INSERT)).await??;
    loop {
        *sequence += 1;
        let row = timeout(ANSWER, client.query_one(&statement, &[&writer, &*sequence])).await??;
        let at = Instant::now();
        let term = Term { port: u16::try_from(row.try_get::<_, i32>(0)?)?, timeline: row.try_get(1)? };
        shared.inserts().push(Insert { writer, sequence: *sequence, term, at });
    }
}
