//! Sockets: listening on one address from several threads, dialling by name, and the options of both sides of a session.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::Bind;

/// Connections that the kernel keeps for us while a worker is busy; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Names that a thread of ours looks up at a time. A look-up cannot be stopped: behind a name server that hangs it goes on long after
/// whoever asked has given up, and holds its place until it is over.
pub const LOOKUPS: usize = 8;

thread_local! {
    /// Of each event loop its own: what clients wait for must not hold up the checks.
    static LOOKUP_PLACES: Arc<Semaphore> = Arc::new(Semaphore::new(LOOKUPS));
}

/// Unacknowledged data for this long ends a connection. The kernel also counts a peer that does not read (a pager in psql, a
/// COPY that waits for a lock), so it is generous; a lost primary's sessions end by the route, long before.
const USER_TIMEOUT: Duration = Duration::from_secs(300);

/// A silent peer is asked after 30 s, then every 10 s, and given up after 3 questions.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);

/// Whether nobody else listens there. SO_REUSEPORT would let a second entrypoint of the same user share the port in silence, so this
/// asks without it; before any of our own sockets listens, since they may share (`*:5432` and `:::5432`).
pub fn is_free(bind: Bind) -> io::Result<()> {
    socket(bind, false).map(drop)
}

/// Sockets that listen on one address, one for each worker; the kernel spreads the clients over them.
pub fn listen(bind: Bind, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let first = socket(bind, true)?;
    let bound = Bind { address: first.local_addr()?, ..bind };
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(socket(bound, true)?);
    }
    Ok(listeners)
}

fn socket(bind: Bind, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(bind.address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if let (true, Some(v6_only)) = (bind.address.is_ipv6(), bind.v6_only) {
        socket.set_only_v6(v6_only)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&bind.address.into())?;
    if shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

/// Why a server could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("its name `{host}` cannot be resolved")]
    Resolve { host: String, source: io::Error },
    #[error("it refused the connection or is not reachable")]
    Connect { source: io::Error },
    #[error("it did not accept the connection within {0:?}")]
    Timeout(Duration),
}

/// Connects to the first address of `host` that answers; the name is resolved anew.
pub async fn dial(host: &str, port: u16, limit: Duration) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + limit;
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => timeout_at(deadline, resolve(host.to_owned(), port))
            .await
            .map_err(|_| DialError::Timeout(limit))?
            .map_err(|source| DialError::Resolve { host: host.to_owned(), source })?,
    };
    connect(&addresses, limit, deadline).await
}

/// One address after the other. Each gets its share of the time that is left, so that one where nobody answers does not use it all.
async fn connect(addresses: &[SocketAddr], limit: Duration, deadline: Instant) -> Result<TcpStream, DialError> {
    let source = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut last = DialError::Connect { source };
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                tune(&stream);
                return Ok(stream);
            }
            Ok(Err(source)) => last = DialError::Connect { source },
            Err(_) => last = DialError::Timeout(limit),
        }
    }
    Err(last)
}

/// The addresses of a name, from a thread that waits for them.
async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let places = LOOKUP_PLACES.with(Arc::clone);
    let place = places.acquire_owned().await.map_err(io::Error::other)?;
    let look_up = move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        drop(place);
        addresses
    };
    tokio::task::spawn_blocking(look_up).await.map_err(io::Error::other)?
}

/// The options of a session's socket. Failing to set one costs speed of detection, not correctness.
pub fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let results = [
        socket.set_tcp_nodelay(true),
        socket.set_tcp_keepalive(&KEEPALIVE),
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT)),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "a socket option could not be set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_where_nobody_answers_takes_only_its_share_of_the_time() {
        // A queue of one that is full: the kernel drops what else comes, as a machine that is gone does.
        let gone = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        gone.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        gone.listen(0).expect("listening");
        let gone_address = gone.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
        let _queued = TcpStream::connect(gone_address).await.expect("queued");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let there = listener.local_addr().expect("an address");
        let refused =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
        // (addresses, whether one answers, the milliseconds that it takes of 3,000)
        for (addresses, answers, took) in [
            (vec![there], true, 0),
            (vec![gone_address, there], true, 1_500),
            (vec![gone_address, gone_address, there], true, 2_000),
            (vec![refused, gone_address, there], true, 1_500),
            (vec![gone_address, gone_address], false, 3_000),
            (vec![refused], false, 0),
            (vec![], false, 0),
        ] {
            let (begun, limit) = (Instant::now(), Duration::from_secs(3));
            let answered = connect(&addresses, limit, begun + limit).await.is_ok();
            let elapsed = u64::try_from(begun.elapsed().as_millis()).expect("short");
            assert!(
                answered == answers && (took..took + 10).contains(&elapsed),
                "{addresses:?}: {answered}, {elapsed}"
            );
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_an_address_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        assert!(dial("localhost", port, Duration::from_secs(5)).await.is_ok());
        // All places are taken by look-ups that hang.
        let places = LOOKUP_PLACES.with(Arc::clone).try_acquire_many_owned(LOOKUPS as u32);
        assert!(dial("127.0.0.1", port, Duration::from_secs(5)).await.is_ok());
        let waited = dial("localhost", port, Duration::from_millis(1)).await;
        assert!(matches!(waited, Err(DialError::Timeout(_))), "{waited:?}");
        drop(places);
        assert!(dial("localhost", port, Duration::from_secs(5)).await.is_ok());
    }
}
