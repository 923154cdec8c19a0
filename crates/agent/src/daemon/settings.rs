//! The configuration in force: the file and environment, with the dynamic configuration of the store over it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use pgherd_dcs::StoreOptions;
use pgherd_ha::{Role, Settings, Versioned, View};
use serde_json::{Map, Value};

use super::member::Identity;
use super::unsupported;
use crate::config::{Company, Config, Dynamic};
use crate::guard::GuardMode;
use crate::postgres::Server;

#[derive(Debug)]
pub struct Current {
    pub config: Config,
    pub dynamic: Dynamic,
    pub identity: Identity,
    pub guard: GuardMode,
    /// The stored configuration and the company that `dynamic` was read from.
    stored: Map<String, Value>,
    company: Company,
    /// `stored` is newer than what lies beside the data.
    unkept: bool,
}

impl Current {
    pub fn new(config: Config, guard: GuardMode) -> Current {
        let stored = match crate::config::read_cache(&config.node.data_dir) {
            Ok(kept) => kept.unwrap_or_else(|| config.bootstrap.dcs.clone()),
            Err(error) => {
                tracing::debug!("no configuration is kept beside the data: {error}");
                config.bootstrap.dcs.clone()
            }
        };
        let company = Company { all_pgherd: true, built_in_store: false };
        let dynamic = Dynamic::read(&stored, &config, company);
        Current { identity: identity(&config), dynamic, config, guard, stored, company, unkept: false }
    }

    /// Takes in what the store shows. `true`: something has changed.
    pub fn update(&mut self, view: &View) -> bool {
        let stored = view.config.as_ref().map_or_else(|| self.stored.clone(), |config| config.value.clone());
        let others = view.members.iter().filter(|member| member.name != self.identity.name);
        let company =
            Company { all_pgherd: others.clone().all(|member| member.pgherd.is_some()), built_in_store: false };
        if stored == self.stored && company == self.company {
            return false;
        }
        let known = !self.stored.is_empty();
        self.stored = stored;
        self.company = company;
        self.read_again();
        if known {
            tracing::info!("the dynamic configuration has changed");
        }
        self.unkept = true;
        true
    }

    /// Keeps what was taken in beside the data. To be called only where the data is this cluster's.
    pub fn keep(&mut self) {
        if std::mem::take(&mut self.unkept)
            && let Err(error) = crate::config::write_cache(&self.config.node.data_dir, &self.stored)
        {
            tracing::debug!("the configuration is not kept beside the data: {error}");
        }
    }

    /// A new file was read.
    pub fn replace(&mut self, config: Config) {
        self.identity = identity(&config);
        self.config = config;
        self.read_again();
    }

    fn read_again(&mut self) {
        self.dynamic = Dynamic::read(&self.stored, &self.config, self.company);
        self.warn();
    }

    /// Says what is wrong with the configuration, and what of it is not done.
    pub fn warn(&self) {
        for warning in &self.dynamic.warnings.0 {
            tracing::warn!("{warning}");
        }
        for warning in unsupported::warnings(&self.config, &self.dynamic) {
            tracing::warn!("{warning}");
        }
    }

    /// The server as it is to be in `role`.
    pub fn server(&self, role: Role) -> Arc<Server> {
        Arc::new(self.config.server(&self.dynamic, role))
    }

    /// What the decision reads. A node whose rewound data has not streamed yet must not lead.
    pub fn settings(&self, unproven: bool) -> Settings {
        let settings = self.dynamic.settings(&self.config);
        Settings { nofailover: settings.nofailover || unproven, ..settings }
    }

    /// What the first leader writes to `config`: what the user gave for it, and nothing else.
    pub fn bootstrap_config(&self) -> Map<String, Value> {
        self.stored.clone()
    }

    /// The configuration as it was kept beside the data: a paused cluster stays so when the agent is started again during the very
    /// maintenance of the store that it was paused for.
    pub fn kept_view(&self) -> View {
        View { config: Some(Versioned { value: self.stored.clone(), version: 0 }), ..View::default() }
    }

    /// The store, and the file that keeps its session for the next process of this node. It lies beside the data directory, for the
    /// directory itself is replaced and copied.
    pub fn store_options(&self) -> StoreOptions {
        self.config.store.options(&self.config, &self.dynamic.timing, self.session_file())
    }

    fn session_file(&self) -> Option<PathBuf> {
        self.beside_data(".pgherd-session")
    }

    /// Keeps a second agent away from the data directory. `None`: it has no name to lie beside.
    pub fn lock_file(&self) -> Option<PathBuf> {
        self.beside_data(".pgherd-lock")
    }

    fn beside_data(&self, suffix: &str) -> Option<PathBuf> {
        let data_dir = &self.config.node.data_dir;
        let mut name = OsString::from(".");
        name.push(data_dir.file_name()?);
        name.push(suffix);
        Some(data_dir.with_file_name(name))
    }
}

fn identity(config: &Config) -> Identity {
    let url = |address: &crate::config::Address| format!("postgres://{address}/{}", config.postgresql.database);
    Identity {
        name: config.name.clone(),
        scope: config.scope.clone(),
        conn_url: url(&config.node.connect_address),
        api_url: config.restapi.url(),
        address: config.node.connect_address.to_string(),
        tags: config.tags.published(),
        proxy_url: config.node.proxy_address.as_ref().map(url),
    }
}
