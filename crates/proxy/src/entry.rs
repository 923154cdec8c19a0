//! A listener at run time: the gates of its servers, its sessions, and the queue of clients that are held.
//!
//! Shared by all workers and the control thread. The control thread opens and closes gates ([`Entry::apply`]); a worker asks for
//! a [`Ticket`] and gets one at once or waits in line, first in first out over all workers. A ticket is given back by
//! dropping it, which lets the next client in. Not here: which gate is open (`route`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::task::AtomicWaker;
use pgherd_dcs::boot_now;
use pgherd_ha::Boot;
use tokio::sync::{Semaphore, oneshot};

use crate::config::{Balance, Listener, Server};
use crate::route::{Access, Reason};

/// The permission to forward to one server, from the moment that its gate opened until it closes for good. A server that comes back
/// has a new gate, so no session of before goes on.
#[derive(Debug)]
pub struct Gate {
    /// Nothing is forwarded at or after this instant: nanoseconds of the boot clock, 0 when closed, `u64::MAX` without an end.
    until: AtomicU64,
    /// The same for sessions of physical replication: later, while the server is being stopped in order.
    replication_until: AtomicU64,
    admits: AtomicBool,
    /// Set before `until` becomes 0.
    reason: Mutex<Reason>,
}

impl Gate {
    fn new(until: u64, admits: bool, reason: Reason) -> Gate {
        Gate {
            until: AtomicU64::new(until),
            replication_until: AtomicU64::new(until),
            admits: AtomicBool::new(admits),
            reason: Mutex::new(reason),
        }
    }

    /// Why nothing may be forwarded now; `None`: it may. Asked before every write, so it is two loads and, under a permit, one
    /// reading of the clock: a frozen entrypoint that wakes with an old route forwards nothing.
    pub fn shut(&self, replicates: bool) -> Option<Reason> {
        let until = if replicates { &self.replication_until } else { &self.until };
        match until.load(SeqCst) {
            u64::MAX => None,
            0 => Some(*lock(&self.reason)),
            until if nanos(boot_now()) < until => None,
            _ => Some(Reason::PermitEnded),
        }
    }

    fn set(&self, until: u64, admits: bool) {
        self.until.store(until, SeqCst);
        self.replication_until.store(until, SeqCst);
        self.admits.store(admits, SeqCst);
    }

    /// Closed for good; for replication at `replication_until`, unless it is already. `true`: there may be sessions that end by that.
    fn close(&self, reason: Reason, replication_until: u64) -> bool {
        *lock(&self.reason) = reason;
        let was_open = self.until.swap(0, SeqCst) != 0;
        let replicated = self.replication_until.load(SeqCst) != 0;
        if replicated {
            self.replication_until.store(replication_until, SeqCst);
        }
        was_open || replicated && replication_until == 0
    }

    fn is_closed(&self) -> bool {
        self.until.load(SeqCst) == 0
    }
}

fn nanos(instant: Boot) -> u64 {
    u64::try_from(instant.0.as_nanos()).unwrap_or(u64::MAX)
}

