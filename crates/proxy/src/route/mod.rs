//! Which server gets a new session, and which sessions must end: the pure state of the routes.
//!
//! Fed with pushed routes, broken streams, check results and contradictions seen by sessions; asked for a [`Table`]. Time is
//! an argument and nothing here waits: the shell (`control`) asks again at [`Routes::next_change`]. Not here: counting
//! sessions and choosing among servers that are open (`entry`). Tested in `tests.rs` beside this file.
//!
//! The rules of a read-write listener:
//! 1. Among the agents whose permit stands, only the one with the greatest epoch is delivered, and only while it says
//!    that it is out of recovery. Everyone else's sessions end.
//! 2. An epoch greater than any that stands, once seen, is remembered: an older one is not delivered until the agent that
//!    held the greater one says itself that it does not hold it, or has proved nothing for long (the store may have been made
//!    anew, and its epochs begin low again).
//! 3. Checks decide only for servers whose agent pushes nothing, and only while nobody proves an epoch. Of several that
//!    pass, the one that passed last is the primary: the others have not noticed yet that they are not.
//!
//! The rule of every other listener: what an agent pushes about a server that can write, or is about to, counts as long as its
//! permit stands. Then the sessions there end, whatever `on-marked-down` says: they could write.
//!
//! In every listener: where sessions end because a server is being stopped in order, those of physical replication, which cannot write, go on
//! as long as its permit stands, so that whoever follows gets the last record.

mod agent;
mod health;

pub use agent::{AgentView, Source};
pub use health::{Health, Status};

use std::cmp::Reverse;
use std::time::Duration;

use pgherd_ha::{Boot, Epoch, NodeRoute, RouteMessage};

use crate::config::{Check, Listener, Role, Server};

/// How long an epoch is remembered after the last permit under it: well past any lease, so that no older one can still stand.
const EPOCH_KEPT: Duration = Duration::from_secs(120);

/// How long a server that nobody checks is put aside after it said that it is a standby: HAProxy's own interval of checks. After
/// that the next client finds out.
const PUT_ASIDE: Duration = Duration::from_secs(2);

/// What sessions of one server may do, in one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Takes new sessions; nothing is forwarded at or after `until`.
    Open { epoch: Option<Epoch>, until: Boot },
    /// Takes no new ones and keeps those it has, as HAProxy does without `on-marked-down shutdown-sessions`; but nothing is
    /// forwarded at or after `until`.
    Keep { until: Boot },
    /// It is being stopped in order under a permit that ends at `until`: its sessions end, but those of physical replication go on until the server
    /// has sent its last record and ends them.
    Stopping { reason: Reason, until: Boot },
    /// Its sessions end.
    Closed(Reason),
}

/// Why a server takes no sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    NotHeardYet,
    NewerLeader,
    OlderEpoch,
    PermitEnded,
    NotPrimary,
    NotRunning,
    ChecksFail,
}

impl Access {
    /// Without an end, as far as the server itself goes.
    const OPEN: Access = Access::Open { epoch: None, until: Boot::NEVER };
    const KEEP: Access = Access::Keep { until: Boot::NEVER };

    /// Why sessions end, if they do.
    pub fn refusal(self) -> Option<Reason> {
        match self {
            Access::Closed(reason) | Access::Stopping { reason, .. } => Some(reason),
            Access::Open { .. } | Access::Keep { .. } => None,
        }
    }

    /// The same for sessions that it has, and no new ones.
    fn kept(self) -> Access {
        match self {
            Access::Open { until, .. } => Access::Keep { until },
            other => other,
        }
    }

    /// The same, and an end at `bound`; `None`: which has passed.
    fn bounded(self, bound: Option<Boot>) -> Access {
        match (self, bound) {
            (ended @ (Access::Closed(_) | Access::Stopping { .. }), _) => ended,
            (_, None) => Access::Closed(Reason::PermitEnded),
            (Access::Open { epoch, until }, Some(bound)) => Access::Open { epoch, until: until.min(bound) },
            (Access::Keep { until }, Some(bound)) => Access::Keep { until: until.min(bound) },
        }
    }

    /// The same of a server whose orderly stop may take until then. A newer leader says that it is over.
    fn stopping(self, until: Option<Boot>) -> Access {
        match (self, until) {
            (Access::Closed(Reason::NewerLeader | Reason::OlderEpoch), _) | (_, None) => self,
            (Access::Closed(reason), Some(until)) => Access::Stopping { reason, until },
            (_, Some(_)) => self,
        }
    }
}

