//! The configuration in force: the file and environment, with the dynamic configuration of the store over it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use pgherd_dcs::{MemberError, StoreOptions};
use pgherd_ha::{Method, Role, Settings, StandbyNames, Versioned, View, needs_feedback, slot_name};
use pgherd_store::member::MemberOptions;
use serde_json::{Map, Value};

use super::fallback::Fallback;
use super::member::Identity;
use super::unsupported;
use crate::config::{Company, Config, Dynamic, SynchronousMode, understood};
use crate::guard::GuardMode;
use crate::postgres::acceptance::{self, Accepted, Values};
use crate::postgres::{Marker, Server, slot_sync};
use crate::watchdog::Wish;

#[derive(Debug)]
pub struct Current {
    pub config: Config,
    pub dynamic: Dynamic,
    pub identity: Identity,
    pub guard: GuardMode,
    /// The stored configuration and the company that `dynamic` was read from.
    stored: Map<String, Value>,
    company: Company,
    /// `stored`, but what could not be read of it is as it was before.
    understood: Map<String, Value>,
    /// `stored` is newer than what lies beside the data.
    unkept: bool,
    /// What the primary's files hold on top of the configuration.
    pub primary: Overlay,
    /// What PostgreSQL accepts of the settings of each role.
    accepted: BTreeMap<&'static str, Acceptance>,
    pub fallback: Fallback,
    /// `hot_standby_feedback` is on whatever the configuration says: logical slots of standbys need it.
    feedback: bool,
    /// The server here is that of a new cluster whose roles are not made yet, as the node has last seen it.
    pub new_cluster: bool,
}

/// What was asked, and what was said to it.
#[derive(Debug)]
struct Acceptance {
    wanted: Wanted,
    accepted: Accepted,
}

type Wanted = (Values, Values, Option<PathBuf>, Option<PathBuf>);

/// The roles that settings may depend on.
const ROLES: [Role; 3] = [Role::Primary, Role::Replica, Role::StandbyLeader];

/// What the decision sets on a primary, and no configuration says.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// `synchronous_standby_names`; `None`: the user's.
    pub standby_names: Option<String>,
    pub admits_clients: bool,
}

