//! Another node holds the leader key, or this one has no data yet.

use pgherd_ha::{
    Boot, ControlState, DataDirectory, Job, JobOutcome, MemberState, Postgres, Request, Rule, SystemId, Verdict,
};

use crate::given::{Case, EPOCH, as_given, blank, case, claim, clone_of, primary, replica, upstream};

pub fn cases() -> Vec<Case> {
    let mut cases = following();
    cases.extend(diverged());
    cases.extend(bootstrap());
    cases.extend(requests());
    cases
}

fn following() -> Vec<Case> {
    vec![
        case("a standby follows", replica()).then(as_given, Rule::Follow, ""),
        case("a standby that another has started is given a guard, while there is hope for one", replica())
            .then(|g| g.local.guarded = false, Rule::Follow, "guard")
            .then(|g| g.pass(2_999), Rule::Follow, "guard")
            .then(|g| g.pass(1), Rule::Follow, ""),
        case("a standby follows a new leader", replica()).then(|g| g.led_by("n3"), Rule::ChangeUpstream, "follow n3"),
        case("a leader that is not registered changes nothing", replica()).then(
            |g| {
                g.view.members.remove(1);
            },
            Rule::Follow,
            "",
        ),
        case("a standby that is down is started", replica())
            .then(|g| g.stop_standby(), Rule::StartStandby, "start standby of n2")
            .then(|g| g.local.postgres = Postgres::Starting { since: g.now().boot }, Rule::StandbyStarting, "")
            .then(|g| g.led_by("n3"), Rule::ChangeUpstream, "follow n3"),
        case("a standby that cannot start is tried again, with pauses", replica())
            .then(|g| g.stop_standby(), Rule::StartStandby, "start standby of n2")
            .then(as_given, Rule::StartStandby, "start standby of n2")
            .then(as_given, Rule::RetryLater, ""),
        case("one that cannot start is compared again with a leader that had no history to show yet", replica())
            .then(
                |g| {
                    g.stop_standby();
                    g.compared(Verdict::Unknown);
                    g.pass(1000)
                },
                Rule::StartStandby,
                "start standby of n2",
            )
            .then(as_given, Rule::CheckHistory, "compare with n2")
            .then(|g| g.compared(Verdict::Diverged), Rule::Rewind, "rewind from n2"),
        case("a primary beside another leader is killed", replica()).then(
            |g| g.running().in_recovery = false,
            Rule::FenceUnlicensedPrimary,
            "fence",
        ),
        case("so is one that does not answer", replica()).then(
            |g| g.local.postgres = Postgres::Silent { since: Boot::ZERO, in_recovery: false },
            Rule::FenceUnlicensedPrimary,
            "fence",
        ),
        case("so is one in the middle of a job", replica()).then(
            |g| {
                g.running().in_recovery = false;
                g.job(Job::Restart { epoch: Some(EPOCH), names: None })
            },
            Rule::PermitOver,
            "fence",
        ),
        case("a standby compares its history with each new leader's", replica())
            .then(|g| g.local.divergence = None, Rule::CheckHistory, "compare with n2")
            .then(|g| g.job(Job::CheckDivergence { epoch: EPOCH, leader: upstream("n2") }), Rule::CheckHistory, "")
            .then(
                |g| {
                    g.local.job = None;
                    g.compared(Verdict::Unknown)
                },
                Rule::Follow,
                "",
            )
            .then(|g| g.pass(1_000), Rule::CheckHistory, "compare with n2"),
        case("a standby that does not stream is compared again", replica())
            .then(|g| g.running().streaming = false, Rule::Follow, "")
            .then(|g| g.pass(5_000), Rule::CheckHistory, "compare with n2"),
        case("a comparison does not keep a node from the race", replica()).then(
            |g| {
                g.job(Job::CheckDivergence { epoch: EPOCH, leader: upstream("n2") });
                g.lose_leader()
            },
            Rule::RaceSettle,
            "follow nobody",
        ),
    ]
}