impl Reason {
    /// For clients, logs and the page.
    pub fn words(self) -> &'static str {
        match self {
            Reason::NotHeardYet => "it has not been heard of yet",
            Reason::NewerLeader => "another server is the primary",
            Reason::OlderEpoch => {
                "another server proved a newer epoch; if the store was made anew, this one counts 2 minutes after that permit"
            }
            Reason::PermitEnded => "its permit to be the primary has run out",
            Reason::NotPrimary => "it is not the primary",
            Reason::NotRunning => "its PostgreSQL does not accept connections",
            Reason::ChecksFail => "its health checks fail",
        }
    }
}

/// The access of every server, by listener and server in the order of the configuration.
pub type Table = Vec<Vec<Access>>;

/// An agent, by its place in [`Routes::agents`].
pub type AgentId = usize;

#[derive(Clone, Debug)]
struct ServerState {
    agent: Option<AgentId>,
    health: Option<Health>,
    shutdown_sessions: bool,
    backup: bool,
    /// Its weight is not 0, with which it takes no new sessions.
    weighs: bool,
    /// When a session saw it in recovery; the next check or line clears it.
    contradicted: Option<Boot>,
}

impl ServerState {
    /// Until when it is not taken for the primary after it contradicted that.
    fn aside_until(&self) -> Option<Boot> {
        let at = self.contradicted?;
        Some(if self.health.is_some() { Boot::NEVER } else { at + PUT_ASIDE })
    }
}

#[derive(Clone, Debug)]
struct ListenerState {
    role: Role,
    all_backups: bool,
    servers: Vec<ServerState>,
    /// Only of a read-write listener.
    newest: Option<Newest>,
}

/// The greatest epoch that a server of a listener has proved.
#[derive(Clone, Copy, Debug)]
struct Newest {
    epoch: Epoch,
    holder: usize,
    /// The end of the last permit under it; in pause, where that has none, when the last line came.
    proved_until: Boot,
}

impl Newest {
    fn kept_until(self) -> Boot {
        self.proved_until + EPOCH_KEPT
    }
}

/// Everything that is known of servers and agents.
#[derive(Clone, Debug)]
pub struct Routes {
    agents: Vec<AgentView>,
    listeners: Vec<ListenerState>,
}

impl Routes {
    /// `agent_of` names the agent beside a server, if one can be asked; ids count from 0 without gaps.
    pub fn new(
        listeners: &[Listener],
        mut agent_of: impl FnMut(&Listener, &Server) -> Option<AgentId>,
        now: Boot,
    ) -> Routes {
        let mut agents = 0;
        let mut state = |listener: &Listener, server: &Server| {
            let agent = agent_of(listener, server);
            agents = agents.max(agent.map_or(0, |id| id + 1));
            ServerState {
                agent,
                health: server.check.as_ref().map(|check: &Check| Health::new(check, now)),
                shutdown_sessions: server.shutdown_sessions,
                backup: server.backup,
                weighs: server.weight > 0,
                contradicted: None,
            }
        };
        let listeners = listeners
            .iter()
            .map(|listener| ListenerState {
                role: listener.role.clone(),
                all_backups: listener.all_backups,
                servers: listener.servers.iter().map(|server| state(listener, server)).collect(),
                newest: None,
            })
            .collect();
        Routes { agents: vec![AgentView::default(); agents], listeners }
    }

    pub fn agents(&self) -> &[AgentView] {
        &self.agents
    }

    pub fn health(&self, listener: usize, server: usize) -> Option<&Health> {
        self.listeners.get(listener)?.servers.get(server)?.health.as_ref()
    }

    /// A line of an agent's stream; `requested` is when we asked for the stream.
    pub fn on_push(&mut self, agent: AgentId, message: RouteMessage, requested: Boot, now: Boot) {
        let Some(view) = self.agents.get_mut(agent) else { return };
        view.on_push(message, requested);
        let epoch = view.node.as_ref().and_then(|node| node.epoch);
        let proof = view.proof(now);
        for listener in &mut self.listeners {
            for (index, server) in listener.servers.iter_mut().enumerate().filter(|(_, s)| s.agent == Some(agent)) {
                server.contradicted = None;
                if listener.role != Role::ReadWrite {
                    continue;
                }
                // Its own word that it does not hold the newest epoch any more.
                listener.newest =
                    listener.newest.filter(|newest| newest.holder != index || epoch >= Some(newest.epoch));
                let Some((epoch, until)) = proof else { continue };
                if listener.newest.is_none_or(|newest| newest.epoch <= epoch) {
                    let proved_until = if until == Boot::NEVER { now } else { until };
                    listener.newest = Some(Newest { epoch, holder: index, proved_until });
                }
            }
        }
    }

