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
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
}

impl ServerHandle {
    /// Where it listens; the port is the real one where 0 was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes no more requests, lets those in progress end for [`GRACE`], then closes what is left.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let listeners = std::mem::take(&mut self.listeners);
        let aborts: Vec<_> = listeners.iter().map(JoinHandle::abort_handle).collect();
        if tokio::time::timeout(GRACE, futures::future::join_all(listeners)).await.is_err() {
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.listeners.iter().for_each(JoinHandle::abort);
    }
}

/// Listens on every address of `listen` that the machine has, and serves until the handle is dropped.
///
/// An address family that the machine lacks is passed over, as long as one address remains; an address in use is an
/// error. Must be called within a runtime.
pub fn serve(listen: Vec<SocketAddr>, state: ApiState) -> Result<ServerHandle, ApiError> {
    let listeners = bind_all(&listen)?;
    let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stop, stopped) = watch::channel(false);
    let service = Service { settings: state.settings.clone(), router: router(state), stopped };
    let accept = |listener| tokio::spawn(accept_all(listener, service.clone(), places.clone()));
    let listeners = listeners.into_iter().map(accept).collect();
    Ok(ServerHandle { addresses, stop, listeners })
}

fn bind_all(listen: &[SocketAddr]) -> Result<Vec<TcpListener>, ApiError> {
    let mut bound = Vec::new();
    let mut passed_over = None;
    for address in listen {
        match bind(*address) {
            Ok(listener) => bound.push(listener),
            Err(source) if is_missing(&source) => passed_over = Some(ApiError::Bind { address: *address, source }),
            Err(source) => return Err(ApiError::Bind { address: *address, source }),
        }
    }
    match (bound.is_empty(), passed_over) {
        (false, _) => Ok(bound),
        (true, Some(error)) => Err(error),
        (true, None) => Err(ApiError::NoAddress),
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
#[derive(Clone)]
struct Service {
    settings: Arc<ArcSwap<Settings>>,
    router: Router,
    stopped: watch::Receiver<bool>,
}

/// Takes connections while there are places, until told to stop; then waits for those in progress.
async fn accept_all(listener: TcpListener, service: Service, places: Arc<Semaphore>) {
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
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
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
