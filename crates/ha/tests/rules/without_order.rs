//! No store, a paused cluster, an agent that is told to stop.

use pgherd_ha::{Boot, ControlState, DataDirectory, Job, JobOutcome, Postgres, Request, Rule, StopMode};

use crate::given::{Case, EPOCH, as_given, blank, case, ended, leaderless, primary, replica};

pub fn cases() -> Vec<Case> {
    let mut cases = without_store();
    cases.extend(paused());
    cases.extend(stopping());
    cases
}

fn without_store() -> Vec<Case> {
    let mut cut = primary();
    cut.reachable = false;
    let mut standby = replica();
    standby.reachable = false;
    vec![
        case("a primary goes on until half a second before its permit ends, then stops, then is killed", cut.clone())
            .then(as_given, Rule::LeadWithoutStore, "")
            .then(|g| g.pass(4_999), Rule::LeadWithoutStore, "")
            .then(|g| g.pass(1), Rule::StopBeforePermitEnds, "stop fast")
            .then(|g| g.job(Job::Stop(StopMode::Fast)), Rule::JobInProgress, "")
            .then(|g| g.pass(500), Rule::PermitOver, "fence"),
        case("a renewal on the last metre keeps it", cut.clone())
            .then(|g| g.pass(4_999), Rule::LeadWithoutStore, "")
            .then(
                |g| {
                    g.renew();
                    g.pass(1)
                },
                Rule::LeadWithoutStore,
                "",
            ),
        case("a primary that no lease was ever seen for is ended after a lease's time", cut)
            .then(|g| g.local.lease = None, Rule::StoreUnreachable, "")
            .then(|g| g.pass(8_000), Rule::FenceWithoutPermit, "fence"),
        case("a standby goes on", standby.clone()).then(as_given, Rule::StoreUnreachable, ""),
        case("a server that is down is started read-only", standby.clone()).then(
            |g| g.stop_standby(),
            Rule::StartWithoutStore,
            "start standby of n2",
        ),
        case("but not before the store was ever seen", standby).then(
            |g| {
                g.ever_loaded = false;
                g.stop_standby()
            },
            Rule::StoreUnreachable,
            "",
        ),
    ]
}

fn paused() -> Vec<Case> {
    let with_pause = |mut given: crate::given::Given| {
        given.pause();
        given
    };
    vec![
        case("the leader leads, without a store too", with_pause(primary()))
            .then(as_given, Rule::PausedLead, "slots n2+n3")
            .then(
                |g| {
                    g.reachable = false;
                    g.pass(60_000)
                },
                Rule::StoreUnreachable,
                "",
            ),
        case("a leader that is down gives the key up and stays down", with_pause(primary()))
            .then(|g| g.stop_server(ControlState::InProduction), Rule::PausedReleaseKey, "release")
            .then(|g| g.lose_leader(), Rule::PausedDown, ""),
        case("a leader that is no primary gives the key up", with_pause(primary())).then(
            |g| g.running().in_recovery = true,
            Rule::PausedReleaseKey,
            "release",
        ),
        case("unless an operator named it", with_pause(primary())).then(
            |g| {
                g.running().in_recovery = true;
                g.ask_for(None, Some("n1"))
            },
            Rule::Promote,
            "reserve 2, promote to 2",
        ),
        case("a primary without the key goes on", with_pause(replica())).then(
            |g| g.running().in_recovery = false,
            Rule::PausedKeepPrimary,
            "",
        ),
        case("it is not restarted, which would make it a standby", with_pause(replica())).then(
            |g| {
                g.running().in_recovery = false;
                g.local.request = Some(Request::RESTART)
            },
            Rule::RequestRefused,
            "refuse",
        ),
        case("and takes the key when nobody has it", with_pause(primary())).then(
            |g| g.view.leader = None,
            Rule::PausedTakeKey,
            "acquire",
        ),
        case("but not where another was promoted since", with_pause(primary()))
            .then(
                |g| {
                    g.view.leader = None;
                    g.view.history = vec![ended(1)]
                },
                Rule::PausedKeepPrimary,
                "",
            )
            .then(
                |g| {
                    g.view.history.clear();
                    g.synchronous(false, "n2", 0, &[])
                },
                Rule::PausedKeepPrimary,
                "",
            ),
        case("a standby follows a new leader", with_pause(replica())).then(as_given, Rule::PausedFollow, "").then(
            |g| g.led_by("n3"),
            Rule::ChangeUpstream,
            "follow n3",
        ),
        case("there is no race", with_pause(leaderless())).then(as_given, Rule::PausedIdle, "").then(
            |g| g.ask_for(None, Some("n1")),
            Rule::CandidateAcquire,
            "acquire",
        ),
        case("an empty directory stays empty", with_pause(replica())).then(
            |g| {
                g.local.data = DataDirectory::Empty;
                g.local.postgres = Postgres::Stopped
            },
            Rule::PausedIdle,
            "",
        ),
        case("a switchover needs a candidate", with_pause(primary())).then(
            |g| g.ask_for(Some("n1"), None),
            Rule::SwitchoverRefused,
            "clear request",
        ),
        case("another cluster's directory is left alone", with_pause(replica())).then(
            |g| g.control().system_id.0 = 1,
            Rule::ForeignCluster,
            "",
        ),
    ]
}