impl Default for Overlay {
    fn default() -> Overlay {
        Overlay { standby_names: None, admits_clients: true }
    }
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
        let company = Company { all_pgherd: true, built_in_store: config.store.is_built_in() };
        let mut current = Current {
            identity: identity(&config),
            dynamic: Dynamic::read(&stored, &config, company),
            config,
            guard,
            stored,
            company,
            understood: Map::new(),
            unkept: false,
            primary: Overlay::default(),
            accepted: BTreeMap::new(),
            fallback: Fallback::default(),
            feedback: false,
            new_cluster: false,
        };
        current.new_cluster = Marker::NewCluster.is_set(&current.config.node.data_dir);
        current.fallback = Fallback::new(current.beside_data(".pgherd-settings"));
        current.read();
        current.feedback = needs_feedback(&View::default(), &current.settings(false));
        current
    }

    /// Takes in what the store shows. `true`: something has changed.
    pub fn update(&mut self, view: &View) -> bool {
        let stored = view.config.as_ref().map_or_else(|| self.stored.clone(), |config| config.value.clone());
        let others = view.members.iter().filter(|member| member.name != self.identity.name);
        let all_pgherd = others.clone().all(|member| member.pgherd.is_some());
        let company = Company { all_pgherd, built_in_store: self.config.store.is_built_in() };
        if stored == self.stored && company == self.company {
            return self.update_feedback(view);
        }
        let known = !self.stored.is_empty();
        self.stored = stored;
        self.company = company;
        self.read_again();
        if known {
            tracing::info!("the dynamic configuration has changed");
        }
        self.unkept = true;
        self.update_feedback(view);
        true
    }

    fn update_feedback(&mut self, view: &View) -> bool {
        let needed = needs_feedback(view, &self.settings(false));
        std::mem::replace(&mut self.feedback, needed) != needed
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
        self.read();
        self.warn();
    }

    fn read(&mut self) {
        let (understood, problems) = understood(&self.stored, &self.understood);
        self.dynamic = Dynamic::read(&understood, &self.config, self.company);
        let told = std::mem::take(&mut self.dynamic.warnings.0);
        let later = told.into_iter().filter(|warning| !problems.0.contains(warning));
        self.dynamic.warnings.0 = problems.0.iter().cloned().chain(later).collect();
        self.understood = understood;
    }

    /// Says what is wrong with the configuration, and what of it is not done.
    pub fn warn(&self) {
        for warning in &self.dynamic.warnings.0 {
            tracing::warn!("{warning}");
        }
        for warning in unsupported::warnings(&self.config) {
            tracing::warn!("{warning}");
        }
    }

    /// The server as it is to be in `role`.
    pub fn server(&self, role: Role) -> Arc<Server> {
        let mut server = self.fallback.apply(role.as_str(), self.accepted_server(role));
        if self.feedback {
            server.parameters.insert("hot_standby_feedback".into(), "on".into());
        }
        slot_sync::complete(&mut server.parameters, &slot_name(&self.identity.name));
        Arc::new(match role {
            Role::Primary => self.overlaid(Server { bootstraps: self.bootstraps(), ..server }),
            _ => Server { standby_names: self.names_of_standby(), bootstraps: self.bootstraps(), ..server },
        })
    }

    /// The same, made by the user's own command.
    fn bootstraps(&self) -> bool {
        self.config.bootstrap.custom.is_some() && self.new_cluster
    }

    /// With the settings that PostgreSQL accepts.
    fn accepted_server(&self, role: Role) -> Server {
        let mut server = self.config.server(&self.dynamic, role);
        // Also where what is wanted could not be asked about yet: what was accepted before stays.
        if let Some(Acceptance { accepted, .. }) = self.accepted.get(role.as_str()) {
            server.parameters.clone_from(&accepted.parameters);
            server.recovery_conf.clone_from(&accepted.recovery_conf);
            server.custom_conf.clone_from(&accepted.custom_conf);
        }
        server
    }

    /// What is left out in this role of what is configured and accepted, since the server did not start with it.
    pub fn left_out(&self, role: Role) -> Option<String> {
        self.fallback.left_out(role.as_str(), &self.accepted_server(role))
    }

    /// All that is configured for this role and not in force, a sentence each: what this PostgreSQL does not know or accept, and what the server
    /// did not start with or could not read.
    pub fn not_in_force(&self, role: Role) -> Vec<String> {
        let Some(Acceptance { accepted, .. }) = self.accepted.get(role.as_str()) else { return Vec::new() };
        let lines = self.fallback.refused_lines(&self.accepted_server(role));
        accepted.warnings.iter().cloned().chain(self.left_out(role)).chain(lines).collect()
    }

    /// Asks PostgreSQL's own program about settings that have changed. To be called after each change, before any server is told of it.
    /// `false`: it did not answer, what was accepted before stays, and it is to be asked again.
    pub async fn ask_for_acceptance(&mut self) -> bool {
        let (mut warned, mut answered) = (Vec::new(), true);
        for role in ROLES {
            let server = self.config.server(&self.dynamic, role);
            let wanted = wanted(&server);
            let key = role.as_str();
            if self.accepted.get(key).is_some_and(|known| known.wanted == wanted) {
                continue;
            }
            let before = self.accepted.get(key).map(|known| known.accepted.clone());
            let before = before.or_else(|| self.kept(key)).unwrap_or_default();
            let accepted = match self.accepted.values().find(|other| other.wanted == wanted) {
                Some(other) => other.accepted.clone(),
                None => match acceptance::accepted(&server, &before).await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(
                            "PostgreSQL could not be asked whether it accepts its settings: {}",
                            error.full()
                        );
                        answered = false;
                        // Nothing is known to be accepted: it will have to do.
                        if before != Accepted::default() {
                            let known = Acceptance { wanted: Wanted::default(), accepted: before };
                            self.accepted.entry(key).or_insert(known);
                        }
                        continue;
                    }
                },
            };
            for warning in
                accepted.warnings.iter().filter(|warning| !warned.contains(*warning)).cloned().collect::<Vec<_>>()
            {
                tracing::warn!("{warning}");
                warned.push(warning);
            }
            self.accepted.insert(key, Acceptance { wanted, accepted });
        }
        answered
    }

    /// What the server has last run with, under a former agent.
    fn kept(&self, role: &str) -> Option<Accepted> {
        self.fallback.good(role)
    }

    /// On a standby they mean nothing until it is promoted. That commits wait at all must not be news to it then: the checkpointer passes it on,
    /// and may be busy for seconds.
    fn names_of_standby(&self) -> Option<String> {
        let synchronous = self.dynamic.synchronous_mode != SynchronousMode::Off;
        synchronous.then(|| StandbyNames::nobody_at_all(Method::First).text())
    }

    /// A standby that is about to be promoted has the primary's names before it is one.
    pub fn overlaid(&self, server: Server) -> Server {
        let Overlay { standby_names, admits_clients } = self.primary.clone();
        Server { standby_names, admits_clients, ..server }
    }

    /// What the decision reads. A node whose rewound data has not streamed yet must not lead.
    pub fn settings(&self, unproven: bool) -> Settings {
        let settings = self.dynamic.settings(&self.config);
        Settings { nofailover: settings.nofailover || unproven, ..settings }
    }

    /// What is wanted of the machine's watchdog.
    pub fn watchdog(&self) -> Wish {
        Wish::new(&self.config.watchdog, self.dynamic.timing.ttl, self.dynamic.timing.loop_wait)
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

    /// What this node's member of the built-in store is, if it has one.
    pub fn store_member(&self) -> Result<Option<MemberOptions>, MemberError> {
        match &self.config.store {
            crate::config::Store::BuiltIn(store) => {
                store.member(&self.config.name, self.beside_data(".pgherd-store").as_deref())
            }
            crate::config::Store::ZooKeeper(_) | crate::config::Store::Etcd(_) => Ok(None),
        }
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

fn wanted(server: &Server) -> Wanted {
    let Server { parameters, recovery_conf, custom_conf, bin_dir, .. } = server;
    (parameters.clone(), recovery_conf.clone(), custom_conf.clone(), bin_dir.clone())
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
