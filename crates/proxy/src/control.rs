//! The control thread: asks and listens to the agents, keeps the routes, opens and closes the gates.
//!
//! One task owns [`Routes`]; everything that happens reaches it as an [`Event`]. Not here: deciding (`route`), serving clients
//! (`worker`, `session`).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, RouteMessage};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::agent_link::TlsClients;
use crate::check::{CheckReport, Checker};
use crate::config::{Check, CheckKind, Config, Listener, Server};
use crate::entry::Entry;
use crate::route::{Access, AgentId, AgentView, Health, Routes, Table};
use crate::subscribe::Subscriber;

/// Events on their way to the control task; a flood makes the senders wait.
pub const EVENTS: usize = 1024;

/// What the control task is told.
#[derive(Debug)]
pub enum Event {
    Pushed {
        agent: AgentId,
        message: RouteMessage,
        requested: Boot,
    },
    StreamLost {
        agent: AgentId,
    },
    Plain {
        agent: AgentId,
    },
    Checked {
        listener: usize,
        server: usize,
        report: CheckReport,
    },
    /// A session of a read-write listener found this server in recovery.
    HotStandby {
        listener: usize,
        server: usize,
    },
}

/// What the control task knows, for the stats page.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    pub agents: Vec<AgentView>,
    pub table: Table,
    /// By listener and server.
    pub servers: Vec<Vec<ServerOverview>>,
}

#[derive(Clone, Debug, Default)]
pub struct ServerOverview {
    pub health: Option<Health>,
    pub last_check: Option<CheckReport>,
}

/// The control task.
#[derive(Debug)]
pub struct Control {
    entries: Vec<Arc<Entry>>,
    routes: Routes,
    agent_of: Vec<Vec<Option<AgentId>>>,
    last_checks: Vec<Vec<Option<CheckReport>>>,
    overview: Arc<ArcSwap<Overview>>,
    table: Table,
}

impl Control {
    /// Starts the checks and subscriptions on the current runtime, as `watchers`; they end only after the control task.
    pub fn start(
        config: &Config,
        tls: &TlsClients,
        entries: Vec<Arc<Entry>>,
        overview: Arc<ArcSwap<Overview>>,
        events: &mpsc::Sender<Event>,
        watchers: &mut JoinSet<()>,
    ) -> Control {
        let mut agents: Vec<&Check> = vec![];
        let mut agent_of = vec![];
        for (index, listener) in config.listeners.iter().enumerate() {
            let ids = listener.servers.iter().map(|server| agent_id(listener, server, &mut agents)).collect::<Vec<_>>();
            start_checks(index, listener, tls, events, watchers);
            agent_of.push(ids);
        }
        for (agent, check) in agents.into_iter().enumerate() {
            watchers.spawn(Subscriber { agent, address: tls.agent(check) }.run(events.clone()));
        }
        let mut ids = agent_of.iter().flatten().copied();
        let routes = Routes::new(&config.listeners, |_, _| ids.next().flatten(), boot_now());
        let last_checks = config.listeners.iter().map(|listener| vec![None; listener.servers.len()]).collect();
        Control { entries, routes, agent_of, last_checks, overview, table: vec![] }
    }

