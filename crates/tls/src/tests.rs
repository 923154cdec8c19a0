//! Handshakes in memory, between what the two sides make of files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pkcs8::PrivateKeyInfoRef;
use pkcs8::der::pem::LineEnding;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, RevokedCertParams,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::*;

struct Files(tempfile::TempDir);

impl Files {
    /// An authority; what it signed for the server `db` and for a client; certificates that are their own authority, one valid, one
    /// no longer; and an authority that signed nothing here.
    fn new() -> Files {
        let files = Files(tempfile::tempdir().expect("a directory"));
        let authority = |title: &str, names: &[&str], end: i32| {
            let mut params =
                CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).expect("names");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, title);
            params.not_after = rcgen::date_time_ymd(end, 1, 1);
            let key = KeyPair::generate().expect("a key");
            let pem = key.serialize_pem();
            (CertifiedIssuer::self_signed(params, key).expect("a certificate"), pem)
        };
        let (ca, _) = authority("one", &[], 2100);
        files.write("ca.crt", &ca.pem());
        files.write("other-ca.crt", &authority("another", &[], 2100).0.pem());
        for (name, end) in [("self", 2100), ("expired", 2001)] {
            let (own, key) = authority(name, &["db"], end);
            files.write(&format!("{name}.pem"), &(own.pem() + &key));
        }
        for (name, number) in [("db", 7), ("client", 8)] {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            params.serial_number = Some(number.into());
            files.write(&format!("{name}.crt"), &params.signed_by(&key, &ca).expect("signed").pem());
            files.write(&format!("{name}.key"), &key.serialize_pem());
            files.write(&format!("{name}.encrypted.key"), &encrypted(&key));
        }
        for (name, number) in [("db.crl", 7), ("client.crl", 8)] {
            files.write(name, &revocation(&ca, number));
        }
        files.write("garbage", "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n");
        files.write("empty", "");
        files.write(
            "old.key",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00\n\nAA==\n",
        );
        files
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A list with one certificate, by its number.
fn revocation(ca: &CertifiedIssuer<'_, KeyPair>, number: u64) -> String {
    let revoked = RevokedCertParams {
        serial_number: number.into(),
        revocation_time: rcgen::date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2100, 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(ca).expect("signed").pem().expect("PEM")
}

/// As `openssl pkcs8 -topk8` writes it.
fn encrypted(key: &KeyPair) -> String {
    let parameters =
        pkcs8::pkcs5::pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(2048, b"saltsalt", *b"0123456789abcdef");
    let info = PrivateKeyInfoRef::try_from(key.serialized_der()).expect("PKCS #8");
    let document = info.encrypt_with_params(parameters.expect("parameters"), "sesame").expect("encrypted");
    document.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).expect("PEM").to_string()
}

fn identity<'a>(certificate: &'a Path, key: Option<&'a Path>) -> Identity<'a> {
    Identity { certificate, key, key_password: Some("sesame") }
}

/// What the client, then the server, has to say of their meeting; and whether the server has seen a certificate.
fn meet(server: ServerConfig, client: ClientConfig, name: &'static str) -> Result<bool, String> {
    let mut client =
        ClientConnection::new(Arc::new(client), ServerName::try_from(name).expect("a name")).expect("a client");
    let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("written");
        server.read_tls(&mut bytes.as_slice()).expect("read");
        server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        bytes.clear();
        server.write_tls(&mut bytes).expect("written");
        client.read_tls(&mut bytes.as_slice()).expect("read");
        client.process_new_packets().map_err(|error| format!("client: {error}"))?;
    }
    Ok(server.peer_certificates().is_some())
}

#[test]
fn clients_check_servers() {
    let files = Files::new();
    let (expired, own, db) = ("expired.pem", "self.pem", "db.crt");
    // (the server's certificate, its authorities at the client, the check, the name, what is wrong)
    for (shown, authorities, check, name, wrong) in [
        (db, "ca.crt", Check::Name, "db", ""),
        (db, "ca.crt", Check::Name, "elsewhere", "not valid for name"),
        (db, "ca.crt", Check::Authority, "elsewhere", ""),
        (db, "other-ca.crt", Check::Name, "db", "UnknownIssuer"),
        (db, "other-ca.crt", Check::Authority, "db", "UnknownIssuer"),
        (db, "other-ca.crt", Check::Nothing, "elsewhere", ""),
        (own, own, Check::Name, "db", ""),
        (own, own, Check::Name, "elsewhere", "not valid for name"),
        (own, own, Check::Authority, "elsewhere", ""),
        (own, "ca.crt", Check::Authority, "db", "invalid peer certificate"),
        (expired, expired, Check::Authority, "db", "Expired"),
        (expired, expired, Check::Nothing, "db", ""),
    ] {
        let (shown_path, key) = (files.path(shown), files.path("db.key"));
        let identity = identity(&shown_path, (shown == db).then_some(&key));
        let server = server(&ServerOptions { identity, ask_clients: AskClients::No, authorities: None, ciphers: None });
        let authorities = files.path(authorities);
        let client = client(&ClientOptions { check, authorities: Some(&authorities), identity: None, revoked: &[] });
        match meet(server.expect("a server"), client.expect("a client"), name) {
            Ok(_) => assert_eq!(wrong, "", "{shown} {check:?} {name}"),
            Err(error) => assert!(!wrong.is_empty() && error.contains(wrong), "{shown} {check:?} {name}: {error}"),
        }
    }
}