fn diverged() -> Vec<Case> {
    let mut former = replica();
    former.stop_server(ControlState::ShutDown);
    former.control().standby_signal = false;
    former.local.divergence = None;
    vec![
        case("a former primary is compared, then rewound, then started", former.clone())
            .then(as_given, Rule::CheckHistory, "compare with n2")
            .then(|g| g.compared(Verdict::Diverged), Rule::Rewind, "rewind from n2")
            .then(|g| g.job(Job::Rewind { source: upstream("n2") }), Rule::JobInProgress, "")
            .then(
                |g| {
                    g.ended(Job::Rewind { source: upstream("n2") }, JobOutcome::Done);
                    g.compared(Verdict::Same)
                },
                Rule::StartStandby,
                "start standby of n2",
            ),
        case("a former primary that has lost nothing is just started", former.clone()).then(
            |g| g.compared(Verdict::Same),
            Rule::StartStandby,
            "start standby of n2",
        ),
        case("without hints or checksums it is copied", former.clone()).then(
            |g| {
                g.control().rewindable = false;
                g.compared(Verdict::Diverged)
            },
            Rule::CloneDiverged,
            "clone n2",
        ),
        case("where rewinding is turned off it is copied", former.clone()).then(
            |g| {
                g.settings.use_pg_rewind = false;
                g.compared(Verdict::Diverged)
            },
            Rule::CloneDiverged,
            "clone n2",
        ),
        case("what pg_rewind cannot see is copied", former.clone()).then(
            |g| g.compared(Verdict::OnlyCopy),
            Rule::CloneDiverged,
            "clone n2",
        ),
        case(
            "data that cannot be rewound may go before its copy is complete, where the configuration says so",
            former.clone(),
        )
        .then(
            |g| {
                g.compared(Verdict::OnlyCopy);
                g.settings.remove_on_rewind_failure = true
            },
            Rule::CloneDiverged,
            "clone n2",
        )
        .then(|g| g.settings.remove_on_diverged = true, Rule::CloneDiverged, "clone n2 in the room of ours"),
        case("and so may data whose rewind has failed", former.clone())
            .then(
                |g| {
                    g.settings.remove_on_rewind_failure = true;
                    g.compared(Verdict::Diverged)
                },
                Rule::Rewind,
                "rewind from n2",
            )
            .then(
                |g| g.ended(Job::Rewind { source: upstream("n2") }, JobOutcome::Failed),
                Rule::CloneDiverged,
                "clone n2 in the room of ours",
            ),
        case("a rewind that changed nothing is followed by a copy", former.clone())
            .then(|g| g.compared(Verdict::Diverged), Rule::Rewind, "rewind from n2")
            .then(
                |g| {
                    g.ended(Job::Rewind { source: upstream("n2") }, JobOutcome::Done);
                    g.compared(Verdict::Diverged)
                },
                Rule::CloneDiverged,
                "clone n2",
            ),
        case("a rewind waits for the checkpoint after the new primary's promotion", former.clone())
            .then(
                |g| {
                    g.compared(Verdict::Diverged);
                    g.view.members[1].checkpoint_after_promote = Some(false)
                },
                Rule::RewindWait,
                "",
            )
            .then(|g| g.view.members[1].checkpoint_after_promote = None, Rule::Rewind, "rewind from n2"),
        case("a failed rewind is followed by a copy, a failed copy by a pause", former)
            .then(
                |g| {
                    g.compared(Verdict::Diverged);
                    g.ended(Job::Rewind { source: upstream("n2") }, JobOutcome::Failed)
                },
                Rule::CloneDiverged,
                "clone n2",
            )
            .then(|g| g.ended(clone_of("n2"), JobOutcome::Failed), Rule::RetryLater, "")
            .then(|g| g.pass(5_000), Rule::Rewind, "rewind from n2"),
        case("a running standby that has left the leader's history is rewound", replica()).then(
            |g| g.compared(Verdict::Diverged),
            Rule::Rewind,
            "rewind from n2",
        ),
    ]
}

