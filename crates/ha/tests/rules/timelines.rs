//! Which timeline a promotion reserves and takes.

use pgherd_ha::{
    Epoch, HistoryLine, Job, JobOutcome, Lsn, MOST_TIMELINES_AHEAD, Reservation, Rule, Timeline, Versioned,
};

use crate::given::{Case, EPOCH, Given, as_given, case, primary};

pub fn cases() -> Vec<Case> {
    let mut cases = choosing();
    cases.extend(repeating());
    cases.extend(correcting());
    cases
}

/// n1 holds the key and its standby, on timeline 1, is to be promoted.
fn won() -> Given {
    let mut given = primary();
    given.running().in_recovery = true;
    given
}

fn reserved(given: &mut Given, timeline: u32, epoch: Epoch) {
    let value = Reservation { timeline: Timeline(timeline), epoch, leader: "n3".into() };
    given.view.reservation = Some(Versioned { value, version: 7 });
}

const EARLIER: Epoch = Epoch(EPOCH.0 - 1);

fn choosing() -> Vec<Case> {
    vec![
        case("the first promotion of a cluster", won()).then(as_given, Rule::Promote, "reserve 2, promote to 2"),
        case("a number that another promotion reserved is not taken again", won()).then(
            |g| reserved(g, 4, EARLIER),
            Rule::Promote,
            "reserve 5 over version 7, promote to 5",
        ),
        case("nor one that a plain Patroni has begun, as its member key shows", won()).then(
            |g| {
                reserved(g, 2, EARLIER);
                g.view.members[2].timeline = Some(Timeline(3))
            },
            Rule::Promote,
            "reserve 4 over version 7, promote to 4",
        ),
        case("or the history", won()).then(
            |g| {
                reserved(g, 2, EARLIER);
                g.view.history.push(HistoryLine {
                    timeline: Timeline(5),
                    switch_lsn: Lsn(500),
                    reason: String::new(),
                    timestamp: None,
                    new_leader: None,
                })
            },
            Rule::Promote,
            "reserve 7 over version 7, promote to 7",
        ),
        case("or a history file that this standby has fetched", won()).then(
            |g| g.running().newest_history = Timeline(3),
            Rule::Promote,
            "reserve 4, promote to 4",
        ),
        case("a key that cannot be read is written anew", won()).then(
            |g| g.view.reservation = Some(Versioned { value: Reservation::default(), version: 7 }),
            Rule::Promote,
            "reserve 2 over version 7, promote to 2",
        ),
        case("the greatest number that counts", won()).then(
            |g| reserved(g, 1 + MOST_TIMELINES_AHEAD, EARLIER),
            Rule::Promote,
            "reserve 1002 over version 7, promote to 1002",
        ),
        case("a number that makes no sense stops nobody", won()).then(
            |g| {
                reserved(g, u32::MAX, EPOCH);
                g.view.members[2].timeline = Some(Timeline(4_000_000_000))
            },
            Rule::Promote,
            "reserve 2 over version 7, promote to 2",
        ),
    ]
}

fn repeating() -> Vec<Case> {
    vec![
        case("a promotion that is repeated takes what it has reserved", won())
            .then(|g| reserved(g, 4, EPOCH), Rule::Promote, "promote to 4")
            .then(
                |g| {
                    // Of the first attempt, which has passed 2 and 3 over.
                    g.running().newest_history = Timeline(3)
                },
                Rule::Promote,
                "promote to 4",
            ),
        case("unless its server has begun that timeline already", won()).then(
            |g| {
                reserved(g, 4, EPOCH);
                g.running().newest_history = Timeline(4)
            },
            Rule::Promote,
            "reserve 5 over version 7, promote to 5",
        ),
        case("and whatever timeline the failed one was for, it gives the key up", won()).then(
            |g| {
                g.ended(
                    Job::Promote {
                        epoch: EPOCH,
                        timeline: Timeline(9),
                        names: None,
                        slots: Vec::new(),
                        unproven: Vec::new(),
                    },
                    JobOutcome::Failed,
                )
            },
            Rule::PrimaryStartFailed,
            "stop fast",
        ),
    ]
}

fn correcting() -> Vec<Case> {
    vec![
        case("a primary beyond what is reserved has it recorded", primary()).then(
            |g| {
                reserved(g, 2, EPOCH);
                g.running().timeline = Timeline(3)
            },
            Rule::Lead,
            "slots n2+n3, write history, reserve 3 over version 7",
        ),
        case("also where nobody has reserved anything yet", primary()).then(
            |g| g.running().timeline = Timeline(3),
            Rule::Lead,
            "slots n2+n3, write history, reserve 3",
        ),
        case("but never downwards", primary()).then(|g| reserved(g, 4, EARLIER), Rule::Lead, "slots n2+n3"),
    ]
}
