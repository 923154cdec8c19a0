//! The side that asks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;

use crate::authority::{Anybody, Authorities};
use crate::{Identity, TlsError, pem, provider};

/// What is asked of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing: whoever is in the way can read and change everything.
    Nothing,
    /// An authority has signed it; for whom does not matter.
    Authority,
    /// And it is for the host that is asked.
    Name,
}

#[derive(Clone, Copy, Debug)]
pub struct ClientOptions<'a> {
    pub check: Check,
    /// `None`: those of the system.
    pub authorities: Option<&'a Path>,
    /// Shown to servers that ask for it.
    pub identity: Option<Identity<'a>>,
    /// Lists of revoked certificates, in PEM. If there is one, each authority of a chain must have its own, as OpenSSL has it.
    pub revoked: &'a [PathBuf],
}

impl ClientOptions<'_> {
    /// Believes everybody and shows nothing.
    pub const UNCHECKED: Self =
        ClientOptions { check: Check::Nothing, authorities: None, identity: None, revoked: &[] };
}

pub fn client(options: &ClientOptions<'_>) -> Result<ClientConfig, TlsError> {
    let authorities = || options.authorities.map_or_else(Authorities::of_system, Authorities::of_file);
    let verifier: Arc<dyn ServerCertVerifier> = match options.check {
        Check::Nothing => Arc::new(Anybody),
        Check::Authority => authorities()?.server_verifier(true, pem::revocations(options.revoked)?)?,
        Check::Name => authorities()?.server_verifier(false, pem::revocations(options.revoked)?)?,
    };
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some(identity) = &options.identity else { return Ok(builder.with_no_client_auth()) };
    let key_file = identity.key.unwrap_or(identity.certificate);
    let (chain, key) = (pem::certificates(identity.certificate)?, pem::key(key_file, identity.key_password)?);
    builder.with_client_auth_cert(chain, key).map_err(|source| TlsError::Identity {
        certificate: identity.certificate.to_owned(),
        key: key_file.to_owned(),
        source,
    })
}
