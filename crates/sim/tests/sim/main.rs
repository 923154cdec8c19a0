//! The simulator on fixed seeds: nothing is violated, the same seed runs the same way, the rules are reached, and every mutant is caught.

mod mutants;
mod picked;
mod seeds;
mod shrinking;
