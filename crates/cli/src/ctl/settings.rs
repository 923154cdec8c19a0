//! What the operator's commands need of a Patroni configuration: the store, the names, and how to call the members.
//!
//! Pure: a merged document (file and environment) and an optional store URL in, values out. Not here: reading files
//! (`context`). An operator's machine needs no complete configuration, so nothing is mandatory but a store.

use std::path::PathBuf;
use std::time::Duration;

use pgherd_dcs::{BuiltInOptions, EtcdOptions, SectionError, Servers, ZooKeeperOptions};
use serde_json::{Map, Value};

/// The stores that are known by name and not built (yet); a clear refusal instead of a connection to nowhere.
const OTHER_STORES: [&str; 5] = ["etcd", "consul", "exhibitor", "kubernetes", "raft"];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error(
        "no store is configured, so there is no cluster to talk to. Give a configuration (-c FILE, or \
         PATRONICTL_CONFIG_FILE) with a section `store`, `zookeeper` or `etcd3`, or the store itself (-d zookeeper://HOST:2181); \
         `pgherd demo` starts a cluster to try and prints its -c FILE"
    )]
    NoStore,
    #[error(
        "the store `{0}` is not supported; pgherd talks to ZooKeeper (section `zookeeper`, URL zookeeper://HOST:2181) and to \
         etcd's version 3 (section `etcd3`, URL etcd3://HOST:2379)"
    )]
    OtherStore(String),
    #[error("`{section}{}{}`: {}", if error.key.is_empty() { "" } else { "." }, error.key, error.cause)]
    Section { section: &'static str, error: SectionError },
    #[error("the store URL `{url}` cannot be read: {cause}; expected [zookeeper|etcd3://]HOST[:PORT][/NAMESPACE]")]
    Url { url: String, cause: &'static str },
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster that is meant when none is named.
    pub scope: Option<String>,
    pub namespace: String,
    pub store: Result<StoreSettings, SettingsError>,
    pub rest: RestSettings,
}

#[derive(Clone, Debug)]
pub struct StoreSettings {
    pub servers: Servers,
    /// The deadline of one operation.
    pub retry_timeout: Duration,
}

/// How the members' REST APIs are called.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RestSettings {
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// Do not check the members' certificates.
    pub insecure: bool,
    pub ca_file: Option<PathBuf>,
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub key_password: Option<String>,
}

impl std::fmt::Debug for RestSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestSettings")
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .field("insecure", &self.insecure)
            .field("ca_file", &self.ca_file)
            .field("certificate_file", &self.certificate_file)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// `store_url` replaces every store of the document.
    pub fn new(
        document: &Map<String, Value>,
        store_url: Option<&str>,
        insecure: bool,
    ) -> Result<Settings, SettingsError> {
        let mut namespace = text(document, "namespace").unwrap_or_else(|| "service".into());
        let servers = match store_url {
            Some(url) => {
                let (servers, path) = parse_url(url)?;
                namespace = path.unwrap_or(namespace);
                Ok(servers)
            }
            None => configured(document),
        };
        // One operation of a command line: long enough for an election of the ensemble, short enough to wait for.
        let retry_timeout = Duration::from_secs(10);
        Ok(Settings {
            scope: text(document, "scope"),
            namespace,
            store: servers.map(|servers| StoreSettings { servers, retry_timeout }),
            rest: rest_settings(document, insecure),
        })
    }
}

