//! A small world, all of it: two nodes and the keys between them, every order of what they may do and of what may go wrong.
//!
//! The decision is the real one. What it asks for is carried out in the abstract ([`effects`]), at once or after the others have moved on; it is
//! lost, or the agent dies before or after it; jobs succeed, fail or are cut off. Time is not modelled but as an order: a lease ends before its
//! key goes, and the guard kills in between (that this is so is the simulator's to show). Asked of every state that is reached
//! ([`search`]): the decision is defined and wakes up later; there is one writer at most, and it holds the key; and once nothing goes
//! wrong any more there is a way to one primary that is followed.

mod effects;
mod search;
mod state;
mod turn;

use search::{Limits, Search};

#[test]
fn every_reachable_state_has_a_way_back_and_one_writer() {
    let search = Search::run(Limits { faults: 2, pauses: false });
    println!("{}", search.summary());
    assert_eq!(search.problems(), Vec::<String>::new());
}

#[test]
fn with_pauses_every_reachable_state_has_a_way_back() {
    let search = Search::run(Limits { faults: 1, pauses: true });
    println!("{}", search.summary());
    assert_eq!(search.problems(), Vec::<String>::new());
}
