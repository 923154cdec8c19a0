//! What every command of the operator works with: the settings, the stores of the clusters, the members' REST APIs and
//! the terminal.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use pgherd_dcs::{Store, StoreOptions};
use pgherd_ha::View;

use super::document;
use super::rest::RestClient;
use super::settings::Settings;
use super::terminal::Terminal;

/// Which configuration and which store; before the command or among its own options.
#[derive(Args, Clone, Debug, Default)]
pub struct Access {
    /// Configuration file [default: PATRONICTL_CONFIG_FILE, else ~/.config/patroni/patronictl.yaml if it exists]
    #[arg(short, long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// The store, in place of the configured one: [zookeeper|etcd3://]HOST[:PORT][/NAMESPACE] [default: DCS_URL]
    #[arg(short, long, visible_alias = "dcs", value_name = "URL")]
    pub dcs_url: Option<String>,
    /// Do not check the certificates of the members' REST APIs
    #[arg(short = 'k', long)]
    pub insecure: bool,
    /// A group of a Citus cluster; not supported
    #[arg(long, value_name = "N", hide = true)]
    pub group: Option<u32>,
}

impl Access {
    /// These options, with those that were given before the command where they are not repeated after it.
    pub fn or(self, earlier: &Access) -> Access {
        Access {
            config_file: self.config_file.or_else(|| earlier.config_file.clone()),
            dcs_url: self.dcs_url.or_else(|| earlier.dcs_url.clone()),
            insecure: self.insecure || earlier.insecure,
            group: self.group.or(earlier.group),
        }
    }
}

/// Longer than an election of the ensemble takes, shorter than an operator's patience.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Closing is a courtesy; a store that hangs does not hold up the command.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Opens the store of a cluster.
pub type OpenStore = Box<dyn Fn(&Settings, &str) -> anyhow::Result<Arc<dyn Store>>>;

pub struct Context {
    pub settings: Settings,
    pub terminal: Terminal,
    pub rest: RestClient,
    open: OpenStore,
    opened: BTreeMap<String, Arc<dyn Store>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Context {
    /// Reads the configuration; connects to nothing yet.
    pub fn from_access(access: &Access) -> anyhow::Result<Context> {
        anyhow::ensure!(access.group.is_none(), "--group: Citus clusters are not supported");
        let document = document::load(access.config_file.as_deref())?;
        let environment_url = std::env::var("DCS_URL").ok().filter(|url| !url.is_empty());
        let url = access.dcs_url.clone().or(environment_url);
        let settings = Settings::new(&document, url.as_deref(), access.insecure)?;
        Ok(Context::new(settings, Terminal::standard(), Box::new(open_store)))
    }

    pub fn new(settings: Settings, terminal: Terminal, open: OpenStore) -> Context {
        let rest = RestClient::new(settings.rest.clone());
        Context { settings, terminal, rest, open, opened: BTreeMap::new() }
    }

    /// The named clusters, or the configured one.
    pub fn clusters(&self, named: &[String]) -> Vec<String> {
        if named.is_empty() { self.settings.scope.iter().cloned().collect() } else { named.to_vec() }
    }

    /// The named cluster, or the configured one. `command` is for the advice in the error.
    pub fn cluster(&self, named: Option<&str>, command: &str) -> anyhow::Result<String> {
        named.map(str::to_owned).or_else(|| self.settings.scope.clone()).with_context(|| {
            format!("no cluster is named: `pgherd {command} CLUSTER`, or a configuration with its `scope` (-c FILE)")
        })
    }

    /// The cluster's store, connected.
    pub async fn store(&mut self, cluster: &str) -> anyhow::Result<Arc<dyn Store>> {
        if let Some(store) = self.opened.get(cluster) {
            return Ok(store.clone());
        }
        let store = (self.open)(&self.settings, cluster)?;
        store.ready(CONNECT_TIMEOUT).await?;
        self.opened.insert(cluster.to_owned(), store.clone());
        Ok(store)
    }

    pub async fn load(&mut self, cluster: &str) -> anyhow::Result<View> {
        Ok(self.store(cluster).await?.load().await?)
    }

    /// Ends the sessions, so that the store need not keep them until they time out. Nothing hangs on it.
    pub async fn close(&mut self) {
        for (cluster, store) in std::mem::take(&mut self.opened) {
            if let Ok(Err(error)) = tokio::time::timeout(CLOSE_TIMEOUT, store.close()).await {
                tracing::debug!("{cluster}: {error}");
            }
        }
    }
}

/// As an onlooker: no member key, never a leader. The session's time-out only says how soon the server forgets us.
fn open_store(settings: &Settings, cluster: &str) -> anyhow::Result<Arc<dyn Store>> {
    let store = settings.store.clone()?;
    let options = StoreOptions {
        servers: store.servers,
        namespace: settings.namespace.clone(),
        scope: cluster.to_owned(),
        name: None,
        ttl: Duration::from_secs(10),
        retry_timeout: store.retry_timeout,
        session_file: None,
    };
    Ok(pgherd_dcs::open(&options)?)
}
