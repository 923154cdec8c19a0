//! Starts an entrypoint: sockets first, so that errors are told before anything runs, then its threads.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::agent_link::TlsClients;
use crate::config::{Bind, Config, StatsListener};
use crate::control::{Control, EVENTS, Event, Overview};
use crate::entry::Entry;
use crate::net;
use crate::stats::{self, Stats};
use crate::worker::{self, Shared};

/// Why an entrypoint does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "`{listener}` cannot listen on {address}; end the program that has this address (`ss -ltnp` names it) or change \
         its `bind` line"
    )]
    Bind { listener: String, address: SocketAddr, source: io::Error },
    #[error("`check-ssl` of the server `{server}`: its certificates cannot be used")]
    Tls { server: String, source: Box<pgherd_tls::TlsError> },
    #[error("the thread `{name}` cannot be started")]
    Thread { name: String, source: io::Error },
}

/// A running entrypoint. Dropping it ends all sessions.
#[derive(Debug)]
pub struct Handle {
    /// The addresses that are listened on, by listener in the order of the configuration, then those of the stats pages.
    pub addresses: Vec<(String, Vec<SocketAddr>)>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    /// The name of the first thread that ended.
    ended: watch::Sender<Option<String>>,
}

impl Handle {
    pub fn stop(self) {}

    /// The name of a thread that ended though nobody asked it to. Without it gates stand still or clients are not accepted: the process
    /// should end, so that whoever looks after it starts it anew.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(name) => name.clone().unwrap_or_default(),
            // Its sender is ours and lives.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the entrypoint panicked");
            }
        }
    }
}

/// The sockets of one worker.
type Sockets = Vec<(usize, Arc<Entry>, std::net::TcpListener)>;

/// Binds every address and starts the threads.
pub fn start(config: Config) -> Result<Handle, StartError> {
    raise_file_limit(config.maxconn);
    let tls = TlsClients::load(&config).map_err(|(server, source)| StartError::Tls { server, source })?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = config.threads.unwrap_or(cores).clamp(1, 64);
    let entries: Vec<_> =
        config.listeners.iter().map(|listener| Entry::new(listener.clone(), config.maxconn)).collect();
    let bound_to =
        |name: &str, binds: &[Bind]| -> Vec<_> { binds.iter().map(|bind| (name.to_owned(), *bind)).collect() };
    let wanted = config.listeners.iter().flat_map(|listener| bound_to(&listener.name, &listener.binds));
    for (name, bind) in wanted.chain(config.stats.iter().flat_map(|page| bound_to(&page.name, &page.binds))) {
        net::is_free(bind).map_err(|source| bind_error(&name, bind, source))?;
    }
    let mut addresses = vec![];
    let mut sockets: Vec<Sockets> = (0..workers).map(|_| vec![]).collect();
    for (index, entry) in entries.iter().enumerate() {
        let mut bound = vec![];
        for bind in &entry.config.binds {
            let listeners = listen(&entry.config.name, *bind, workers)?;
            bound.extend(listeners.first().and_then(|listener| listener.local_addr().ok()));
            for (worker, listener) in sockets.iter_mut().zip(listeners) {
                worker.push((index, Arc::clone(entry), listener));
            }
        }
        addresses.push((entry.config.name.clone(), bound));
    }
    let mut pages = vec![];
    for page in &config.stats {
        let mut bound = vec![];
        for bind in &page.binds {
            let sockets = listen(&page.name, *bind, 1)?;
            bound.extend(sockets.first().and_then(|socket| socket.local_addr().ok()));
            pages.extend(sockets.into_iter().map(|socket| (page.clone(), socket)));
        }
        addresses.push((page.name.clone(), bound));
    }
    let (stop, stopped) = watch::channel(false);
    let (events, received) = mpsc::channel(EVENTS);
    let mut handle = Handle { addresses, stop, threads: vec![], ended: watch::Sender::new(None) };
    let slots = Arc::new(Semaphore::new(config.maxconn));
    let shared = Shared { slots, events: events.clone(), stop: stopped };
    for (number, sockets) in sockets.into_iter().enumerate() {
        let shared = shared.clone();
        handle.spawn(format!("worker-{number}"), move || worker::run(sockets, shared))?;
    }
    let task = ControlThread { config, tls, entries, pages, events, received, stop: shared.stop };
    handle.spawn("control".into(), move || task.run())?;
    Ok(handle)
}

/// What the control thread takes over.
struct ControlThread {
    config: Config,
    tls: TlsClients,
    entries: Vec<Arc<Entry>>,
    pages: Vec<(StatsListener, std::net::TcpListener)>,
    events: mpsc::Sender<Event>,
    received: mpsc::Receiver<Event>,
    stop: watch::Receiver<bool>,
}

impl ControlThread {
    fn run(self) -> io::Result<()> {
        let ControlThread { config, tls, entries, pages, events, received, mut stop } = self;
        let overview = Arc::new(ArcSwap::from_pointee(Overview::default()));
        let shown = Arc::new(entries.clone());
        let runtime = worker::runtime()?;
        let ended = runtime.block_on(async {
            for (listener, socket) in pages {
                let stats = Stats { listener, entries: Arc::clone(&shown), overview: Arc::clone(&overview) };
                tokio::spawn(stats::serve(stats, socket));
            }
            let mut watchers = JoinSet::new();
            let control = Control::start(&config, &tls, entries, overview, &events, &mut watchers);
            tokio::select! {
                () = control.run(received) => Err(io::Error::other("nobody tells it anything any more")),
                Some(watcher) = watchers.join_next() => Err(worker::unasked("a check or the reader of a route", watcher)),
                // An error means that the other end is gone, which is the same word.
                _ = stop.wait_for(|stop| *stop) => Ok(()),
            }
        });
        runtime.shutdown_background();
        ended
    }
}

