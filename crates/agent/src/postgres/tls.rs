//! TLS of SQL connections, asked for in libpq's words: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `sslpassword`, `sslcrl`, `sslcrldir`,
//! `sslnegotiation`, `channel_binding`, with libpq's defaults.
//!
//! The driver makes one attempt; which attempts there are, and when the second is due, is here. The files are read anew for each connection.
//! Not here: connections of PostgreSQL's own programs, which are libpq's (`conninfo`). Tested beside the code, and on a real server that wants
//! TLS in `tests/it/postgres/tls.rs`.

use std::path::{Path, PathBuf};

use pgherd_tls::{Check, ClientOptions, Identity, TlsError};
use tokio_postgres::config::{ChannelBinding, Host, SslMode as DriverMode, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Secret;

/// A connection's own half, which has to be driven.
pub type Driver = tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// `sslmode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    Disable,
    /// Only if the server wants it.
    Allow,
    /// If the server has it.
    #[default]
    Prefer,
    Require,
    /// An authority has signed the server's certificate.
    VerifyCa,
    /// And it is for the host that was asked for.
    VerifyFull,
}

/// What libpq would make of its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlTls {
    pub mode: SslMode,
    /// `None`: libpq's default file, if it is there.
    root_cert: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    key_password: Option<Secret>,
    crl: Option<PathBuf>,
    crl_dir: Option<PathBuf>,
    channel_binding: ChannelBinding,
    negotiation: SslNegotiation,
    /// Where libpq's default files are.
    home: Option<PathBuf>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody was asked.
    #[error("{0}")]
    Options(String),
    #[error(transparent)]
    Files(#[from] TlsError),
    #[error(transparent)]
    Server(#[from] tokio_postgres::Error),
}

/// One attempt of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Plain,
    /// In the clear where the server has no TLS.
    IfOffered,
    Encrypted,
}

impl SqlTls {
    /// `option`: the value of one of libpq's options, `None` where it is not given.
    pub fn new(option: impl Fn(&str) -> Option<String>) -> Result<SqlTls, ConnectError> {
        let given = |name: &str| option(name).filter(|value| !value.is_empty());
        let odd = |name: &str, value: &str, expected: &str| {
            ConnectError::Options(format!("{name} is `{value}`; expected {expected}"))
        };
        let file = |name: &str| given(name).map(PathBuf::from);
        let mode = match given("sslmode").as_deref() {
            None => SslMode::default(),
            Some("disable") => SslMode::Disable,
            Some("allow") => SslMode::Allow,
            Some("prefer") => SslMode::Prefer,
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            Some(other) => {
                return Err(odd("sslmode", other, "disable, allow, prefer, require, verify-ca or verify-full"));
            }
        };
        let tls = SqlTls {
            mode,
            root_cert: file("sslrootcert"),
            cert: file("sslcert"),
            key: file("sslkey"),
            key_password: given("sslpassword").map(Secret::new),
            crl: file("sslcrl"),
            crl_dir: file("sslcrldir"),
            channel_binding: match given("channel_binding").as_deref() {
                None | Some("prefer") => ChannelBinding::Prefer,
                Some("disable") => ChannelBinding::Disable,
                Some("require") => ChannelBinding::Require,
                Some(other) => return Err(odd("channel_binding", other, "disable, prefer or require")),
            },
            negotiation: match given("sslnegotiation").as_deref() {
                None | Some("postgres") => SslNegotiation::Postgres,
                Some("direct") => SslNegotiation::Direct,
                Some(other) => return Err(odd("sslnegotiation", other, "postgres or direct")),
            },
            home: std::env::home_dir(),
        };
        // libpq's own rules for the two.
        if tls.of_system() && mode != SslMode::VerifyFull {
            return Err(ConnectError::Options("sslrootcert is `system`, which needs sslmode=verify-full".into()));
        }
        if tls.negotiation == SslNegotiation::Direct && mode < SslMode::Require {
            return Err(ConnectError::Options(
                "sslnegotiation is `direct`, which needs sslmode=require or more".into(),
            ));
        }
        Ok(tls)
    }