/// The store of the document; of two the one that comes first in the alphabet, as for an agent.
fn configured(document: &Map<String, Value>) -> Result<Servers, SettingsError> {
    if let Some(section) = document.get("etcd3") {
        let section = section.as_object().cloned().unwrap_or_default();
        let read = EtcdOptions::from_section(&section).map(Servers::Etcd);
        return read.map_err(|error| SettingsError::Section { section: "etcd3", error });
    }
    if let Some(section) = document.get("store") {
        let section = section.as_object().cloned().unwrap_or_default();
        let scope = text(document, "scope").unwrap_or_default();
        let read = BuiltInOptions::from_section(&section, &scope).map(Servers::BuiltIn);
        return read.map_err(|error| SettingsError::Section { section: "store", error });
    }
    if let Some(section) = document.get("zookeeper") {
        let section = section.as_object().cloned().unwrap_or_default();
        let read = ZooKeeperOptions::from_section(&section).map(Servers::ZooKeeper);
        return read.map_err(|error| SettingsError::Section { section: "zookeeper", error });
    }
    let other = OTHER_STORES.iter().find(|name| document.contains_key(**name));
    Err(other.map_or(SettingsError::NoStore, |name| SettingsError::OtherStore((*name).to_owned())))
}

/// The store, and the namespace if the URL has one.
fn parse_url(url: &str) -> Result<(Servers, Option<String>), SettingsError> {
    let refused = |cause| SettingsError::Url { url: url.to_owned(), cause };
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, url),
    };
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    if address.is_empty() {
        return Err(refused("it names no host"));
    }
    let after_host = address.rsplit_once(']').map_or(address, |(_, after)| after);
    let port =
        after_host.rsplit_once(':').map(|(_, port)| port.parse::<u16>().map_err(|_| refused("its port is no port")));
    let port = port.transpose()?;
    // Without a scheme the port tells the store, as Patroni guesses it.
    let scheme = scheme.unwrap_or(match port {
        Some(2181) => "zookeeper",
        Some(8181) => "exhibitor",
        Some(8500) => "consul",
        _ => "etcd",
    });
    let servers = match scheme {
        "zookeeper" => {
            let host = if port.is_some() { address.to_owned() } else { format!("{address}:2181") };
            Servers::ZooKeeper(ZooKeeperOptions { hosts: vec![host], ..ZooKeeperOptions::default() })
        }
        "etcd3" => {
            let section = Map::from_iter([("host".to_owned(), address.into())]);
            Servers::Etcd(EtcdOptions::from_section(&section).map_err(|_| refused("its host is none"))?)
        }
        other => return Err(SettingsError::OtherStore(other.to_owned())),
    };
    let namespace = path.trim_matches('/');
    Ok((servers, (!namespace.is_empty()).then(|| namespace.to_owned())))
}

fn rest_settings(document: &Map<String, Value>, insecure: bool) -> RestSettings {
    let section = |name: &str| document.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let (ctl, restapi) = (section("ctl"), section("restapi"));
    let credentials = |section: &Map<String, Value>| {
        let authentication = section.get("authentication")?.as_object()?;
        Some((text(authentication, "username")?, text(authentication, "password")?))
    };
    let path = |section: &Map<String, Value>, key: &str| text(section, key).map(PathBuf::from);
    RestSettings {
        credentials: credentials(&ctl).or_else(|| credentials(&restapi)),
        insecure: insecure || ctl.get("insecure").is_some_and(is_true),
        ca_file: path(&ctl, "cacert").or_else(|| path(&restapi, "cafile")),
        certificate_file: path(&ctl, "certfile"),
        key_file: path(&ctl, "keyfile"),
        key_password: text(&ctl, "keyfile_password"),
    }
}

