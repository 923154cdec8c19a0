//! The listening sockets and what keeps them safe from their clients: a bound on connections, on headers, and on
//! patience.
//!
//! Not here: what is answered (`router`). Tested in `server_tests` with raw sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use super::access::Client;
use super::router::router;
use super::state::{ApiState, Settings};

/// Twice the number of route streams; the rest are health checks and people, who come and go within milliseconds. At
/// some 20 kB a connection the worst case stays within the memory that the agent may have.
const MAX_CONNECTIONS: usize = 128;
/// From the first wait for a request until its headers are complete, which also ends a connection kept alive for
/// nothing. Patroni's keep-alive.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// A request line and some headers; a larger head is answered with 431.
const LARGEST_HEAD: usize = 16 << 10;
/// How long a peer may leave sent bytes unacknowledged: longer and it is gone, and its stream's place is free again.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// How many connections wait in the kernel while all places are taken.
const BACKLOG: i32 = 128;
/// How long a request in progress may take when the server stops: an answer is written within milliseconds, and who
/// waits for a restart or a switchover is told by the store how it ended.
const GRACE: Duration = Duration::from_secs(1);
/// The pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(
        "the REST API cannot listen on {address} (`restapi.listen`): if another process listens there, end it, or give this node \
         another address"
    )]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("`restapi.listen`: {text:?} has no address (expected HOST:PORT)")]
    Resolve {
        text: String,
        #[source]
        source: Option<io::Error>,
    },
    #[error("`restapi.listen` has no address to listen on")]
    NoAddress,
}

/// The addresses of `HOST:PORT`; an empty host or `*` means all of the machine.
pub async fn resolve_listen(text: &str) -> Result<Vec<SocketAddr>, ApiError> {
    let wrong = |source| ApiError::Resolve { text: text.to_owned(), source };
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong(None))?;
    let port: u16 = port.parse().map_err(|_| wrong(None))?;
    let host = host.trim_matches(['[', ']']);
    if host.is_empty() || host == "*" {
        return Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]);
    }
    let mut found: Vec<SocketAddr> =
        tokio::net::lookup_host((host, port)).await.map_err(|error| wrong(Some(error)))?.collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() { Err(wrong(None)) } else { Ok(found) }
}

/// The running server. Dropped, it closes every connection at once.
#[derive(Debug)]
pub struct ServerHandle {
    service: Service,
    places: Arc<Semaphore>,
    listeners: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    /// As it was asked for; the port may be 0.
    asked: SocketAddr,
    local: SocketAddr,
    stop: watch::Sender<bool>,
    /// Its socket is closed.
    closed: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl ServerHandle {
    /// Where it listens; the port is the real one where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.local).collect()
    }

    /// Listens on these addresses from now on and no longer on others, whose requests in progress end as in [`stop`](Self::stop). After an error it
    /// listens where it did.
    pub async fn listen_on(&mut self, listen: &[SocketAddr]) -> Result<(), ApiError> {
        let (stay, leave): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.listeners).into_iter().partition(|listener| listen.contains(&listener.asked));
        self.listeners = stay;
        let is_new = |address: &SocketAddr| self.listeners.iter().all(|listener| listener.asked != *address);
        let new: Vec<SocketAddr> = listen.iter().copied().filter(is_new).collect();
        let Err(_) = self.open(&new) else {
            tokio::spawn(stop_all(leave));
            return Ok(());
        };
        // One address of a port that all addresses are listened on is to be had only after that.
        let before: Vec<SocketAddr> = leave.iter().map(|listener| listener.asked).collect();
        let sockets: Vec<_> = leave.iter().map(|listener| listener.closed.clone()).collect();
        tokio::spawn(stop_all(leave));
        for mut socket in sockets {
            // Its task has ended: so has the socket.
            let _ = socket.wait_for(|closed| *closed).await;
        }
        self.open(&new).inspect_err(|_| {
            if let Err(error) = self.open(&before) {
                tracing::error!("{:#}", anyhow::Error::from(error));
            }
        })
    }

    /// On all of them or on none.
    fn open(&mut self, listen: &[SocketAddr]) -> Result<(), ApiError> {
        if listen.is_empty() {
            return Ok(());
        }
        for (asked, socket) in bind_all(listen)? {
            let (stop, stopped) = watch::channel(false);
            let (is_closed, closed) = watch::channel(false);
            let service = Service { stopped, ..self.service.clone() };
            let local = socket.local_addr().unwrap_or(asked);
            let task = tokio::spawn(accept_all(socket, service, self.places.clone(), is_closed));
            self.listeners.push(Listener { asked, local, stop, closed, task });
        }
        Ok(())
    }

    /// Takes no more requests, lets those in progress end for [`GRACE`], then closes what is left.
    pub async fn stop(&mut self) {
        stop_all(std::mem::take(&mut self.listeners)).await;
    }
}

