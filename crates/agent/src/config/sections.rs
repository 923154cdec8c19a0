//! The sections of the local file other than `postgresql`, as typed values.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pgherd_dcs::{BuiltInOptions, EtcdOptions, SectionError, Servers, StoreOptions, ZooKeeperOptions};
use serde_json::{Map, Value};

use super::address::Address;
use super::place::{Problem, Problems};
use super::tree::Tree;
use super::values::{boolean, integer, text};
use super::{Config, Secret, Timing};

/// A user name and its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: Secret,
}

/// `restapi`
#[derive(Clone, Debug)]
pub struct RestApi {
    /// Every address that the host resolves to is bound.
    pub listen: Address,
    /// Where others reach it.
    pub connect_address: Address,
    /// Who may use the endpoints that change something; `None`: everybody who gets through the allow list.
    pub authentication: Option<Login>,
    /// `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Addresses, networks and names that may use the endpoints that change something; empty: all.
    pub allowlist: Vec<String>,
    pub allowlist_include_members: bool,
    pub http_extra_headers: BTreeMap<String, String>,
    pub https_extra_headers: BTreeMap<String, String>,
    pub server_tokens: ServerTokens,
}

/// How much the header `Server` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerTokens {
    #[default]
    Original,
    Minimal,
    ProductOnly,
}

#[derive(Clone, Debug)]
pub struct Tls {
    pub certfile: PathBuf,
    /// `None`: the key is in `certfile`.
    pub keyfile: Option<PathBuf>,
    pub keyfile_password: Option<Secret>,
    pub cafile: Option<PathBuf>,
    /// In OpenSSL's words.
    pub ciphers: Option<String>,
    pub verify_client: VerifyClient,
}

/// Which requests need a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyClient {
    None,
    /// Those that change something.
    Optional,
    Required,
}

impl RestApi {
    pub(super) fn read(tree: &Tree<'_>) -> Option<RestApi> {
        let listen: Address = tree.text("restapi.listen")?.parse().ok()?;
        let connect_address = tree.text("restapi.connect_address").and_then(|text| text.parse().ok());
        let tls = tree.file("restapi.certfile").map(|certfile| Tls {
            certfile,
            keyfile: tree.file("restapi.keyfile"),
            keyfile_password: tree.secret("restapi.keyfile_password"),
            cafile: tree.file("restapi.cafile"),
            ciphers: tree.text("restapi.ciphers").filter(|text| !text.is_empty()),
            verify_client: match tree.text("restapi.verify_client").as_deref() {
                Some("required") => VerifyClient::Required,
                Some("optional") => VerifyClient::Optional,
                _ => VerifyClient::None,
            },
        });
        Some(RestApi {
            connect_address: connect_address.unwrap_or_else(|| listen.clone()),
            listen,
            authentication: login(tree, "restapi.authentication"),
            tls,
            allowlist: tree.texts("restapi.allowlist"),
            allowlist_include_members: tree.flag("restapi.allowlist_include_members"),
            http_extra_headers: headers(&tree.map("restapi.http_extra_headers")),
            https_extra_headers: headers(&tree.map("restapi.https_extra_headers")),
            server_tokens: match tree.text("restapi.server_tokens").as_deref() {
                Some("minimal") => ServerTokens::Minimal,
                Some("productonly") => ServerTokens::ProductOnly,
                _ => ServerTokens::Original,
            },
        })
    }

    /// What the member publishes as its `api_url`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/patroni", self.connect_address)
    }
}

fn login(tree: &Tree<'_>, section: &str) -> Option<Login> {
    let username = tree.text(&format!("{section}.username"))?;
    let password = tree.secret(&format!("{section}.password"))?;
    Some(Login { username, password })
}

