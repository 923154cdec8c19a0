//! TLS between those who share a secret and have no certificates.
//!
//! The secret makes a key, the same for everybody, and each side shows the other that it has it (raw public keys, RFC 7250). So both know the secret,
//! nobody in between reads along, and the secret itself is never sent. A secret that can be guessed can be guessed by whoever may connect, which is
//! why the key is slow to make; use a long, random one.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use ring::pbkdf2;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};

use crate::TlsError;

/// Of PBKDF2 with HMAC-SHA256, as OWASP asks for at present.
const ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).expect("above zero");

/// What an Ed25519 key looks like in PKCS #8, before its 32 bytes (RFC 8410).
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Both sides, for one `purpose`: another one makes another key.
pub fn of_secret(secret: &str, purpose: &str) -> Result<(ServerConfig, ClientConfig), TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = Arc::new(key(&provider, secret, purpose)?);
    let verifier = Arc::new(Same { key: key.clone(), algorithms: provider.signature_verification_algorithms });
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier.clone())
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key.clone())));
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    Ok((server, client))
}

fn key(provider: &CryptoProvider, secret: &str, purpose: &str) -> Result<CertifiedKey, Error> {
    let mut pkcs8 = [0; PKCS8_ED25519.len() + 32];
    pkcs8[..PKCS8_ED25519.len()].copy_from_slice(&PKCS8_ED25519);
    let seed = &mut pkcs8[PKCS8_ED25519.len()..];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, purpose.as_bytes(), secret.as_bytes(), seed);
    let key = provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(pkcs8.to_vec()).into())?;
    let public = key.public_key().ok_or_else(|| Error::General("an Ed25519 key has a public key".into()))?;
    let public = CertificateDer::from(public.to_vec());
    Ok(CertifiedKey::new(vec![public], key))
}

/// The other side must have our own key.
struct Same {
    key: Arc<CertifiedKey>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Same {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Same(hidden)")
    }
}

impl Same {
    fn is_same(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        if self.key.cert.first() == Some(shown) {
            return Ok(());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

/// TLS 1.2 knows no raw keys; it is not spoken.
fn never() -> Error {
    Error::General("TLS 1.2 is not spoken here".into())
}

impl ServerCertVerifier for Same {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.is_same(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(never())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Same {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.is_same(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(never())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustls::{ClientConnection, ServerConnection};

    use super::*;

    /// A handshake and a word, without a network.
    fn talk(server: &ServerConfig, client: &ClientConfig) -> Result<String, Error> {
        let name = ServerName::try_from("anything").expect("a name");
        let mut client = ClientConnection::new(Arc::new(client.clone()), name)?;
        let mut server = ServerConnection::new(Arc::new(server.clone()))?;
        client.writer().write_all(b"hello").expect("in memory");
        for _ in 0..10 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("in memory");
            server.read_tls(&mut &wire[..]).expect("in memory");
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).expect("in memory");
            client.read_tls(&mut &wire[..]).expect("in memory");
            client.process_new_packets()?;
        }
        let mut heard = [0; 5];
        server.reader().read_exact(&mut heard).map_err(|error| Error::General(error.to_string()))?;
        Ok(String::from_utf8_lossy(&heard).into_owned())
    }

    #[test]
    fn who_has_the_secret_is_heard_and_nobody_else() {
        let (server, client) = of_secret("a long and random one", "store").expect("TLS");
        let (_, same) = of_secret("a long and random one", "store").expect("TLS");
        let (_, wrong) = of_secret("another", "store").expect("TLS");
        let (_, other) = of_secret("a long and random one", "something else").expect("TLS");
        assert_eq!(talk(&server, &client).as_deref(), Ok("hello"));
        assert_eq!(talk(&server, &same).as_deref(), Ok("hello"));
        for stranger in [wrong, other] {
            talk(&server, &stranger).expect_err("it does not know the secret");
        }
        // Who shows nothing is not let in, whomever he believes.
        let nobody = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        talk(&server, &nobody).expect_err("it shows nothing");
    }
}
