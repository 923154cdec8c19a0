//! Connections to agents, for checks and routes: plain, or over TLS where the server's line says `check-ssl`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pgherd_tls::{ClientOptions, Identity, TlsError};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::{Check, CheckTls, Config};
use crate::net::{self, DialError};

/// What one reads answers from.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Where an agent is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct AgentAddress {
    pub host: String,
    pub port: u16,
    pub tls: Option<Arc<ClientConfig>>,
}

/// Why an agent could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("there is no TLS connection to it")]
    Tls(#[source] io::Error),
    #[error("its TLS handshake was not over within {0:?}")]
    TlsTimeout(Duration),
}

impl AgentAddress {
    /// `limit`: for all of it.
    pub async fn connect(&self, limit: Duration) -> Result<Box<dyn Stream>, LinkError> {
        let deadline = Instant::now() + limit;
        let stream = net::dial(&self.host, self.port, limit).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| LinkError::Tls(io::Error::other(error)))?;
        let handshake = TlsConnector::from(tls.clone()).connect(name, stream);
        match timeout_at(deadline, handshake).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(LinkError::Tls(error)),
            Err(_) => Err(LinkError::TlsTimeout(limit)),
        }
    }
}

/// What the checks' options of TLS come to; files are read once.
#[derive(Debug, Default)]
pub struct TlsClients(Vec<(CheckTls, Arc<ClientConfig>)>);

impl TlsClients {
    /// An error comes with the name of the server.
    pub fn load(config: &Config) -> Result<TlsClients, (String, Box<TlsError>)> {
        let mut clients = TlsClients::default();
        for server in config.listeners.iter().flat_map(|listener| &listener.servers) {
            let Some(tls) = server.check.as_ref().and_then(|check| check.tls.as_ref()) else { continue };
            if clients.of(tls).is_none() {
                let client = client(tls).map_err(|error| (server.name.clone(), Box::new(error)))?;
                clients.0.push((tls.clone(), Arc::new(client)));
            }
        }
        Ok(clients)
    }

    fn of(&self, tls: &CheckTls) -> Option<Arc<ClientConfig>> {
        self.0.iter().find(|(known, _)| known == tls).map(|(_, client)| client.clone())
    }

    pub fn agent(&self, check: &Check) -> AgentAddress {
        AgentAddress {
            host: check.host.clone(),
            port: check.port,
            tls: check.tls.as_ref().and_then(|tls| self.of(tls)),
        }
    }
}

/// As in HAProxy: who has signed is checked, and not for which name.
fn client(tls: &CheckTls) -> Result<ClientConfig, TlsError> {
    let identity = |certificate| Identity { certificate, key: None, key_password: None };
    pgherd_tls::client(&ClientOptions {
        check: if tls.verify { pgherd_tls::Check::Authority } else { pgherd_tls::Check::Nothing },
        authorities: tls.authorities.as_deref(),
        identity: tls.certificate.as_deref().map(identity),
        revoked: &[],
    })
}