    /// Runs until nobody can send events any more.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        self.publish();
        loop {
            let now = boot_now();
            // Rounded up by a millisecond, the timer's own step, so that the change has happened when it rings.
            let wait = self.routes.next_change(now).map(|at| at.since(now) + Duration::from_millis(1));
            let received = match wait {
                Some(wait) => tokio::time::timeout(wait, events.recv()).await,
                None => Ok(events.recv().await),
            };
            match received {
                Ok(Some(event)) => self.handle(event),
                Ok(None) => return,
                Err(_) => {}
            }
            // What else has come already changes the routes once, not step by step.
            for _ in 0..EVENTS {
                let Ok(event) = events.try_recv() else { break };
                self.handle(event);
            }
            self.publish();
        }
    }

    fn handle(&mut self, event: Event) {
        let now = boot_now();
        match event {
            Event::Pushed { agent, message, requested } => self.routes.on_push(agent, message, requested, now),
            Event::StreamLost { agent } => self.routes.on_stream_lost(agent),
            Event::Plain { agent } => self.routes.on_plain(agent),
            Event::Checked { listener, server, report } => {
                self.routes.on_check(listener, server, report.passed, now);
                if let Some(last) = self.last_checks.get_mut(listener).and_then(|servers| servers.get_mut(server)) {
                    *last = Some(report);
                }
            }
            Event::HotStandby { listener, server } => self.routes.on_hot_standby(listener, server, now),
        }
    }

    fn publish(&mut self) {
        let now = boot_now();
        for (listener, epoch) in self.routes.forget_epochs(now) {
            let listener = &self.entries[listener].config.name;
            tracing::warn!(listener, %epoch, "nobody has proved this epoch for minutes: it is forgotten, an older one counts again");
        }
        let table = self.routes.table(now);
        for (entry, access) in self.entries.iter().zip(&table) {
            entry.apply(access);
        }
        self.log_changes(&table);
        let servers = self.agent_of.iter().enumerate().map(|(listener, ids)| {
            let server = |server: usize| ServerOverview {
                health: self.routes.health(listener, server).cloned(),
                last_check: self.last_checks[listener][server].clone(),
            };
            (0..ids.len()).map(server).collect()
        });
        let overview =
            Overview { agents: self.routes.agents().to_vec(), table: table.clone(), servers: servers.collect() };
        self.overview.store(Arc::new(overview));
        self.table = table;
    }

    fn log_changes(&self, table: &Table) {
        for (index, entry) in self.entries.iter().enumerate() {
            for (server, access) in entry.servers.iter().zip(&table[index]).map(|(s, a)| (&s.config.name, a)) {
                let position = entry.servers.iter().position(|other| other.config.name == *server).unwrap_or(0);
                let before = self.table.get(index).and_then(|accesses| accesses.get(position));
                let listener = &entry.config.name;
                match (before, access) {
                    (Some(Access::Open { epoch: old, .. }), Access::Open { epoch, .. }) if old == epoch => {}
                    (_, Access::Open { epoch: Some(epoch), .. }) => {
                        tracing::info!(listener, server, %epoch, "takes sessions: it holds the leader key");
                    }
                    (_, Access::Open { epoch: None, .. }) => tracing::info!(listener, server, "takes sessions"),
                    (Some(Access::Keep { .. }), Access::Keep { .. }) => {}
                    (Some(old), new) if old == new || old.refusal().is_some() && old.refusal() == new.refusal() => {}
                    (_, Access::Keep { .. }) => {
                        tracing::info!(listener, server, "takes no new sessions and keeps those it has")
                    }
                    (_, Access::Closed(reason) | Access::Stopping { reason, .. }) => {
                        tracing::info!(listener, server, because = reason.words(), "takes no sessions");
                    }
                }
            }
        }
    }
}

/// The agent beside a server, if its check asks one: over HTTP, on a port of its own. Listeners share agents.
fn agent_id<'c>(listener: &Listener, server: &'c Server, agents: &mut Vec<&'c Check>) -> Option<AgentId> {
    let check = server.check.as_ref().filter(|_| matches!(listener.check, CheckKind::Http(_)))?;
    if (&check.host, check.port) == (&server.host, server.port) {
        return None;
    }
    let same = |known: &&Check| (&known.host, known.port, &known.tls) == (&check.host, check.port, &check.tls);
    Some(agents.iter().position(same).unwrap_or_else(|| {
        agents.push(check);
        agents.len() - 1
    }))
}

fn start_checks(
    index: usize,
    listener: &Listener,
    tls: &TlsClients,
    events: &mpsc::Sender<Event>,
    watchers: &mut JoinSet<()>,
) {
    for (position, server) in listener.servers.iter().enumerate() {
        let Some(check) = server.check.clone() else { continue };
        let checker = Checker {
            listener: index,
            server: position,
            agent: tls.agent(&check),
            check,
            kind: listener.check.clone(),
            timeouts: listener.timeouts.clone(),
        };
        watchers.spawn(checker.run(events.clone()));
    }
}