/// A text that is not empty; numbers count as their text (a scope may be written `1`).
fn text(map: &Map<String, Value>, key: &str) -> Option<String> {
    match map.get(key)? {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::String(text) => ["on", "true", "yes", "1"].iter().any(|yes| text.eq_ignore_ascii_case(yes)),
        Value::Number(number) => number.as_i64() == Some(1),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn settings(document: Value, url: Option<&str>) -> Result<Settings, SettingsError> {
        Settings::new(document.as_object().expect("an object"), url, false)
    }

    fn hosts(document: Value, url: Option<&str>) -> Result<Vec<String>, SettingsError> {
        match settings(document, url)?.store?.servers {
            Servers::ZooKeeper(servers) => Ok(servers.hosts),
            Servers::Etcd(servers) => Ok(servers.urls),
            Servers::BuiltIn(servers) => Ok(servers.members),
        }
    }

    #[test]
    fn the_store_comes_from_the_document_or_the_url() {
        for (configured, expected) in [
            (json!(["zoo:2181"]), vec!["zoo:2181"]),
            (json!("a:1, b:2"), vec!["a:1", "b:2"]),
            (json!(["a"]), vec!["a:2181"]),
        ] {
            assert_eq!(hosts(json!({"zookeeper": {"hosts": configured}}), None).expect("hosts"), expected);
        }
        let both = json!({"zookeeper": {"hosts": ["zoo"]}, "etcd3": {"hosts": ["a:1"], "protocol": "https"}});
        assert_eq!(hosts(both, None).expect("hosts"), ["https://a:1"]);
        for (url, expected) in [
            ("zookeeper://h:2182", "h:2182"),
            ("h:2181", "h:2181"),
            ("zookeeper://h", "h:2181"),
            ("zookeeper://[::1]", "[::1]:2181"),
            ("zookeeper://[::1]:5/x", "[::1]:5"),
            ("etcd3://e", "http://e:2379"),
            ("etcd3://[::1]:5/x", "http://[::1]:5"),
        ] {
            assert_eq!(hosts(json!({"etcd": {}}), Some(url)).expect(url), [expected]);
        }
        let namespace = |url| settings(json!({"namespace": "mine"}), Some(url)).expect(url).namespace;
        assert_eq!((namespace("h:2181/other/"), namespace("h:2181/")), ("other".into(), "mine".into()));
    }

    #[test]
    fn what_is_missing_or_foreign_is_said() {
        assert_eq!(hosts(json!({}), None), Err(SettingsError::NoStore));
        assert_eq!(hosts(json!({"etcd": {}}), None), Err(SettingsError::OtherStore("etcd".into())));
        let said = hosts(json!({"etcd3": {}}), None).expect_err("no server").to_string();
        assert!(said.starts_with("`etcd3`: no server is named"), "{said}");
        let odd = json!({"zookeeper": {"hosts": ["h"], "set_acls": {"CN=x": ["OWN"]}}});
        let said = hosts(odd, None).expect_err("no permission").to_string();
        assert!(said.starts_with("`zookeeper.set_acls`: `CN=x`: `OWN` is no permission"), "{said}");
        for url in ["etcd://h", "h", "h:8500", "consul://h:2181"] {
            assert!(matches!(hosts(json!({}), Some(url)), Err(SettingsError::OtherStore(_))), "{url}");
        }
        for url in ["zookeeper://", "zookeeper://h:x", "zookeeper:///ns", ""] {
            assert!(matches!(hosts(json!({}), Some(url)), Err(SettingsError::Url { .. })), "{url}");
        }
        for broken in
            [json!({"zookeeper": {}}), json!({"zookeeper": {"hosts": 5}}), json!({"zookeeper": {"hosts": [[]]}})]
        {
            assert!(matches!(hosts(broken, None), Err(SettingsError::Section { section: "zookeeper", .. })));
        }
    }

    #[test]
    fn the_password_of_ctl_goes_before_that_of_restapi_and_is_never_shown() {
        let restapi = json!({"authentication": {"username": "a", "password": "secret"}, "cafile": "/ca"});
        let ctl = json!({"authentication": {"username": "b", "password": "secret"}, "insecure": "on", "certfile": "/cert", "keyfile_password": "secret"});
        let one = settings(json!({"restapi": restapi}), None).expect("settings").rest;
        assert_eq!(one.credentials, Some(("a".into(), "secret".into())));
        assert_eq!(one.ca_file, Some("/ca".into()));
        let both = settings(json!({"restapi": restapi, "ctl": ctl}), None).expect("settings").rest;
        assert_eq!(both.credentials, Some(("b".into(), "secret".into())));
        assert!(both.insecure && both.certificate_file.is_some() && both.key_password.is_some());
        assert!(!format!("{both:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn any_url_gets_an_answer(url in ".{0,40}") {
            let _ = parse_url(&url);
        }
    }
}