    pub fn on_stream_lost(&mut self, agent: AgentId) {
        if let Some(view) = self.agents.get_mut(agent) {
            view.on_lost();
        }
    }

    pub fn on_plain(&mut self, agent: AgentId) {
        if let Some(view) = self.agents.get_mut(agent) {
            view.on_plain();
        }
    }

    pub fn on_check(&mut self, listener: usize, server: usize, passed: bool, now: Boot) {
        if let Some(state) = self.server_mut(listener, server) {
            if let Some(health) = &mut state.health {
                health.on_check(passed, now);
            }
            state.contradicted = None;
        }
    }

    /// A session of a read-write listener was told `in_hot_standby`.
    pub fn on_hot_standby(&mut self, listener: usize, server: usize, now: Boot) {
        let Some(state) = self.server_mut(listener, server) else { return };
        state.contradicted = Some(now);
        if let Some(agent) = state.agent.and_then(|agent| self.agents.get_mut(agent)) {
            agent.contradicted = true;
        }
    }

    fn server_mut(&mut self, listener: usize, server: usize) -> Option<&mut ServerState> {
        self.listeners.get_mut(listener)?.servers.get_mut(server)
    }

    /// Forgets epochs that nobody has proved for long: their listeners, for the log.
    pub fn forget_epochs(&mut self, now: Boot) -> Vec<(usize, Epoch)> {
        let old = |listener: &mut ListenerState| listener.newest.take_if(|newest| newest.kept_until() <= now);
        let listeners = self.listeners.iter_mut().enumerate();
        listeners.filter_map(|(index, listener)| Some((index, old(listener)?.epoch))).collect()
    }

    /// What every server may do at `now`.
    pub fn table(&self, now: Boot) -> Table {
        self.listeners.iter().map(|listener| self.access(listener, now)).collect()
    }

    /// When the table changes without any event: the end of a permit, of the memory of an epoch or of a doubt.
    pub fn next_change(&self, now: Boot) -> Option<Boot> {
        let permits = self.agents.iter().filter_map(|agent| agent.proof(now)).map(|(_, until)| until);
        let epochs = self.listeners.iter().filter_map(|listener| listener.newest).map(Newest::kept_until);
        let stops = self.agents.iter().filter_map(|agent| agent.stopping_until);
        let doubts = self.listeners.iter().flat_map(|listener| &listener.servers).filter_map(ServerState::aside_until);
        permits.chain(epochs).chain(stops).chain(doubts).filter(|at| now < *at && *at < Boot::NEVER).min()
    }

    fn access(&self, listener: &ListenerState, now: Boot) -> Vec<Access> {
        let mut access = match &listener.role {
            Role::ReadWrite => self.read_write(listener, now),
            Role::ReadOnly { primary_too, max_lag } => {
                let one = |server| self.read_only(server, *primary_too, *max_lag).bounded(self.bound(server, now));
                listener.servers.iter().map(one).collect()
            }
            Role::Checks => {
                listener.servers.iter().map(|server| by_check(server).bounded(self.bound(server, now))).collect()
            }
        };
        spare_backups(&mut access, listener);
        for (access, server) in access.iter_mut().zip(&listener.servers) {
            *access = access.stopping(self.agent(server).and_then(|agent| agent.stopping(now)));
        }
        access
    }

    fn agent(&self, server: &ServerState) -> Option<&AgentView> {
        server.agent.and_then(|agent| self.agents.get(agent))
    }

    fn bound(&self, server: &ServerState, now: Boot) -> Option<Boot> {
        self.agent(server).map_or(Some(Boot::NEVER), |agent| agent.bound(now))
    }

    fn read_write(&self, listener: &ListenerState, now: Boot) -> Vec<Access> {
        let proofs = listener.servers.iter().enumerate().filter_map(|(index, server)| {
            let (epoch, until) = self.agent(server)?.proof(now)?;
            Some((epoch, index, until))
        });
        match proofs.max_by_key(|(epoch, ..)| *epoch) {
            Some((epoch, holder, until)) => {
                let outdated = listener.newest.is_some_and(|newest| epoch < newest.epoch && now < newest.kept_until());
                let one = |(index, server): (usize, &ServerState)| match self.agent(server) {
                    _ if index != holder => Access::Closed(Reason::NewerLeader),
                    _ if outdated => Access::Closed(Reason::OlderEpoch),
                    Some(agent) if agent.can_write() => Access::Open { epoch: Some(epoch), until },
                    Some(agent) if agent.node.as_ref().is_some_and(|node| !node.running) => {
                        Access::Closed(Reason::NotRunning)
                    }
                    _ => Access::Closed(Reason::NotPrimary),
                };
                listener.servers.iter().enumerate().map(one).collect()
            }
            None => self.read_write_by_checks(listener, now),
        }
    }

