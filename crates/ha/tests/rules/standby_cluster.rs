//! This cluster follows another one.

use pgherd_ha::{
    Boot, ControlState, DataDirectory, FailoverKey, Job, JobOutcome, MemberState, Postgres, Rule, StopMode, Timeline,
    Verdict, Versioned, Watchdog,
};

use crate::given::{
    Case, EPOCH, Given, as_given, blank, case, claim, leaderless, other_cluster, primary, replica, standby_leader,
};

pub fn cases() -> Vec<Case> {
    let mut cases = leading();
    cases.extend(demoting());
    cases.extend(promoting());
    cases.extend(without_leader());
    cases.extend(bootstrap());
    cases.extend(paused());
    cases
}

fn leading() -> Vec<Case> {
    vec![
        case("the standby leader follows the other cluster and keeps slots for its standbys", standby_leader())
            .then(as_given, Rule::StandbyLead, "slots n2+n3")
            .then(|g| g.running().position.0 += 5, Rule::StandbyLead, "write status"),
        case("it proves that the key is its own although it has no permit", standby_leader()).then(
            |g| g.local.lease = None,
            Rule::ProveLease,
            "renew",
        ),
        case("a new standby leader changes over to the other cluster", standby_leader()).then(
            |g| g.local.following = None,
            Rule::ChangeUpstream,
            "follow the other",
        ),
        case("from an archive alone it follows nobody", standby_leader())
            .then(|g| g.follows(None), Rule::ChangeUpstream, "follow nobody")
            .then(
                |g| {
                    g.local.following = None;
                    g.running().streaming = false;
                    g.running().position.0 += 5
                },
                Rule::StandbyLead,
                "slots n2+n3",
            )
            .then(|g| g.running().position.0 += 100_000, Rule::StandbyLead, "write status"),
        case("its history is compared with the other cluster's", standby_leader())
            .then(|g| g.local.divergence = None, Rule::CheckHistory, "compare with the other")
            .then(|g| g.compared(Verdict::Diverged), Rule::Rewind, "rewind from the other"),
        case("who streams is not asked again by a login that fails", standby_leader())
            .then(|g| g.compared(Verdict::Unknown), Rule::StandbyLead, "slots n2+n3")
            .then(|g| g.pass(60_000), Rule::ProveLease, "renew"),
        case("a standby leader that is down is started", standby_leader())
            .then(|g| g.stop_standby(), Rule::StartStandbyLeader, "start standby of the other")
            .then(as_given, Rule::StartStandbyLeader, "start standby of the other")
            .then(as_given, Rule::PrimaryStartFailed, "release"),
        case("one that starts for too long leaves the key to another", standby_leader())
            .then(|g| g.local.postgres = Postgres::Starting { since: g.now().boot }, Rule::StandbyStarting, "")
            .then(
                |g| {
                    g.pass(301_000);
                    g.renew()
                },
                Rule::PrimaryStartTimeout,
                "stop immediate",
            ),
        case("a switchover stops nothing", standby_leader())
            .then(|g| g.ask_for(Some("n1"), Some("n3")), Rule::SwitchoverAskCandidates, "ask n3")
            .then(|g| g.answers(&[("n3", 1000)]), Rule::HandOver, "release"),
        case("who may take over is forgotten once the other cluster is followed", standby_leader())
            .then(
                |g| {
                    g.sync_key("n1", 0, &["n2"]);
                    g.running().streaming = false
                },
                Rule::StandbyLead,
                "slots n2+n3",
            )
            .then(|g| g.running().streaming = true, Rule::StandbyLead, "")
            .then(
                |g| {
                    g.pass(8_000);
                    g.renew()
                },
                Rule::SyncOff,
                "sync nobody/0/",
            ),
        case("a stream that is the last of the former primary's does not count", standby_leader())
            .then(|g| g.sync_key("n2", 0, &["n3"]), Rule::StandbyLead, "slots n2+n3")
            .then(
                |g| {
                    g.running().streaming = false;
                    g.pass(8_000);
                    g.renew()
                },
                Rule::CheckHistory,
                "compare with the other",
            )
            .then(|g| g.running().streaming = true, Rule::StandbyLead, ""),
        case("nor does an archive with the log of this cluster's own timeline", standby_leader())
            .then(
                |g| {
                    g.follows(None);
                    g.sync_key("n2", 0, &["n3"]);
                    g.local.following = None;
                    g.running().streaming = false;
                    g.running().position.0 += 1 << 20
                },
                Rule::StandbyLead,
                "slots n2+n3, write status",
            )
            .then(
                |g| {
                    g.view.status.optime = g.running().position;
                    g.running().timeline = Timeline(2)
                },
                Rule::SyncOff,
                "sync nobody/0/",
            ),
        case("a broken watchdog is no matter without a writer", standby_leader()).then(
            |g| g.local.watchdog = Watchdog::Failed,
            Rule::StandbyLead,
            "slots n2+n3",
        ),
        case("nor is a missing guard", standby_leader()).then(
            |g| g.local.guarded = false,
            Rule::StandbyLead,
            "slots n2+n3",
        ),
        case("a standby of the standby leader", replica()).then(|g| g.follows(Some(other_cluster())), Rule::Follow, ""),
    ]
}

