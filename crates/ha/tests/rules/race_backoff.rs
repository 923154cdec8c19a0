//! `primary_race_backoff`: nobody holds the key, and the former primary still sends.

use std::time::Duration;

use pgherd_ha::{Epoch, Rule};

use crate::given::{Case, EPOCH, Given, as_given, case, leaderless, replica};

fn backing_off() -> Given {
    let mut given = replica();
    given.settings.primary_race_backoff = Duration::from_secs(3);
    given
}

/// A round later, and the primary has sent something.
fn sent(given: &mut Given) {
    given.pass(1_000);
    given.running().position.0 += 8;
}

pub fn cases() -> Vec<Case> {
    vec![
        case("the race waits while something comes, for the time that is set", backing_off())
            .then(as_given, Rule::Follow, "")
            .then(|g| g.lose_leader(), Rule::RaceHoldOff, "")
            .then(|g| g.pass(999), Rule::RaceHoldOff, "")
            .then(
                |g| {
                    g.pass(1);
                    g.running().position.0 += 8
                },
                Rule::RaceHoldOff,
                "",
            )
            .then(sent, Rule::RaceHoldOff, "")
            .then(sent, Rule::RaceSettle, "follow nobody"),
        case("but one round only where nothing comes", backing_off())
            .then(as_given, Rule::Follow, "")
            .then(|g| g.lose_leader(), Rule::RaceHoldOff, "")
            .then(|g| g.pass(1_000), Rule::RaceSettle, "follow nobody")
            .then(sent, Rule::RaceSettle, "follow nobody"),
        case("what is replayed from elsewhere has not come from the primary", backing_off())
            .then(as_given, Rule::Follow, "")
            .then(|g| g.lose_leader(), Rule::RaceHoldOff, "")
            .then(
                |g| {
                    g.running().streaming = false;
                    sent(g)
                },
                Rule::RaceSettle,
                "follow nobody",
            ),
        case("each leader begins it anew", backing_off())
            .then(as_given, Rule::Follow, "")
            .then(|g| g.lose_leader(), Rule::RaceHoldOff, "")
            .then(sent, Rule::RaceHoldOff, "")
            .then(
                |g| {
                    g.led_by("n3");
                    g.view.leader.as_mut().expect("a leader").epoch = Epoch(EPOCH.0 + 1)
                },
                Rule::ChangeUpstream,
                "follow n3",
            )
            .then(|g| g.lose_leader(), Rule::RaceHoldOff, "")
            .then(sent, Rule::RaceHoldOff, "")
            .then(sent, Rule::RaceHoldOff, "")
            .then(sent, Rule::RaceSettle, "follow nobody"),
        case("who has not seen the former leader does not wait", {
            let mut given = leaderless();
            given.settings.primary_race_backoff = Duration::from_secs(3);
            given
        })
        .then(as_given, Rule::RaceAskPeers, "ask n3"),
        case("nor does anybody where an operator has named a candidate", backing_off())
            .then(as_given, Rule::Follow, "")
            .then(
                |g| {
                    g.lose_leader();
                    g.ask_for(None, Some("n1"))
                },
                Rule::CandidateAcquire,
                "acquire",
            ),
    ]
}
