//! The oracle on the clients' side: who was told that a row is there, by which server, and when.
//!
//! Every writer inserts one row per transaction as fast as it is answered, from a thread in the network of its host. The
//! machine has one clock, so times on different hosts compare.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use super::cluster::login;
use super::host::Host;

pub const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS oracle (writer int, sequence bigint, PRIMARY KEY (writer, sequence))";
/// The server says itself who it is.
const INSERT: &str = "INSERT INTO oracle VALUES ($1, $2) RETURNING host(inet_server_addr())";
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
/// Longer than any entry holds its clients.
const ANSWER_LIMIT: Duration = Duration::from_secs(40);

/// A row whose insert was answered with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub writer: i32,
    pub sequence: i64,
    pub server: Ipv4Addr,
    pub acknowledged: Instant,
}

/// What the writers saw.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub rows: Vec<Row>,
    /// By writer, with the messages.
    pub errors: BTreeMap<i32, BTreeMap<String, usize>>,
}

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
    fn failed(&self, writer: i32, error: String) {
        let mut record = self.record.lock().expect("no writer panics");
        *record.errors.entry(writer).or_default().entry(error).or_default() += 1;
    }
}

impl Writers {
    /// One more writer, on a host, to an address; `writer` and `first` make its rows different from all others.
    pub fn add(&mut self, host: &Host, address: Ipv4Addr, writer: i32, first: i64) {
        let (shared, place) = (Arc::clone(&self.shared), host.place());
        self.threads.push(std::thread::spawn(move || {
            place.enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(write(&shared, address, writer, first));
        }));
    }

    pub fn look<T>(&self, at: impl FnOnce(&Record) -> T) -> T {
        at(&self.shared.record.lock().expect("no writer panics"))
    }

    pub fn finish(mut self) -> Record {
        self.end();
        std::mem::take(&mut self.shared.record.lock().expect("no writer panics"))
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.threads.drain(..).for_each(|thread| thread.join().expect("no writer panics"));
    }
}

/// A failed test, too, waits for them: they hold the networks of its hosts.
impl Drop for Writers {
    fn drop(&mut self) {
        self.end();
    }
}

async fn write(shared: &Shared, address: Ipv4Addr, writer: i32, mut sequence: i64) {
    let stopped = async {
        while !shared.stop.load(Ordering::SeqCst) {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    };
    let writing = async {
        loop {
            let error = write_in_one_session(shared, address, writer, &mut sequence).await;
            shared.failed(writer, error);
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    };
    // A row that is cut off here is one whose outcome nobody was told.
    tokio::select! { () = stopped => {}, () = writing => {} }
}

/// Returns why the session ended.
async fn write_in_one_session(shared: &Shared, address: Ipv4Addr, writer: i32, sequence: &mut i64) -> String {
    let session = async {
        let (client, connection) = login(address).connect(NoTls).await?;
        let mut driver = tokio::task::JoinSet::new();
        driver.spawn(connection);
        let statement = client.prepare(INSERT).await?;
        loop {
            *sequence += 1;
            let insert = async { client.query_one(&statement, &[&writer, &*sequence]).await };
            let answer = tokio::time::timeout(ANSWER_LIMIT, insert).await;
            let Ok(row) = answer else { return Ok("no answer".to_owned()) };
            let server = row?.get::<_, String>(0).parse().expect("an address");
            let row = Row { writer, sequence: *sequence, server, acknowledged: Instant::now() };
            shared.record.lock().expect("no writer panics").rows.push(row);
        }
    };
    let ended: Result<String, tokio_postgres::Error> = session.await;
    ended.unwrap_or_else(|error| match error.as_db_error() {
        Some(told) => format!("{}: {}", told.code().code(), told.message()),
        None => error.to_string(),
    })
}

impl Record {
    pub fn of(&self, writers: &[i32]) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| writers.contains(&row.writer))
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

    pub fn first_on(&self, server: Ipv4Addr) -> Option<Instant> {
        self.rows.iter().filter(|row| row.server == server).map(|row| row.acknowledged).min()
    }

    pub fn last_on(&self, server: Ipv4Addr) -> Option<Instant> {
        self.rows.iter().filter(|row| row.server == server).map(|row| row.acknowledged).max()
    }

    /// How many acknowledged rows are missing.
    pub fn lost(&self, writers: &[i32], found: &BTreeSet<(i32, i64)>) -> usize {
        self.of(writers).filter(|row| !found.contains(&(row.writer, row.sequence))).count()
    }
}
