//! What an agent tells the entrypoints about its own PostgreSQL, pushed the moment it changes.
//!
//! One message is one line of JSON on the stream `GET /pgherd/route`. An entrypoint listens to every agent and routes to
//! the primary with the greatest epoch whose permit has not run out; it needs no clock in common with the agent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{Boot, Epoch, Lsn, Timeline};

/// The state of one node, as its agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRoute {
    pub name: String,
    pub scope: String,
    /// Host and port of its PostgreSQL, as in `postgresql.connect_address`.
    pub address: String,
    /// PostgreSQL answers queries.
    pub running: bool,
    /// `true`: a standby, `false`: out of recovery, `None`: not running.
    pub in_recovery: Option<bool>,
    /// The epoch of the leader key that this node holds and serves under; `None` on every node that may not write.
    pub epoch: Option<Epoch>,
    /// How much of the permit was left when this was sent. `None` without a permit, and in pause, where it has no end.
    pub permit_ms: Option<u64>,
    /// It is being stopped in order under a permit of which so much was left: clients' sessions end, and those of standbys may go on, which get its
    /// last record. Former agents do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping_ms: Option<u64>,
    /// The cluster is paused: the epoch stands without an end.
    pub paused: bool,
    pub timeline: Option<Timeline>,
    /// Primary: flushed; standby: replayed.
    pub lsn: Option<Lsn>,
    /// Bytes behind the leader, on a standby that knows.
    pub lag: Option<u64>,
    pub noloadbalance: bool,
    /// It leads a standby cluster: a standby that no reader of replicas is sent to. Former agents do not say it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standby_leader: bool,
    /// What the node is doing, in the words of the member key (`running`, `stopping`, ...).
    pub state: String,
}

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteMessage {
    /// Milliseconds, on the agent's clock, from when it received this request until it sent this line. Added to
    /// the entrypoint's own time of sending the request it gives an instant that is never later than the
    /// true one, however long the line was on its way or lay in a buffer.
    pub elapsed_ms: u64,
    #[serde(flatten)]
    pub node: NodeRoute,
}

impl RouteMessage {
    /// The end of the permit on the receiver's clock, for a request that the receiver sent at `requested`.
    /// `None`: no permit. [`Boot::NEVER`] in pause.
    pub fn permit_deadline(&self, requested: Boot) -> Option<Boot> {
        self.node.epoch?;
        match (self.node.paused, self.node.permit_ms) {
            (true, _) => Some(Boot::NEVER),
            (false, left) => left.map(|left| self.after(left, requested)),
        }
    }

    /// The end of an orderly stop on the receiver's clock, at the latest. `None`: there is none going on.
    pub fn stopping_deadline(&self, requested: Boot) -> Option<Boot> {
        self.node.stopping_ms.map(|left| self.after(left, requested))
    }

    fn after(&self, left: u64, requested: Boot) -> Boot {
        requested + Duration::from_millis(self.elapsed_ms) + Duration::from_millis(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_permit_is_counted_from_the_request_and_not_from_the_receipt() {
        let line = r#"{"elapsed_ms":700,"name":"n1","scope":"c","address":"h:1","running":true,"in_recovery":false,
            "epoch":9,"permit_ms":5000,"paused":false,"timeline":1,"lsn":5,"lag":null,"noloadbalance":false,"state":"running"}"#;
        let message: RouteMessage = serde_json::from_str(line).expect("a message");
        assert_eq!(message.permit_deadline(Boot::from_millis(1_000)), Some(Boot::from_millis(6_700)));
        // A later agent may say more.
        let more = line.replacen("\"epoch\":9", "\"epoch\":9,\"mood\":{\"calm\":[1]}", 1);
        assert_eq!(serde_json::from_str::<RouteMessage>(&more).expect("a message"), message);
        let paused = RouteMessage {
            node: NodeRoute { paused: true, permit_ms: None, ..message.node.clone() },
            ..message.clone()
        };
        assert_eq!(paused.permit_deadline(Boot::ZERO), Some(Boot::NEVER));
        let stops = NodeRoute { epoch: None, permit_ms: None, stopping_ms: Some(300), ..message.node.clone() };
        let stops = RouteMessage { node: stops, ..message.clone() };
        assert_eq!(stops.permit_deadline(Boot::ZERO), None);
        assert_eq!(stops.stopping_deadline(Boot::from_millis(1_000)), Some(Boot::from_millis(2_000)));
        let follower = RouteMessage { node: NodeRoute { epoch: None, ..message.node.clone() }, ..message };
        assert_eq!((follower.permit_deadline(Boot::ZERO), follower.stopping_deadline(Boot::ZERO)), (None, None));
    }
}
