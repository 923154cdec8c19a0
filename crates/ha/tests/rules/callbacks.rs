//! What the user's callbacks are told.

use pgherd_ha::{Agent, Boot, ControlState, Job, JobOutcome, Postgres};

use crate::given::{EPOCH, Given, leaderless, primary, replica};

type Step = (fn(&mut Given), &'static str);

/// What is told after each change, as `EVENT ROLE`.
fn told(mut given: Given, steps: &[Step]) {
    let mut agent = Agent::new(given.settings.clone());
    for (index, (change, expected)) in steps.iter().enumerate() {
        change(&mut given);
        given.pass(10);
        let callback = agent.decide(given.store(), &given.local, given.now()).callback;
        let found = callback.map(|it| format!("{} {}", it.event.name(), it.role.as_str())).unwrap_or_default();
        assert_eq!(found, *expected, "step {}", index + 1);
    }
}

fn nothing(_: &mut Given) {}

fn comes_up_as_standby(given: &mut Given) {
    given.local.postgres = replica().local.postgres;
}

fn goes_down(given: &mut Given) {
    given.stop_server(ControlState::ShutDown);
}

#[test]
fn a_server_that_is_found_running_is_told_once() {
    told(replica(), &[(nothing, "on_start replica"), (nothing, "")]);
    told(primary(), &[(nothing, "on_start primary"), (nothing, "")]);
}

#[test]
fn a_promotion_is_told_when_the_server_takes_writes() {
    told(
        leaderless(),
        &[
            (nothing, "on_start replica"),
            (|g| g.led_by("n1"), ""),
            (
                |g| {
                    g.job(Job::Promote {
                        epoch: EPOCH,
                        timeline: pgherd_ha::Timeline(2),
                        names: None,
                        slots: Vec::new(),
                        unproven: Vec::new(),
                    })
                },
                "",
            ),
            (
                |g| {
                    g.running().in_recovery = false;
                    g.local.job = None
                },
                "on_role_change primary",
            ),
            (nothing, ""),
        ],
    );
}

#[test]
fn a_switchover_stops_a_demoted_server_and_a_lost_key_a_primary() {
    let asked: fn(&mut Given) = |g| g.ask_for(Some("n1"), None);
    for (before, stopped) in [(asked, "on_stop demoted"), (nothing, "on_stop primary")] {
        told(
            primary(),
            &[
                (nothing, "on_start primary"),
                (before, ""),
                (goes_down, stopped),
                (|g| g.led_by("n2"), ""),
                (comes_up_as_standby, "on_role_change replica"),
            ],
        );
    }
}

#[test]
fn a_restart_is_no_stop_unless_the_server_stays_down() {
    let restarts: fn(&mut Given) = |g| {
        g.job(Job::Restart { epoch: None, names: None });
        g.local.postgres = Postgres::Stopped
    };
    let restarted: fn(&mut Given) = |g| {
        g.local.job = None;
        comes_up_as_standby(g)
    };
    let failed: fn(&mut Given) = |g| {
        g.local.job = None;
        g.ended(Job::Restart { epoch: None, names: None }, JobOutcome::Failed)
    };
    told(replica(), &[(nothing, "on_start replica"), (restarts, ""), (restarted, "on_restart replica"), (nothing, "")]);
    told(replica(), &[(nothing, "on_start replica"), (restarts, ""), (failed, "on_stop replica")]);
}

#[test]
fn a_primary_that_does_not_come_back_is_told_to_be_demoted() {
    told(
        primary(),
        &[
            (nothing, "on_start primary"),
            (|g| g.stop_server(ControlState::InProduction), "on_stop primary"),
            (nothing, ""),
            // The second start has failed, and another could lead.
            (nothing, "on_role_change demoted"),
            (nothing, ""),
        ],
    );
}

#[test]
fn silence_is_no_stop_and_a_new_cluster_is_told_when_it_is_whole() {
    told(
        replica(),
        &[
            (nothing, "on_start replica"),
            (|g| g.local.postgres = Postgres::Silent { since: Boot::ZERO, in_recovery: true }, ""),
            (comes_up_as_standby, ""),
        ],
    );
    told(
        primary(),
        &[
            (|g| g.control().bootstrap_pending = true, ""),
            (|g| g.control().bootstrap_pending = false, "on_start primary"),
        ],
    );
}
