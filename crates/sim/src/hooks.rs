//! The user's own commands: hooks, callbacks, methods of making a cluster or a replica. They succeed, fail, or do not come back.

use std::time::Duration;

use pgherd_ha::{Callback, CallbackEvent, ControlState, Job, Role};

use crate::postgres::{Data, Directory};
use crate::rng::Rng;
use crate::world::{World, name};

/// Which of them a cluster has, and how they do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hooks {
    pub pre_promote: bool,
    pub custom_bootstrap: bool,
    pub post_bootstrap: bool,
    pub copies_without_leader: bool,
    /// Of a thousand.
    pub failures: u64,
    /// Of a thousand; these do not come back.
    pub hangs: u64,
}

/// Longer than anybody waits.
const HANG: Duration = Duration::from_secs(1000);

/// Records that an archive may be behind its primary.
const ARCHIVE_LAG: u64 = 20;

impl Hooks {
    /// Few clusters have any. An orderly run has only such that work.
    pub fn new(rng: &mut Rng, orderly: bool) -> Hooks {
        Hooks {
            pre_promote: rng.chance(150),
            custom_bootstrap: rng.chance(100),
            post_bootstrap: rng.chance(100),
            copies_without_leader: rng.chance(100),
            failures: if orderly { 0 } else { rng.pick(&[0, 100, 300]) },
            hangs: if orderly { 0 } else { rng.pick(&[0, 0, 100]) },
        }
    }

    pub fn heal(&mut self) {
        self.failures = 0;
        self.hangs = 0;
    }
}

impl World {
    /// How long a hook runs.
    pub fn hook_takes(&mut self) -> Duration {
        let hangs = self.scenario.hooks.hangs;
        if hangs > 0 && self.rng.chance(hangs) { HANG } else { self.rng.millis(5, 800) }
    }

    pub fn hook_fails(&mut self, job: &Job) -> bool {
        let hooks = self.scenario.hooks;
        let is_hook = match job {
            Job::PrePromote { .. } | Job::CustomBootstrap => true,
            Job::PostBootstrap { .. } => hooks.post_bootstrap,
            Job::Clone { source, .. } => source.is_none(),
            _ => false,
        };
        is_hook && hooks.failures > 0 && self.rng.chance(hooks.failures)
    }

    /// What an archive has: the log of the node that is furthest, less what was not archived yet.
    pub fn restored_from_archive(&mut self) -> Option<Directory> {
        let directories = self.nodes.iter().filter_map(|node| node.postgres.data.directory());
        let announced = directories.filter(|directory| !directory.bootstrap_pending);
        let mut archived = announced.max_by_key(|directory| (directory.timeline, directory.end()))?.clone();
        let behind = self.rng.below(ARCHIVE_LAG + 1);
        archived.lose(usize::try_from(behind).expect("a small number"));
        Some(Directory {
            state: ControlState::InArchiveRecovery,
            standby_signal: true,
            upstream: None,
            from_archive: true,
            // A backup has none.
            slots: Vec::new(),
            names: Default::default(),
            admits_clients: true,
            ..archived
        })
    }

    /// What a new cluster was given up for is moved aside.
    pub fn move_aside(&mut self, node: usize) {
        self.nodes[node].postgres.data = Data::Empty;
    }

    pub fn call_back(&mut self, node: usize, callback: Callback) {
        self.note(node, "hook", || format!("{} {}", callback.event.name(), callback.role.as_str()));
        self.nodes[node].told = Some(callback);
    }
}

/// Once the cluster is well: whoever relies on callbacks knows what each server is.
pub fn untold(world: &World) -> Option<String> {
    world.nodes.iter().enumerate().find_map(|(node, it)| {
        let server = it.postgres.server.as_ref().filter(|server| server.answers(world.now))?;
        let role = if server.in_recovery { Role::Replica } else { Role::Primary };
        let right = it.told.is_some_and(|told| told.role == role && told.event != CallbackEvent::Stop);
        (!right).then(|| format!("{} is a {} and {:?} was told last", name(node), role.as_str(), it.told))
    })
}
