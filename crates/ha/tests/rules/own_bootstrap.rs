//! A new cluster by the user's own command, and replicas by methods that need no leader.

use pgherd_ha::{ControlState, DataDirectory, Job, JobOutcome, Postgres, Request, Rule};

use crate::given::{Case, EPOCH, Given, as_given, blank, case, claim, primary, replica};

/// A node without data that has claimed the bootstrap, and makes clusters by a command.
fn claimed() -> Given {
    let mut given = blank();
    given.view.initialize = claim();
    given.local.claimed_initialize = true;
    given.settings.custom_bootstrap = true;
    given
}

/// What the command has made: a restored backup, not started yet; this node holds the key.
fn restored() -> Given {
    let mut given = replica();
    given.view = claimed().view;
    given.local.claimed_initialize = true;
    given.settings.custom_bootstrap = true;
    given.stop_server(ControlState::ShutDown);
    given.control().bootstrap_pending = true;
    given.led_by("n1");
    given
}

fn answers(given: &mut Given, in_recovery: bool) {
    given.local.postgres = primary().local.postgres;
    given.running().in_recovery = in_recovery;
}

fn lies_aside(given: &mut Given, job: Job, outcome: JobOutcome) {
    given.local.data = DataDirectory::Empty;
    given.local.postgres = Postgres::Stopped;
    given.ended(job, outcome);
}

fn without_leader() -> Given {
    let mut given = replica();
    given.lose_leader();
    given.local.data = DataDirectory::Empty;
    given.local.postgres = Postgres::Stopped;
    given
}

pub fn cases() -> Vec<Case> {
    vec![
        case("a command makes the cluster", claimed()).then(as_given, Rule::CustomBootstrap, "custom bootstrap").then(
            |g| lies_aside(g, Job::CustomBootstrap, JobOutcome::Failed),
            Rule::BootstrapFailed,
            "remove claim, exit with an error",
        ),
        case("a restore is waited for until its recovery has ended", restored())
            .then(as_given, Rule::StartNewCluster, "start as primary")
            .then(|g| answers(g, true), Rule::WaitForRecovery, "")
            .then(|g| answers(g, false), Rule::MakeRoles, "post-bootstrap, clients held"),
        case("nor is its key given up before, whatever becomes of the directory", restored())
            .then(as_given, Rule::StartNewCluster, "start as primary")
            .then(
                |g| {
                    answers(g, true);
                    g.running().restores = true;
                    g.local.data = DataDirectory::Unusable("no".into())
                },
                Rule::UnusableDirectory,
                "",
            ),
        case("nor is it restarted", restored()).then(as_given, Rule::StartNewCluster, "start as primary").then(
            |g| {
                answers(g, true);
                g.local.request = Some(Request::RESTART)
            },
            Rule::RequestRefused,
            "refuse",
        ),
        case("one whose server ends by itself is given up", restored())
            .then(as_given, Rule::StartNewCluster, "start as primary")
            .then(|g| answers(g, true), Rule::WaitForRecovery, "")
            .then(|g| g.local.postgres = Postgres::Stopped, Rule::AbandonBootstrap, "giving up the new cluster")
            .then(
                |g| lies_aside(g, Job::AbandonBootstrap, JobOutcome::Done),
                Rule::BootstrapFailed,
                "release, remove claim, exit with an error",
            ),
        case("a failed post_bootstrap gives the new cluster up", restored())
            .then(
                |g| {
                    g.settings.custom_bootstrap = false;
                    g.settings.post_bootstrap = true;
                    answers(g, false)
                },
                Rule::MakeRoles,
                "post-bootstrap, clients held",
            )
            .then(
                |g| g.ended(Job::PostBootstrap { epoch: EPOCH }, JobOutcome::Failed),
                Rule::AbandonBootstrap,
                "giving up the new cluster, clients held",
            ),
        case("without a leader a replica is made by a method that needs none", without_leader())
            .then(as_given, Rule::WaitForLeaderToClone, "")
            .then(|g| g.settings.copies_without_leader = true, Rule::CloneWithoutLeader, "clone nobody"),
        case("where there is a leader it is the source", replica()).then(
            |g| {
                g.local.data = DataDirectory::Empty;
                g.local.postgres = Postgres::Stopped;
                g.settings.copies_without_leader = true
            },
            Rule::CloneFromLeader,
            "clone n2",
        ),
    ]
}
