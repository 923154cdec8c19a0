//! The machine's watchdog: armed before a writer is made, disarmed once none is left; where it is required, a condition of leading.

use pgherd_ha::{ControlState, Job, JobOutcome, Postgres, Rule, StopMode, Timeline, Watchdog};

use crate::given::{Case, EPOCH, Given, as_given, case, leaderless, primary, replica, upstream};

pub fn cases() -> Vec<Case> {
    let mut cases = running();
    cases.extend(failed());
    cases
}

fn with(watchdog: Watchdog, mut given: Given) -> Given {
    given.local.watchdog = watchdog;
    given
}

/// A standby that has just taken the key.
fn winner(watchdog: Watchdog) -> Given {
    let mut given = with(watchdog, primary());
    given.running().in_recovery = true;
    given.local.following = Some(upstream("n2"));
    given
}

fn running() -> Vec<Case> {
    vec![
        case("the watchdog is armed right before the promotion, and runs on", winner(Watchdog::Idle))
            .then(as_given, Rule::Promote, "follow nobody, reserve 2, arm watchdog, promote to 2")
            .then(
                |g| {
                    g.local.watchdog = Watchdog::Armed;
                    g.job(Job::Promote {
                        epoch: EPOCH,
                        timeline: Timeline(2),
                        names: None,
                        slots: Vec::new(),
                        unproven: Vec::new(),
                    })
                },
                Rule::Promoting,
                "",
            )
            .then(
                |g| {
                    g.running().in_recovery = false;
                    g.ended(
                        Job::Promote {
                            epoch: EPOCH,
                            timeline: Timeline(2),
                            names: None,
                            slots: Vec::new(),
                            unproven: Vec::new(),
                        },
                        JobOutcome::Done,
                    )
                },
                Rule::Lead,
                "slots n2+n3",
            ),
        case("a primary that is found running gets one, too", with(Watchdog::Idle, primary())).then(
            as_given,
            Rule::Lead,
            "arm watchdog, slots n2+n3",
        ),
        case("but not without a proven lease", with(Watchdog::Idle, primary())).then(
            |g| g.local.lease = None,
            Rule::ProveLease,
            "renew",
        ),
        case("a standby needs none", with(Watchdog::Idle, replica())).then(as_given, Rule::Follow, ""),
        case("through a crash it runs on until the server does again", with(Watchdog::Armed, primary()))
            .then(|g| g.local.postgres = Postgres::Orphans, Rule::KillOrphans, "fence")
            .then(|g| g.stop_server(ControlState::InProduction), Rule::RestartCrashedPrimary, "start as primary")
            .then(
                |g| {
                    g.local.watchdog = Watchdog::Idle;
                    g.pass(10)
                },
                Rule::RestartCrashedPrimary,
                "arm watchdog, start as primary",
            ),
        case("a demoted primary disarms it when no process is left", with(Watchdog::Armed, primary()))
            .then(|g| g.led_by("n2"), Rule::FenceUnlicensedPrimary, "fence")
            .then(|g| g.local.postgres = Postgres::Orphans, Rule::KillOrphans, "fence")
            .then(
                |g| g.stop_server(ControlState::InProduction),
                Rule::CheckHistory,
                "disarm watchdog, compare with n2",
            ),
        case("paused, it does not run", with(Watchdog::Armed, primary()))
            .then(|g| g.pause(), Rule::PausedLead, "disarm watchdog, slots n2+n3")
            .then(|g| g.local.watchdog = Watchdog::Idle, Rule::PausedLead, ""),
        case("nor after the agent has stopped its server", with(Watchdog::Armed, primary()))
            .then(|g| g.local.stopping = true, Rule::StopServer, "stop planned")
            .then(
                |g| {
                    g.view.members.truncate(1);
                    g.stop_server(ControlState::ShutDown)
                },
                Rule::LeaveKey,
                "disarm watchdog, release",
            ),
    ]
}

fn failed() -> Vec<Case> {
    vec![
        case(
            "a primary whose required watchdog fails stops in order and leaves the key",
            with(Watchdog::Failed, primary()),
        )
        .then(as_given, Rule::WatchdogFailed, "stop planned")
        .then(|g| g.ended(Job::Stop(StopMode::Planned), JobOutcome::Failed), Rule::WatchdogFailed, "stop immediate")
        .then(|g| g.stop_server(ControlState::ShutDown), Rule::WatchdogFailed, "release"),
        case("one that is being started is ended", with(Watchdog::Failed, primary())).then(
            |g| g.local.postgres = Postgres::Starting { since: g.now().boot },
            Rule::WatchdogFailed,
            "stop immediate",
        ),
        case("a switchover that was begun is completed", with(Watchdog::Failed, primary())).then(
            |g| {
                g.ask_for(Some("n1"), Some("n3"));
                g.stop_server(ControlState::ShutDown)
            },
            Rule::HandOverWait,
            "ask n3",
        ),
        case("the end of a lease is no time for an orderly stop", with(Watchdog::Failed, primary())).then(
            |g| g.pass(6_000),
            Rule::PermitOver,
            "fence",
        ),
        case("a standby with the key leaves it to others, and does not race", winner(Watchdog::Failed))
            .then(as_given, Rule::WatchdogFailed, "release")
            .then(|g| g.lose_leader(), Rule::RaceWithoutWatchdog, "")
            .then(|g| g.local.watchdog = Watchdog::Idle, Rule::RaceNotAllowed, ""),
        case("without the watchdog that is required nobody races", with(Watchdog::Failed, leaderless()))
            .then(as_given, Rule::RaceWithoutWatchdog, "")
            .then(|g| g.ask_for(None, Some("n1")), Rule::RaceWithoutWatchdog, "")
            .then(|g| g.stop_standby(), Rule::StartForRace, "start standby"),
        case("a standby of another leader goes on", with(Watchdog::Failed, replica())).then(as_given, Rule::Follow, ""),
        case("paused, it is the operator's matter", with(Watchdog::Failed, primary())).then(
            |g| g.pause(),
            Rule::PausedLead,
            "slots n2+n3",
        ),
    ]
}
