//! How a postmaster is started; the guard starts it (`crate::guard`).

use std::ffi::OsString;
use std::io::ErrorKind;
use std::time::Duration;

use super::parameters::StartSettings;
use super::{Error, Server, config_files};

/// How long a name of `listen` may take to resolve; the start must not hang on a name server.
const RESOLVE: Duration = Duration::from_secs(1);

/// The arguments of `postgres`: controlled settings are on the command line, so that no file can change them.
pub fn arguments(server: &Server, settings: &StartSettings) -> Vec<OsString> {
    let mut config_file = OsString::from("--config-file=");
    config_file.push(config_files::postgresql_conf(server));
    let mut arguments = vec![OsString::from("-D"), server.data_dir.clone().into(), config_file];
    arguments.extend(settings.arguments().into_iter().map(OsString::from));
    arguments
}

/// Fails if another process listens where the server is to listen; PostgreSQL itself would only say so in its own log, and end. No server
/// of this directory may run.
pub async fn addresses_are_free(server: &Server) -> Result<(), Error> {
    for name in server.listen_addresses.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let host = if name == "*" { "0.0.0.0" } else { name };
        // What cannot be resolved is PostgreSQL's to complain about: it may have other addresses.
        let resolved = tokio::time::timeout(RESOLVE, tokio::net::lookup_host((host, server.port))).await;
        for address in resolved.ok().and_then(Result::ok).into_iter().flatten() {
            match std::net::TcpListener::bind(address) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    return Err(Error::Refused(format!(
                        "PostgreSQL is not started: another process listens on {address} already; end it, or change postgresql.listen (now \
                         {}:{}) of this node",
                        server.listen_addresses, server.port
                    )));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Credentials;
    use crate::postgres::parameters::start_settings;

    #[test]
    fn the_directory_and_the_file_come_first() {
        let mut server = Server::new("n1", "batman", "/data", Credentials::new("postgres", None));
        server.config_dir = Some("/etc/pg".into());
        let arguments = arguments(&server, &start_settings(&server, None));
        assert_eq!(arguments[..3], ["-D", "/data", "--config-file=/etc/pg/postgresql.conf"]);
        assert_eq!(arguments[3], "--listen_addresses=localhost");
    }

    #[tokio::test]
    async fn a_taken_address_is_named_before_the_start() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut server = Server::new("n1", "batman", "/data", Credentials::new("postgres", None));
        server.port = taken.local_addr().expect("its number").port();
        for listen in ["127.0.0.1", "*", "0.0.0.0, no-such-host.invalid"] {
            server.listen_addresses = listen.into();
            let error = addresses_are_free(&server).await.expect_err(listen).to_string();
            assert!(error.contains(&format!(":{} already", server.port)), "{error}");
        }
        drop(taken);
        addresses_are_free(&server).await.expect("free");
    }
}
