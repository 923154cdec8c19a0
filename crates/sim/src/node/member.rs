//! What a node registers of itself, as in `crates/agent/src/daemon/member.rs`.

use pgherd_ha::{DataDirectory, Job, Local, Member, MemberState, Postgres, Role};
use serde_json::Map;

use crate::world::name;

pub fn blank(node: usize) -> Member {
    let name = name(node);
    Member {
        conn_url: format!("postgres://{name}:5432/postgres"),
        api_url: format!("http://{name}:8008/patroni"),
        name,
        state: MemberState::Stopped,
        role: Role::Uninitialized,
        version: "4.1.4".into(),
        pgherd: Some("0.1.0".into()),
        tags: Map::new(),
        xlog_location: None,
        replay_lsn: None,
        receive_lsn: None,
        replication_state: None,
        timeline: None,
        checkpoint_after_promote: None,
        pending_restart: false,
        pause: false,
        extra: Map::new(),
    }
}

pub fn member(node: usize, local: &Local) -> Member {
    let running = local.running();
    Member {
        state: state(local),
        role: role(local),
        xlog_location: running.map(|running| running.position),
        timeline: running.map(|running| running.timeline),
        ..blank(node)
    }
}

fn state(local: &Local) -> MemberState {
    match local.job.as_ref().map(|job| &job.job) {
        Some(Job::Initdb | Job::PostBootstrap { .. }) => return MemberState::InitializingNewCluster,
        Some(Job::Clone { .. }) => return MemberState::CreatingReplica,
        Some(Job::Restart { .. }) => return MemberState::Restarting,
        Some(Job::Stop(_)) => return MemberState::Stopping,
        Some(Job::StartPrimary { .. } | Job::StartStandby { .. }) => return MemberState::Starting,
        Some(Job::Rewind { .. }) => return MemberState::Stopped,
        Some(Job::Promote { .. } | Job::CheckDivergence { .. }) | None => {}
    }
    match &local.postgres {
        Postgres::Running(_) | Postgres::Silent { .. } => MemberState::Running,
        Postgres::Starting { .. } => MemberState::Starting,
        Postgres::Orphans => MemberState::Crashed,
        Postgres::Stopped => MemberState::Stopped,
    }
}

fn role(local: &Local) -> Role {
    match (&local.data, &local.job) {
        (_, Some(job)) if matches!(job.job, Job::Promote { .. }) => Role::Promoted,
        (DataDirectory::Empty | DataDirectory::Incomplete, _) => Role::Uninitialized,
        _ if local.is_writer() => Role::Primary,
        _ => Role::Replica,
    }
}

/// The part that is news; positions move all the time.
pub fn differs(old: &Member, new: &Member) -> bool {
    (old.state, old.role, old.timeline, &old.tags) != (new.state, new.role, new.timeline, &new.tags)
}
