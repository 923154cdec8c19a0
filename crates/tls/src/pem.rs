//! Certificates and keys from PEM files. Tested in `tests`.

use std::path::{Path, PathBuf};

use pkcs8::der::Document;
use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::TlsError;

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// All certificates of the file; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let found = found.map_err(|source| TlsError::Malformed { path: path.to_owned(), source })?;
    if found.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}

/// All revocation lists of the files; at least one in each.
pub fn revocations(paths: &[PathBuf]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let mut all = Vec::new();
    for path in paths {
        let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&read(path)?).collect();
        let found = found.map_err(|source| TlsError::Malformed { path: path.to_owned(), source })?;
        if found.is_empty() {
            return Err(TlsError::NoRevocations { path: path.to_owned() });
        }
        all.extend(found);
    }
    Ok(all)
}

/// The first private key of the file.
pub fn key(path: &Path, password: Option<&str>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path)?;
    let path = path.to_owned();
    let text = String::from_utf8_lossy(&bytes);
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::OldEncryption { path });
    }
    let Some(block) = block(&text, ENCRYPTED) else {
        return PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey { path },
            source => TlsError::Malformed { path, source },
        });
    };
    let password = password.ok_or_else(|| TlsError::NoPassword { path: path.clone() })?;
    let decrypted = decrypt(block, password).map_err(|source| TlsError::WrongPassword { path, source })?;
    Ok(PrivatePkcs8KeyDer::from(decrypted.as_bytes().to_vec()).into())
}

fn decrypt(block: &str, password: &str) -> Result<SecretDocument, pkcs8::Error> {
    let (_, document) = Document::from_pem(block)?;
    EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())?.decrypt(password)
}

/// The part of the text from the line that begins such an object to the one that ends it.
fn block<'t>(text: &'t str, label: &str) -> Option<&'t str> {
    let begin = text.find(&format!("-----BEGIN {label}-----"))?;
    let end = format!("-----END {label}-----");
    let length = text[begin..].find(&end)? + end.len();
    Some(&text[begin..begin + length])
}
