//! Keeps one session alive: connects, re-connects with the same session as long as the server keeps it, and makes a new
//! one when it does not. The state of the connection is published to the operations.
//!
//! Runs as one task on the runtime of [`ZooKeeper::connect`](super::ZooKeeper::connect), which is the lease thread's: it never touches a disk
//! itself and waits for no operation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::connection::{Broken, Connection};
use super::handshake::{Hello, Way, establish};
use super::link::{Calls, Link};
use super::options::ZooKeeperTls;
use super::wire::{Acl, Garbled};
use crate::boot_now;
use crate::error::error_chain;
use crate::session_file::{self, Identity};

/// Between two tries. A server that is restarted within a session's time must find us back at once, and five tries a
/// second from each node are nothing to it.
const PAUSE: Duration = Duration::from_millis(100);

/// After refused credentials, which do not become right by themselves: each try leaves the server with a session that must time out.
const PAUSE_REFUSED: Duration = Duration::from_secs(1);

/// Files of TLS that are not read by then are on a disk that hangs; those that were read before will do.
const READ_LIMIT: Duration = Duration::from_millis(250);

/// The connection now: a link, or why there is none.
pub type LinkState = Result<Arc<Link>, Arc<str>>;

/// What the task and the operations share.
#[derive(Debug)]
pub struct Shared {
    pub link: watch::Sender<LinkState>,
    /// Counts hints to load again.
    pub changes: watch::Sender<u64>,
    /// The session time-out that is to be asked for.
    pub ttl: watch::Sender<Duration>,
}

impl Shared {
    pub fn new(ttl: Duration) -> Arc<Shared> {
        Arc::new(Shared {
            link: watch::Sender::new(Err("no server has been reached yet".into())),
            changes: watch::Sender::new(0),
            ttl: watch::Sender::new(ttl),
        })
    }

    pub fn hint(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn up(&self, link: Link) {
        self.link.send_modify(|state| *state = Ok(Arc::new(link)));
        self.hint();
    }

    pub fn down(&self, why: &str) {
        let before = self.link.send_replace(Err(why.into()));
        if before.is_ok() {
            self.hint();
        }
    }
}

/// The task that keeps the session.
#[derive(Debug)]
pub struct Keeper {
    pub shared: Arc<Shared>,
    /// `host:port`; tried in turn.
    pub hosts: Vec<String>,
    pub way: Way,
    /// The files that TLS is made of, where there is TLS.
    pub tls: Option<ZooKeeperTls>,
    /// What was said last of files that cannot be read.
    pub unread: Option<String>,
    /// Of what is created.
    pub acl: Arc<[Acl]>,
    /// The file for the session, and the member key that it is good for.
    pub file: Option<(PathBuf, String)>,
    pub identity: Option<Identity>,
    /// The newest transaction that this client has seen: a server that is behind it turns us away.
    pub last_zxid: i64,
    /// Since when every server has turned us away.
    pub turned_away: Option<Instant>,
}

impl Keeper {
    /// Runs until it is aborted.
    pub async fn run(mut self) {
        let mut ttl_changes = self.shared.ttl.subscribe();
        for turn in 0.. {
            let started = Instant::now();
            let ttl = *ttl_changes.borrow_and_update();
            let host = self.hosts[turn % self.hosts.len()].clone();
            let broken = match self.connect(&host, ttl).await {
                Ok(Some((connection, link, calls))) => {
                    let (granted, shared) = (link.granted, self.shared.clone());
                    self.shared.up(link);
                    let serving = connection.serve(calls, granted, &mut self.last_zxid, || shared.hint());
                    tokio::select! {
                        broken = serving => broken,
                        // The same session, asked for again with another time-out.
                        _ = ttl_changes.changed() => Broken::GivenUp,
                    }
                }
                Ok(None) => continue,
                Err(broken) => broken,
            };
            self.note(&host, &broken, ttl);
            if matches!(broken, Broken::Unauthenticated(_) | Broken::Sasl(_)) {
                sleep(PAUSE_REFUSED).await;
            } else if started.elapsed() < PAUSE {
                // A server that accepts and hangs up at once must not make us spin.
                sleep(PAUSE).await;
            }
        }
    }

    /// `None`: the session is gone; the next turn asks for a new one.
    async fn connect(&mut self, host: &str, ttl: Duration) -> Result<Option<(Connection, Link, Calls)>, Broken> {
        let hello = Hello {
            last_zxid: self.last_zxid,
            timeout: ttl,
            session: self.identity.as_ref().map_or(0, |identity| identity.id),
            password: self.identity.as_ref().map(|identity| identity.password.clone()).unwrap_or_default(),
        };
        // Long enough for a busy server, and two of three servers may hang before a session is lost.
        let limit = (ttl / 4).clamp(Duration::from_secs(1), Duration::from_secs(5));
        self.read_tls().await;
        let opened = boot_now();
        let (connection, connected) = establish(host, &self.way, &hello, limit).await?;
        self.turned_away = None;
        let granted = Duration::from_millis(u64::try_from(connected.timeout_ms).unwrap_or(0));
        if connected.session == 0 || granted.is_zero() {
            let gone = self.identity.take().ok_or(Garbled)?;
            warn!("zookeeper {host}: session {:#x} has expired; asking for a new one", gone.id);
            return Ok(None);
        }
        let created_with = match &self.identity {
            Some(identity) if identity.id == connected.session => identity.created_with,
            _ => granted,
        };
        let identity = Identity { id: connected.session, password: connected.password, created_with };
        info!("zookeeper {host}: connected, session {:#x} of {} ms", identity.id, granted.as_millis());
        if self.identity.as_ref() != Some(&identity) {
            self.save(&identity);
        }
        self.identity = Some(identity);
        // A server that restarts gives every session the time-out of its creation until it hears from it.
        let (link, calls) = Link::new(connected.session, granted.min(created_with), opened, self.acl.clone());
        Ok(Some((connection, link, calls)))
    }

    /// A certificate that was renewed since the last connection counts; what cannot be read now leaves the former in force.
    async fn read_tls(&mut self) {
        let Some(files) = self.tls.clone() else { return };
        match timeout(READ_LIMIT, tokio::task::spawn_blocking(move || files.read())).await {
            Ok(Ok(Ok(config))) => {
                self.way.tls = Some(Arc::new(config));
                self.unread = None;
            }
            Ok(Ok(Err(error))) => {
                let why = error_chain(&error);
                // Once, not for each try.
                if self.unread.as_ref() != Some(&why) {
                    warn!("the section `zookeeper`: {why}; TLS goes on with what was read before");
                    self.unread = Some(why);
                }
            }
            Ok(Err(_)) | Err(_) => debug!("the files of TLS were not read in time"),
        }
    }

    /// Publishes why there is no connection.
    fn note(&mut self, host: &str, broken: &Broken, ttl: Duration) {
        let why = format!("{host}: {broken}");
        if self.shared.link.borrow().is_ok() {
            info!("zookeeper {why}; connecting again");
        } else {
            debug!("zookeeper {why}");
        }
        self.shared.down(&why);
        if matches!(broken, Broken::Closed) {
            // No quorum yet, or a server that is behind us. If that lasts, its data were lost or replaced: what we have
            // seen before then says nothing any more, and would keep us out for ever.
            let since = *self.turned_away.get_or_insert_with(Instant::now);
            if since.elapsed() > 2 * ttl {
                self.last_zxid = 0;
            }
        }
    }

    fn save(&self, identity: &Identity) {
        session_file::save(self.file.as_ref(), identity.clone());
    }
}
