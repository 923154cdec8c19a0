//! The beginning of a connection: TCP, TLS where it is wanted, the session, and who we are. Then it is a [`Connection`].
//!
//! Credentials belong to the connection, not to the session: they are shown each time, before the first request. Not here: SASL's sums
//! (`sasl`). Tested on real servers in `tests/it/store/zookeeper.rs`, with a false one in `connection`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::{Broken, Connection, Socket};
use super::options::{ZooKeeperAuth, ZooKeeperSasl};
use super::sasl::Exchange;
use super::wire::{self, Connected, Garbled};
use crate::session_file::Password;

/// What the first frame asks for.
#[derive(Clone, Debug)]
pub struct Hello {
    pub last_zxid: i64,
    pub timeout: Duration,
    /// 0 for a new session.
    pub session: i64,
    pub password: Password,
}

/// How a server is spoken to.
#[derive(Clone, Debug, Default)]
pub struct Way {
    pub tls: Option<Arc<ClientConfig>>,
    pub auth: Vec<ZooKeeperAuth>,
    pub sasl: Option<ZooKeeperSasl>,
}

/// Connects to `address` (host and port), asks for a session and says who we are, all within `limit`.
pub async fn establish(
    address: &str,
    way: &Way,
    hello: &Hello,
    limit: Duration,
) -> Result<(Connection, Connected), Broken> {
    let handshake = async {
        let mut connection = Connection { stream: open(address, way).await?, inbox: BytesMut::with_capacity(4096) };
        let connected = connection.ask_for_session(hello).await?;
        // Without a session the server hangs up.
        if connected.session != 0 {
            if let Some(user) = &way.sasl {
                connection.prove(user).await?;
            }
            for credential in &way.auth {
                connection.show(credential).await?;
            }
        }
        Ok((connection, connected))
    };
    timeout(limit, handshake).await.unwrap_or(Err(Broken::Silent(limit)))
}

async fn open(address: &str, way: &Way) -> Result<Box<dyn Socket>, Broken> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some(config) = &way.tls else { return Ok(Box::new(stream)) };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("`{host}`: {error}")))?;
    let secured = TlsConnector::from(config.clone()).connect(name, stream).await;
    Ok(Box::new(secured.map_err(|error| io::Error::new(error.kind(), format!("TLS: {error}")))?))
}

impl Connection {
    async fn ask_for_session(&mut self, hello: &Hello) -> Result<Connected, Broken> {
        let mut frame = BytesMut::new();
        let timeout_ms = i32::try_from(hello.timeout.as_millis()).unwrap_or(i32::MAX);
        wire::encode_connect(hello.last_zxid, timeout_ms, hello.session, &hello.password, &mut frame);
        Ok(wire::decode_connected(self.exchange(&frame).await?)?)
    }

    async fn show(&mut self, credential: &ZooKeeperAuth) -> Result<(), Broken> {
        let mut frame = BytesMut::new();
        wire::encode_auth(&credential.scheme, credential.credential.0.as_bytes(), &mut frame);
        let (header, _) = wire::decode_reply(self.exchange(&frame).await?)?;
        match header.error {
            0 if header.xid == wire::XID_AUTH => Ok(()),
            wire::AUTH_FAILED => Err(Broken::Unauthenticated(format!(
                "the scheme `{}`; check `zookeeper.auth_data`, and that the server has this scheme",
                credential.scheme
            ))),
            _ => Err(Garbled.into()),
        }
    }

    /// ZooKeeper has the client begin with nothing.
    async fn prove(&mut self, user: &ZooKeeperSasl) -> Result<(), Broken> {
        let challenge = self.sasl_step(1, b"").await?;
        let (answer, exchange) = Exchange::answer(&challenge, &user.username, &user.password.0, &fresh_nonce()?)?;
        Ok(exchange.finish(&self.sasl_step(2, &answer).await?)?)
    }

    async fn sasl_step(&mut self, xid: i32, token: &[u8]) -> Result<Bytes, Broken> {
        let refused =
            || Broken::Unauthenticated("SASL; check `zookeeper.sasl`, and that the server has this user".into());
        let mut frame = BytesMut::new();
        wire::encode_sasl(xid, token, &mut frame);
        // Some servers hang up instead of saying so.
        let reply = self.exchange(&frame).await.map_err(|broken| match broken {
            Broken::Closed => refused(),
            other => other,
        })?;
        let (header, body) = wire::decode_reply(reply)?;
        match header.error {
            0 if header.xid == xid => Ok(wire::decode_sasl(body)?),
            wire::AUTH_FAILED => Err(refused()),
            _ => Err(Garbled.into()),
        }
    }

    /// One frame there, one back.
    async fn exchange(&mut self, frame: &[u8]) -> Result<Bytes, Broken> {
        self.stream.write_all(frame).await?;
        self.stream.flush().await?;
        loop {
            if let Some(frame) = wire::take_frame(&mut self.inbox)? {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.inbox).await? == 0 {
                return Err(Broken::Closed);
            }
        }
    }
}

/// Letters and digits that nobody has used before.
fn fresh_nonce() -> io::Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(format!("no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
