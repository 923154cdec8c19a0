//! Mistakes put in on purpose, outside of the decision: a simulator that does not notice them proves nothing.

/// One mistake in a driver or a model. Each is caught by a seed in `tests/sim/mutants.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The permit counts from the acknowledgement, not from before the request was sent.
    CountFromAcknowledgement,
    /// An acknowledged write is taken for a sign of life that the ensemble's leader knows of (`pgherd_ha::SignsOfLife`).
    CountFromTheWrite,
    /// A read that shows the own key counts as a renewal.
    ReadRenews,
    /// The store is trusted to keep the session for all of its time, without the tick.
    NoTick,
    /// The guard kills the postmaster and leaves its backends.
    GuardKillsPostmasterOnly,
    /// The leader key is released when the stop begins.
    ReleaseBeforeDown,
    /// A plan from before a hang is carried out as if it were new.
    StalePlan,
    /// A restarted agent removes the leader key with its name, although another session holds it.
    DeleteForeignKey,
    /// The lease is as long as was asked for, not as was granted.
    ConfiguredTtl,
    /// The guard's end leaves its server running.
    GuardDeathIgnored,
    /// A candidate is believed to hold whatever was asked for.
    HandOverToAnyone,
}

impl Mutant {
    pub const ALL: [Mutant; 11] = [
        Mutant::CountFromAcknowledgement,
        Mutant::CountFromTheWrite,
        Mutant::ReadRenews,
        Mutant::NoTick,
        Mutant::GuardKillsPostmasterOnly,
        Mutant::ReleaseBeforeDown,
        Mutant::StalePlan,
        Mutant::DeleteForeignKey,
        Mutant::ConfiguredTtl,
        Mutant::GuardDeathIgnored,
        Mutant::HandOverToAnyone,
    ];

    /// As `--mutant` takes it.
    pub fn parse(name: &str) -> Option<Mutant> {
        Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}").eq_ignore_ascii_case(name))
    }
}