async fn stop_all(listeners: Vec<Listener>) {
    for listener in &listeners {
        listener.stop.send_replace(true);
    }
    let aborts: Vec<_> = listeners.iter().map(|listener| listener.task.abort_handle()).collect();
    let tasks = listeners.into_iter().map(|listener| listener.task);
    if tokio::time::timeout(GRACE, futures::future::join_all(tasks)).await.is_err() {
        aborts.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.listeners.iter().for_each(|listener| listener.task.abort());
    }
}

/// Listens on every address of `listen` that the machine has, and serves until the handle is dropped.
///
/// An address family that the machine lacks is passed over, as long as one address remains; an address in use is an
/// error. Must be called within a runtime.
pub fn serve(listen: &[SocketAddr], state: ApiState) -> Result<ServerHandle, ApiError> {
    if listen.is_empty() {
        return Err(ApiError::NoAddress);
    }
    let settings = state.settings.clone();
    let service = Service { settings, router: router(state), stopped: watch::channel(false).1 };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut server = ServerHandle { service, places, listeners: Vec::new() };
    server.open(listen)?;
    Ok(server)
}

fn bind_all(listen: &[SocketAddr]) -> Result<Vec<(SocketAddr, TcpListener)>, ApiError> {
    let mut bound = Vec::new();
    let mut passed_over = None;
    for address in listen {
        match bind(*address) {
            Ok(listener) => bound.push((*address, listener)),
            Err(source) if is_missing(&source) => passed_over = Some(ApiError::Bind { address: *address, source }),
            Err(source) => return Err(ApiError::Bind { address: *address, source }),
        }
    }
    match passed_over {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

/// The machine has no such address, or no such family of addresses.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // The IPv4 address of the same host has a socket of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What every connection needs.
#[derive(Clone, Debug)]
struct Service {
    settings: Arc<ArcSwap<Settings>>,
    router: Router,
    stopped: watch::Receiver<bool>,
}

/// Takes connections while there are places, until told to stop; then waits for those in progress.
async fn accept_all(listener: TcpListener, service: Service, places: Arc<Semaphore>, closed: watch::Sender<bool>) {
    let mut connections = JoinSet::new();
    let mut stopped = service.stopped.clone();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            Some(_) = connections.join_next() => continue,
            () = told_to_stop(&mut stopped) => break,
        };
        match accepted {
            Ok((stream, address, place)) => {
                let service = service.clone();
                connections.spawn(async move {
                    if let Err(error) = service.serve(stream, address).await {
                        tracing::debug!(%address, %error, "the REST API ended a connection");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the REST API could not take a connection");
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_AGAIN) => {}
                    () = told_to_stop(&mut stopped) => break,
                }
            }
        }
    }
    drop(listener);
    closed.send_replace(true);
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.expect("nobody closes the semaphore");
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, place))
}

/// Returns when the server is to stop, or its handle is gone.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stopped| *stopped).await);
}

impl Service {
    /// One connection until either side ends it.
    async fn serve(mut self, stream: TcpStream, address: SocketAddr) -> io::Result<()> {
        set_options(&stream)?;
        let Some(tls) = self.settings.load().tls.clone() else {
            return self.converse(stream, Client { address: address.ip(), certified: false }).await;
        };
        let handshake = tokio::time::timeout(HEADER_PATIENCE, TlsAcceptor::from(tls).accept(stream));
        let stream = tokio::select! {
            stream = handshake => stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??,
            () = told_to_stop(&mut self.stopped) => return Ok(()),
        };
        let certified = stream.get_ref().1.peer_certificates().is_some();
        self.converse(stream, Client { address: address.ip(), certified }).await
    }

    async fn converse(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        client: Client,
    ) -> io::Result<()> {
        let Service { settings, router, mut stopped } = self;
        let had_tls = settings.load().tls.is_some();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(client);
            let answer = router.clone().call(request);
            let outdated = settings.load().tls.is_some() != had_tls;
            async move {
                match outdated {
                    true => Err("it was kept from the time before TLS was switched on or off"),
                    false => Ok(answer.await.unwrap_or_else(|never| match never {})),
                }
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_PATIENCE)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = told_to_stop(&mut stopped) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        ended.map_err(io::Error::other)
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(UNACKNOWLEDGED))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}