fn headers(map: &Map<String, Value>) -> BTreeMap<String, String> {
    map.iter().filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

/// `ctl`: how the commands, and this member, speak to REST APIs.
#[derive(Clone, Debug)]
pub struct Ctl {
    pub authentication: Option<Login>,
    pub insecure: bool,
    pub cacert: Option<PathBuf>,
    pub certfile: Option<PathBuf>,
    pub keyfile: Option<PathBuf>,
    pub keyfile_password: Option<Secret>,
}

impl Ctl {
    /// Falls back to the login and the authorities of `restapi`.
    pub(super) fn read(tree: &Tree<'_>) -> Ctl {
        Ctl {
            authentication: login(tree, "ctl.authentication").or_else(|| login(tree, "restapi.authentication")),
            insecure: tree.flag("ctl.insecure"),
            cacert: tree.file("ctl.cacert").or_else(|| tree.file("restapi.cafile")),
            certfile: tree.file("ctl.certfile"),
            keyfile: tree.file("ctl.keyfile"),
            keyfile_password: tree.secret("ctl.keyfile_password"),
        }
    }
}

/// `watchdog`: the kernel's, underneath the guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    pub mode: Demand,
    pub device: PathBuf,
    /// Seconds before the end of the lease; `None`: half of the lease.
    pub safety_margin: Option<u64>,
    pub driver: WatchdogDriver,
}

/// How the device is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogDriver {
    /// As Linux's watchdog devices are.
    Default,
    /// A FIFO on which a test listens.
    Testing,
}

/// How much something is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    Off,
    /// Used where it works.
    Automatic,
    /// Nothing leads without it.
    Required,
}

impl Watchdog {
    pub(super) fn read(tree: &Tree<'_>) -> Watchdog {
        Watchdog {
            mode: demand(tree, "watchdog.mode"),
            device: tree.file("watchdog.device").unwrap_or_default(),
            safety_margin: tree.integer("watchdog.safety_margin").and_then(|seconds| seconds.try_into().ok()),
            driver: match tree.text("watchdog.driver").as_deref() {
                Some("testing") => WatchdogDriver::Testing,
                _ => WatchdogDriver::Default,
            },
        }
    }
}

/// `guard.mode`
pub(super) fn guard(tree: &Tree<'_>) -> Demand {
    demand(tree, "guard.mode")
}

fn demand(tree: &Tree<'_>, path: &str) -> Demand {
    match tree.text(path).as_deref() {
        Some("off") => Demand::Off,
        Some("required") => Demand::Required,
        _ => Demand::Automatic,
    }
}

/// The store: the section of the file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    ZooKeeper(ZooKeeperOptions),
    Etcd(EtcdOptions),
    BuiltIn(BuiltInOptions),
}

/// Sections of stores in the order in which Patroni looks for them, and whether pgherd speaks to that store.
const STORES: [(&str, bool); 8] = [
    ("consul", false),
    ("etcd", false),
    ("etcd3", true),
    ("exhibitor", false),
    ("kubernetes", false),
    ("raft", false),
    ("store", true),
    ("zookeeper", true),
];

impl Store {
    pub(super) fn read(tree: &Tree<'_>, problems: &mut Problems) -> Option<Store> {
        let found = STORES.iter().find(|(name, spoken)| *spoken && tree.0.get(name).is_some());
        if found.is_none() {
            let other = STORES.iter().find(|(name, _)| tree.0.get(name).is_some());
            problems.push(match other {
                Some(("etcd", _)) => Problem::error(
                    "etcd",
                    "this is the API of etcd's version 2, which etcd has given up; rename the section to `etcd3`",
                ),
                Some((name, _)) => Problem::error(
                    *name,
                    "pgherd does not speak to this store; name a ZooKeeper under `zookeeper.hosts`, or an etcd under `etcd3.hosts`",
                ),
                None => Problem::error(
                    "",
                    "no store is configured; add a section `store` for the built-in one, or `zookeeper` or `etcd3` with its `hosts`",
                ),
            });
            return None;
        }
        let (section, read) = match found {
            Some(("etcd3", _)) => ("etcd3", EtcdOptions::from_section(&tree.map_of("etcd3")).map(Store::Etcd)),
            Some(("store", _)) => {
                let scope = tree.text("scope").unwrap_or_default();
                ("store", BuiltInOptions::from_section(&tree.map_of("store"), &scope).map(Store::BuiltIn))
            }
            _ => ("zookeeper", ZooKeeperOptions::from_section(&tree.map_of("zookeeper")).map(Store::ZooKeeper)),
        };
        match read {
            Ok(store) => Some(store),
            Err(SectionError { key, cause }) => {
                let path = format!("{section}.{key}");
                problems.push(Problem::error(path.trim_end_matches('.'), cause));
                None
            }
        }
    }

