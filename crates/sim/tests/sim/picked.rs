//! Written by `cargo run -p pgherd-sim --example pick`, which keeps what still holds and looks for the rest: every change of a decision or of a
//! draw gives seeds another meaning.

/// Seeds that reach the rules which take the rarest coincidences.
pub const RARE: &[u64] = &[532, 540, 593, 615, 914, 4341, 5172, 30556];

/// Each mutant by its name, and seeds on which it is noticed and that pass without it.
pub const CAUGHT: &[(&str, &[u64])] = &[
    ("CountFromAcknowledgement", &[309, 476]),
    ("CountFromTheWrite", &[309, 476]),
    ("ReadRenews", &[326]),
    ("NoTick", &[537]),
    ("GuardKillsPostmasterOnly", &[14, 19]),
    ("ReleaseBeforeDown", &[11, 14]),
    ("StalePlan", &[204]),
    ("DeleteForeignKey", &[17, 47]),
    ("ConfiguredTtl", &[65, 134]),
    ("GuardDeathIgnored", &[4, 29]),
    ("HandOverToAnyone", &[118, 150]),
    ("StandbysAlwaysFlushed", &[46]),
    ("NamesBeforeKey", &[2002]),
    ("PromotedWithoutNames", &[46]),
    ("RestartedWithoutNames", &[3569]),
    ("StandbyWithoutNames", &[46]),
    ("AdmitAtOnce", &[328, 432]),
    ("CheckpointerNotAsked", &[3335]),
    ("PromoteUnreserved", &[45, 326]),
    ("CountFromLastAnswer", &[4, 27]),
    ("SilenceAgrees", &[65, 248]),
    ("ForgetPromise", &[4, 11]),
    ("AnswerAfterTheRoute", &[1401]),
    ("LagNotSeen", &[23, 85]),
    ("SessionForgotten", &[15, 97]),
    ("ProbeNotAsked", &[8, 106]),
    ("StandbyClusterNotSeen", &[2]),
    ("StarvationNotSeen", &[2]),
    ("SlotsMovedToTheEnd", &[26, 27]),
];
