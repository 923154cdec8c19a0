//! Reading the cluster: one linearizable range, so a snapshot of one revision.

use pgherd_ha::{LeaderOwner, View};

use super::Client;
use super::gateway::Again;
use super::lease::epoch;
use super::verdict::CallError;
use super::wire::{KeyValue, RangeAnswer, keys_below};
use crate::snapshot::{self, Found};

impl Client {
    pub(super) async fn load_view(&self) -> Result<View, CallError> {
        let body = keys_below(&format!("{}/", self.layout.base()));
        let before = self.own_session();
        let answer: RangeAnswer = self.gateway.call("kv/range", body, Again::Yes).await?;
        self.saw(answer.header);
        // While the keys move from one lease of ours to the next, the answer may show either.
        let sessions = [before, self.own_session()];
        let ours = |lease| sessions.iter().flatten().any(|session| session.owns(lease));
        let found = |key: KeyValue| {
            let (epoch, version, ours) = (epoch(&key), key.mod_revision, ours(key.lease));
            // No key of a cluster has another path.
            Some((String::from_utf8(key.key.0).ok()?, Found { value: key.value.0, epoch, version, ours }))
        };
        let view = snapshot::view(&self.layout, &answer.kvs.into_iter().filter_map(found).collect());
        self.set_leading(view.leader.as_ref().is_some_and(|leader| leader.owner == LeaderOwner::Me));
        Ok(view)
    }
}
