//! The drill's clients: several that write through the entrypoint and one that keeps to the old primary.
//!
//! Each inserts one row per transaction, as fast as it is answered, and connects again at once after an error. They run
//! on a thread of their own, so that finding and killing processes does not disturb the measuring.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

use super::measure::{DIRECT, Failure, Insert, Record, Term};

/// A refused connection comes back in microseconds: 100 attempts a second are enough to notice the recovery.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
/// Well beyond the 30 s for which an entrypoint holds its clients; a client that gets no answer at all gives up then.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(40);
/// An answer that is still missing after so long when the writers are told to end counts as an error.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(1);

/// Creates the table anew, so that nothing of an earlier run is counted.
pub const CREATE_TABLE: &str = "DROP TABLE IF EXISTS pgherd_drill; CREATE TABLE pgherd_drill \
    (writer int, sequence bigint, PRIMARY KEY (writer, sequence))";

/// The server names itself and its timeline (the first eight digits of the name of its WAL file).
const INSERT: &str = "INSERT INTO pgherd_drill (writer, sequence) VALUES ($1, $2) \
    RETURNING inet_server_port(), left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)";

/// The running writers.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    thread: JoinHandle<anyhow::Result<()>>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    stop: AtomicBool,
    record: Mutex<Record>,
}

impl Shared {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A writer that panicked is reported by `finish`; the record is a list of whole events at any time.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writers {
    /// Starts `count` writers through the entrypoint and the direct one.
    pub fn start(entry: tokio_postgres::Config, direct: tokio_postgres::Config, count: u8) -> anyhow::Result<Writers> {
        let shared = Arc::new(Shared {
            started: Instant::now(),
            stop: AtomicBool::new(false),
            record: Mutex::new(Record { writers: i32::from(count), ..Record::default() }),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let for_thread = Arc::clone(&shared);
        let run = move || {
            let shared = for_thread;
            runtime.block_on(async {
                let through_entry = (1..=i32::from(count)).map(|writer| (writer, &entry));
                let all = through_entry.chain([(DIRECT, &direct)]);
                let all: Vec<Writer> = all.map(|(number, config)| Writer::new(number, config, &shared)).collect();
                futures::future::join_all(all.iter().map(Writer::write_until_stopped)).await;
                Ok(())
            })
        };
        let thread = std::thread::Builder::new().name("writers".into()).spawn(run)?;
        Ok(Writers { shared, thread })
    }

    /// The drill's clock.
    pub fn now(&self) -> Duration {
        self.shared.now()
    }

    /// Looks at what has been recorded so far.
    pub fn look<T>(&self, at: impl FnOnce(&Record) -> T) -> T {
        at(&self.shared.record())
    }

    /// Ends the writers; the record and the time at which they were told to end.
    pub fn finish(self) -> anyhow::Result<(Record, Duration)> {
        let end = self.shared.now();
        self.shared.stop.store(true, Ordering::Relaxed);
        let result = self.thread.join();
        result.ok().context("a writer of the drill panicked")??;
        let record = std::mem::take(&mut *self.shared.record());
        // What was acknowledged while the writers were ending counts as a row, and the end moves with it.
        let last = record.inserts.iter().map(|insert| insert.acknowledged).max().unwrap_or_default();
        Ok((record, end.max(last)))
    }
}

/// One client.
struct Writer<'a> {
    number: i32,
    config: tokio_postgres::Config,
    shared: &'a Shared,
    sequence: Cell<i64>,
    /// What it waits for now.
    request: Cell<Option<Request>>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    what: &'static str,
    sent: Duration,
}

impl Request {
    /// What is wrong with a request that is cut off because the writers were told to end.
    fn overdue(self, end: Duration) -> Option<String> {
        let late = end.saturating_sub(self.sent) > PATIENCE_AT_THE_END;
        late.then(|| format!("{}: no answer for more than {} s at the end", self.what, PATIENCE_AT_THE_END.as_secs()))
    }
}

impl<'a> Writer<'a> {
    fn new(number: i32, config: &tokio_postgres::Config, shared: &'a Shared) -> Writer<'a> {
        Writer { number, config: config.clone(), shared, sequence: Cell::new(0), request: Cell::new(None) }
    }

    async fn write_until_stopped(&self) {
        let stopped = async {
            while !self.shared.stopping() {
                sleep(PAUSE_AFTER_ERROR).await;
            }
            let end = self.shared.now();
            // An insert that is on its way gets a moment, so that its row is not needlessly unknown.
            sleep(Duration::from_millis(200)).await;
            end
        };
        let writing = async {
            while !self.shared.stopping() {
                if let Err(message) = self.write_in_one_session().await {
                    self.failed(message);
                    sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        };
        tokio::select! {
            end = stopped => {
                if let Some(message) = self.request.get().and_then(|request| request.overdue(end)) {
                    self.failed(message);
                }
            }
            () = writing => {}
        }
    }

    fn failed(&self, message: String) {
        self.shared.record().failures.push(Failure { writer: self.number, at: self.shared.now(), message });
    }

    /// Connects once and inserts until something fails.
    async fn write_in_one_session(&self) -> Result<(), String> {
        let (client, connection) = self.answer("connecting", self.config.connect(NoTls)).await?;
        // Ended when this session is dropped, however that happens.
        let mut driver = tokio::task::JoinSet::new();
        driver.spawn(connection);
        let statement = self.answer("preparing", client.prepare(INSERT)).await?;
        while !self.shared.stopping() {
            let sequence = self.sequence.get() + 1;
            self.sequence.set(sequence);
            let sent = self.shared.now();
            // Returns once the server is ready for the next query: the commit is done.
            let row = self.answer("inserting", client.query_one(&statement, &[&self.number, &sequence])).await?;
            let acknowledged = self.shared.now();
            let term = term_of(&row).ok_or("the server did not say who it is")?;
            let insert = Insert { writer: self.number, sequence, term, sent, acknowledged };
            self.shared.record().inserts.push(insert);
        }
        Ok(())
    }

    /// Sends a request and waits for its answer, not for ever.
    async fn answer<T>(
        &self,
        what: &'static str,
        request: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, String> {
        self.request.set(Some(Request { what, sent: self.shared.now() }));
        let answer = timeout(ANSWER_LIMIT, request).await;
        self.request.set(None);
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(format!("{what}: {}", short(&error))),
            Err(_) => Err(format!("{what}: no answer within {} s", ANSWER_LIMIT.as_secs())),
        }
    }
}

fn term_of(row: &tokio_postgres::Row) -> Option<Term> {
    let port: i32 = row.try_get(0).ok()?;
    let timeline: String = row.try_get(1).ok()?;
    Some(Term { timeline: u32::from_str_radix(&timeline, 16).ok()?, port: u16::try_from(port).ok()? })
}

/// The server's own words where there are some, else the cause.
fn short(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => format!("{} {}: {}", server.severity(), server.code().code(), server.message()),
        None => chain(error),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_an_answer_for_a_second_at_the_end_is_an_error() {
        for (sent, end, expected) in [(1_000, 1_500, false), (1_000, 2_000, false), (1_000, 2_001, true)] {
            let request = Request { what: "inserting", sent: Duration::from_millis(sent) };
            let overdue = request.overdue(Duration::from_millis(end));
            assert_eq!(overdue.is_some(), expected, "{sent} {end} {overdue:?}");
        }
    }
}
