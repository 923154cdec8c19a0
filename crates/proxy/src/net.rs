//! Sockets: listening on one address from several threads, dialling by name, and the options of both sides of a session.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Connections that the kernel keeps for us while a worker is busy; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Unacknowledged data for this long ends a connection. The kernel also counts a peer that does not read (a pager in psql, a
/// COPY that waits for a lock), so it is generous; a lost primary's sessions end by the route, long before.
const USER_TIMEOUT: Duration = Duration::from_secs(300);

/// A silent peer is asked after 30 s, then every 10 s, and given up after 3 questions.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);

/// Sockets that listen on one address, one for each worker; the kernel spreads the clients over them.
pub fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // SO_REUSEPORT would let a second entrypoint of the same user share the port in silence: ask without it first.
    drop(socket(address, false)?);
    let first = socket(address, true)?;
    let bound = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(socket(bound, true)?);
    }
    Ok(listeners)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
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
    let resolved = timeout_at(deadline, tokio::net::lookup_host((host, port))).await;
    let addresses = resolved
        .map_err(|_| DialError::Timeout(limit))?
        .map_err(|source| DialError::Resolve { host: host.to_owned(), source })?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match timeout_at(deadline, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                tune(&stream);
                return Ok(stream);
            }
            Ok(Err(source)) => last = source,
            Err(_) => return Err(DialError::Timeout(limit)),
        }
    }
    Err(DialError::Connect { source: last })
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
