//! Connections to members: opened when they are needed, kept for the next question.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::types::{Member, MemberId, Types};
use crate::wire::{self, Hello, PROTOCOL, Question, Reply, Welcome};

/// Between two tries at a member that cannot be reached. Much less than an election: one that comes back must hear of the leader before it calls one.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// How long a peer may leave sent bytes unacknowledged, or a silent connection untested.
const GONE: Duration = Duration::from_secs(10);

/// So many connections to one member wait for the next question.
const KEPT: usize = 4;

/// How members and clients find and trust each other.
#[derive(Clone)]
pub struct Dialer {
    pub cluster: String,
    /// Both sides show who they are.
    pub tls: Arc<ClientConfig>,
    /// For the connection and both greetings.
    pub patience: Duration,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// Peers that are gone without a word are noticed.
pub(crate) fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(GONE).with_interval(GONE / 3).with_retries(3))?;
    socket.set_tcp_user_timeout(Some(GONE))
}

type Connection = TlsStream<TcpStream>;

impl Dialer {
    async fn dial(&self, address: &str) -> io::Result<Connection> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let greeted = async {
            let stream = TcpStream::connect(address).await?;
            set_options(&stream)?;
            let mut stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
            wire::send(&mut stream, &Hello { protocol: PROTOCOL, cluster: self.cluster.clone() }).await?;
            match wire::receive(&mut stream).await? {
                Welcome::Welcome => Ok(stream),
                Welcome::Refused { why } => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
            }
        };
        timeout(self.patience, greeted).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// One member, as it is asked.
#[derive(Clone, Debug)]
pub struct Peer {
    dialer: Dialer,
    address: String,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {source}")]
pub struct AskError {
    address: String,
    /// The question may have been heard, and done.
    pub may_be_done: bool,
    /// The connection was one that had waited.
    pub was_kept: bool,
    source: io::Error,
}

impl Peer {
    pub fn new(dialer: Dialer, address: String) -> Peer {
        Peer { dialer, address, idle: Arc::default() }
    }

    /// Can be dropped at any time; the connection is then closed.
    pub async fn ask(&self, question: &Question, patience: Duration) -> Result<Reply, AskError> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let was_kept = kept.is_some();
        let error =
            |may_be_done| move |source| AskError { address: self.address.clone(), may_be_done, was_kept, source };
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.dialer.dial(&self.address).await.map_err(error(false))?,
        };
        let answered = async {
            wire::send(&mut connection, question).await?;
            wire::receive(&mut connection).await
        };
        let answer = timeout(patience, answered).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let reply = answer.map_err(error(true))?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(connection);
        }
        Ok(reply)
    }

    /// Those that wait lead to a process that is gone, perhaps.
    pub fn forget_connections(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// How the library reaches the others. It asks for a way to them at each confirmation, so the connections are kept here.
#[derive(Clone, Debug)]
pub struct Network {
    dialer: Dialer,
    peers: Arc<Mutex<BTreeMap<String, Peer>>>,
}

impl Network {
    pub fn new(dialer: Dialer) -> Network {
        Network { dialer, peers: Arc::default() }
    }
}

/// One of them.
#[derive(Debug)]
pub struct Link {
    target: MemberId,
    peer: Peer,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: MemberId, node: &Member) -> Link {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = peers.entry(node.address.clone());
        let peer = peer.or_insert_with(|| Peer::new(self.dialer.clone(), node.address.clone())).clone();
        Link { target, peer }
    }
}

type RpcError<E> = RPCError<MemberId, Member, E>;

impl Link {
    async fn ask<A, E: std::error::Error>(
        &self,
        question: Question,
        option: &RPCOption,
        answer: impl FnOnce(Reply) -> Option<Result<A, E>>,
    ) -> Result<A, RpcError<E>> {
        let unreachable = |error: &(dyn std::error::Error + 'static)| {
            RPCError::Unreachable(Unreachable::new(&io::Error::other(error.to_string())))
        };
        let mut asked = self.peer.ask(&question, option.hard_ttl()).await;
        if asked.as_ref().is_err_and(|error| error.was_kept) {
            // It may have led to a process that is gone; what the engine asks can be asked twice.
            self.peer.forget_connections();
            asked = self.peer.ask(&question, option.hard_ttl()).await;
        }
        let reply = asked.map_err(|error| {
            self.peer.forget_connections();
            unreachable(&error)
        })?;
        let refused =
            if let Reply::Refused { why } = &reply { why.clone() } else { "it answers another question".into() };
        match answer(reply) {
            Some(answer) => answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error))),
            None => Err(unreachable(&io::Error::other(refused))),
        }
    }
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<MemberId>, RpcError<RaftError<MemberId>>> {
        let answer = |reply| if let Reply::Append(answer) = reply { Some(answer) } else { None };
        self.ask(Question::Append(self.target, rpc), &option, answer).await
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<MemberId>, RpcError<RaftError<MemberId, InstallSnapshotError>>> {
        let answer = |reply| if let Reply::Snapshot(answer) = reply { Some(answer) } else { None };
        self.ask(Question::Snapshot(self.target, rpc), &option, answer).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<MemberId>,
        option: RPCOption,
    ) -> Result<VoteResponse<MemberId>, RpcError<RaftError<MemberId>>> {
        let answer = |reply| if let Reply::Vote(answer) = reply { Some(answer) } else { None };
        self.ask(Question::Vote(self.target, rpc), &option, answer).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(TRY_AGAIN))
    }
}
