//! What the loop tells others of a round: the log, the REST API and the entrypoints, the member key in the store.
//!
//! Not here: the sentences (`story`, `pgherd_ha::Rule`), and what is published (`member`, `publish`).

use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, Decision, Local, Member, Rule};

use super::publish::Facts;
use super::round::Daemon;
use super::story::{self, Scene};

impl Daemon {
    /// What has happened since the last round. What the store last showed says nothing while it is not reachable.
    pub(super) fn narrate(&mut self, local: &Local, now: Boot) {
        let Some(view) = self.memory.view.as_ref().filter(|_| self.memory.reachable) else { return };
        let scene = Scene::new(view, local);
        for line in self.memory.story.tell(&self.current.identity.name, scene, now) {
            tracing::info!("{line}");
        }
    }

    /// A rule is logged when it changes: a quiet cluster has a quiet log. Who wants a sign of life gets one each `loop_wait`
    /// (`log.deduplicate_heartbeat_logs: off`).
    pub(super) fn show(&mut self, decision: &Decision, local: &Local) {
        let rule = decision.rule;
        // Looks in between, which change nothing of what was said before.
        if let Rule::JobInProgress
        | Rule::CheckHistory
        | Rule::PrimaryStarting
        | Rule::StandbyStarting
        | Rule::RetryLater = rule
        {
            tracing::debug!(rule = rule.name(), "{}", rule.sentence());
            return;
        }
        let reason = match &local.data {
            pgherd_ha::DataDirectory::Unusable(reason) => Some(reason.clone()),
            _ => None,
        };
        let now = Some((rule, reason));
        if rule == Rule::RaceHoldOff {
            self.show_hold_off();
        }
        let due = boot_now().since(self.memory.shown_at) >= self.current.dynamic.timing.loop_wait;
        let repeated = self.memory.shown == now;
        if repeated && !(self.current.config.log.repeats && due) {
            return;
        }
        self.memory.shown = now;
        self.memory.shown_at = boot_now();
        let facts = match &local.data {
            pgherd_ha::DataDirectory::Unusable(reason) => format!(": {reason}"),
            _ => story::facts(rule, local, self.memory.view.as_deref())
                .map(|facts| format!(" ({facts})"))
                .unwrap_or_default(),
        };
        self.systemd.doing(&format!("{}{facts}", rule.sentence()));
        match rule {
            Rule::UnusableDirectory | Rule::ForeignCluster => {
                tracing::error!(rule = rule.name(), "{}{facts}", rule.sentence());
            }
            rule => tracing::info!(rule = rule.name(), "{}{facts}", rule.sentence()),
        }
    }

    /// In the words that others search logs for, once for each second.
    fn show_hold_off(&mut self) {
        let left = self.agent.race_backoff_left(boot_now()).as_secs();
        if self.memory.held_off.replace(left) != Some(left) {
            let name = &self.current.identity.name;
            tracing::info!(
                "My ({name}) wal position moved since last heart beat loop, {left} seconds until leader race"
            );
        }
    }

    /// The same failure, round after round, is said now and then.
    pub(super) fn complain(&mut self, error: String) {
        match self.memory.complaints.is_due(&error, boot_now()) {
            true => tracing::warn!("{error}"),
            false => tracing::debug!("{error}"),
        }
    }

    /// Registers and publishes what is so now, and answers who has asked for something.
    pub(super) async fn tell(&mut self, local: &Local, decision: &Decision) {
        let member = self.publish(local, decision);
        // Registered first: whoever has been told that a restart is over may ask another node next, which looks at the key.
        if self.memory.reachable {
            self.register(&member).await;
        }
        self.commands.answer(local, &self.memory.last_job);
    }

    /// For the REST API and the entrypoints; returns what is registered of this node.
    pub(super) fn publish(&self, local: &Local, decision: &Decision) -> Member {
        let member = self.member(local);
        self.publisher.publish(&Facts {
            current: &self.current,
            local,
            node: &self.node,
            memory: &self.memory,
            member: &member,
            decision,
            lease: self.lease.lease(),
            failsafe_until: self.agent.failsafe_until(),
            scheduled: self.commands.scheduled(),
        });
        member
    }

    fn member(&self, local: &Local) -> Member {
        let paused = self.memory.view.as_ref().is_some_and(|view| view.is_paused());
        let standby_leader = self.memory.standby_leader;
        super::member::member(&self.current.identity, local, &self.node, paused, standby_leader, &self.commands)
    }

    /// Writes the member key: what others decide on at once, positions once in a `loop_wait`.
    async fn register(&mut self, member: &Member) {
        let value = pgherd_dcs::layout::encode_member(member);
        let registered = self.memory.view.as_ref().is_some_and(|view| view.member(&member.name).is_some());
        let due = boot_now().since(self.memory.member_written) >= self.current.dynamic.timing.loop_wait;
        let worth = match &self.memory.member {
            Some(old) if registered => old != &value && (due || differs_in_more_than_positions(old, &value)),
            _ => true,
        };
        if !worth {
            return;
        }
        match self.store.write_member(&value).await {
            Ok(()) => {
                self.memory.member = Some(value);
                self.memory.member_written = boot_now();
            }
            Err(error) => tracing::debug!("the member key could not be written: {error}"),
        }
    }

    /// The last word of a node that ends in order.
    pub(super) async fn register_stopped(&mut self) {
        if let Some(old) = &self.memory.member
            && let Some(mut member) = pgherd_dcs::layout::decode_member(&self.current.identity.name, old)
        {
            member.state = pgherd_ha::MemberState::Stopped;
            if let Err(error) = self.store.write_member(&pgherd_dcs::layout::encode_member(&member)).await {
                tracing::debug!("the last state could not be registered: {error}");
            }
        }
    }
}

/// Positions move all the time; everything else is news.
fn differs_in_more_than_positions(old: &[u8], new: &[u8]) -> bool {
    let without = |bytes: &[u8]| {
        let mut value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes).unwrap_or_default();
        for key in ["xlog_location", "replay_lsn", "receive_lsn"] {
            value.remove(key);
        }
        value
    };
    without(old) != without(new)
}
