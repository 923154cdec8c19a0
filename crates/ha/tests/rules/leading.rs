//! This node holds the leader key: leading, promotion, crash, switchover, the end of the permit.

use std::time::Duration;

use pgherd_ha::{Boot, ControlState, Job, JobOutcome, MemberState, Postgres, Rule, StopMode, Timeline};

use crate::given::{Case, EPOCH, as_given, case, physical, primary, replica, upstream};

pub fn cases() -> Vec<Case> {
    let mut cases = leading();
    cases.extend(promotion());
    cases.extend(server_down());
    cases.extend(switchover());
    cases.extend(hand_over());
    cases
}

fn leading() -> Vec<Case> {
    vec![
        case("a primary leads", primary())
            .then(as_given, Rule::Lead, "slots n2+n3")
            .then(|g| g.running().position.0 += 8, Rule::Lead, "write status")
            .then(|g| g.running().position.0 += 8, Rule::Lead, "")
            .then(
                |g| {
                    g.pass(1000);
                    g.renew()
                },
                Rule::Lead,
                "write status",
            ),
        case(
            "a disk that does not answer: the server is killed and the key goes, whatever still waits for the disk",
            primary(),
        )
        .then(|g| g.local.disk_stuck = true, Rule::DiskStuck, "fence")
        .then(|g| g.local.postgres = Postgres::Orphans, Rule::DiskStuck, "release"),
        case("a start that waits for a disk which does not answer is ended before the key goes", primary())
            .then(
                |g| {
                    g.local.disk_stuck = true;
                    g.local.postgres = Postgres::Stopped;
                    g.job(Job::StartPrimary { epoch: EPOCH, names: None })
                },
                Rule::DiskStuck,
                "fence",
            )
            .then(|g| g.local.job = None, Rule::DiskStuck, "release"),
        case("a disk that does not answer is no reason to leave the cluster without a leader", primary()).then(
            |g| {
                g.local.disk_stuck = true;
                g.view.members.iter_mut().for_each(|member| member.state = MemberState::Stopped)
            },
            Rule::Lead,
            "slots n2+n3",
        ),
        case("a slot outlives its member by half an hour", primary())
            .then(as_given, Rule::Lead, "slots n2+n3")
            .then(
                |g| {
                    g.view.members.pop();
                    g.pass(10_000);
                    g.renew()
                },
                Rule::Lead,
                "slots n2+n3",
            )
            .then(
                |g| {
                    g.pass(1_800_000);
                    g.renew()
                },
                Rule::Lead,
                "slots n2",
            ),
        case("or for as long as the configuration says, which may be no time at all", primary())
            .then(
                |g| {
                    g.settings.member_slots_ttl = Duration::ZERO;
                },
                Rule::Lead,
                "slots n2+n3",
            )
            .then(
                |g| {
                    g.view.members.pop();
                    g.running().slots = vec![physical("n2"), physical("n3")];
                    g.pass(100)
                },
                Rule::Lead,
                "write status, drop slot n3",
            ),
        case("one that has led before makes its slots at once, for its standbys stream only then", primary())
            .then(as_given, Rule::Lead, "slots n2+n3")
            .then(|g| *g = replica(), Rule::Follow, "")
            .then(
                |g| {
                    *g = primary();
                    g.pass(1000);
                    g.renew()
                },
                Rule::Lead,
                "slots n2+n3",
            ),
        case("no slots where they are turned off", primary()).then(|g| g.settings.use_slots = false, Rule::Lead, ""),
        case("the history follows the timeline, the checkpoint follows the promotion", primary()).then(
            |g| {
                g.running().timeline = Timeline(2);
                g.running().checkpointed = false
            },
            Rule::Lead,
            "checkpoint, slots n2+n3, write history, reserve 2",
        ),
        case("a cluster that lost its keys gets them back", primary()).then(
            |g| {
                g.view.initialize = None;
                g.view.config = None
            },
            Rule::AnnounceCluster,
            "write initialize, write config",
        ),
        case("a configuration that cannot be read keeps nobody from leading", primary()).then(
            |g| g.view.config = None,
            Rule::Lead,
            "write config, slots n2+n3",
        ),
        case("a key without a proof is proven before anything else", primary()).then(
            |g| g.local.lease = None,
            Rule::ProveLease,
            "renew",
        ),
        case("a proof that has run out is no permit, and in the end no writer is left without one", primary())
            .then(|g| g.pass(5_500), Rule::ProveLease, "renew")
            .then(|g| g.pass(499), Rule::ProveLease, "renew")
            .then(|g| g.pass(1), Rule::PermitOver, "fence"),
        case("nor in the middle of a job, whatever a server of the store that is cut off still shows", primary())
            .then(
                |g| {
                    g.job(Job::Stop(StopMode::Planned));
                    g.pass(5_999)
                },
                Rule::JobInProgress,
                "renew",
            )
            .then(|g| g.pass(1), Rule::PermitOver, "fence"),
        case("nobody leads without a guard", primary())
            .then(|g| g.local.guarded = false, Rule::WaitForGuard, "guard, renew")
            .then(
                |g| {
                    g.pass(3_000);
                    g.led_by("n1")
                },
                Rule::NoGuard,
                "stop planned",
            )
            .then(|g| g.ended(Job::Stop(StopMode::Planned), JobOutcome::Failed), Rule::NoGuard, "stop immediate")
            .then(|g| g.stop_server(ControlState::InProduction), Rule::RestartCrashedPrimary, "start as primary"),
        case("a primary that was found in pause is given one when that ends", primary())
            .then(
                |g| {
                    g.pause();
                    g.local.guarded = false
                },
                Rule::PausedLead,
                "slots n2+n3",
            )
            .then(|g| g.pass(60_000), Rule::PausedLead, "slots n2+n3")
            .then(
                |g| {
                    g.view.config = None;
                    g.led_by("n1")
                },
                Rule::WaitForGuard,
                "guard, renew",
            ),
        case("a standby that can have no guard leaves the key to others", replica())
            .then(
                |g| {
                    g.led_by("n1");
                    g.local.guarded = false
                },
                Rule::WaitForGuard,
                "guard, renew",
            )
            .then(
                |g| {
                    g.pass(3_000);
                    g.led_by("n1")
                },
                Rule::NoGuard,
                "release",
            )
            .then(|g| g.lose_leader(), Rule::RaceNotAllowed, ""),
        case("a server that does not answer keeps the key while it is proven", primary()).then(
            |g| g.local.postgres = Postgres::Silent { since: Boot::ZERO, in_recovery: false },
            Rule::Lead,
            "",
        ),
        case("a server that does not answer for too long gives the key up", primary())
            .then(
                |g| {
                    g.settings.primary_start_timeout = Duration::from_secs(5);
                    g.local.postgres = Postgres::Silent { since: g.now().boot, in_recovery: false }
                },
                Rule::Lead,
                "",
            )
            .then(
                |g| {
                    g.pass(5_001);
                    g.renew()
                },
                Rule::Lead,
                "",
            )
            .then(
                |g| {
                    g.pass(3_000);
                    g.renew()
                },
                Rule::PrimarySilent,
                "stop immediate",
            )
            .then(|g| g.stop_server(ControlState::InProduction), Rule::PrimaryStartFailed, "release"),
        case("a switchover whose stop hangs is called off and the server killed, to start again", primary())
            .then(
                |g| {
                    g.ask_for(Some("n1"), Some("n3"));
                    g.local.postgres = Postgres::Silent { since: g.now().boot, in_recovery: false };
                    g.pass(1_000);
                    g.renew();
                    g.ended(Job::Stop(StopMode::Planned), JobOutcome::Failed)
                },
                Rule::StopHangs,
                "clear request, stop immediate",
            )
            .then(
                |g| {
                    g.view.failover = None;
                    g.stop_server(ControlState::InProduction)
                },
                Rule::RestartCrashedPrimary,
                "start as primary",
            )
            .then(|g| g.local.postgres = Postgres::Silent { since: Boot::NEVER, in_recovery: false }, Rule::Lead, ""),
        case("the permit ends while a job runs and another leads", primary()).then(
            |g| {
                g.job(Job::PostBootstrap { epoch: EPOCH });
                g.led_by("n2")
            },
            Rule::PermitOver,
            "fence",
        ),
    ]
}

