//! Written by `cargo run -p pgherd-sim --example pick`, which keeps what still holds and looks for the rest: every change of a decision or of a
//! draw gives seeds another meaning.

/// Seeds that reach the rules which take the rarest coincidences.
pub const RARE: &[u64] = &[532, 593, 615, 656, 714, 914, 4341, 5172, 30556];

/// Each mutant by its name, and seeds on which it is noticed and that pass without it.
pub const CAUGHT: &[(&str, &[u64])] = &[
    ("CountFromAcknowledgement", &[309, 476]),
    ("CountFromTheWrite", &[309, 476]),
    ("ReadRenews", &[326]),
    ("NoTick", &[537]),
    ("GuardKillsPostmasterOnly", &[14, 19]),
    ("ReleaseBeforeDown", &[11, 14]),
    ("StalePlan", &[204]),
    ("DeleteForeignKey", &[47, 110]),
    ("ConfiguredTtl", &[65, 134]),
    ("GuardDeathIgnored", &[29, 89]),
    ("HandOverToAnyone", &[118, 150]),
    ("StandbysAlwaysFlushed", &[46]),
    ("NamesBeforeKey", &[25]),
    ("PromotedWithoutNames", &[46]),
    ("RestartedWithoutNames", &[3569]),
    ("StandbyWithoutNames", &[46]),
    ("AdmitAtOnce", &[328, 432]),
    ("CheckpointerNotAsked", &[119]),
    ("PromoteUnreserved", &[45, 326]),
    ("CountFromLastAnswer", &[11, 37]),
    ("SilenceAgrees", &[248, 311]),
    ("ForgetPromise", &[11, 27]),
    ("AnswerAfterTheRoute", &[1401]),
    ("LagNotSeen", &[85, 98]),
    ("SessionForgotten", &[15, 97]),
    ("ProbeNotAsked", &[8, 106]),
    ("StandbyClusterNotSeen", &[2]),
    ("StarvationNotSeen", &[2]),
    ("SlotsMovedToTheEnd", &[26, 28]),
];
