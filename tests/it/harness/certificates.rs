//! Certificates in files, made when a test runs, so that none is out of date.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    IsCa, KeyIdMethod, KeyPair, RevokedCertParams,
};
use tempfile::TempDir;

/// An authority, and what it has signed: `ca.crt`, and of `server`, `client` and `expired` (a server's that was good until 2001) a `.crt`, a `.key`
/// and both in one, as `.pem`. `server` is for 127.0.0.1 and localhost. A list that revokes each, as `.crl`.
#[derive(Debug)]
pub struct Certificates {
    directory: TempDir,
}

impl Certificates {
    pub fn make() -> Certificates {
        let certificates = Certificates { directory: tempfile::tempdir().expect("a temporary directory") };
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named("authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
        certificates.write("ca.crt", &authority.pem());
        for (number, name, end) in [(1, "server", 2100), (2, "client", 2100), (3, "expired", 2001)] {
            certificates.sign(&authority, number, name, end);
        }
        certificates
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The path as a text, for arguments and configurations.
    pub fn shown(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    fn sign(&self, authority: &CertifiedIssuer<'_, KeyPair>, number: u64, name: &str, end: i32) {
        let mut params = params(&["127.0.0.1", "localhost"]);
        params.serial_number = Some(number.into());
        params.distinguished_name = named(name);
        params.not_after = rcgen::date_time_ymd(end, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, authority).expect("signed").pem();
        self.write(&format!("{name}.crl"), &revocation(authority, number));
        self.write(&format!("{name}.crt"), &certificate);
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.write(&format!("{name}.pem"), &(certificate + &key.serialize_pem()));
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        std::fs::write(&path, text).expect("a writable temporary directory");
        // Programs refuse keys that others may read.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("our own file");
    }
}

/// Writes a certificate for 127.0.0.1 that is authority, server's and client's at once, with its key.
pub fn self_signed(file: &Path) {
    let mut params = params(&["127.0.0.1"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(file, certificate.pem() + &key.serialize_pem()).expect("written");
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).expect("our own file");
}

/// A list with one certificate, by its number.
fn revocation(authority: &CertifiedIssuer<'_, KeyPair>, number: u64) -> String {
    let long_ago = rcgen::date_time_ymd(2020, 1, 1);
    let revoked = RevokedCertParams {
        serial_number: number.into(),
        revocation_time: long_ago,
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: long_ago,
        next_update: rcgen::date_time_ymd(2100, 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(authority).expect("signed").pem().expect("PEM")
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("names")
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
