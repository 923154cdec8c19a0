//! The questions of failsafe mode between agents: messages that a partition holds up and a stopped agent answers late.
//!
//! As in `crates/agent/src/daemon/failsafe.rs`, an agent answers between two decisions, and not before its first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgherd_ha::{Epoch, FailsafeAnswer, FailsafeAsk, FailsafeRound, failsafe_patience};

use super::round::News;
use super::{AgentEvent, Process};
use crate::mutants::Mutant;
use crate::network::Place;
use crate::world::{Event, World, index, name};

/// What the agent's process knows of the questions.
#[derive(Debug, Default)]
pub struct Failsafe {
    /// The newest round that is over.
    pub heard: Option<FailsafeRound>,
    round: Option<Round>,
    /// Those of others, which wait for the loop.
    questions: Vec<Question>,
}

/// The round in progress.
#[derive(Debug)]
struct Round {
    number: u64,
    asked: BTreeSet<usize>,
    refused: bool,
    outcome: FailsafeRound,
}

#[derive(Clone, Debug)]
pub struct Question {
    from: usize,
    life: u64,
    round: u64,
    ttl: Duration,
    slots: BTreeMap<String, u64>,
}

impl World {
    pub fn ask_failsafe(&mut self, node: usize, epoch: Epoch, ttl: Duration, members: &BTreeMap<String, String>) {
        let number = self.number();
        let sent = self.boot(node);
        let asked: BTreeSet<usize> = members.keys().filter_map(|name| index(name)).collect();
        let life = self.nodes[node].life;
        let slots = self.slot_positions(node);
        for peer in &asked {
            let question = Question { from: node, life, round: number, ttl, slots: slots.clone() };
            let event = Event::ToAgent { node: *peer, event: AgentEvent::FailsafeAsked(question.clone()) };
            self.send(Place::Node(node), Place::Node(*peer), event);
            if self.network.duplicates {
                let late = self.rng.millis(0, 2000);
                let event = Event::ToAgent { node: *peer, event: AgentEvent::FailsafeAsked(question) };
                self.send_late(Place::Node(node), Place::Node(*peer), event, late);
            }
        }
        let outcome = FailsafeRound { epoch, sent, ttl, accepted: BTreeSet::new() };
        self.daemon(node).failsafe.round = Some(Round { number, asked, refused: false, outcome });
        self.agent_after(node, failsafe_patience(ttl), AgentEvent::FailsafeOver(number));
    }

    /// To whatever process runs there when it arrives.
    pub fn post_to_whoever_runs(&mut self, node: usize, event: AgentEvent) {
        if self.nodes[node].process != Process::Down {
            let life = self.nodes[node].life;
            self.post_to(node, life, Event::Agent { node, life, event });
        }
    }

    pub fn failsafe_asked(&mut self, node: usize, question: Question) {
        self.daemon(node).failsafe.questions.push(question);
        if self.is_between_decisions(node) {
            self.answer_failsafe(node);
            self.news(node, News::Failsafe);
        }
    }

    /// `true`: there was something to answer.
    pub fn answer_failsafe(&mut self, node: usize) -> bool {
        if !self.is_between_decisions(node) {
            return false;
        }
        let questions = std::mem::take(&mut self.daemon(node).failsafe.questions);
        for question in &questions {
            let accepted = self.agrees(node, question);
            let event = AgentEvent::FailsafeAnswered { round: question.round, by: node, accepted };
            let event = Event::Agent { node: question.from, life: question.life, event };
            self.send(Place::Node(node), Place::Node(question.from), event);
        }
        !questions.is_empty()
    }

    fn agrees(&mut self, node: usize, question: &Question) -> bool {
        let now = self.boot(node);
        let slots = question.slots.clone();
        let ask = FailsafeAsk { from: name(question.from), ttl: Some(question.ttl), slots };
        let forgets = self.mutant == Some(Mutant::ForgetPromise);
        let agent = &mut self.daemon(node).agent;
        let answer = if forgets { agent.clone().failsafe_asked(&ask, now) } else { agent.failsafe_asked(&ask, now) };
        self.note(node, "asked", || format!("by {}: {answer:?}", name(question.from)));
        let accepted = answer == FailsafeAnswer::Accepted;
        if accepted {
            let until = self.now + question.ttl.max(self.scenario.ttl);
            self.checks.promised(node, question.from, until);
        }
        accepted
    }

    pub fn failsafe_answered(&mut self, node: usize, number: u64, by: usize, accepted: bool) {
        let from_the_last = self.mutant == Some(Mutant::CountFromLastAnswer);
        let now = self.boot(node);
        let Some(round) = self.daemon(node).failsafe.round.as_mut().filter(|round| round.number == number) else {
            return;
        };
        round.asked.remove(&by);
        round.refused |= !accepted;
        if accepted {
            round.outcome.accepted.insert(name(by));
        }
        if from_the_last {
            round.outcome.sent = now;
        }
        if round.asked.is_empty() {
            self.failsafe_over(node, number);
        }
    }

    pub fn failsafe_over(&mut self, node: usize, number: u64) {
        let failsafe = &mut self.daemon(node).failsafe;
        let Some(mut round) = failsafe.round.take_if(|round| round.number == number) else { return };
        if self.mutant == Some(Mutant::SilenceAgrees) && !round.refused {
            round.outcome.accepted.extend(round.asked.iter().map(|peer| name(*peer)));
        }
        let accepted = round.outcome.accepted.clone();
        self.note(node, "agreed", || format!("{accepted:?}"));
        self.daemon(node).failsafe.heard = Some(round.outcome);
        self.news(node, News::Failsafe);
    }
}
