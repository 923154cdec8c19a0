//! Failsafe mode at the loop: asking the other members, and answering one that asks.
//!
//! What is asked when, and what is answered, is decided in `pgherd_ha`. The questions are on their way beside the loop, each with a limit,
//! and the lease's thread knows nothing of them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use pgherd_dcs::boot_now;
use pgherd_ha::{Boot, Epoch, FailsafeRound, Permit, failsafe_patience};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::round::Daemon;
use crate::api::{FailsafeQuestion, FailsafeRequest};

/// What comes of the questions, and those of others.
#[derive(Debug)]
pub struct Failsafe {
    /// Of the rounds that run in the background, to the loop; there is one at a time.
    answers: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
    questions: mpsc::Receiver<FailsafeQuestion>,
    /// The newest round that is over.
    pub newest: Option<FailsafeRound>,
    /// The one that was agreed to last.
    agreed_to: Option<String>,
    number: u64,
    /// The round that last kept the machine's watchdog alive.
    kept_alive: Boot,
}

/// A round that is over.
#[derive(Debug)]
pub struct Heard {
    number: u64,
    round: FailsafeRound,
    /// Who does not agree, and why.
    refusals: Vec<String>,
}

/// What may be in progress: one round, and one that was given up.
const ROUNDS: usize = 2;

impl Failsafe {
    pub fn new(questions: mpsc::Receiver<FailsafeQuestion>) -> Failsafe {
        let (answers, heard) = mpsc::channel(ROUNDS);
        Failsafe { answers, heard, questions, newest: None, agreed_to: None, number: 0, kept_alive: Boot::ZERO }
    }

    /// The next round that is over.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            Some(heard) = self.heard.recv() => Event::Heard(heard),
            Some(question) = self.questions.recv() => Event::Asked(question),
            else => std::future::pending().await,
        }
    }
}

/// What happens to the loop because of the mode.
#[derive(Debug)]
pub enum Event {
    Heard(Heard),
    Asked(FailsafeQuestion),
}

impl Daemon {
    /// Sends the questions. `Err`: this node is in no state to go on.
    pub(super) fn ask_failsafe(
        &mut self,
        epoch: Epoch,
        ttl: Duration,
        members: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        if let Some(silence) = self.lease.watch.silence(boot_now()) {
            return Err(format!("the members are not asked whether this primary may go on: for a whole ttl {silence}"));
        }
        let identity = &self.current.identity;
        let slots = self.slot_positions().into_iter().map(|(name, lsn)| (name, Value::from(lsn)));
        let request = FailsafeRequest {
            name: identity.name.clone(),
            conn_url: identity.conn_url.clone(),
            api_url: identity.api_url.clone(),
            slots: Map::from_iter(slots),
            ttl,
        };
        self.failsafe.number += 1;
        let (number, members) = (self.failsafe.number, members.clone());
        let (peers, answers) = (self.peers.clone(), self.failsafe.answers.clone());
        let sent = boot_now();
        tokio::spawn(async move {
            let asked = members
                .iter()
                .map(async |(name, url)| (name, peers.ask_failsafe(url, &request, failsafe_patience(ttl)).await));
            let (mut accepted, mut refusals) = (std::collections::BTreeSet::new(), Vec::new());
            for (name, answer) in join_all(asked).await {
                match answer {
                    Ok(()) => drop(accepted.insert(name.clone())),
                    Err(why) => refusals.push(format!("{name}: {why}")),
                }
            }
            let round = FailsafeRound { epoch, sent, ttl, accepted };
            // The daemon has ended: nobody is there to be told.
            let _ = answers.send(Heard { number, round, refusals }).await;
        });
        Ok(())
    }

    /// While the members stand in for the store, so do their rounds for the proofs that keep the machine's watchdog alive; each once.
    pub(super) fn keep_watchdog_by_members(&mut self, permit: Permit) {
        let granted = self.agent.failsafe_lease().filter(|lease| permit == Permit::from_lease(lease));
        if let Some(lease) = granted.filter(|lease| lease.sent > self.failsafe.kept_alive) {
            self.failsafe.kept_alive = lease.sent;
            self.lease.watchdog.keep_alive(&lease);
        }
    }

    pub(super) fn failsafe_event(&mut self, event: Event) {
        match event {
            Event::Heard(heard) => self.hear(heard),
            Event::Asked(question) => self.answer_failsafe(question),
        }
    }

    fn hear(&mut self, heard: Heard) {
        if heard.number != self.failsafe.number {
            return;
        }
        if !heard.refusals.is_empty() {
            self.complain(format!(
                "not every member agrees that this primary goes on without the store ({}); it stops when its permit ends, unless that changes",
                heard.refusals.join("; ")
            ));
        }
        self.failsafe.newest = Some(heard.round);
    }

    fn answer_failsafe(&mut self, question: FailsafeQuestion) {
        let now = boot_now();
        let new = self.agent.failsafe_until().is_none_or(|until| until <= now)
            || self.failsafe.agreed_to.as_ref() != Some(&question.ask.from);
        let answer = self.agent.failsafe_asked(&question.ask, now);
        let from = &question.ask.from;
        match &answer {
            pgherd_ha::FailsafeAnswer::Accepted if new => {
                tracing::info!(
                    "{from} has lost the store and asks to go on as primary: this node agrees, and follows it"
                );
                self.failsafe.agreed_to = Some(from.clone());
            }
            pgherd_ha::FailsafeAnswer::Accepted => {}
            refusal => {
                self.complain(format!("{from} asks to go on as primary without the store: refused ({refusal:?})"))
            }
        }
        // Whoever asked may have given up. This node is bound all the same.
        let _ = question.reply.send(answer);
    }

    /// Does something that may take its time while nothing else is being carried out, and answers meanwhile: with the store away a round
    /// spends most of its time on waiting for it, and who asks has little. Not before the first decision, which nothing is known before.
    pub(super) async fn answering<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let mut wait = std::pin::pin!(wait);
        loop {
            let decided = self.memory.decided > Boot::ZERO;
            tokio::select! {
                result = &mut wait => return result,
                Some(question) = self.failsafe.questions.recv(), if decided => self.answer_failsafe(question),
            }
        }
    }
}
