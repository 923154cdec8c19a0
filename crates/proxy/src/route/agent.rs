//! What is known of one agent: its last pushed route, and how much that is still worth.

use pgherd_ha::{Boot, Epoch, NodeRoute, RouteMessage};

/// How an agent speaks to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Not answered yet.
    #[default]
    Unasked,
    /// It answers, but pushes no route: a plain Patroni, or something else with an HTTP check.
    Plain,
    /// Its stream lives.
    Live,
    /// It pushed, and its stream is lost.
    Lost,
}

/// One agent, which may stand behind servers of several listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentView {
    pub source: Source,
    /// The last line of its stream.
    pub node: Option<NodeRoute>,
    /// When the permit of that line ends, on our clock.
    pub deadline: Option<Boot>,
    /// Until when, on our clock, its orderly stop may take.
    pub stopping_until: Option<Boot>,
    /// Its lines say that sessions there can write, or will in a moment: it holds the leader key, or was last seen out of recovery.
    pub may_write: bool,
    /// A session saw this server in recovery though it was routed as the primary; the next line or check clears it.
    pub contradicted: bool,
}

impl AgentView {
    pub fn on_push(&mut self, message: RouteMessage, requested: Boot) {
        self.source = Source::Live;
        self.deadline = message.permit_deadline(requested);
        self.stopping_until = message.stopping_deadline(requested);
        // A server that does not answer may still serve the sessions that it has.
        let out_of_recovery = message.node.in_recovery.map_or(self.may_write, |in_recovery| !in_recovery);
        self.may_write = out_of_recovery || message.node.epoch.is_some();
        self.node = Some(message.node);
        self.contradicted = false;
    }

    /// The stream broke. Its last line counts until its permit ends.
    pub fn on_lost(&mut self) {
        if self.source == Source::Live {
            self.source = Source::Lost;
        }
        // Pause has no end, so without a stream nothing would ever correct it: the checks decide again.
        if self.deadline == Some(Boot::NEVER) {
            self.deadline = None;
            self.source = Source::Plain;
        }
    }

    /// It answers without pushing.
    pub fn on_plain(&mut self) {
        *self = AgentView { source: Source::Plain, ..AgentView::default() };
    }

    /// The epoch that this agent proves to hold at `now`, and until when.
    pub fn proof(&self, now: Boot) -> Option<(Epoch, Boot)> {
        let deadline = self.deadline.filter(|deadline| self.pushes() && now < *deadline)?;
        Some((self.node.as_ref()?.epoch?, deadline))
    }

    /// Until when sessions there may go on, in any listener: what can write only as long as the permit stands. `None`: it has ended.
    pub fn bound(&self, now: Boot) -> Option<Boot> {
        if self.pushes() && self.may_write { self.proof(now).map(|(_, until)| until) } else { Some(Boot::NEVER) }
    }

    /// Until when standbys may go on to be sent the log of a server that is stopped in order.
    pub fn stopping(&self, now: Boot) -> Option<Boot> {
        self.stopping_until.filter(|until| now < *until)
    }

    /// It is known to push its route, though its stream may be lost.
    fn pushes(&self) -> bool {
        matches!(self.source, Source::Live | Source::Lost)
    }

    /// Out of recovery and answering, as far as its line says.
    pub fn can_write(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.running && node.in_recovery == Some(false)) && !self.contradicted
    }

    /// The line of a stream that lives.
    pub fn live(&self) -> Option<&NodeRoute> {
        self.node.as_ref().filter(|_| self.source == Source::Live)
    }
}
