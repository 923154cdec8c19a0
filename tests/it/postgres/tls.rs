//! SQL connections with TLS, ours and libpq's: the same options of the same server have the same end.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use pgherd_agent::postgres::tls::SqlTls;

use super::node::{LIMIT, Node, as_postgres};
use crate::harness::certificates::{Certificates, self_signed};
use crate::harness::postgres::bin_dir;

/// Whether the session is encrypted.
const ASK: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// Who may come in which way; everybody's password is his name.
const RULES: [&str; 5] = [
    "local all all trust",
    "hostssl all secured all scram-sha-256",
    "hostnossl all clear all scram-sha-256",
    "hostssl all client all cert",
    "host all either,postgres all scram-sha-256",
];

/// `Ok`: whether the session is encrypted.
async fn ours(port: u16, user: &str, host: &str, options: &BTreeMap<&str, String>) -> Result<bool, String> {
    let tls = SqlTls::new(|name| options.get(name).cloned()).map_err(|error| error.to_string())?;
    let mut config = tokio_postgres::Config::new();
    config.host(host).hostaddr([127, 0, 0, 1].into()).port(port).user(user).password(user).dbname("postgres");
    let connect = tokio::time::timeout(LIMIT, tls.connect(&config)).await.expect("the server answers");
    let (client, driver) = connect.map_err(|error| format!("{error:?}"))?;
    let driver = tokio::spawn(driver);
    let row = client.query_one(ASK, &[]).await.map_err(|error| error.to_string())?;
    driver.abort();
    Ok(row.get(0))
}