fn promotion() -> Vec<Case> {
    let mut won = primary();
    won.running().in_recovery = true;
    won.local.following = Some(upstream("n2"));
    vec![
        case("the winner cuts its upstream and promotes in one step", won.clone())
            .then(as_given, Rule::Promote, "follow nobody, reserve 2, promote to 2")
            .then(
                |g| {
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
            .then(|g| g.led_by("n2"), Rule::PermitOver, "fence"),
        case("a failed promotion gives the key up, also where the server cannot be stopped", won.clone())
            .then(
                |g| {
                    g.ended(
                        Job::Promote {
                            epoch: EPOCH,
                            timeline: Timeline(2),
                            names: None,
                            slots: Vec::new(),
                            unproven: Vec::new(),
                        },
                        JobOutcome::Failed,
                    )
                },
                Rule::PrimaryStartFailed,
                "stop fast",
            )
            .then(|g| g.ended(Job::Stop(StopMode::Fast), JobOutcome::Failed), Rule::GiveKeyBack, "release"),
        case("a failed promotion gives the key up", won)
            .then(
                |g| {
                    g.ended(
                        Job::Promote {
                            epoch: EPOCH,
                            timeline: Timeline(2),
                            names: None,
                            slots: Vec::new(),
                            unproven: Vec::new(),
                        },
                        JobOutcome::Failed,
                    )
                },
                Rule::PrimaryStartFailed,
                "stop fast",
            )
            .then(
                |g| {
                    g.local.last_job = None;
                    g.stop_standby()
                },
                Rule::PrimaryStartFailed,
                "release",
            ),
    ]
}

fn server_down() -> Vec<Case> {
    vec![
        case("a crashed primary is started again", primary())
            .then(|g| g.stop_server(ControlState::InProduction), Rule::RestartCrashedPrimary, "start as primary")
            .then(|g| g.local.postgres = Postgres::Starting { since: g.now().boot }, Rule::PrimaryStarting, "")
            .then(|g| g.pass(6_000), Rule::ProveLease, "renew"),
        case("a primary that fails to start twice gives the key to another", primary())
            .then(|g| g.stop_server(ControlState::InProduction), Rule::RestartCrashedPrimary, "start as primary")
            .then(|g| g.pass(10), Rule::RestartCrashedPrimary, "start as primary")
            .then(|g| g.pass(10), Rule::PrimaryStartFailed, "release"),
        case("with primary_start_timeout 0 it is another's turn at once", primary()).then(
            |g| {
                g.settings.primary_start_timeout = Duration::ZERO;
                g.stop_server(ControlState::InProduction)
            },
            Rule::FailOverAfterCrash,
            "release",
        ),
        case("a lone primary tries again, with pauses", primary())
            .then(
                |g| {
                    g.view.members.truncate(1);
                    g.stop_server(ControlState::InProduction)
                },
                Rule::RestartCrashedPrimary,
                "start as primary",
            )
            .then(|g| g.pass(10), Rule::RestartCrashedPrimary, "start as primary")
            .then(|g| g.pass(10), Rule::RetryLater, "")
            .then(|g| g.pass(1_000), Rule::RestartCrashedPrimary, "start as primary"),
        case("no server is started without a proven lease", primary()).then(
            |g| {
                g.stop_server(ControlState::InProduction);
                g.pass(7_000)
            },
            Rule::ProveLease,
            "renew",
        ),
        case("the key with a standby's directory: start it, then promote", primary()).then(
            |g| g.stop_standby(),
            Rule::StartStandbyToPromote,
            "start standby",
        ),
        case("orphans of a killed postmaster are killed first", primary()).then(
            |g| g.local.postgres = Postgres::Orphans,
            Rule::KillOrphans,
            "fence",
        ),
        case("but not the processes of a job: a server that starts, a recovery before a rewind", primary())
            .then(
                |g| {
                    g.local.postgres = Postgres::Orphans;
                    g.job(Job::StartPrimary { epoch: EPOCH, names: None })
                },
                Rule::JobInProgress,
                "",
            )
            .then(|g| g.job(Job::Rewind { source: upstream("n2") }), Rule::JobInProgress, "")
            .then(|g| g.job(Job::Stop(StopMode::Fast)), Rule::KillOrphans, "fence"),
        case("a start that takes too long gives the key up", primary())
            .then(
                |g| {
                    g.settings.primary_start_timeout = Duration::from_secs(5);
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
            )
            .then(|g| g.stop_server(ControlState::InCrashRecovery), Rule::PrimaryStartFailed, "release"),
    ]
}

fn switchover() -> Vec<Case> {
    vec![
        case("a switchover asks, stops, waits for the last record, releases", primary())
            .then(|g| g.ask_for(Some("n1"), Some("n3")), Rule::SwitchoverAskCandidates, "ask n3")
            .then(|g| g.answers(&[("n3", 1000)]), Rule::SwitchoverStop, "stop planned")
            .then(|g| g.job(Job::Stop(StopMode::Planned)), Rule::JobInProgress, "")
            .then(
                |g| {
                    g.ended(Job::Stop(StopMode::Planned), JobOutcome::Done);
                    g.stop_server(ControlState::ShutDown);
                    g.pass(100)
                },
                Rule::HandOverWait,
                "ask n3",
            )
            .then(
                |g| {
                    g.control().checkpoint.0 = 1000;
                    g.answers(&[("n3", 1000)])
                },
                Rule::HandOverWait,
                "",
            )
            .then(
                |g| {
                    g.pass(25);
                    g.answers(&[("n3", 1120)])
                },
                Rule::HandOver,
                "release",
            ),
        case("a candidate that does not answer in time ends the request", primary())
            .then(|g| g.ask_for(Some("n1"), None), Rule::SwitchoverAskCandidates, "ask n2+n3")
            .then(
                |g| {
                    g.pass(2_000);
                    g.renew()
                },
                Rule::SwitchoverRefused,
                "clear request",
            ),
        case("a candidate that lags too much ends the request", primary())
            .then(
                |g| {
                    g.running().position.0 = 5_000_000;
                    g.ask_for(Some("n1"), Some("n3"))
                },
                Rule::SwitchoverAskCandidates,
                "ask n3",
            )
            .then(|g| g.answers(&[("n3", 1000)]), Rule::SwitchoverRefused, "clear request"),
        case("a request to leave another leader is fulfilled", primary()).then(
            |g| g.ask_for(Some("n3"), None),
            Rule::SwitchoverDone,
            "clear request",
        ),
        case("a request that this node fulfils already is cleared", primary()).then(
            |g| g.ask_for(None, Some("n1")),
            Rule::SwitchoverDone,
            "clear request",
        ),
        case("a request to leave another leader for a third is not this node's to do", primary()).then(
            |g| g.ask_for(Some("n2"), Some("n3")),
            Rule::SwitchoverRefused,
            "clear request",
        ),
        case("an unknown candidate ends the request", primary()).then(
            |g| g.ask_for(Some("n1"), Some("n9")),
            Rule::SwitchoverRefused,
            "clear request",
        ),
        case("a candidate that is down ends the request", primary()).then(
            |g| {
                g.view.members[2].state = MemberState::Stopped;
                g.ask_for(Some("n1"), Some("n3"))
            },
            Rule::SwitchoverRefused,
            "clear request",
        ),
        case("a scheduled switchover waits for its time and is stale long after it", primary())
            .then(
                |g| {
                    g.ask_for(Some("n1"), Some("n3"));
                    g.schedule(5)
                },
                Rule::Lead,
                "slots n2+n3",
            )
            .then(
                |g| {
                    g.pass(5_000);
                    g.renew()
                },
                Rule::SwitchoverAskCandidates,
                "ask n3",
            )
            .then(
                |g| {
                    g.pass(20_000);
                    g.renew()
                },
                Rule::SwitchoverRefused,
                "clear request",
            ),
    ]
}

fn hand_over() -> Vec<Case> {
    let mut stopped = primary();
    stopped.stop_server(ControlState::ShutDown);
    stopped.ask_for(Some("n1"), Some("n3"));
    let mut stopping = primary();
    stopping.stop_server(ControlState::ShutDown);
    stopping.local.stopping = true;
    vec![
        case("a switchover whose candidate never gets the last record is called off", stopped)
            .then(as_given, Rule::HandOverWait, "ask n3")
            .then(
                |g| {
                    g.pass(5_000);
                    g.renew()
                },
                Rule::HandOverFailed,
                "clear request, start as primary",
            ),
        case("an agent that stops hands over to any candidate", stopping.clone())
            .then(as_given, Rule::HandOverWait, "ask n2+n3")
            .then(|g| g.answers(&[("n2", 1120)]), Rule::HandOver, "release"),
        case("a position of another timeline is not the last record", stopping.clone())
            .then(as_given, Rule::HandOverWait, "ask n2+n3")
            .then(
                |g| {
                    g.answers(&[("n2", 1120)]);
                    g.peer().timeline = Some(Timeline(7))
                },
                Rule::HandOverWait,
                "",
            ),
        case("an agent that stops leaves the key in the end", stopping)
            .then(as_given, Rule::HandOverWait, "ask n2+n3")
            .then(|g| g.pass(5_000), Rule::LeaveKey, "release"),
    ]
}
