//! Who is believed: certificates that an authority has signed, and the authorities' own.
//!
//! A single self-signed certificate with `CA:TRUE` is often used as authority, server's and client's certificate at once. OpenSSL
//! accepts it; webpki, rightly for certificates that come from anybody, never takes an authority for an end entity. Here one counts
//! that is, byte by byte, one of the authorities, is valid now, and has the name that is asked for: whoever proves to hold its key
//! could have signed itself another one anyway.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::{TlsError, pem, provider};

/// The authorities of a file or of the system.
#[derive(Debug)]
pub struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
}

impl Authorities {
    pub fn of_file(path: &Path) -> Result<Authorities, TlsError> {
        let certificates = pem::certificates(path)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
        }
        Ok(Authorities { certificates, roots: Arc::new(roots) })
    }

    /// One that cannot be read among the many of a system is passed over, as OpenSSL does.
    pub fn of_system() -> Result<Authorities, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(TlsError::SystemAuthorities { source: found.errors.into_iter().next() });
        }
        Ok(Authorities { certificates: Vec::new(), roots: Arc::new(roots) })
    }

    /// `Ok(false)`: it is none of them.
    fn include(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<bool, Error> {
        if !self.certificates.iter().any(|authority| authority == certificate) {
            return Ok(false);
        }
        let parsed = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let validity = parsed.tbs_certificate().validity();
        if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
            return Err(CertificateError::Expired.into());
        }
        Ok(true)
    }

    pub fn client_verifier(self, required: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider());
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        let inner = builder.build().map_err(|error| Error::General(error.to_string()))?;
        Ok(Arc::new(Clients { authorities: self, inner }))
    }

    /// `any_name`: the certificate need not be for the name that is asked for.
    pub fn server_verifier(
        self,
        any_name: bool,
        revocations: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        let builder =
            WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider()).with_crls(revocations);
        let inner = builder.build().map_err(|error| Error::General(error.to_string()))?;
        Ok(Arc::new(Servers { authorities: self, inner, any_name }))
    }
}

/// Whoever is believed, the key of the certificate must be proven: the same methods of all three verifiers below, of two traits.
macro_rules! signatures_of_the_provider {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls12_signature(
                message,
                certificate,
                signed,
                &provider().signature_verification_algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature(
                message,
                certificate,
                signed,
                &provider().signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

#[derive(Debug)]
struct Clients {
    authorities: Authorities,
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.inner.verify_client_cert(end_entity, intermediates, now) {
            Err(error) if !self.authorities.include(end_entity, now)? => Err(error),
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    signatures_of_the_provider!();
}

#[derive(Debug)]
struct Servers {
    authorities: Authorities,
    inner: Arc<WebPkiServerVerifier>,
    any_name: bool,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = |error: &Error| {
            matches!(
                error,
                Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
                )
            )
        };
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: all else is right.
            Err(error) if name(&error) && self.any_name => {}
            Err(error) if name(&error) || !self.authorities.include(end_entity, now)? => return Err(error),
            Err(_) if self.any_name => {}
            Err(_) => rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?,
            Ok(_) => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    signatures_of_the_provider!();
}

/// Believes everybody, as a client that is told not to check does. That the server holds the key of what it shows is still proven.
#[derive(Debug)]
pub struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_of_the_provider!();
}
