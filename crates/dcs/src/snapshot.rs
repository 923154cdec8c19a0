//! A cluster as one read of all its keys shows it: what etcd and the built-in store have in common, whose answers are of one moment. A load of ZooKeeper is
//! many reads (`zookeeper/load.rs`).

use std::collections::BTreeMap;

use pgherd_ha::{Epoch, Leader, LeaderOwner, Versioned, View};

use crate::Key;
use crate::layout::{self, Layout};

/// One key of such an answer.
#[derive(Debug)]
pub struct Found {
    pub value: Vec<u8>,
    /// When it was created.
    pub epoch: Epoch,
    pub version: i64,
    /// It is under a lease of ours.
    pub ours: bool,
}

/// The cluster that these keys are, by their paths.
pub fn view(layout: &Layout, keys: &BTreeMap<String, Found>) -> View {
    let found = |key: Key| keys.get(&layout.key(key));
    let value = |key: Key| found(key).map(|found| found.value.as_slice());
    let leader = keys.get(&layout.leader()).map(|found| Leader {
        name: String::from_utf8_lossy(&found.value).into_owned(),
        epoch: found.epoch,
        owner: if found.ours { LeaderOwner::Me } else { LeaderOwner::Other },
    });
    let members = format!("{}/", layout.members());
    let member = |(path, found): (&String, &Found)| layout::decode_member(path.strip_prefix(&members)?, &found.value);
    View {
        leader,
        initialize: found(Key::Initialize)
            .map(|found| versioned(String::from_utf8_lossy(&found.value).into_owned(), found)),
        config: found(Key::Config).and_then(|found| Some(versioned(layout::decode_config(&found.value)?, found))),
        members: keys.iter().filter_map(member).collect(),
        // `optime/leader` is what very old members read and write instead.
        status: value(Key::Status).or(value(Key::OptimeLeader)).map(layout::decode_status).unwrap_or_default(),
        history: value(Key::History).map(layout::decode_history).unwrap_or_default(),
        sync: found(Key::Sync).map(|found| versioned(layout::decode_sync(&found.value), found)),
        failover: found(Key::Failover).map(|found| versioned(layout::decode_failover(&found.value), found)),
        failsafe: value(Key::Failsafe).map(layout::decode_failsafe).unwrap_or_default(),
        reservation: found(Key::Timelines).map(|found| versioned(layout::decode_reservation(&found.value), found)),
    }
}

fn versioned<T>(value: T, found: &Found) -> Versioned<T> {
    Versioned { value, version: found.version }
}

/// What the paths of all clusters begin with.
pub fn namespace_prefix(layout: &Layout) -> String {
    match layout.namespace() {
        "/" => "/".to_owned(),
        namespace => format!("{namespace}/"),
    }
}

/// The clusters that have a key among these.
pub fn clusters<'a>(layout: &Layout, paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let prefix = namespace_prefix(layout);
    let names = paths.filter_map(|path| path.strip_prefix(&prefix)?.split_once('/').map(|(name, _)| name.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}
