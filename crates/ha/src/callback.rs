//! Which of the user's callbacks a change calls for. Addresses, registries and routers hang on them, so what was last told must be what is so.
//!
//! What the server is now is compared with what was last told. A change that came and went between two looks is not told: nobody could
//! have acted on it. `on_reload` is not here: whoever reloads the server tells it.

use crate::action::Job;
use crate::agent::Situation;
use crate::local::Postgres;
use crate::rule::Rule;
use crate::view::Role;

/// One call: the event, and the role that it is told with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callback {
    pub event: Event,
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Start,
    Stop,
    Restart,
    RoleChange,
    Reload,
}

impl Event {
    pub const ALL: [Event; 5] = [Event::Start, Event::Stop, Event::Restart, Event::RoleChange, Event::Reload];

    /// The key in `postgresql.callbacks`, and the first argument of the command.
    pub fn name(self) -> &'static str {
        match self {
            Event::Start => "on_start",
            Event::Stop => "on_stop",
            Event::Restart => "on_restart",
            Event::RoleChange => "on_role_change",
            Event::Reload => "on_reload",
        }
    }
}

/// What was last told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    server: Option<Server>,
    /// An operator's restart has been seen since the server was last told to be up.
    restarts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Server {
    role: Role,
    up: bool,
}

impl Told {
    /// What to tell now, after `rule` has decided.
    pub fn update(&mut self, at: &Situation<'_>, standby_leader: bool, rule: Rule) -> Option<Callback> {
        // A cluster that is being made is nobody's yet.
        if at.local.control().is_some_and(|control| control.bootstrap_pending) {
            return None;
        }
        self.restarts |= at.local.job.as_ref().is_some_and(|running| matches!(running.job, Job::Restart { .. }));
        match &at.local.postgres {
            Postgres::Running(_) => self.is_up(up_role(at, standby_leader)),
            Postgres::Stopped => self.is_down(at, rule),
            Postgres::Starting { .. } | Postgres::Silent { .. } | Postgres::Orphans => None,
        }
    }

    fn is_up(&mut self, role: Role) -> Option<Callback> {
        let restarted = std::mem::take(&mut self.restarts);
        let before = self.server.replace(Server { role, up: true });
        let event = match before {
            Some(before) if before.role != role => Event::RoleChange,
            Some(_) if restarted => Event::Restart,
            Some(before) if before.up => return None,
            Some(_) | None => Event::Start,
        };
        Some(Callback { event, role })
    }

    fn is_down(&mut self, at: &Situation<'_>, rule: Rule) -> Option<Callback> {
        let server = self.server.as_mut()?;
        if server.up {
            if at.local.job.as_ref().is_some_and(|running| matches!(running.job, Job::Restart { .. })) {
                return None;
            }
            server.up = false;
            self.restarts = false;
            // After a switchover it is a primary no more, whatever becomes of it.
            let hands_over = server.role == Role::Primary && at.view.failover_request().is_some();
            let role = if hands_over { Role::Demoted } else { server.role };
            return Some(Callback { event: Event::Stop, role });
        }
        if rule == Rule::PrimaryStartFailed && server.role == Role::Primary {
            server.role = Role::Demoted;
            return Some(Callback { event: Event::RoleChange, role: Role::Demoted });
        }
        None
    }
}

/// The role of a server that answers. It is a primary once it takes writes, not when that has begun.
fn up_role(at: &Situation<'_>, standby_leader: bool) -> Role {
    match at.local.role(standby_leader) {
        Role::Promoted if at.local.is_writer() => Role::Primary,
        Role::Promoted | Role::Demoted | Role::Uninitialized => Role::Replica,
        role @ (Role::Primary | Role::Replica | Role::StandbyLeader) => role,
    }
}