    /// Connects as often as `sslmode` has it. Over a socket of this machine there is no TLS.
    pub async fn connect(&self, config: &Config) -> Result<(Client, Driver), ConnectError> {
        let mut config = config.clone();
        let local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        if !local {
            config.channel_binding(self.channel_binding).ssl_negotiation(self.negotiation);
        }
        let (first, second) = if local { (Attempt::Plain, None) } else { self.attempts() };
        let error = match self.attempt(&mut config, first).await {
            Err(error) if another_way_may_work(first, &error) => error,
            answer => return answer,
        };
        match second {
            // What the first attempt was told says more than what a second one has to say against it.
            Some(second) => self.attempt(&mut config, second).await.map_err(|_| error),
            None => Err(error),
        }
    }

    /// To make another connection as this one is, to cancel what it does.
    pub async fn connector(&self) -> Result<MakeRustlsConnect, ConnectError> {
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || this.read()).await;
        read.unwrap_or_else(|_| Err(ConnectError::Options("the files of TLS could not be read".into())))
    }

    fn attempts(&self) -> (Attempt, Option<Attempt>) {
        match self.mode {
            SslMode::Disable => (Attempt::Plain, None),
            SslMode::Allow => (Attempt::Plain, Some(Attempt::Encrypted)),
            SslMode::Prefer => (Attempt::IfOffered, Some(Attempt::Plain)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Attempt::Encrypted, None),
        }
    }

    async fn attempt(&self, config: &mut Config, attempt: Attempt) -> Result<(Client, Driver), ConnectError> {
        config.ssl_mode(match attempt {
            Attempt::Plain => DriverMode::Disable,
            Attempt::IfOffered => DriverMode::Prefer,
            Attempt::Encrypted => DriverMode::Require,
        });
        let connector = match attempt {
            Attempt::Plain => MakeRustlsConnect::new(pgherd_tls::client(&ClientOptions::UNCHECKED)?),
            _ => self.connector().await?,
        };
        Ok(config.connect(connector).await?)
    }

    /// What the files say now.
    fn read(&self) -> Result<MakeRustlsConnect, ConnectError> {
        let by_default = |name: &str| self.home.as_ref().map(|home| home.join(".postgresql").join(name));
        let root_cert = self.root_cert.clone().or_else(|| by_default("root.crt")).filter(|path| path.exists());
        let check = match self.mode {
            SslMode::VerifyFull => Check::Name,
            SslMode::VerifyCa => Check::Authority,
            // As libpq: whoever has authorities wants them to be used.
            _ if root_cert.is_some() => Check::Authority,
            _ => Check::Nothing,
        };
        if check != Check::Nothing && root_cert.is_none() && !self.of_system() {
            let named =
                self.root_cert.as_ref().map_or("~/.postgresql/root.crt".into(), |path| path.display().to_string());
            let advice =
                "name the authorities in `sslrootcert`, or take those of the system (`system`, with verify-full)";
            return Err(ConnectError::Options(format!(
                "sslmode wants the server's certificate checked, and {named} does not exist; {advice}"
            )));
        }
        let cert = self.cert.clone().or_else(|| by_default("postgresql.crt")).filter(|path| path.exists());
        let key = self.key.clone().or_else(|| by_default("postgresql.key"));
        let identity = cert.as_deref().map(|certificate| Identity {
            certificate,
            key: key.as_deref(),
            key_password: self.key_password.as_ref().map(Secret::expose),
        });
        let authorities = root_cert.as_deref().filter(|_| !self.of_system());
        let mut revoked = self.revoked_in(by_default("root.crl"))?;
        revoked.retain(|path| path.exists());
        let client = pgherd_tls::client(&ClientOptions { check, authorities, identity, revoked: &revoked })?;
        Ok(MakeRustlsConnect::new(client))
    }

    /// The files of the lists of revoked certificates; the default one counts where neither option is given.
    fn revoked_in(&self, by_default: Option<PathBuf>) -> Result<Vec<PathBuf>, ConnectError> {
        if self.crl.is_none() && self.crl_dir.is_none() {
            return Ok(by_default.into_iter().collect());
        }
        let mut files: Vec<PathBuf> = self.crl.iter().cloned().collect();
        if let Some(directory) = &self.crl_dir {
            let listed = std::fs::read_dir(directory).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
            let listed = listed.map_err(|error| {
                ConnectError::Options(format!("sslcrldir {} cannot be read: {error}", directory.display()))
            })?;
            // OpenSSL's names: a hash, `.r`, a number.
            let is_list = |path: &Path| path.extension().is_some_and(|end| end.as_encoded_bytes().starts_with(b"r"));
            files.extend(listed.into_iter().map(|entry| entry.path()).filter(|path| is_list(path)));
        }
        Ok(files)
    }

    /// A file of that name can be meant as `./system`.
    fn of_system(&self) -> bool {
        self.root_cert.as_deref() == Some(Path::new("system"))
    }
}