fn demoted() -> Given {
    let mut given = primary();
    given.stop_server(ControlState::ShutDown);
    given.control().checkpoint.0 = 2000;
    given.ended(Job::Stop(StopMode::Demotion), JobOutcome::Done);
    given
}

fn demoting() -> Vec<Case> {
    vec![
        case("a primary is stopped in order and comes back as the standby leader", primary())
            .then(|g| g.follows(Some(other_cluster())), Rule::DemoteCluster, "stop demotion")
            .then(|g| g.job(Job::Stop(StopMode::Demotion)), Rule::JobInProgress, "")
            .then(
                |g| {
                    g.stop_server(ControlState::ShutDown);
                    g.control().checkpoint.0 = 2000;
                    g.ended(Job::Stop(StopMode::Demotion), JobOutcome::Done)
                },
                Rule::CheckHistory,
                "write status, compare with the other",
            )
            .then(|g| g.compared(Verdict::Same), Rule::StartStandbyLeader, "write status, start standby of the other"),
        case("one that has gone further than the other cluster is rewound", demoted()).then(
            |g| {
                g.follows(Some(other_cluster()));
                g.compared(Verdict::Diverged)
            },
            Rule::Rewind,
            "write status, rewind from the other",
        ),
        case("or copied", demoted()).then(
            |g| {
                g.follows(Some(other_cluster()));
                g.compared(Verdict::OnlyCopy)
            },
            Rule::CloneDiverged,
            "write status, clone the other",
        ),
        case("a primary without the key is stopped as well", primary()).then(
            |g| {
                g.follows(Some(other_cluster()));
                g.lose_leader();
            },
            Rule::DemoteCluster,
            "stop demotion",
        ),
        case("beside another standby leader it is killed", replica()).then(
            |g| {
                g.follows(Some(other_cluster()));
                g.running().in_recovery = false
            },
            Rule::FenceUnlicensedPrimary,
            "fence",
        ),
        case("one that does not stop is stopped as in a crash", primary()).then(
            |g| {
                g.follows(Some(other_cluster()));
                g.ended(Job::Stop(StopMode::Demotion), JobOutcome::Failed);
                g.local.postgres = Postgres::Silent { since: Boot::ZERO, in_recovery: false }
            },
            Rule::DemoteCluster,
            "stop immediate",
        ),
        case("a promotion that was begun before is not cut short, and nothing comes of it", standby_leader())
            .then(
                |g| {
                    g.job(Job::Promote {
                        epoch: EPOCH,
                        timeline: pgherd_ha::Timeline(2),
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
                    g.local.job = None;
                    g.running().in_recovery = false
                },
                Rule::DemoteCluster,
                "stop demotion",
            ),
    ]
}

fn promoting() -> Vec<Case> {
    vec![
        case("without standby_cluster the standby leader is promoted", standby_leader()).then(
            |g| g.settings.standby_cluster = None,
            Rule::Promote,
            "follow nobody, reserve 2, promote to 2",
        ),
        case("a demotion that is taken back goes on under another timeline", demoted()).then(
            as_given,
            Rule::StartStandbyToPromote,
            "start standby",
        ),
    ]
}

fn without_leader() -> Vec<Case> {
    let unlocked = || {
        let mut given = leaderless();
        given.follows(Some(other_cluster()));
        given.running().settled = false;
        given
    };
    vec![
        case("the race is for who follows the other cluster, and cuts nobody off", unlocked())
            .then(|g| g.local.following = Some(crate::given::upstream("n2")), Rule::RaceAskPeers, "ask n3")
            .then(|g| g.answers(&[("n3", 1000)]), Rule::RaceAcquire, "acquire"),
        case("who is behind leaves it to another", unlocked()).then(as_given, Rule::RaceAskPeers, "ask n3").then(
            |g| g.answers(&[("n3", 2000)]),
            Rule::RaceBehind,
            "",
        ),
        case("who must not lead follows the other cluster meanwhile", unlocked())
            .then(|g| g.settings.nofailover = true, Rule::ChangeUpstream, "follow the other")
            .then(|g| g.local.following = Some(other_cluster()), Rule::RaceNotAllowed, ""),
        case("who is down is started as its standby", unlocked()).then(
            |g| g.stop_standby(),
            Rule::StartForRace,
            "start standby of the other",
        ),
        case("an operator's candidate takes the key", unlocked()).then(
            |g| {
                let value = FailoverKey { member: Some("n1".into()), ..FailoverKey::default() };
                g.view.failover = Some(Versioned { value, version: 3 })
            },
            Rule::CandidateAcquire,
            "acquire",
        ),
    ]
}

fn bootstrap() -> Vec<Case> {
    let new = || {
        let mut given = blank();
        given.follows(Some(other_cluster()));
        given
    };
    let claimed = |given: &mut Given| {
        given.view.initialize = claim();
        given.local.claimed_initialize = true;
    };
    vec![
        case("a standby cluster is made as a copy", new())
            .then(as_given, Rule::ClaimBootstrap, "claim")
            .then(claimed, Rule::CloneRemote, "clone the other")
            .then(
                |g| {
                    g.ended(
                        Job::Clone { source: Some(other_cluster()), make_room: false, from_leader: false },
                        JobOutcome::Failed,
                    )
                },
                Rule::RetryLater,
                "",
            )
            .then(|g| g.pass(5_000), Rule::CloneRemote, "clone the other"),
        case("an unfinished copy is made anew", new()).then(
            |g| {
                g.view.initialize = claim();
                g.local.claimed_initialize = true;
                g.local.data = DataDirectory::Incomplete
            },
            Rule::CloneRemote,
            "clone the other in the room of ours",
        ),
        case("there is nothing to copy from an archive", new()).then(
            |g| {
                g.follows(None);
                g.view.initialize = claim();
                g.local.claimed_initialize = true
            },
            Rule::NothingToClone,
            "",
        ),
        case("the others wait for who makes the copy", new()).then(
            |g| {
                g.view.initialize = claim();
                g.view.members[0].state = MemberState::CreatingReplica
            },
            Rule::WaitForBootstrap,
            "",
        ),
        case("a new cluster that was to be a primary's is not started", replica()).then(
            |g| {
                g.follows(Some(other_cluster()));
                g.lose_leader();
                g.view.initialize = None;
                g.stop_server(ControlState::ShutDown);
                g.control().bootstrap_pending = true
            },
            Rule::ClaimBootstrap,
            "claim",
        ),
        case("the first leader announces the cluster", standby_leader()).then(
            |g| g.view.initialize = claim(),
            Rule::AnnounceCluster,
            "write initialize",
        ),
    ]
}

fn paused() -> Vec<Case> {
    vec![
        case("paused, the standby leader keeps its key", standby_leader())
            .then(|g| g.pause(), Rule::PausedLead, "")
            .then(|g| g.local.following = None, Rule::ChangeUpstream, "follow the other")
            .then(|g| g.local.lease = None, Rule::ProveLease, "renew"),
        case("paused, nobody is promoted by a failover either", standby_leader()).then(
            |g| {
                g.pause();
                g.ask_for(None, Some("n1"))
            },
            Rule::PausedLead,
            "",
        ),
        case("paused, one whose server is down gives the key up", standby_leader()).then(
            |g| {
                g.pause();
                g.stop_standby()
            },
            Rule::PausedReleaseKey,
            "release",
        ),
        case("paused, a primary is left as it is", primary()).then(
            |g| {
                g.pause();
                g.follows(Some(other_cluster()))
            },
            Rule::PausedLead,
            "slots n2+n3",
        ),
    ]
}
