//! Reading the cluster, and asking to be told of the next change of it.
//!
//! Everything that does not depend on an earlier answer is asked for at once; the server handles the requests of a session in
//! order, so `leader` is read first all the same. Every load sets the one-shot watches anew, before it reads:
//! what changes after the read wakes the next load, on this connection or, because a new connection is a hint as
//! well, on the next.

use bytes::Bytes;
use pgherd_ha::{Epoch, Leader, LeaderOwner, Status, Versioned, View};

use super::ZooKeeper;
use super::link::{Answer, CallError, Link};
use super::wire::Stat;
use crate::Key;
use crate::layout;

/// A read that is on its way, with the watch that was asked for before it.
struct Reading {
    watch: Option<Answer<Stat>>,
    value: Answer<(Bytes, Stat)>,
}

impl Reading {
    fn watched(link: &Link, path: &str) -> Reading {
        // Not the watch of the read itself: that one is not set on a key that does not exist.
        Reading { watch: Some(link.watch(path)), value: link.read(path) }
    }

    fn plain(link: &Link, path: &str) -> Reading {
        Reading { watch: None, value: link.read(path) }
    }

    async fn get(self) -> Result<Option<(Bytes, Stat)>, CallError> {
        if let Some(watch) = self.watch {
            watch.optional().await?;
        }
        self.value.optional().await
    }
}

impl ZooKeeper {
    pub(super) async fn load_view(&self) -> Result<View, CallError> {
        let link = &*self.link().await?;
        let key = |key: Key| self.layout.key(key);
        let leader = Reading::watched(link, &self.layout.leader());
        let initialize = Reading::watched(link, &key(Key::Initialize));
        let config = Reading::watched(link, &key(Key::Config));
        let sync = Reading::watched(link, &key(Key::Sync));
        let failover = Reading::watched(link, &key(Key::Failover));
        let history = Reading::plain(link, &key(Key::History));
        let failsafe = Reading::plain(link, &key(Key::Failsafe));
        let reservation = Reading::plain(link, &key(Key::Timelines));
        // The parent is watched, too: until it exists it has no children to watch.
        let members_exist = link.watch(&self.layout.members());
        let members = link.children(&self.layout.members(), true);

        let leader = leader.get().await?.map(|(name, stat)| leader_value(&name, &stat, link.session));
        let i_lead = leader.as_ref().is_some_and(|leader| leader.owner == LeaderOwner::Me);
        members_exist.optional().await?;
        let names = members.optional().await?.unwrap_or_default();

        let members = member_readings(link, self, names);
        // After the members: a new leader shows its timeline only once it has corrected its predecessor's positions of slots.
        // Who writes the status need not be told of it.
        let status_path = key(Key::Status);
        let status = if i_lead { Reading::plain(link, &status_path) } else { Reading::watched(link, &status_path) };
        let optime = Reading::plain(link, &key(Key::OptimeLeader));
        let members = read_members(members).await?;
        Ok(View {
            leader,
            initialize: initialize
                .get()
                .await?
                .and_then(|(value, stat)| versioned(String::from_utf8_lossy(&value).into_owned(), stat)),
            config: config.get().await?.and_then(|(value, stat)| versioned(layout::decode_config(&value)?, stat)),
            members,
            status: status_value(status.get().await?, optime.get().await?),
            history: history.get().await?.map(|(value, _)| layout::decode_history(&value)).unwrap_or_default(),
            sync: sync.get().await?.and_then(|(value, stat)| versioned(layout::decode_sync(&value), stat)),
            failover: failover.get().await?.and_then(|(value, stat)| versioned(layout::decode_failover(&value), stat)),
            failsafe: failsafe.get().await?.map(|(value, _)| layout::decode_failsafe(&value)).unwrap_or_default(),
            reservation: reservation
                .get()
                .await?
                .and_then(|(value, stat)| versioned(layout::decode_reservation(&value), stat)),
        })
    }
}

fn leader_value(name: &[u8], stat: &Stat, session: i64) -> Leader {
    Leader {
        name: String::from_utf8_lossy(name).into_owned(),
        epoch: epoch(stat),
        owner: if stat.owner == session { LeaderOwner::Me } else { LeaderOwner::Other },
    }
}

/// The epoch of the `leader` znode; a server's transactions are never negative.
pub(super) fn epoch(stat: &Stat) -> Epoch {
    Epoch(u64::try_from(stat.czxid).unwrap_or(0))
}

#[expect(clippy::unnecessary_wraps, reason = "it ends the `and_then` chains above")]
fn versioned<T>(value: T, stat: Stat) -> Option<Versioned<T>> {
    Some(Versioned { value, version: i64::from(stat.version) })
}

/// `optime/leader` is what very old members read and write instead of `status`.
fn status_value(status: Option<(Bytes, Stat)>, optime: Option<(Bytes, Stat)>) -> Status {
    status.or(optime).map(|(value, _)| layout::decode_status(&value)).unwrap_or_default()
}

fn member_readings(link: &Link, store: &ZooKeeper, mut names: Vec<String>) -> Vec<(String, Reading)> {
    names.sort();
    let path = |name: String| store.layout.member(&name).ok().map(|path| (name, Reading::plain(link, &path)));
    names.into_iter().filter_map(path).collect()
}

/// A member that goes between the list and the read has gone; one whose value cannot be read is nobody.
async fn read_members(readings: Vec<(String, Reading)>) -> Result<Vec<pgherd_ha::Member>, CallError> {
    let mut members = Vec::with_capacity(readings.len());
    for (name, reading) in readings {
        members.extend(reading.get().await?.and_then(|(value, _)| layout::decode_member(&name, &value)));
    }
    Ok(members)
}
