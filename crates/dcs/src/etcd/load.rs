//! Reading the cluster: one linearizable range, so a snapshot of one revision.

use std::collections::BTreeMap;

use pgherd_ha::{Leader, LeaderOwner, Versioned, View};

use super::Client;
use super::gateway::{Again, CallError};
use super::lease::epoch;
use super::session::Session;
use super::wire::{KeyValue, RangeAnswer, keys_below};
use crate::Key;
use crate::layout::{self, Layout};

impl Client {
    pub(super) async fn load_view(&self) -> Result<View, CallError> {
        let body = keys_below(&format!("{}/", self.layout.base()));
        let before = self.own_session();
        let answer: RangeAnswer = self.gateway.call("kv/range", body, Again::Yes).await?;
        self.saw(answer.header);
        // While the keys move from one lease of ours to the next, the answer may show either.
        let sessions = [before, self.own_session()];
        let view = view(&self.layout, sessions, answer.kvs);
        self.set_leading(view.leader.as_ref().is_some_and(|leader| leader.owner == LeaderOwner::Me));
        Ok(view)
    }
}

/// The cluster that these keys are.
fn view(layout: &Layout, sessions: [Option<Session>; 2], keys: Vec<KeyValue>) -> View {
    let keys: BTreeMap<Vec<u8>, KeyValue> = keys.into_iter().map(|key| (key.key.0.clone(), key)).collect();
    let found = |key: Key| keys.get(layout.key(key).as_bytes());
    let value = |key: Key| found(key).map(|key| key.value.0.as_slice());
    let leader = keys.get(layout.leader().as_bytes()).map(|key| Leader {
        name: String::from_utf8_lossy(&key.value.0).into_owned(),
        epoch: epoch(key),
        owner: match sessions.iter().flatten().any(|session| session.owns(key.lease)) {
            true => LeaderOwner::Me,
            false => LeaderOwner::Other,
        },
    });
    let members = format!("{}/", layout.members());
    let member = |key: &KeyValue| {
        let name = std::str::from_utf8(&key.key.0).ok()?.strip_prefix(&members)?;
        layout::decode_member(name, &key.value.0)
    };
    View {
        leader,
        initialize: found(Key::Initialize)
            .map(|key| versioned(String::from_utf8_lossy(&key.value.0).into_owned(), key)),
        config: found(Key::Config).and_then(|key| Some(versioned(layout::decode_config(&key.value.0)?, key))),
        members: keys.values().filter_map(member).collect(),
        // `optime/leader` is what very old members read and write instead.
        status: value(Key::Status).or(value(Key::OptimeLeader)).map(layout::decode_status).unwrap_or_default(),
        history: value(Key::History).map(layout::decode_history).unwrap_or_default(),
        sync: found(Key::Sync).map(|key| versioned(layout::decode_sync(&key.value.0), key)),
        failover: found(Key::Failover).map(|key| versioned(layout::decode_failover(&key.value.0), key)),
        failsafe: value(Key::Failsafe).map(layout::decode_failsafe).unwrap_or_default(),
        reservation: found(Key::Timelines).map(|key| versioned(layout::decode_reservation(&key.value.0), key)),
    }
}

fn versioned<T>(value: T, key: &KeyValue) -> Versioned<T> {
    Versioned { value, version: key.mod_revision }
}
