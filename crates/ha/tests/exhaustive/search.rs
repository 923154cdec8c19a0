//! Every state that can be reached, and for each the way back.
#![allow(clippy::disallowed_types, reason = "the maps are only looked up in, never gone through")]

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

use pgherd_ha::Rule;

use crate::effects::{Event, apply};
use crate::state::{NODES, Node, Plan, Process, State, Step};
use crate::turn;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Things that go wrong on one way.
    pub faults: u8,
    pub pauses: bool,
}

/// More would take minutes; the model is to be made smaller then.
const MOST_STATES: usize = 2_000_000;

#[derive(Debug, Default)]
pub struct Search {
    states: Vec<State>,
    /// How each state was first reached: from which, and by what.
    came: Vec<(usize, String)>,
    /// Steps without a fault, backwards.
    back: Vec<Vec<usize>>,
    rules: BTreeSet<Rule>,
    steps: usize,
    undefined: Vec<(usize, String)>,
    unsafe_states: Vec<(usize, String)>,
}

/// What a node does of itself, by what it sees; many states look the same to it.
type Turns = HashMap<(usize, State), Result<(Node, Option<Step>), String>>;

impl Search {
    pub fn run(limits: Limits) -> Search {
        let mut search = Search::default();
        let mut known = HashMap::new();
        let mut turns = Turns::new();
        let events = Event::all(limits.pauses);
        search.reach(&mut known, State::first(limits.faults), None);
        let mut at = 0;
        while at < search.states.len() {
            assert!(search.states.len() < MOST_STATES, "more than {MOST_STATES} states");
            let state = search.states[at];
            if !limits.pauses
                && let Some(what) = state.unsafe_writer()
            {
                search.unsafe_states.push((at, what));
            }
            for event in &events {
                if let Some(next) = apply(&state, *event) {
                    let from = (at, !event.is_fault(), format!("{event:?}"));
                    search.reach(&mut known, next, Some(from));
                }
            }
            for node in 0..NODES {
                search.turn(&mut known, &mut turns, at, node);
            }
            at += 1;
        }
        search
    }

    fn turn(&mut self, known: &mut HashMap<State, usize>, turns: &mut Turns, at: usize, node: usize) {
        let state = self.states[at];
        let own = state.nodes[node];
        if own.agent == Process::Down || own.plan.is_some() {
            return;
        }
        // What has not been decided yet, and how much may still go wrong, nobody sees.
        let mut seen = State { faults_left: 0, ..state };
        seen.nodes.iter_mut().for_each(|node| node.plan = None);
        let rules = &mut self.rules;
        let turn = turns.entry((node, seen)).or_insert_with(|| {
            let turn = turn::take(&state, node)?;
            rules.extend(turn.rules);
            Ok((turn.node, turn.step))
        });
        match turn {
            Err(why) => self.undefined.push((at, format!("node {node}: {why}"))),
            Ok((mine, step)) => {
                let mut next = state;
                next.nodes[node] = *mine;
                next.nodes[node].plan = step.map(|step| Plan { step, stale: false });
                if next != state {
                    let text = format!("node {node} decides {step:?}");
                    self.reach(known, next, Some((at, true, text)));
                }
            }
        }
    }

    fn reach(&mut self, known: &mut HashMap<State, usize>, state: State, from: Option<(usize, bool, String)>) {
        let new = self.states.len();
        let to = *known.entry(state).or_insert(new);
        if to == new {
            self.states.push(state);
            self.back.push(Vec::new());
            let (at, text) = from.as_ref().map_or((0, String::new()), |(at, _, text)| (*at, text.clone()));
            self.came.push((at, text));
        }
        if let Some((at, true, _)) = from {
            self.back[to].push(at);
        }
        self.steps += 1;
    }

    /// The states from which no way without a fault leads to a good one.
    fn dead_ends(&self) -> Vec<usize> {
        let mut saved: Vec<bool> = self.states.iter().map(State::is_good).collect();
        let mut next: Vec<usize> = (0..saved.len()).filter(|at| saved[*at]).collect();
        while let Some(at) = next.pop() {
            for before in &self.back[at] {
                if !std::mem::replace(&mut saved[*before], true) {
                    next.push(*before);
                }
            }
        }
        (0..saved.len()).filter(|at| !saved[*at]).collect()
    }

    pub fn summary(&self) -> String {
        let good = self.states.iter().filter(|state| state.is_good()).count();
        format!(
            "{} states, {} steps, {good} good ones, {} rules decided something",
            self.states.len(),
            self.steps,
            self.rules.len()
        )
    }

    /// One of each kind, with the way there.
    pub fn problems(&self) -> Vec<String> {
        let ends = self.dead_ends();
        let dead = ends.first().map(|at| (*at, format!("{} states without a way back, the first of them", ends.len())));
        let firsts = [self.undefined.first().cloned(), self.unsafe_states.first().cloned(), dead];
        firsts.into_iter().flatten().map(|(at, what)| format!("{what}:\n{}", self.way_to(at))).collect()
    }

    fn way_to(&self, mut at: usize) -> String {
        let mut steps = Vec::new();
        while at != 0 {
            steps.push(at);
            at = self.came[at].0;
        }
        let mut text = String::new();
        for step in steps.iter().rev() {
            writeln!(text, "  {}", self.came[*step].1).expect("a string takes everything");
        }
        let last = steps.first().map_or(&self.states[0], |at| &self.states[*at]);
        writeln!(text, "  {last:#?}").expect("a string takes everything");
        text
    }
}
