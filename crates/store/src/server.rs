//! Where a member is asked: by the others, and by clients. Everybody shows that they belong here (TLS) and which store they mean.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::network::set_options;
use crate::node::Node;
use crate::wire::{self, Hello, PROTOCOL, Welcome};

/// Of members and clients together.
const MAX_CONNECTIONS: usize = 256;
/// For the handshake and both greetings.
const GREETING: Duration = Duration::from_secs(5);
/// Whoever does not take an answer in this time is gone.
const SEND: Duration = Duration::from_secs(10);
/// The pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves while it is there.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<()>,
}

impl Server {
    pub fn start(listener: TcpListener, tls: Arc<ServerConfig>, cluster: String, node: Node) -> Server {
        let task = tokio::spawn(accept_all(listener, TlsAcceptor::from(tls), Arc::new(cluster), node));
        Server { task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept_all(listener: TcpListener, tls: TlsAcceptor, cluster: Arc<String>, node: Node) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, address)) => {
                let (tls, cluster, node) = (tls.clone(), cluster.clone(), node.clone());
                connections.spawn(async move {
                    if let Err(error) = serve(stream, &tls, &cluster, &node).await {
                        tracing::debug!(%address, %error, "the store ended a connection");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the store could not take a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, tls: &TlsAcceptor, cluster: &str, node: &Node) -> io::Result<()> {
    set_options(&stream)?;
    let greeted = async {
        let mut stream = tls.accept(stream).await?;
        let hello: Hello = wire::receive(&mut stream).await?;
        let refused = if hello.protocol != PROTOCOL {
            Some(format!("this member speaks version {PROTOCOL} of the store's protocol, not {}", hello.protocol))
        } else if hello.cluster != cluster {
            Some(format!("this is a member of the store {cluster:?}, not of {:?}", hello.cluster))
        } else {
            None
        };
        match refused {
            None => wire::send(&mut stream, &Welcome::Welcome).await?,
            Some(why) => {
                wire::send(&mut stream, &Welcome::Refused { why: why.clone() }).await?;
                return Err(io::Error::other(why));
            }
        }
        Ok(stream)
    };
    let mut stream = timeout(GREETING, greeted).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    loop {
        let question = wire::receive(&mut stream).await?;
        let reply = node.answer(question).await;
        timeout(SEND, wire::send(&mut stream, &reply))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    }
}
