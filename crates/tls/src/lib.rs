//! TLS from the files and options that configurations name, the same for whoever serves or asks: certificates, keys that may be
//! encrypted, authorities, cipher suites in OpenSSL's words.
//!
//! What OpenSSL accepts and the verifier of rustls does not, one certificate as authority and as the server's own at once, is
//! accepted here ([`authority`]). Not here: sockets.

mod authority;
mod ciphers;
mod client;
mod error;
mod pem;
mod secret;
mod server;

#[cfg(test)]
mod tests;

pub use client::{Check, ClientOptions, client};
pub use error::TlsError;
pub use secret::of_secret;
pub use server::{AskClients, ServerOptions, server};

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The certificate that one shows, and its key.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// A chain in PEM, its own certificate first.
    pub certificate: &'a Path,
    /// `None`: the key is in the same file.
    pub key: Option<&'a Path>,
    pub key_password: Option<&'a str>,
}

impl std::fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
