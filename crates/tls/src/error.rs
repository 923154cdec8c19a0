//! What can be wrong with the files: always with the path, and with what to do where that is not plain.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not in PEM form", path.display())]
    Malformed { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{} holds no certificate (PEM, `BEGIN CERTIFICATE`)", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} holds no list of revoked certificates (PEM, `BEGIN X509 CRL`)", path.display())]
    NoRevocations { path: PathBuf },
    #[error("{} holds no private key (PEM, `BEGIN PRIVATE KEY`)", path.display())]
    NoKey { path: PathBuf },
    #[error("the private key in {} is encrypted, and no password is given", path.display())]
    NoPassword { path: PathBuf },
    #[error("the private key in {} cannot be decrypted: a wrong password?", path.display())]
    WrongPassword { path: PathBuf, source: pkcs8::Error },
    #[error(
        "the private key in {} is encrypted in a form of old; `openssl pkcs8 -topk8` writes it in the one that is read here",
        path.display()
    )]
    OldEncryption { path: PathBuf },
    #[error("the certificate in {} and the private key in {} cannot be used", certificate.display(), key.display())]
    Identity { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("{} holds a certificate that cannot be an authority", path.display())]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("client certificates are to be checked, and no file of authorities is given to check them against")]
    NoAuthority,
    #[error("the authorities of the system cannot be read")]
    SystemAuthorities { source: Option<rustls_native_certs::Error> },
    #[error(
        "none of the cipher suites `{asked}` is spoken here; those of TLS 1.2 are {known}; TLS 1.3 has its own, always allowed"
    )]
    Ciphers { asked: String, known: String },
    #[error("these options of TLS do not go together")]
    Refused(#[from] rustls::Error),
}
