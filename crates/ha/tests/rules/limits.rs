//! The settings of which a standby needs as much as its primary.

use pgherd_ha::{Job, JobOutcome, LimitChange, Postgres, Request, Role, Rule};
use serde_json::json;

use crate::given::{Case, EPOCH, Given, case, leaderless, primary, replica};

const RESTART: Job = Job::Restart { epoch: None, names: None };

/// A restart of this node would make of it what is configured.
fn limit(given: &mut Given, from: u64, to: u64) {
    given.local.limits.insert("max_connections".into(), LimitChange { from, to });
}

/// And that member still runs with this.
fn runs_with(given: &mut Given, member: usize, old: &str) {
    let reason = json!({ "max_connections": { "old_value": old, "new_value": "200" } });
    given.view.members[member].extra.insert("pending_restart_reason".into(), reason);
}

pub fn cases() -> Vec<Case> {
    let mut cases = starved();
    cases.extend(order());
    cases.extend(patience());
    cases
}

fn starved() -> Vec<Case> {
    let starve: fn(&mut Given) = |g| g.running().starved = true;
    let mut voter = replica();
    voter.synchronous(false, "n2", 1, &["n1"]);
    vec![
        case("a standby with less than the log needs is restarted, and not again at once", replica())
            .then(starve, Rule::RestartForReplay, "restart")
            .then(|g| g.ended(RESTART, JobOutcome::Failed), Rule::Follow, "")
            .then(|g| g.pass(10_000), Rule::RestartForReplay, "restart"),
        case("nobody leads: it could not be promoted, so it is restarted all the same", leaderless()).then(
            starve,
            Rule::RestartForReplay,
            "restart",
        ),
        case("it has taken the key, and is restarted before it is promoted", leaderless()).then(
            |g| {
                g.led_by("n1");
                g.running().starved = true
            },
            Rule::RestartForReplay,
            "restart",
        ),
        case("one that commits wait for asks not to be waited for, two rounds at most", voter)
            .then(starve, Rule::LeaveSync, "")
            .then(|g| g.pass(1_900), Rule::LeaveSync, "")
            .then(|g| g.pass(100), Rule::RestartForReplay, "restart"),
        case("paused: nothing is restarted", replica()).then(
            |g| {
                g.pause();
                g.running().starved = true
            },
            Rule::PausedFollow,
            "",
        ),
        case("a restart that is in progress goes on", replica()).then(
            |g| {
                g.job(RESTART);
                g.running().starved = true
            },
            Rule::JobInProgress,
            "",
        ),
    ]
}

fn order() -> Vec<Case> {
    let asked = |from, to| {
        let mut given = primary();
        limit(&mut given, from, to);
        given.local.request = Some(Request::RESTART);
        given
    };
    vec![
        case("a raise before the standbys, which mend themselves", asked(100, 200)).then(
            |g| runs_with(g, 2, "100"),
            Rule::OperatorRestart,
            "restart primary",
        ),
        case("not before one that is a plain Patroni's", asked(100, 200))
            .then(
                |g| {
                    runs_with(g, 2, "100");
                    g.view.members[2].pgherd = None
                },
                Rule::RequestRefused,
                "refuse",
            )
            .then(
                |g| g.local.request = Some(Request::Restart { unordered: true, patience: None }),
                Rule::OperatorRestart,
                "restart primary",
            ),
        case("after it", asked(100, 200)).then(
            |g| {
                runs_with(g, 2, "250");
                g.view.members[2].pgherd = None
            },
            Rule::OperatorRestart,
            "restart primary",
        ),
        case("one that does not run takes the new value when it starts", asked(100, 200)).then(
            |g| {
                runs_with(g, 2, "100");
                g.view.members[2].pgherd = None;
                g.view.members[2].state = pgherd_ha::MemberState::Stopped
            },
            Rule::OperatorRestart,
            "restart primary",
        ),
        case("a key that says what is no number says nothing", asked(100, 200)).then(
            |g| {
                runs_with(g, 2, "?");
                g.view.members[2].pgherd = None
            },
            Rule::OperatorRestart,
            "restart primary",
        ),
        case("lower: the primary first", asked(200, 100)).then(
            |g| {
                runs_with(g, 2, "100");
                g.view.members[2].pgherd = None
            },
            Rule::OperatorRestart,
            "restart primary",
        ),
        case("a standby at any time", replica()).then(
            |g| {
                limit(g, 100, 200);
                runs_with(g, 2, "100");
                g.local.request = Some(Request::RESTART)
            },
            Rule::OperatorRestart,
            "restart",
        ),
        case("what another primary shows is no standby's", asked(100, 200)).then(
            |g| {
                runs_with(g, 2, "100");
                g.view.members[2].pgherd = None;
                g.view.members[2].role = Role::Primary
            },
            Rule::OperatorRestart,
            "restart primary",
        ),
    ]
}

fn patience() -> Vec<Case> {
    vec![
        case("a restart that takes longer than it may is failed over", primary())
            .then(
                |g| {
                    let patience = Some(std::time::Duration::from_secs(5));
                    g.local.request = Some(Request::Restart { unordered: false, patience })
                },
                Rule::OperatorRestart,
                "restart primary",
            )
            .then(
                |g| {
                    g.local.request = None;
                    g.job(Job::Restart { epoch: Some(EPOCH), names: None })
                },
                Rule::JobInProgress,
                "",
            )
            .then(
                |g| {
                    g.ended(Job::Restart { epoch: Some(EPOCH), names: None }, JobOutcome::Done);
                    g.local.postgres = Postgres::Starting { since: g.now().boot }
                },
                Rule::PrimaryStarting,
                "",
            )
            .then(
                |g| {
                    g.pass(5_001);
                    g.renew()
                },
                Rule::PrimaryStartTimeout,
                "stop immediate",
            ),
    ]
}
