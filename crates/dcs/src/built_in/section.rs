//! The section `store` of a configuration: the built-in store, and this node's member of it if it has one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgherd_store::member::MemberOptions;
use pgherd_store::network::Dialer;
use pgherd_tls::{AskClients, Check, ClientOptions, Identity, ServerOptions, TlsError};
use rustls::{ClientConfig, ServerConfig};
use serde_json::{Map, Value};

use crate::section::{SectionError, StoreSecret, text, words};

/// A secret that is shorter can be guessed.
const SHORTEST_SECRET: usize = 16;

/// For a connection to one member.
const CONNECT: Duration = Duration::from_millis(500);

/// Which store, and how one gets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltInOptions {
    /// Of the store: what one means and what one reaches must be the same. The cluster's `scope`, unless it is said.
    pub name: String,
    /// `HOST:PORT` of its members, the first of which makes it.
    pub members: Vec<String>,
    pub access: BuiltInAccess,
    /// This node's own member. `None`: it uses those of others.
    pub member: Option<BuiltInMember>,
}

/// How members and clients know each other; nobody else is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuiltInAccess {
    Secret(StoreSecret),
    /// Certificates of one authority, which all show.
    Certificates {
        certificate: PathBuf,
        key: Option<PathBuf>,
        key_password: Option<StoreSecret>,
        authorities: PathBuf,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltInMember {
    /// `HOST:PORT`
    pub listen: String,
    /// `HOST:PORT`, as the others reach it.
    pub address: String,
    pub directory: Option<PathBuf>,
}

impl BuiltInOptions {
    /// `scope`: the cluster's.
    pub fn from_section(section: &Map<String, Value>, scope: &str) -> Result<BuiltInOptions, SectionError> {
        let members = section.get("members").map(words).unwrap_or_default();
        if members.is_empty() {
            return Err(SectionError::new("members", "names nobody; give the HOST:PORT of each member of the store"));
        }
        for (at, address) in members.iter().enumerate() {
            check_address(address).map_err(|cause| SectionError::new(format!("members.{at}"), cause))?;
        }
        let member = match text(section, "listen") {
            None => None,
            Some(listen) => {
                check_address(&listen).map_err(|cause| SectionError::new("listen", cause))?;
                let address = text(section, "connect_address").unwrap_or_else(|| listen.clone());
                check_address(&address).map_err(|cause| SectionError::new("connect_address", cause))?;
                if !members.contains(&address) {
                    let cause = format!(
                        "{address} is how the others reach this member, and `members` does not name it; add it there, or say `connect_address`"
                    );
                    return Err(SectionError::new("connect_address", cause));
                }
                Some(BuiltInMember { listen, address, directory: text(section, "data_dir").map(PathBuf::from) })
            }
        };
        let name = text(section, "name").unwrap_or_else(|| scope.to_owned());
        Ok(BuiltInOptions { name, members, access: access(section)?, member })
    }

    /// What members show and want to see.
    pub fn tls(&self) -> Result<(ServerConfig, ClientConfig), TlsError> {
        match &self.access {
            BuiltInAccess::Secret(secret) => pgherd_tls::of_secret(&secret.0, &format!("pgherd store {}", self.name)),
            BuiltInAccess::Certificates { certificate, key, key_password, authorities } => {
                let key_password = key_password.as_ref().map(|secret| secret.0.as_str());
                let identity = Identity { certificate, key: key.as_deref(), key_password };
                let authorities = Some(authorities.as_path());
                let ask_clients = AskClients::Required;
                let server = pgherd_tls::server(&ServerOptions { identity, ask_clients, authorities, ciphers: None })?;
                let client = pgherd_tls::client(&ClientOptions {
                    check: Check::Name,
                    authorities,
                    revoked: &[],
                    identity: Some(identity),
                })?;
                Ok((server, client))
            }
        }
    }

    pub fn dialer(&self, client: ClientConfig) -> Dialer {
        Dialer { cluster: self.name.clone(), tls: Arc::new(client), patience: CONNECT }
    }

    /// This node's member, by the node's name; its files are in `directory` where the section says nothing else.
    pub fn member(&self, name: &str, directory: Option<&Path>) -> Result<Option<MemberOptions>, MemberError> {
        let Some(member) = &self.member else { return Ok(None) };
        let directory = member.directory.as_deref().or(directory).ok_or(MemberError::NoDirectory)?;
        let (server, client) = self.tls()?;
        Ok(Some(MemberOptions {
            name: name.to_owned(),
            directory: directory.to_owned(),
            listen: member.listen.clone(),
            address: member.address.clone(),
            members: self.members.clone(),
            server: Arc::new(server),
            dialer: self.dialer(client),
        }))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("`store.data_dir` is missing: where this member keeps its log")]
    NoDirectory,
}

fn access(section: &Map<String, Value>) -> Result<BuiltInAccess, SectionError> {
    let path = |key: &str| text(section, key).map(PathBuf::from);
    match (text(section, "secret"), path("certfile")) {
        (Some(_), Some(_)) => Err(SectionError::new("secret", "stands beside `certfile`; give one of the two")),
        (Some(secret), None) if secret.chars().count() < SHORTEST_SECRET => {
            let cause = format!(
                "has fewer than {SHORTEST_SECRET} characters and can be guessed; `openssl rand -hex 16` makes one"
            );
            Err(SectionError::new("secret", cause))
        }
        (Some(secret), None) => Ok(BuiltInAccess::Secret(StoreSecret(secret))),
        (None, Some(certificate)) => Ok(BuiltInAccess::Certificates {
            certificate,
            key: path("keyfile"),
            key_password: text(section, "keyfile_password").map(StoreSecret),
            authorities: path("cafile").ok_or_else(|| {
                SectionError::new(
                    "cafile",
                    "is missing: the authority that the others' certificates are checked against",
                )
            })?,
        }),
        (None, None) => Err(SectionError::new(
            "secret",
            "is missing, and so is `certfile`: members of the store must know each other; `openssl rand -hex 16` makes a secret",
        )),
    }
}

fn check_address(address: &str) -> Result<(), String> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(()),
        _ => Err(format!("{address:?} is not HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn read(section: Value) -> Result<BuiltInOptions, String> {
        let section = section.as_object().expect("a map");
        BuiltInOptions::from_section(section, "demo").map_err(|error| format!("{}: {error}", error.key))
    }

    #[test]
    fn a_client_needs_members_and_a_secret_and_a_member_an_address() {
        let client = read(json!({"members": "a:1, b:2", "secret": SECRET})).expect("enough");
        assert_eq!((client.name.as_str(), client.members.len(), client.member), ("demo", 2, None));
        let section =
            json!({"members": ["a:1"], "secret": SECRET, "listen": "0.0.0.0:1", "connect_address": "a:1", "name": "n"});
        let options = read(section).expect("enough");
        let member = options.member.clone().expect("it listens");
        assert_eq!((options.name.as_str(), member.listen.as_str(), member.address.as_str()), ("n", "0.0.0.0:1", "a:1"));
        assert!(matches!(options.member("x", None), Err(MemberError::NoDirectory)));
        let shown = format!("{options:?}");
        assert!(!shown.contains(SECRET), "{shown}");
    }

    #[test]
    fn what_cannot_be_used_is_said_with_its_key() {
        for (section, expected) in [
            (json!({}), "members: names nobody"),
            (json!({"members": "a"}), "members.0: \"a\" is not HOST:PORT"),
            (json!({"members": "a:x"}), "members.0"),
            (json!({"members": "a:1"}), "secret: is missing"),
            (json!({"members": "a:1", "secret": "short"}), "secret: has fewer than 16"),
            (json!({"members": "a:1", "secret": SECRET, "certfile": "f"}), "secret: stands beside"),
            (json!({"members": "a:1", "certfile": "f"}), "cafile: is missing"),
            (json!({"members": "a:1", "secret": SECRET, "listen": "8010"}), "listen: "),
            (json!({"members": "a:1", "secret": SECRET, "listen": "0.0.0.0:1"}), "connect_address: 0.0.0.0:1 is how"),
        ] {
            let error = read(section.clone()).expect_err("it is refused");
            assert!(error.starts_with(expected), "{section}: {error}");
            assert!(!error.contains(SECRET), "{error}");
        }
    }
}
