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
    /// Standbys count as having flushed, and as listed, whatever they say.
    StandbysAlwaysFlushed,
    /// The server is told its new names before the `sync` key says what holds under both.
    NamesBeforeKey,
    /// A promoted server's commits wait for nobody until the next look.
    PromotedWithoutNames,
    /// So do those of a crashed primary that is started again.
    RestartedWithoutNames,
    /// That commits wait at all is news to a standby that is promoted.
    StandbyWithoutNames,
    /// Clients are let in as soon as a primary is up.
    AdmitAtOnce,
    /// Names count a second after they were set, whatever the checkpointer does.
    CheckpointerNotAsked,
    /// A server is promoted onto whatever timeline it finds, and nothing is reserved.
    PromoteUnreserved,
    /// The permit of failsafe mode counts from the last answer, not from before the first question.
    CountFromLastAnswer,
    /// In failsafe mode a member that does not answer counts as one that agrees.
    SilenceAgrees,
    /// A member agrees in failsafe mode and does not bind itself.
    ForgetPromise,
    /// An entrypoint passes a server's answer on without asking the route again.
    AnswerAfterTheRoute,
    /// A standby takes itself for further than anybody.
    LagNotSeen,
    /// The agent's restart does not find the session again.
    SessionForgotten,
    /// Nobody asks the write probe whether the disk answers.
    ProbeNotAsked,
    /// A node does not see that its cluster is to follow another one.
    StandbyClusterNotSeen,
    /// Nobody notices that a standby's replay has paused for want of a setting.
    StarvationNotSeen,
    /// A standby's slot is moved to the end of its log, not to where the consumer is.
    SlotsMovedToTheEnd,
}

impl Mutant {
    pub const ALL: [Mutant; 29] = [
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
        Mutant::StandbysAlwaysFlushed,
        Mutant::NamesBeforeKey,
        Mutant::PromotedWithoutNames,
        Mutant::RestartedWithoutNames,
        Mutant::StandbyWithoutNames,
        Mutant::AdmitAtOnce,
        Mutant::CheckpointerNotAsked,
        Mutant::PromoteUnreserved,
        Mutant::CountFromLastAnswer,
        Mutant::SilenceAgrees,
        Mutant::ForgetPromise,
        Mutant::AnswerAfterTheRoute,
        Mutant::LagNotSeen,
        Mutant::SessionForgotten,
        Mutant::ProbeNotAsked,
        Mutant::StandbyClusterNotSeen,
        Mutant::StarvationNotSeen,
        Mutant::SlotsMovedToTheEnd,
    ];

    /// As `--mutant` takes it.
    pub fn parse(name: &str) -> Option<Mutant> {
        Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}").eq_ignore_ascii_case(name))
    }
}
