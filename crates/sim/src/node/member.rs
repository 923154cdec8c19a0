//! What a node registers of itself, as in `crates/agent/src/daemon/member.rs`.

use pgherd_ha::{Local, Member, MemberState, Role};
use serde_json::{Map, Value, json};

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

pub fn member(node: usize, local: &Local, standby_leader: bool, leaves_sync: bool, above: Option<usize>) -> Member {
    let running = local.running();
    let nosync = leaves_sync.then(|| ("nosync".into(), true.into()));
    let tags = nosync.into_iter().chain(above.map(|above| ("replicatefrom".into(), name(above).into()))).collect();
    let reasons: Map<String, Value> = local
        .limits
        .iter()
        .map(|(name, change)| {
            (name.clone(), json!({ "old_value": change.from.to_string(), "new_value": change.to.to_string() }))
        })
        .collect();
    let pending = running.is_some() && !reasons.is_empty();
    Member {
        pending_restart: pending,
        extra: if pending { Map::from_iter([("pending_restart_reason".into(), reasons.into())]) } else { Map::new() },
        state: local.member_state(),
        role: local.role(standby_leader),
        xlog_location: running.map(|running| running.position),
        timeline: running.map(|running| running.timeline),
        checkpoint_after_promote: running.filter(|it| !it.in_recovery && !it.checkpointed).map(|_| false),
        tags,
        ..blank(node)
    }
}

/// The part that is news; positions move all the time.
pub fn differs(old: &Member, new: &Member) -> bool {
    let news = |member: &Member| (member.state, member.role, member.timeline, member.checkpoint_after_promote);
    news(old) != news(new) || old.tags != new.tags || old.extra != new.extra
}