impl Handle {
    fn spawn(
        &mut self,
        name: String,
        body: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<(), StartError> {
        let end = End { name: name.clone(), ended: self.ended.clone() };
        let body = move || {
            if let Err(error) = body() {
                tracing::error!(thread = end.name, %error, "a thread of the entrypoint ended");
            }
        };
        let thread = std::thread::Builder::new().name(name.clone()).spawn(body);
        self.threads.push(thread.map_err(|source| StartError::Thread { name, source })?);
        Ok(())
    }
}

/// Tells of the end of a thread when it is dropped, by a panic too.
struct End {
    name: String,
    ended: watch::Sender<Option<String>>,
}

impl Drop for End {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.ended.send_if_modified(|first| first.is_none().then(|| *first = Some(name)).is_some());
    }
}

fn listen(listener: &str, bind: Bind, sockets: usize) -> Result<Vec<std::net::TcpListener>, StartError> {
    net::listen(bind, sockets).map_err(|source| bind_error(listener, bind, source))
}

fn bind_error(listener: &str, bind: Bind, source: io::Error) -> StartError {
    StartError::Bind { listener: listener.to_owned(), address: bind.address, source }
}

/// A session takes two sockets; the usual soft limit of 1,024 files is far below what the hard limit allows.
fn raise_file_limit(maxconn: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = (2 * maxconn + 256) as u64;
    let Some(current) = limit.current.filter(|current| *current < wanted) else { return };
    let raised = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if setrlimit(Resource::Nofile, Rlimit { current: Some(raised.max(current)), ..limit }).is_err() || raised < wanted {
        tracing::warn!(
            files = raised,
            wanted,
            "fewer files may be open than `maxconn` needs; raise the limit of open files"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;
    use crate::haproxy_cfg;

    /// A server that agrees to encryption, says no more, and closes after its client.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for mut session in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    session.read_exact(&mut [0; 8])?;
                    session.write_all(b"S")?;
                    session.read_to_end(&mut vec![])
                });
            }
        });
        address
    }

    /// A client that has asked for encryption.
    fn client(address: SocketAddr) -> TcpStream {
        let mut client = TcpStream::connect(address).expect("accepted");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
        client.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").expect("a request");
        client
    }

    fn served(client: &mut TcpStream) {
        let mut answer = [0];
        client.read_exact(&mut answer).expect("the server's answer in time");
        assert_eq!(answer, *b"S");
    }

    #[test]
    fn no_place_is_held_where_nobody_comes() {
        let server = server();
        let text = format!(
            "global\n nbthread 4\n maxconn 2\nlisten idle\n bind 127.0.0.1:0\n server s {server}\n\
             listen busy\n bind 127.0.0.1:0\n maxconn 2\n server s {server}\n"
        );
        let handle =
            start(haproxy_cfg::parse("f", &text, &|_| None).expect("a configuration").config).expect("started");
        let address = handle.addresses.iter().find(|(name, _)| name == "busy").expect("the listener").1[0];
        // Again and again, because the kernel chooses the worker anew for each client.
        for _ in 0..10 {
            let (mut first, mut second) = (client(address), client(address));
            served(&mut first);
            served(&mut second);
            let mut third = client(address);
            drop(first);
            served(&mut third);
        }
    }

    fn started(text: &str) -> Result<Handle, StartError> {
        start(haproxy_cfg::parse("f", text, &|_| None).expect("a configuration").config)
    }

    #[test]
    fn an_ipv6_address_serves_ipv4_as_well_and_beside_one_of_its_own() {
        let server = server();
        let port = TcpListener::bind("[::]:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
        let (v4, v6) =
            (SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)));
        // (lines, whether IPv4 and IPv6 reach the listener)
        for (binds, reached) in [
            (format!("bind :::{port}"), [true, true]),
            (format!("bind :::{port} v4v6"), [true, true]),
            (format!("bind :::{port} v6only"), [false, true]),
            (format!("bind *:{port}"), [true, false]),
            (format!("bind *:{port}\n bind :::{port}"), [true, true]),
            (format!("bind :::{port}\n bind *:{port}"), [true, true]),
        ] {
            let handle = started(&format!("global\n nbthread 2\nlisten l\n {binds}\n server s {server}\n"));
            let handle = handle.expect("started");
            assert_eq!([v4, v6].map(|address| TcpStream::connect(address).is_ok()), reached, "{binds}");
            drop(handle);
        }
    }

    #[tokio::test]
    async fn a_thread_that_ends_unasked_is_told() {
        type Body = fn() -> io::Result<()>;
        let bodies: [Body; 3] =
            [|| Ok(()), || Err(io::Error::other("out of files")), || panic!("a mistake, as this test wants it")];
        for body in bodies {
            let mut handle = started("listen l\n bind 127.0.0.1:0\n server s 127.0.0.1:1\n").expect("started");
            assert_eq!(handle.ended().now_or_never(), None);
            handle.spawn("one".into(), body).expect("a thread");
            let ended = tokio::time::timeout(Duration::from_secs(10), handle.ended()).await;
            assert_eq!(ended.as_deref(), Ok("one"));
        }
    }

    #[test]
    fn an_address_that_somebody_else_has_is_refused() {
        let text = |port: u16| format!("listen l\n bind 127.0.0.1:{port}\n server s 127.0.0.1:1\n");
        let first = started(&text(0)).expect("started");
        let second = started(&text(first.addresses[0].1[0].port()));
        assert!(matches!(second, Err(StartError::Bind { .. })), "{second:?}");
    }
}