fn stopping() -> Vec<Case> {
    vec![
        case("a standby's server is stopped, then the agent ends", replica())
            .then(|g| g.local.stopping = true, Rule::StopServer, "stop fast")
            .then(|g| g.job(Job::Stop(StopMode::Fast)), Rule::JobInProgress, "")
            .then(
                |g| {
                    g.local.job = None;
                    g.stop_standby()
                },
                Rule::StopDone,
                "exit",
            ),
        case("a start in progress is cut off before the key goes", primary()).then(
            |g| {
                g.local.stopping = true;
                g.stop_server(ControlState::InProduction);
                g.job(Job::StartPrimary { epoch: EPOCH, names: None })
            },
            Rule::StopServer,
            "stop fast",
        ),
        case("a primary's is stopped in order", primary()).then(
            |g| g.local.stopping = true,
            Rule::StopServer,
            "stop planned",
        ),
        case("an orderly stop that hangs is followed by an immediate one", primary()).then(
            |g| {
                g.local.stopping = true;
                g.local.postgres = Postgres::Silent { since: Boot::ZERO, in_recovery: false };
                g.ended(Job::Stop(StopMode::Planned), JobOutcome::Failed)
            },
            Rule::StopServer,
            "stop immediate",
        ),
        case("a lone primary releases the key and ends", primary())
            .then(
                |g| {
                    g.local.stopping = true;
                    g.view.members.truncate(1);
                    g.stop_server(ControlState::ShutDown)
                },
                Rule::LeaveKey,
                "release",
            )
            .then(|g| g.lose_leader(), Rule::StopDone, "exit"),
        case("orphans do not outlive the agent's end", primary()).then(
            |g| {
                g.local.stopping = true;
                g.local.postgres = Postgres::Orphans
            },
            Rule::KillOrphans,
            "fence",
        ),
        case("without a store the server is stopped all the same", primary())
            .then(
                |g| {
                    g.local.stopping = true;
                    g.reachable = false
                },
                Rule::StopServer,
                "stop fast",
            )
            .then(|g| g.stop_server(ControlState::ShutDown), Rule::StopDone, "exit"),
        case("paused, everything is left as it is", primary()).then(
            |g| {
                g.local.stopping = true;
                g.pause()
            },
            Rule::StopDetached,
            "exit",
        ),
        case("a node with an unusable directory ends at once", blank()).then(
            |g| {
                g.local.data = DataDirectory::Unusable("no".into());
                g.local.stopping = true
            },
            Rule::StopDone,
            "exit",
        ),
        case("a server that is starting is stopped too", replica()).then(
            |g| {
                g.local.stopping = true;
                g.local.postgres = Postgres::Starting { since: Boot::ZERO }
            },
            Rule::StopServer,
            "stop fast",
        ),
    ]
}