    fn read_write_by_checks(&self, listener: &ListenerState, now: Boot) -> Vec<Access> {
        let one = |server: &ServerState| match self.agent(server).map(|agent| (agent.source, &agent.node)) {
            Some((Source::Unasked, _)) => Access::Closed(Reason::NotHeardYet),
            Some((Source::Live | Source::Lost, Some(node))) if node.epoch.is_some() => {
                Access::Closed(Reason::PermitEnded)
            }
            Some((Source::Live | Source::Lost, _)) => Access::Closed(Reason::NotPrimary),
            None | Some((Source::Plain, _)) if server.aside_until().is_some_and(|until| now < until) => {
                Access::Closed(Reason::NotPrimary)
            }
            None | Some((Source::Plain, _)) => by_check(server),
        };
        let checked: Vec<Access> = listener.servers.iter().map(one).collect();
        let open = (0..checked.len()).filter(|index| matches!(checked[*index], Access::Open { .. }));
        // The first of those that passed at the same moment, so that the choice does not move.
        let primary = open.rev().max_by_key(|index| {
            let server = &listener.servers[*index];
            // What nobody checks cannot have passed: the one that was not a standby when it was last tried.
            let doubt = Reverse(server.contradicted);
            (!server.backup, doubt, server.health.as_ref().map(|health| health.since))
        });
        let one = |(index, access)| if Some(index) == primary { access } else { Access::kept(access) };
        checked.into_iter().enumerate().map(one).collect()
    }

    fn read_only(&self, server: &ServerState, primary_too: bool, max_lag: Option<u64>) -> Access {
        let Some(agent) = self.agent(server) else { return by_check(server) };
        let Some(node) = agent.live() else {
            // A check that the primary passes as well says nothing about a permit, and there may be one to obey.
            return match agent.source {
                Source::Unasked if primary_too => Access::Closed(Reason::NotHeardYet),
                Source::Lost if primary_too && !agent.may_write => by_check(server).kept(),
                _ => by_check(server),
            };
        };
        let fresh = |node: &NodeRoute| match (max_lag, node.lag) {
            (Some(limit), Some(lag)) => lag <= limit,
            // A standby that does not know its lag is not known to be fresh.
            (Some(_), None) => false,
            (None, _) => true,
        };
        let serves = match node.in_recovery {
            _ if !node.running => return closed(server, Reason::NotRunning),
            // As the health checks: a standby leader passes for a leader, whom `/read-only` admits and `/replica` does not.
            Some(true) if node.standby_leader => primary_too,
            Some(true) => !node.noloadbalance && fresh(node),
            Some(false) => primary_too,
            None => false,
        };
        if serves { Access::OPEN } else { closed(server, Reason::NotPrimary) }
    }
}

/// As HAProxy: backups serve when nobody else does, and of several only the first, unless `option allbackups`.
fn spare_backups(access: &mut [Access], listener: &ListenerState) {
    let serves = |access: &Access, server: &ServerState| server.weighs && matches!(access, Access::Open { .. });
    let mut served =
        access.iter().zip(&listener.servers).any(|(access, server)| !server.backup && serves(access, server));
    for (access, server) in access.iter_mut().zip(&listener.servers).filter(|(_, server)| server.backup) {
        if served {
            *access = access.kept();
        } else {
            served = serves(access, server) && !listener.all_backups;
        }
    }
}

fn by_check(server: &ServerState) -> Access {
    match server.health.as_ref().map(Health::status) {
        None | Some(Status::Up) => Access::OPEN,
        Some(Status::Unknown) => Access::Closed(Reason::NotHeardYet),
        Some(Status::Down) => closed(server, Reason::ChecksFail),
    }
}

/// `on-marked-down shutdown-sessions` says whether sessions of a server that is out of service end.
fn closed(server: &ServerState, reason: Reason) -> Access {
    if server.shutdown_sessions { Access::Closed(reason) } else { Access::KEEP }
}

#[cfg(test)]
mod tests;