/// One server of a listener, with its counts.
#[derive(Debug)]
pub struct ServerEntry {
    pub config: Server,
    gate: ArcSwap<Gate>,
    pub current: AtomicUsize,
    pub most: AtomicUsize,
    pub total: AtomicU64,
    /// Dials that failed.
    pub dial_errors: AtomicU64,
    /// Sessions that were held again after this server failed them before its first answer.
    pub retries: AtomicU64,
    /// Sessions that this server lost.
    pub lost: AtomicU64,
    /// Bytes of sessions that have ended.
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

impl ServerEntry {
    fn new(config: Server) -> ServerEntry {
        ServerEntry {
            config,
            gate: ArcSwap::from_pointee(Gate::new(0, false, Reason::NotHeardYet)),
            current: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            dial_errors: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    /// Why it takes no new session now; `None`: it takes them.
    pub fn refuses(&self) -> Option<Reason> {
        let gate = self.gate.load();
        gate.shut(false).or_else(|| (!gate.admits.load(SeqCst)).then_some(Reason::NotPrimary))
    }

    /// It takes one more session now.
    fn has_room(&self) -> bool {
        let full = self.config.maxconn.is_some_and(|most| self.current.load(SeqCst) >= most);
        !full && self.config.weight > 0 && self.refuses().is_none()
    }
}

/// A session that a server has, as others see it.
#[derive(Debug, Default)]
pub struct Session {
    waker: AtomicWaker,
    /// What a CancelRequest must show: the process id and the key, as the server sent them.
    pub cancel_key: Mutex<Option<Vec<u8>>>,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

/// A place at a server. Dropping it gives the place back.
#[derive(Debug)]
pub struct Ticket {
    pub entry: Arc<Entry>,
    pub server: usize,
    pub session: Arc<Session>,
    /// A session of physical replication, which cannot write and goes on while the server is stopped in order.
    pub replicates: bool,
    gate: Arc<Gate>,
    id: u64,
}

impl Ticket {
    pub fn server(&self) -> &ServerEntry {
        &self.entry.servers[self.server]
    }

    pub fn shut(&self) -> Option<Reason> {
        self.gate.shut(self.replicates)
    }

    /// Another server would take this session.
    pub fn has_alternative(&self) -> bool {
        self.entry.servers.iter().enumerate().any(|(index, server)| index != self.server && server.has_room())
    }

    /// Ready when nothing may be forwarded any more. Wakes the task that asked last when the gate closes.
    pub fn poll_shut(&self, cx: &mut Context<'_>) -> Poll<Reason> {
        self.session.waker.register(cx.waker());
        self.shut().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let server = self.server();
        server.bytes_in.fetch_add(self.session.bytes_in.load(Relaxed), Relaxed);
        server.bytes_out.fetch_add(self.session.bytes_out.load(Relaxed), Relaxed);
        lock(&self.entry.sessions).remove(&self.id);
        server.current.fetch_sub(1, SeqCst);
        self.entry.let_in();
    }
}

/// By number: the server, its gate when the session began, the session.
type Sessions = BTreeMap<u64, (usize, Arc<Gate>, Arc<Session>)>;

/// Clients that wait, by the number of their coming. Whoever gives up leaves, so the line is never longer than the listener has
/// places.
#[derive(Debug, Default)]
struct Line {
    waiters: BTreeMap<u64, Waiter>,
    next: u64,
}

/// A client in line.
#[derive(Debug)]
struct Waiter {
    /// Servers that have failed it, the latest last: taken only if no other is open, and then the one that failed it first.
    failed: Vec<usize>,
    turn: oneshot::Sender<Ticket>,
}

/// A client's number in line, which it leaves by dropping this.
#[derive(Debug)]
struct InLine<'a> {
    entry: &'a Entry,
    number: u64,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        lock(&self.entry.line).waiters.remove(&self.number);
    }
}

/// One listener.
#[derive(Debug)]
pub struct Entry {
    pub config: Listener,
    pub servers: Vec<ServerEntry>,
    /// Clients of this listener, held ones included.
    pub slots: Arc<Semaphore>,
    pub slot_count: usize,
    sessions: Mutex<Sessions>,
    next_id: AtomicU64,
    line: Mutex<Line>,
    pub clients: AtomicUsize,
    pub most_clients: AtomicUsize,
    pub total_clients: AtomicU64,
    pub held: AtomicUsize,
    pub most_held: AtomicUsize,
    /// Clients that were told that there is no server.
    pub refused: AtomicU64,
}

impl Entry {
    pub fn new(config: Listener, maxconn: usize) -> Arc<Entry> {
        let slot_count = config.maxconn.unwrap_or(maxconn).min(maxconn);
        Arc::new(Entry {
            servers: config.servers.iter().cloned().map(ServerEntry::new).collect(),
            slots: Arc::new(Semaphore::new(slot_count)),
            slot_count,
            config,
            sessions: Mutex::default(),
            next_id: AtomicU64::new(0),
            line: Mutex::default(),
            clients: AtomicUsize::new(0),
            most_clients: AtomicUsize::new(0),
            total_clients: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            most_held: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Opens and closes the gates as the routes say, ends the sessions behind closed ones, and lets held clients in.
    pub fn apply(self: &Arc<Self>, access: &[Access]) {
        for (server, access) in self.servers.iter().zip(access) {
            match *access {
                Access::Open { until, .. } => self.open(server, nanos(until).max(1), true),
                Access::Keep { until } => self.open(server, nanos(until).max(1), false),
                Access::Stopping { reason, until } => self.close(&server.gate.load_full(), reason, nanos(until).max(1)),
                Access::Closed(reason) => self.close(&server.gate.load_full(), reason, 0),
            }
        }
        self.let_in();
    }

    fn open(&self, server: &ServerEntry, until: u64, admits: bool) {
        let gate = server.gate.load_full();
        if gate.is_closed() {
            // Whatever still replicates behind the former one ends.
            self.close(&gate, Reason::NotPrimary, 0);
            server.gate.store(Arc::new(Gate::new(until, admits, Reason::NotPrimary)));
        } else {
            gate.set(until, admits);
        }
    }

    fn close(&self, gate: &Arc<Gate>, reason: Reason, replication_until: u64) {
        if gate.close(reason, replication_until) {
            self.wake_sessions(gate);
        }
    }

    fn wake_sessions(&self, gate: &Arc<Gate>) {
        let behind: Vec<_> = lock(&self.sessions)
            .values()
            .filter(|(_, of, _)| Arc::ptr_eq(of, gate))
            .map(|(_, _, session)| Arc::clone(session))
            .collect();
        behind.iter().for_each(|session| session.waker.wake());
    }

    /// A place at a server, at once or when it is this client's turn; `None` if neither happens within `limit`.
    /// `failed`: see [`Waiter`].
    pub async fn admit(self: &Arc<Self>, failed: &[usize], limit: Duration) -> Option<Ticket> {
        let (turn, _in_line) = {
            let mut line = lock(&self.line);
            if line.waiters.is_empty()
                && let Some(ticket) = self.take(failed)
            {
                return Some(ticket);
            }
            let (sender, turn) = oneshot::channel();
            let number = line.next;
            line.next += 1;
            line.waiters.insert(number, Waiter { failed: failed.to_vec(), turn: sender });
            (turn, InLine { entry: self, number })
        };
        let _held = self.count_held();
        tokio::time::timeout(limit, turn).await.ok()?.ok()
    }

    /// Counts a client as held until the value is dropped.
    pub fn count_held(&self) -> Held<'_> {
        Held::new(self)
    }

    /// Gives places to the clients in line, from the front, while there are any.
    fn let_in(self: &Arc<Self>) {
        // Dropped after the lock: a place given back lets the next in.
        let mut unused = vec![];
        let mut line = lock(&self.line);
        while let Some(first) = line.waiters.first_entry() {
            let Some(ticket) = self.take(&first.get().failed) else { break };
            // It may have given up in this very moment.
            unused.extend(first.remove().turn.send(ticket).err());
        }
        drop(line);
    }

    /// The open server that `balance` says. Called under the lock of the line, so that limits hold.
    fn take(self: &Arc<Self>, failed: &[usize]) -> Option<Ticket> {
        let candidates = self.servers.iter().enumerate().filter(|(_, server)| server.has_room());
        // Sessions per weight, compared as fractions: scaled so that 256, the greatest weight, still tells servers apart.
        let load = |server: &ServerEntry| (server.current.load(SeqCst) * 65_536) / server.config.weight as usize;
        let turn = self.next_id.load(Relaxed) as usize;
        let count = self.servers.len();
        let rank = |index: usize, server: &ServerEntry| match self.config.balance {
            Balance::LeastConn => (load(server), (index + count - turn % count) % count),
            Balance::First => (0, index),
        };
        let (index, server) = candidates
            .min_by_key(|(index, server)| (failed.iter().position(|one| one == index), rank(*index, server)))?;
        let gate = server.gate.load_full();
        let id = self.next_id.fetch_add(1, Relaxed);
        let session = Arc::<Session>::default();
        lock(&self.sessions).insert(id, (index, Arc::clone(&gate), Arc::clone(&session)));
        let current = server.current.fetch_add(1, SeqCst) + 1;
        server.most.fetch_max(current, Relaxed);
        server.total.fetch_add(1, Relaxed);
        Some(Ticket { entry: Arc::clone(self), server: index, session, replicates: false, gate, id })
    }

    /// The servers that a CancelRequest goes to: the one whose session has this key, or, for keys of streams that could not be
    /// read, every server that is open (each ignores a key that is not its own).
    pub fn servers_of_key(&self, key: &[u8]) -> Vec<usize> {
        let sessions = lock(&self.sessions);
        let known = sessions.values().find(|(.., session)| lock(&session.cancel_key).as_deref() == Some(key));
        match known {
            Some((server, ..)) => vec![*server],
            None => (0..self.servers.len()).filter(|index| self.servers[*index].refuses().is_none()).collect(),
        }
    }

    /// Bytes from and to clients of the sessions that last, by server.
    pub fn live_bytes(&self) -> Vec<(u64, u64)> {
        let mut bytes = vec![(0, 0); self.servers.len()];
        for (server, _, session) in lock(&self.sessions).values() {
            bytes[*server].0 += session.bytes_in.load(Relaxed);
            bytes[*server].1 += session.bytes_out.load(Relaxed);
        }
        bytes
    }

    /// What a client is told that could not be served.
    pub fn why_not(&self) -> String {
        let reasons: Vec<_> = self
            .servers
            .iter()
            .filter_map(|server| Some(format!("{}: {}", server.config.name, server.refuses()?.words())))
            .collect();
        if reasons.is_empty() { "every server has as many sessions as it may".into() } else { reasons.join("; ") }
    }
}

/// Counts a client as held while it exists.
#[derive(Debug)]
pub struct Held<'a>(&'a Entry);

impl<'a> Held<'a> {
    fn new(entry: &'a Entry) -> Held<'a> {
        let held = entry.held.fetch_add(1, Relaxed) + 1;
        entry.most_held.fetch_max(held, Relaxed);
        Held(entry)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}

/// No code panics while it holds one of these locks; if it did, the data would still be whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::haproxy_cfg;

    /// An entry of three servers that are open.
    fn entry(options: &str) -> Arc<Entry> {
        let text = format!("listen l\nbind *:1\n{options}\nserver a a:1\nserver b b:1\nserver c c:1\n");
        let config = haproxy_cfg::parse("f", &text, &|_| None).expect("a listener").config;
        let entry = Entry::new(config.listeners[0].clone(), config.maxconn);
        entry.apply(&[Access::Open { epoch: None, until: Boot::NEVER }; 3]);
        entry
    }

    /// What a client gets that does not wait.
    fn admit(entry: &Arc<Entry>, failed: &[usize]) -> Option<Ticket> {
        entry.admit(failed, Duration::MAX).now_or_never().flatten()
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_the_line() {
        let entry = entry("default-server maxconn 1");
        let mut tickets: Vec<_> = (0..3).map(|_| admit(&entry, &[])).collect();
        let length = || lock(&entry.line).waiters.len();
        let (first, second) = (entry.admit(&[], Duration::MAX), entry.admit(&[], Duration::MAX));
        let (mut first, mut second) = (Box::pin(first), Box::pin(second));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        for _ in 0..100 {
            assert!(admit(&entry, &[]).is_none());
        }
        assert_eq!(length(), 2);
        drop(first);
        assert_eq!(length(), 1);
        tickets.clear();
        assert!(second.now_or_never().flatten().is_some());
        assert_eq!(length(), 0);
    }

    #[tokio::test]
    async fn who_failed_is_taken_last_and_the_latest_last_of_all() {
        let entry = entry("");
        for (failed, expected) in [(&[][..], "a"), (&[0], "b"), (&[1, 0], "c"), (&[2, 1, 0], "c"), (&[1, 2, 0], "b")] {
            entry.next_id.store(0, Relaxed);
            let ticket = admit(&entry, failed).expect("a place");
            assert_eq!(ticket.server().config.name, expected, "{failed:?}");
        }
    }

    #[tokio::test]
    async fn replication_outlives_an_orderly_stop_up_to_its_end() {
        let later = boot_now() + Duration::from_secs(1_000);
        let stops = Access::Stopping { reason: Reason::NotPrimary, until: later };
        let open = Access::Open { epoch: None, until: Boot::NEVER };
        // (what is applied one after the other, whether a client's session and one that replicates may go on)
        for (steps, client, replicates) in [
            (&[open][..], true, true),
            (&[stops], false, true),
            (&[stops, stops], false, true),
            (&[Access::Stopping { reason: Reason::NotPrimary, until: boot_now() }], false, false),
            (&[stops, Access::Closed(Reason::NewerLeader)], false, false),
            (&[Access::Closed(Reason::NewerLeader)], false, false),
            // What has ended stays so, and a server that comes back has new sessions.
            (&[Access::Closed(Reason::NewerLeader), stops], false, false),
            (&[stops, open], false, false),
        ] {
            let entry = entry("balance first");
            let client_ticket = admit(&entry, &[]).expect("a place");
            let mut ticket = admit(&entry, &[]).expect("a place");
            ticket.replicates = true;
            steps.iter().for_each(|step| entry.apply(&[*step]));
            assert_eq!((client_ticket.shut().is_none(), ticket.shut().is_none()), (client, replicates), "{steps:?}");
        }
    }

    #[tokio::test]
    async fn sessions_are_spread_as_the_balance_says() {
        for (options, expected) in [
            ("", "abcabc"),
            ("default-server maxconn 1", "abc---"),
            ("balance first", "aaaaaa"),
            ("balance first\ndefault-server maxconn 2", "aabbcc"),
        ] {
            let entry = entry(options);
            let tickets: Vec<_> = (0..6).map(|_| admit(&entry, &[])).collect();
            let names = tickets.iter().map(|ticket| ticket.as_ref().map_or("-", |ticket| &ticket.server().config.name));
            assert_eq!(names.collect::<String>(), expected, "{options}");
        }
    }
}
