//! The side that is asked.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::authority::Authorities;
use crate::{Identity, TlsError, ciphers, pem};

/// Whether clients show a certificate. One that is shown must be right in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskClients {
    No,
    Optional,
    Required,
}

#[derive(Clone, Copy, Debug)]
pub struct ServerOptions<'a> {
    pub identity: Identity<'a>,
    pub ask_clients: AskClients,
    /// Those that clients' certificates are checked against.
    pub authorities: Option<&'a Path>,
    /// In OpenSSL's words; `None`: all that are spoken.
    pub ciphers: Option<&'a str>,
}

pub fn server(options: &ServerOptions<'_>) -> Result<ServerConfig, TlsError> {
    let mut provider = rustls::crypto::ring::default_provider();
    if let Some(asked) = options.ciphers {
        ciphers::restrict(&mut provider, asked)?;
    }
    let builder = ServerConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions()?;
    let verifier = |required| {
        let file = options.authorities.ok_or(TlsError::NoAuthority)?;
        Authorities::of_file(file)?.client_verifier(required)
    };
    let builder = match options.ask_clients {
        AskClients::No => builder.with_no_client_auth(),
        AskClients::Optional => builder.with_client_cert_verifier(verifier(false)?),
        AskClients::Required => builder.with_client_cert_verifier(verifier(true)?),
    };
    let Identity { certificate, key, key_password } = options.identity;
    let key_file = key.unwrap_or(certificate);
    let (chain, key) = (pem::certificates(certificate)?, pem::key(key_file, key_password)?);
    builder.with_single_cert(chain, key).map_err(|source| TlsError::Identity {
        certificate: certificate.to_owned(),
        key: key_file.to_owned(),
        source,
    })
}