/// Whether the server (or the handshake) turned this kind of connection away: then libpq tries the other kind. A wrong password is wrong
/// both ways, and a server that is not there is not there. Files that cannot be used are no matter where TLS was only offered.
fn another_way_may_work(attempt: Attempt, error: &ConnectError) -> bool {
    let error = match error {
        ConnectError::Server(error) => error,
        ConnectError::Files(_) | ConnectError::Options(_) => return attempt == Attempt::IfOffered,
    };
    match error.code() {
        Some(code) => *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        None => is_about_tls(error),
    }
}

/// The handshake failed, or the other end broke it off afterwards: with TLS 1.3 a client hears only then that its certificate is not taken.
fn is_about_tls(error: &tokio_postgres::Error) -> bool {
    // The driver does not say it in another way.
    if error.to_string().starts_with("error performing TLS handshake") {
        return true;
    }
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(options: &[(&str, &str)]) -> Result<SqlTls, String> {
        let get = |name: &str| options.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let mut tls = SqlTls::new(get).map_err(|error| error.to_string())?;
        tls.home = None;
        Ok(tls)
    }

    #[test]
    fn attempts_are_those_of_libpq() {
        for (mode, first, second) in [
            ("", Attempt::IfOffered, Some(Attempt::Plain)),
            ("disable", Attempt::Plain, None),
            ("allow", Attempt::Plain, Some(Attempt::Encrypted)),
            ("prefer", Attempt::IfOffered, Some(Attempt::Plain)),
            ("require", Attempt::Encrypted, None),
            ("verify-full", Attempt::Encrypted, None),
        ] {
            assert_eq!(with(&[("sslmode", mode)]).expect(mode).attempts(), (first, second), "{mode:?}");
        }
    }

    #[test]
    fn what_does_not_go_together() {
        for (options, part) in [
            (&[("sslmode", "on")][..], "sslmode is `on`; expected disable"),
            (&[("channel_binding", "yes")], "channel_binding is `yes`"),
            (&[("sslnegotiation", "x")], "sslnegotiation is `x`"),
            (&[("sslrootcert", "system")], "needs sslmode=verify-full"),
            (&[("sslnegotiation", "direct")], "needs sslmode=require or more"),
        ] {
            let error = with(options).expect_err("refused");
            assert!(error.contains(part), "{options:?}: {error}");
        }
    }

    #[test]
    fn files_that_are_needed_and_files_that_are_not() {
        let read = |options: &[(&str, &str)]| with(options).expect("options").read().map(|_| ());
        let said = |options: &[(&str, &str)]| read(options).expect_err("refused").to_string();
        assert!(said(&[("sslmode", "verify-ca")]).contains("~/.postgresql/root.crt does not exist"));
        assert!(said(&[("sslmode", "verify-full"), ("sslrootcert", "/nonexistent/ca")]).contains("/nonexistent/ca"));
        assert!(said(&[("sslcrldir", "/nonexistent/crl")]).contains("sslcrldir /nonexistent/crl cannot be read"));
        // As libpq: a client's certificate that is not there is none, and authorities that are not there check nobody.
        read(&[("sslmode", "require"), ("sslrootcert", "/nonexistent/ca"), ("sslcert", "/nonexistent/crt")])
            .expect("good");
    }
}
