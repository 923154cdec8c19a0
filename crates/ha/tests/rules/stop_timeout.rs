//! `primary_stop_timeout`: the orderly stop of a primary has so much time and no more.

use std::time::Duration;

use pgherd_ha::{ControlState, Job, JobOutcome, Postgres, Rule, StopMode};

use crate::given::{Case, Given, as_given, case, primary, replica};

/// A primary that was told to stop and does not answer any more.
fn stopping(mode: StopMode, mut given: Given) -> Given {
    given.settings.primary_stop_timeout = Some(Duration::from_secs(5));
    let in_recovery = given.running().in_recovery;
    given.local.postgres = Postgres::Silent { since: given.now().boot, in_recovery };
    given.synchronous(false, "n1", 0, &["n3"]);
    given.job(Job::Stop(mode));
    given
}

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "a switchover does not wait longer for the stop, and the key goes to another",
            stopping(StopMode::Planned, primary()),
        )
        .then(
            |g| {
                g.ask_for(Some("n1"), Some("n3"));
                g.pass(4_999);
                g.renew()
            },
            Rule::JobInProgress,
            "",
        )
        .then(|g| g.pass(1), Rule::PrimaryStopTimeout, "stop immediate")
        .then(|g| g.job(Job::Stop(StopMode::Immediate)), Rule::JobInProgress, "")
        .then(
            |g| {
                g.renew();
                g.ended(Job::Stop(StopMode::Immediate), JobOutcome::Done);
                g.stop_server(ControlState::ShuttingDown)
            },
            Rule::PrimaryStartFailed,
            "release",
        ),
        case("nor does an agent that was told to end", {
            let mut given = stopping(StopMode::Planned, primary());
            given.local.stopping = true;
            given
        })
        .then(as_given, Rule::JobInProgress, "")
        .then(|g| g.pass(5_000), Rule::PrimaryStopTimeout, "stop immediate"),
        case("a primary that is alone starts again", stopping(StopMode::Planned, primary()))
            .then(
                |g| {
                    g.view.members.truncate(1);
                    g.pass(5_000);
                    g.renew()
                },
                Rule::PrimaryStopTimeout,
                "stop immediate",
            )
            .then(
                |g| {
                    g.ended(Job::Stop(StopMode::Immediate), JobOutcome::Done);
                    g.stop_server(ControlState::ShuttingDown)
                },
                Rule::RestartCrashedPrimary,
                "start as primary waiting for `n3`, clients held",
            ),
        case("where no standby has every commit, a primary may take its time", stopping(StopMode::Planned, primary()))
            .then(
                |g| {
                    g.sync_key("n1", 0, &[]);
                    g.pass(60_000);
                    g.renew()
                },
                Rule::JobInProgress,
                "",
            ),
        case("a standby may take its time", stopping(StopMode::Fast, replica())).then(
            |g| g.pass(60_000),
            Rule::JobInProgress,
            "",
        ),
        case("without the setting so may a primary", stopping(StopMode::Planned, primary())).then(
            |g| {
                g.settings.primary_stop_timeout = None;
                g.pass(60_000);
                g.renew()
            },
            Rule::JobInProgress,
            "",
        ),
    ]
}
