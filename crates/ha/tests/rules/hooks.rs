//! The user's command before a promotion.

use pgherd_ha::{Job, JobOutcome, LeaderOwner, Rule};

use crate::given::{Case, EPOCH, Given, as_given, case, leaderless};

/// n1 has taken the key and is about to be promoted, which a command comes before.
fn candidate() -> Given {
    let mut given = leaderless();
    given.led_by("n1");
    given.settings.pre_promote = true;
    given
}

const HOOK: Job = Job::PrePromote { epoch: EPOCH };

fn runs(given: &mut Given) {
    given.job(HOOK);
}

fn ends(given: &mut Given, outcome: JobOutcome) {
    given.local.job = None;
    given.ended(HOOK, outcome);
}

pub fn cases() -> Vec<Case> {
    vec![
        case("a promotion waits for the user's command", candidate())
            .then(as_given, Rule::PrePromote, "pre_promote")
            .then(runs, Rule::JobInProgress, "")
            .then(|g| ends(g, JobOutcome::Done), Rule::Promote, "reserve 2, promote to 2")
            // One is enough for a leadership.
            .then(|g| g.local.last_job = None, Rule::Promote, "reserve 2, promote to 2"),
        case("where it fails the key goes to another, and this node keeps out of the next race", candidate())
            .then(as_given, Rule::PrePromote, "pre_promote")
            .then(|g| ends(g, JobOutcome::Failed), Rule::PrePromoteFailed, "release")
            .then(|g| g.lose_leader(), Rule::RaceNotAllowed, ""),
        case("its time is that of a start", candidate())
            .then(as_given, Rule::PrePromote, "pre_promote")
            .then(runs, Rule::JobInProgress, "")
            .then(
                |g| {
                    g.pass(300_001);
                    g.renew()
                },
                Rule::PrePromoteCutOff,
                "cut off",
            )
            .then(|g| ends(g, JobOutcome::Cancelled), Rule::PrePromoteFailed, "release"),
        case("and with the server", candidate()).then(as_given, Rule::PrePromote, "pre_promote").then(
            |g| {
                runs(g);
                g.stop_standby()
            },
            Rule::PrePromoteCutOff,
            "cut off",
        ),
        case("it ends with the key that it was begun under", candidate())
            .then(as_given, Rule::PrePromote, "pre_promote")
            .then(runs, Rule::JobInProgress, "")
            .then(
                |g| g.view.leader.as_mut().expect("one").owner = LeaderOwner::Other,
                Rule::PrePromoteCutOff,
                "cut off",
            ),
    ]
}