    /// Whether it is the same store, spoken to in the same way; who we are to an etcd may change.
    pub fn is_as(&self, other: &Store) -> bool {
        let unnamed = |store: &Store| match store {
            Store::Etcd(options) => Store::Etcd(EtcdOptions { username: None, password: None, ..options.clone() }),
            other => other.clone(),
        };
        unnamed(self) == unnamed(other)
    }

    pub fn is_built_in(&self) -> bool {
        matches!(self, Store::BuiltIn(_))
    }

    /// The section of the file.
    pub fn section(&self) -> &'static str {
        match self {
            Store::ZooKeeper(_) => "zookeeper",
            Store::Etcd(_) => "etcd3",
            Store::BuiltIn(_) => "store",
        }
    }

    pub fn servers(&self) -> Servers {
        match self {
            Store::ZooKeeper(options) => Servers::ZooKeeper(options.clone()),
            Store::Etcd(options) => Servers::Etcd(options.clone()),
            Store::BuiltIn(options) => Servers::BuiltIn(options.clone()),
        }
    }

    /// How the client of this store is opened for this member.
    pub fn options(&self, config: &Config, timing: &Timing, session_file: Option<PathBuf>) -> StoreOptions {
        StoreOptions {
            servers: self.servers(),
            namespace: config.namespace.clone(),
            scope: config.scope.clone(),
            name: Some(config.name.clone()),
            ttl: timing.ttl,
            retry_timeout: timing.retry_timeout,
            session_file,
        }
    }
}

/// `tags`: what the member says of itself. Any type, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tags(pub Map<String, Value>);

impl Tags {
    /// What is published: the known flags only if they are set, or if they win over a priority that is there too.
    pub fn published(&self) -> Map<String, Value> {
        let wins_over = |name: &str| match name {
            "nofailover" => self.0.contains_key("failover_priority"),
            "nosync" => self.0.contains_key("sync_priority"),
            _ => false,
        };
        let is_flag = |name: &str| ["clonefrom", "nofailover", "noloadbalance", "nosync", "nostream"].contains(&name);
        let is_set = |value: &Value| match value {
            Value::String(text) => boolean(value).unwrap_or(!text.is_empty()),
            other => boolean(other).unwrap_or(!other.is_null()),
        };
        let shown = self.0.iter().filter(|(name, value)| !is_flag(name) || is_set(value) || wins_over(name));
        shown.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(boolean).unwrap_or(false)
    }

    /// The member is never promoted: `nofailover`, or else a `failover_priority` of 0 or less.
    pub fn nofailover(&self) -> bool {
        match self.0.get("nofailover") {
            Some(value) => boolean(value).unwrap_or(false),
            None => self.failover_priority() <= 0,
        }
    }

    /// The higher wins where positions are equal; 1 if it is left out.
    pub fn failover_priority(&self) -> i64 {
        self.0.get("failover_priority").and_then(|value| integer(value, super::values::Unit::None)).unwrap_or(1)
    }

    /// The member that this one streams from, in place of the leader.
    pub fn replicatefrom(&self) -> Option<String> {
        self.0.get("replicatefrom").and_then(text).filter(|name| !name.is_empty())
    }

    /// Pairs that contradict each other; the flag wins. The sentence is one that others search logs for.
    pub(super) fn conflicts(&self, problems: &mut Problems) {
        for (flag, priority) in [("nofailover", "failover_priority"), ("nosync", "sync_priority")] {
            let set = self.0.get(flag).and_then(boolean);
            let number = self.0.get(priority).and_then(|value| integer(value, super::values::Unit::None));
            if let (Some(set), Some(number)) = (set, number)
                && set == (number > 0)
            {
                let shown = if set { "True" } else { "False" };
                let text = format!(
                    "Conflicting configuration between {flag}: {shown} and {priority}: {number}. Defaulting to {flag}: {shown}"
                );
                problems.push(Problem::warning("tags", text));
            }
        }
    }
}