fn bootstrap() -> Vec<Case> {
    let mut made = replica();
    made.view = blank().view;
    made.view.initialize = claim();
    made.stop_server(ControlState::ShutDown);
    made.control().standby_signal = false;
    made.control().bootstrap_pending = true;
    let mut empty = replica();
    empty.local.data = DataDirectory::Empty;
    empty.local.postgres = Postgres::Stopped;
    vec![
        case("the first node claims the cluster and makes it", blank())
            .then(as_given, Rule::ClaimBootstrap, "claim")
            .then(
                |g| {
                    g.view.initialize = claim();
                    g.local.claimed_initialize = true
                },
                Rule::Initdb,
                "initdb",
            )
            .then(|g| g.ended(Job::Initdb, JobOutcome::Failed), Rule::RetryLater, ""),
        case("a new cluster leads before its server starts, and is announced when it is whole", made)
            .then(as_given, Rule::LeadNewCluster, "acquire")
            .then(|g| g.led_by("n1"), Rule::StartNewCluster, "start as primary")
            .then(
                |g| g.local.postgres = crate::given::primary().local.postgres,
                Rule::MakeRoles,
                "post-bootstrap, clients held",
            )
            .then(|g| g.control().bootstrap_pending = false, Rule::AnnounceCluster, "write initialize, write config"),
        case("a node that may not lead does not begin a cluster", blank()).then(
            |g| g.settings.nofailover = true,
            Rule::WaitForBootstrap,
            "",
        ),
        case("the claim of a node at work is left alone", blank())
            .then(
                |g| {
                    g.view.initialize = claim();
                    g.view.members[0].state = MemberState::InitializingNewCluster
                },
                Rule::WaitForBootstrap,
                "",
            )
            .then(|g| g.pass(60_000), Rule::WaitForBootstrap, ""),
        case("the claim of a node that is gone is removed in the end", blank())
            .then(|g| g.view.initialize = claim(), Rule::WaitForBootstrap, "")
            .then(|g| g.pass(10_000), Rule::RemoveAbandonedClaim, "remove claim"),
        case("a node without data copies the leader", empty.clone())
            .then(as_given, Rule::CloneFromLeader, "clone n2")
            .then(|g| g.ended(clone_of("n2"), JobOutcome::Failed), Rule::RetryLater, ""),
        case("or the member that offers itself", empty.clone()).then(
            |g| {
                g.view.members[2].tags.insert("clonefrom".into(), true.into());
            },
            Rule::CloneFromLeader,
            "clone n3",
        ),
        case("but nothing that is not announced", empty.clone()).then(
            |g| g.view.initialize = claim(),
            Rule::WaitForLeaderToClone,
            "",
        ),
        case("an interrupted copy is made again", empty.clone()).then(
            |g| g.local.data = DataDirectory::Incomplete,
            Rule::CloneFromLeader,
            "clone n2 in the room of ours",
        ),
        case("a cluster without a leader cannot be copied", empty.clone()).then(
            |g| g.lose_leader(),
            Rule::WaitForLeaderToClone,
            "",
        ),
        case("a leader that lost its data gives the key up", empty).then(
            |g| g.led_by("n1"),
            Rule::LeaderWithoutData,
            "release",
        ),
        case("another cluster's directory is never touched", replica()).then(
            |g| g.control().system_id = SystemId(1),
            Rule::ForeignCluster,
            "exit with an error",
        ),
        case("nor one that cannot be read", replica()).then(
            |g| {
                g.local.data = DataDirectory::Unusable("no".into());
                g.local.postgres = Postgres::Stopped
            },
            Rule::UnusableDirectory,
            "",
        ),
        case("nor is a key kept for it", primary())
            .then(|g| g.local.data = DataDirectory::Unusable("no".into()), Rule::UnusableDirectory, "")
            .then(|g| g.local.postgres = Postgres::Stopped, Rule::UnusableDirectory, "release"),
        case("nor by a standby that has just taken it", replica()).then(
            |g| {
                g.led_by("n1");
                g.local.data = DataDirectory::Unusable("no".into())
            },
            Rule::UnusableDirectory,
            "release",
        ),
        case("a half-made cluster that lost the race is replaced", replica()).then(
            |g| {
                g.stop_server(ControlState::ShutDown);
                g.control().bootstrap_pending = true;
                g.control().system_id = SystemId(1)
            },
            Rule::CloneFromLeader,
            "clone n2 in the room of ours",
        ),
    ]
}

fn requests() -> Vec<Case> {
    vec![
        case("a restart on request", replica()).then(
            |g| g.local.request = Some(Request::RESTART),
            Rule::OperatorRestart,
            "restart",
        ),
        case("a restart of the primary keeps its epoch", crate::given::primary()).then(
            |g| g.local.request = Some(Request::RESTART),
            Rule::OperatorRestart,
            "restart primary",
        ),
        case("a fresh copy on request", replica()).then(
            |g| g.local.request = Some(Request::Reinitialize { force: false, from_leader: false }),
            Rule::OperatorReinitialize,
            "clone n2",
        ),
        case("where the operator insists, ours may go first", replica()).then(
            |g| g.local.request = Some(Request::Reinitialize { force: true, from_leader: false }),
            Rule::OperatorReinitialize,
            "clone n2 in the room of ours",
        ),
        case("the leader is not copied over", crate::given::primary()).then(
            |g| g.local.request = Some(Request::Reinitialize { force: false, from_leader: false }),
            Rule::RequestRefused,
            "refuse",
        ),
    ]
}