#[test]
fn revoked_certificates() {
    let files = Files::new();
    let (db, key, ca) = (files.path("db.crt"), files.path("db.key"), files.path("ca.crt"));
    for (list, wrong) in [("client.crl", None), ("db.crl", Some("Revoked")), ("empty", Some("no list of revoked"))] {
        let identity = identity(&db, Some(&key));
        let server = server(&ServerOptions { identity, ask_clients: AskClients::No, authorities: None, ciphers: None });
        let revoked = [files.path(list)];
        let options = ClientOptions { check: Check::Name, authorities: Some(&ca), identity: None, revoked: &revoked };
        let met = client(&options).map_err(|error| error.to_string());
        let met = met.and_then(|client| meet(server.expect("a server"), client, "db"));
        match (met, wrong) {
            (Ok(_), None) => {}
            (Err(error), Some(wrong)) => assert!(error.contains(wrong), "{list}: {error}"),
            (met, wrong) => panic!("{list}: {met:?}, not {wrong:?}"),
        }
    }
}

#[test]
fn servers_check_clients() {
    let files = Files::new();
    let (required, optional) = (AskClients::Required, AskClients::Optional);
    // (whether it asks, its authorities, the client's certificate, whether the server has seen one, `None`: refused)
    for (ask_clients, authorities, shown, seen) in [
        (AskClients::No, "ca.crt", Some("client.crt"), Some(false)),
        (optional, "ca.crt", None, Some(false)),
        (optional, "ca.crt", Some("client.crt"), Some(true)),
        (optional, "other-ca.crt", Some("client.crt"), None),
        (required, "ca.crt", None, None),
        (required, "ca.crt", Some("client.crt"), Some(true)),
        (required, "other-ca.crt", Some("client.crt"), None),
        (required, "self.pem", Some("self.pem"), Some(true)),
        (required, "expired.pem", Some("expired.pem"), None),
        (required, "ca.crt", Some("self.pem"), None),
    ] {
        let (db, db_key) = (files.path("db.crt"), files.path("db.encrypted.key"));
        let authorities = files.path(authorities);
        let options = ServerOptions {
            identity: identity(&db, Some(&db_key)),
            ask_clients,
            authorities: Some(&authorities),
            ciphers: Some("HIGH:!aNULL"),
        };
        let (client_file, client_key) = (shown.map(|name| files.path(name)), files.path("client.encrypted.key"));
        let key = (shown == Some("client.crt")).then_some(client_key.as_path());
        let client = client(&ClientOptions {
            check: Check::Nothing,
            authorities: None,
            identity: client_file.as_deref().map(|file| identity(file, key)),
            revoked: &[],
        });
        let met = meet(server(&options).expect("a server"), client.expect("a client"), "db");
        assert_eq!(met.as_ref().ok().copied(), seen, "{ask_clients:?} {shown:?}: {met:?}");
    }
}

#[test]
fn wrong_files_are_named() {
    let files = Files::new();
    let (db, db_key) = ("db.crt", "db.encrypted.key");
    for (certificate, key, password, authorities, expected) in [
        ("absent", db_key, Some("sesame"), None, "absent cannot be read"),
        ("empty", db_key, Some("sesame"), None, "empty holds no certificate"),
        ("garbage", db_key, Some("sesame"), None, "garbage is not in PEM form"),
        (db, "absent", None, None, "absent cannot be read"),
        (db, "empty", None, None, "empty holds no private key"),
        (db, db_key, None, None, "db.encrypted.key is encrypted, and no password is given"),
        (db, db_key, Some("open"), None, "db.encrypted.key cannot be decrypted: a wrong password?"),
        (db, "old.key", Some("sesame"), None, "`openssl pkcs8 -topk8`"),
        (db, "client.key", None, None, "client.key cannot be used"),
        (db, "db.key", None, Some("empty"), "empty holds no certificate"),
    ] {
        let [certificate_path, key_path] = [certificate, key].map(|name| files.path(name));
        let authorities = authorities.map(|name| files.path(name));
        let options = ServerOptions {
            identity: Identity { certificate: &certificate_path, key: Some(&key_path), key_password: password },
            ask_clients: if authorities.is_some() { AskClients::Required } else { AskClients::No },
            authorities: authorities.as_deref(),
            ciphers: None,
        };
        let error = server(&options).expect_err("refused").to_string();
        assert!(error.contains(expected), "{certificate} {key}: {error}");
    }
    let (db, key) = (files.path(db), files.path("db.key"));
    let identity = identity(&db, Some(&key));
    assert!(!format!("{identity:?}").contains("sesame"));
    let nobody = ServerOptions { identity, ask_clients: AskClients::Optional, authorities: None, ciphers: None };
    assert!(matches!(server(&nobody), Err(TlsError::NoAuthority)));
}