/// The same by PostgreSQL's own client.
fn libpqs(port: u16, user: &str, host: &str, options: &BTreeMap<&str, String>) -> Result<bool, String> {
    let mut words = vec![format!("host={host} hostaddr=127.0.0.1 port={port} user={user} dbname=postgres")];
    words.extend(options.iter().map(|(name, value)| format!("{name}={value}")));
    let mut command = Command::new(bin_dir().join("psql"));
    command
        .args(["-w", "-XAtc", ASK])
        .arg(words.join(" "))
        .env_clear()
        .env("PGPASSWORD", user)
        .env("HOME", "/nonexistent");
    let output = command.output().expect("psql runs");
    match String::from_utf8_lossy(&output.stdout).trim() {
        "t" => Ok(true),
        "f" => Ok(false),
        _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn the_same_options_have_the_same_end_as_with_libpq() {
    as_postgres("postgres::tls::the_same_options_have_the_same_end_as_with_libpq", |directory| async move {
        let certificates = Certificates::make();
        let stranger = certificates.file("stranger.pem");
        self_signed(&stranger);
        let mut node = Node::new(&directory, "n1");
        for (name, file) in [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key"), ("ssl_ca_file", "ca.crt")]
        {
            node.server.parameters.insert(name.into(), certificates.shown(file));
        }
        node.server.parameters.insert("ssl".into(), "on".into());
        node.server.pg_hba = RULES.map(str::to_owned).into();
        node.bootstrapped().await;
        for user in ["secured", "clear", "client", "either"] {
            let create =
                format!("SET password_encryption = 'scram-sha-256'; CREATE ROLE {user} LOGIN PASSWORD '{user}'");
            node.connection.execute("create a role", &create).await.expect("a role");
        }
        let port = node.server.port;
        let (ca, other) = ("ca.crt", "stranger.pem");
        // (user, host, options, whether the session is encrypted or a part of what we say)
        type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Result<bool, &'a str>);
        let cases: &[Case<'_>] = &[
            ("either", "localhost", &[], Ok(true)),
            ("either", "localhost", &[("sslmode", "disable")], Ok(false)),
            ("either", "localhost", &[("sslmode", "allow")], Ok(false)),
            ("either", "localhost", &[("sslmode", "require")], Ok(true)),
            ("secured", "localhost", &[("sslmode", "disable")], Err("no encryption")),
            ("secured", "localhost", &[("sslmode", "allow")], Ok(true)),
            ("secured", "localhost", &[("sslmode", "prefer")], Ok(true)),
            ("clear", "localhost", &[("sslmode", "prefer")], Ok(false)),
            ("clear", "localhost", &[("sslmode", "require")], Err("SSL encryption")),
            ("either", "elsewhere", &[("sslmode", "verify-ca"), ("sslrootcert", ca)], Ok(true)),
            ("either", "localhost", &[("sslmode", "verify-full"), ("sslrootcert", ca)], Ok(true)),
            ("either", "127.0.0.1", &[("sslmode", "verify-full"), ("sslrootcert", ca)], Ok(true)),
            ("either", "elsewhere", &[("sslmode", "verify-full"), ("sslrootcert", ca)], Err("NotValidForName")),
            ("either", "localhost", &[("sslmode", "verify-ca"), ("sslrootcert", other)], Err("UnknownIssuer")),
            ("either", "localhost", &[("sslmode", "require"), ("sslrootcert", other)], Err("UnknownIssuer")),
            ("either", "localhost", &[("sslmode", "prefer"), ("sslrootcert", other)], Ok(false)),
            ("either", "localhost", &[("sslmode", "verify-full"), ("sslrootcert", "absent")], Err("does not exist")),
            ("either", "localhost", &[("sslmode", "require"), ("sslrootcert", "absent")], Ok(true)),
            ("client", "localhost", &[("sslcert", "client.crt"), ("sslkey", "client.key")], Ok(true)),
            ("client", "localhost", &[("sslmode", "require"), ("sslcert", "absent")], Err("valid client certificate")),
            (
                "client",
                "localhost",
                &[("sslmode", "require"), ("sslcert", "server.crt"), ("sslkey", "server.key")],
                Err("28000"),
            ),
            ("either", "localhost", &[("sslmode", "require"), ("sslcert", other), ("sslkey", other)], Err("UnknownCA")),
            ("either", "localhost", &[("sslcert", other), ("sslkey", other)], Ok(false)),
            ("either", "localhost", &[("channel_binding", "require")], Ok(true)),
            ("either", "localhost", &[("channel_binding", "require"), ("sslmode", "disable")], Err("channel binding")),
            ("either", "localhost", &[("channel_binding", "disable")], Ok(true)),
            (
                "either",
                "localhost",
                &[("sslmode", "verify-ca"), ("sslrootcert", ca), ("sslcrl", "client.crl")],
                Ok(true),
            ),
            (
                "either",
                "localhost",
                &[("sslmode", "verify-ca"), ("sslrootcert", ca), ("sslcrl", "server.crl")],
                Err("Revoked"),
            ),
        ];
        for (user, host, options, expected) in cases {
            let file = |name: &str| ["sslrootcert", "sslcert", "sslkey", "sslcrl"].contains(&name);
            let value = |name: &str, value: &str| if file(name) { certificates.shown(value) } else { value.to_owned() };
            let options: BTreeMap<&str, String> = options.iter().map(|(name, it)| (*name, value(name, it))).collect();
            let seen = ours(port, user, host, &options).await;
            match (&seen, expected) {
                (Ok(encrypted), Ok(expected)) => assert_eq!(encrypted, expected, "{user}@{host} {options:?}"),
                (Err(said), Err(part)) => assert!(said.contains(part), "{user}@{host} {options:?}: {said}"),
                _ => panic!("{user}@{host} {options:?}: {seen:?}, not {expected:?}"),
            }
            let reference = libpqs(port, user, host, &options);
            // With TLS 1.3 a server tells only after the handshake that it does not take a certificate. Whether libpq then tries without TLS depends
            // on how far it has gone by that moment; ours always does.
            if seen.is_ok() && reference.as_ref().is_err_and(|said| said.contains("unknown ca")) {
                continue;
            }
            assert_eq!(seen.as_ref().ok(), reference.as_ref().ok(), "{user}@{host} {options:?}: libpq: {reference:?}");
        }
        // A wrong password is tried once: it is no better without TLS.
        let before = node.log().matches("password authentication failed").count();
        let mut config = tokio_postgres::Config::new();
        config.host("localhost").port(port).user("either").password("wrong").dbname("postgres");
        let tls = SqlTls::new(|_| None).expect("the defaults");
        tls.connect(&config).await.map(|_| ()).expect_err("the password is wrong");
        let after = node.log().matches("password authentication failed").count();
        assert_eq!(after, before + 1, "{}", node.log());
        // Over the socket there is no TLS, whatever is asked for.
        let mut config = tokio_postgres::Config::new();
        config.host_path(&node.server.data_dir).port(port).user("postgres").dbname("postgres");
        let options = BTreeMap::from([("sslmode", "verify-full"), ("channel_binding", "require")]);
        let tls = SqlTls::new(|name| options.get(name).map(|value| (*value).to_owned())).expect("options");
        let socket = tokio::time::timeout(Duration::from_secs(10), tls.connect(&config)).await.expect("it answers");
        socket.map(|_| ()).expect("a socket needs none");
    });
}
