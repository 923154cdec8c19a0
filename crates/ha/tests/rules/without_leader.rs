//! Nobody holds the leader key: the race.

use pgherd_ha::{Lsn, MemberState, Postgres, Rule, Timeline};

use crate::given::{Case, as_given, case, ended, leaderless, primary, replica};

pub fn cases() -> Vec<Case> {
    let mut cases = race();
    cases.extend(not_racing());
    cases.extend(named_candidates());
    cases
}

fn race() -> Vec<Case> {
    vec![
        case("a standby settles, asks, and takes the key", replica())
            .then(|g| g.lose_leader(), Rule::RaceSettle, "follow nobody")
            .then(
                |g| {
                    g.local.following = None;
                    g.pass(10)
                },
                Rule::RaceSettle,
                "",
            )
            .then(
                |g| {
                    g.running().settled = true;
                    g.pass(10)
                },
                Rule::RaceAskPeers,
                "ask n3",
            )
            .then(
                |g| {
                    g.pass(5);
                    g.answers(&[("n3", 1000)])
                },
                Rule::RaceAcquire,
                "acquire",
            ),
        case("the first that is back after a power cut waits for the others, not for ever", leaderless())
            .then(|g| g.view.status.retain_slots = vec!["n3".into(), "n4".into()], Rule::RaceWaitForMembers, "")
            .then(|g| g.pass(7_999), Rule::RaceWaitForMembers, "")
            .then(|g| g.pass(1), Rule::RaceAskPeers, "ask n3"),
        case("who has seen the leader does not wait for who was gone before", replica())
            .then(|g| g.view.status.retain_slots = vec!["n4".into()], Rule::Follow, "slots n4")
            .then(
                |g| {
                    g.lose_leader();
                    g.local.following = None;
                    g.running().settled = true
                },
                Rule::RaceAskPeers,
                "ask n3",
            ),
        case("who is ahead on a newer timeline and would keep itself out for its lag is not waited for", leaderless())
            .then(
                |g| {
                    g.view.status.optime = Lsn(2_000_000);
                    g.running().position = Lsn(1_999_000);
                    g.answers(&[("n3", 1000)]);
                    g.peer().timeline = Some(Timeline(2))
                },
                Rule::RaceAcquire,
                "acquire",
            ),
        case("an answer from before it settled does not count", leaderless()).then(
            |g| {
                g.answers(&[("n3", 1000)]);
                g.pass(10)
            },
            Rule::RaceAskPeers,
            "ask n3",
        ),
        case("an old answer does not count", leaderless()).then(as_given, Rule::RaceAskPeers, "ask n3").then(
            |g| {
                g.answers(&[("n3", 1000)]);
                g.pass(1_501)
            },
            Rule::RaceAskPeers,
            "ask n3",
        ),
        case("a standby that never settles races in the end", replica())
            .then(|g| g.lose_leader(), Rule::RaceSettle, "follow nobody")
            .then(
                |g| {
                    g.local.following = None;
                    g.pass(2_000)
                },
                Rule::RaceAskPeers,
                "ask n3",
            ),
        case("nobody else: no questions", leaderless()).then(
            |g| {
                g.view.members.pop();
            },
            Rule::RaceAcquire,
            "acquire",
        ),
        case("a peer that does not answer does not count", leaderless())
            .then(as_given, Rule::RaceAskPeers, "ask n3")
            .then(
                |g| {
                    g.answers(&[("n3", 9999)]);
                    g.local.peers.as_mut().expect("a poll").peers[0].answer = None
                },
                Rule::RaceAcquire,
                "acquire",
            ),
        case("a node ahead wins, and is asked again", leaderless())
            .then(as_given, Rule::RaceAskPeers, "ask n3")
            .then(|g| g.answers(&[("n3", 1008)]), Rule::RaceBehind, "")
            .then(|g| g.pass(250), Rule::RaceBehind, "ask n3"),
        case("a later timeline is ahead of any position", leaderless())
            .then(as_given, Rule::RaceAskPeers, "ask n3")
            .then(
                |g| {
                    g.answers(&[("n3", 8)]);
                    g.peer().timeline = Some(Timeline(2))
                },
                Rule::RaceBehind,
                "",
            ),
        case("a node ahead that must not lead does not count", leaderless())
            .then(as_given, Rule::RaceAskPeers, "ask n3")
            .then(
                |g| {
                    g.answers(&[("n3", 1008)]);
                    g.peer().nofailover = true
                },
                Rule::RaceAcquire,
                "acquire",
            ),
        case("of equals the one with the higher priority", leaderless())
            .then(as_given, Rule::RaceAskPeers, "ask n3")
            .then(
                |g| {
                    g.answers(&[("n3", 1000)]);
                    g.peer().failover_priority = 2
                },
                Rule::RaceBehind,
                "",
            ),
        case("a living primary stops the race", leaderless()).then(as_given, Rule::RaceAskPeers, "ask n3").then(
            |g| {
                g.answers(&[("n3", 1000)]);
                g.peer().in_recovery = false
            },
            Rule::RacePrimaryAlive,
            "",
        ),
        case("a primary without key and guard is killed", primary())
            .then(
                |g| {
                    g.view.leader = None;
                    g.local.guarded = false
                },
                Rule::WaitForGuard,
                "guard",
            )
            .then(|g| g.pass(3_000), Rule::NoGuard, "fence"),
        case("a primary whose key was lost takes it back", primary()).then(
            |g| g.view.leader = None,
            Rule::KeepPrimary,
            "acquire",
        ),
        case("unless the cluster has moved on", primary()).then(
            |g| {
                g.view.leader = None;
                g.view.history.push(ended(3))
            },
            Rule::FenceUnlicensedPrimary,
            "fence",
        ),
        case("and not without a guard", primary()).then(
            |g| {
                g.view.leader = None;
                g.local.guarded = false
            },
            Rule::WaitForGuard,
            "guard",
        ),
        case("a server that is down is started for the race", leaderless())
            .then(|g| g.stop_standby(), Rule::StartForRace, "start standby")
            .then(|g| g.local.postgres = Postgres::Starting { since: g.now().boot }, Rule::StandbyStarting, ""),
    ]
}

fn not_racing() -> Vec<Case> {
    vec![
        case("on a disk that does not answer", leaderless()).then(
            |g| g.local.disk_stuck = true,
            Rule::RaceNotAllowed,
            "",
        ),
        case("nofailover", leaderless()).then(|g| g.settings.nofailover = true, Rule::RaceNotAllowed, ""),
        case("too far behind what the leader wrote", leaderless())
            .then(|g| g.view.status.optime = Lsn(1000 + 1_048_577), Rule::RaceTooFarBehind, "")
            .then(|g| g.view.status.optime = Lsn(1000 + 1_048_576), Rule::RaceAskPeers, "ask n3"),
        case("an older timeline, where that is checked", leaderless()).then(
            |g| {
                g.settings.check_timeline = true;
                g.view.history.push(ended(1))
            },
            Rule::RaceWrongTimeline,
            "",
        ),
    ]
}

fn named_candidates() -> Vec<Case> {
    vec![
        case("who is named for a failover asks nobody", leaderless()).then(
            |g| g.ask_for(None, Some("n1")),
            Rule::CandidateAcquire,
            "acquire",
        ),
        case("the candidate of a switchover has what the others have", leaderless())
            .then(|g| g.ask_for(Some("n2"), Some("n1")), Rule::RaceAskPeers, "ask n3")
            .then(|g| g.answers(&[("n3", 1000)]), Rule::CandidateAcquire, "acquire"),
        case("whoever of the others has the higher priority", leaderless())
            .then(|g| g.ask_for(Some("n2"), Some("n1")), Rule::RaceAskPeers, "ask n3")
            .then(
                |g| {
                    g.answers(&[("n3", 1000)]);
                    g.peer().failover_priority = 9
                },
                Rule::CandidateAcquire,
                "acquire",
            ),
        case("or leaves the race, for the primary may have crashed before it handed over", leaderless())
            .then(|g| g.ask_for(Some("n2"), Some("n1")), Rule::RaceAskPeers, "ask n3")
            .then(|g| g.answers(&[("n3", 1008)]), Rule::RaceBehind, ""),
        case("not for a switchover that is planned for later", leaderless()).then(
            |g| {
                g.ask_for(Some("n2"), Some("n1"));
                g.schedule(60)
            },
            Rule::RaceAskPeers,
            "ask n3",
        ),
        case("the others wait for it, for a while", leaderless())
            .then(|g| g.ask_for(Some("n2"), Some("n3")), Rule::RaceAskPeers, "ask n3")
            .then(|g| g.answers(&[("n3", 1000)]), Rule::RaceYield, "")
            .then(|g| g.pass(250), Rule::RaceYield, "ask n3")
            .then(|g| g.pass(10_000), Rule::RaceAskPeers, "ask n3")
            .then(|g| g.answers(&[("n3", 1000)]), Rule::RaceAcquire, "acquire"),
        case("but not for one that does not answer", leaderless())
            .then(|g| g.ask_for(Some("n2"), Some("n3")), Rule::RaceAskPeers, "ask n3")
            .then(
                |g| {
                    g.answers(&[("n3", 1000)]);
                    g.local.peers.as_mut().expect("a poll").peers[0].answer = None
                },
                Rule::RaceAcquire,
                "acquire",
            ),
        case("nor for a schedule that is long over", leaderless())
            .then(
                |g| {
                    g.ask_for(Some("n2"), Some("n3"));
                    g.schedule(-3600)
                },
                Rule::RaceAskPeers,
                "ask n3",
            )
            .then(|g| g.answers(&[("n3", 1000)]), Rule::RaceAcquire, "acquire"),
        case("but not for one that is behind", leaderless())
            .then(|g| g.ask_for(Some("n2"), Some("n3")), Rule::RaceAskPeers, "ask n3")
            .then(|g| g.answers(&[("n3", 992)]), Rule::RaceAcquire, "acquire"),
        case("unless a failover to it was asked for", leaderless())
            .then(|g| g.ask_for(None, Some("n3")), Rule::RaceAskPeers, "ask n3")
            .then(|g| g.answers(&[("n3", 992)]), Rule::RaceYield, ""),
        case("but not for one that is down", leaderless()).then(
            |g| {
                g.ask_for(Some("n2"), Some("n3"));
                g.view.members[1].state = MemberState::Stopped
            },
            Rule::RaceAskPeers,
            "ask n3",
        ),
        case("who was switched away from lets the others go first", leaderless())
            .then(|g| g.ask_for(Some("n1"), None), Rule::RaceAskPeers, "ask n3")
            .then(|g| g.answers(&[("n3", 1000)]), Rule::RaceYield, ""),
        case("who was not races", leaderless()).then(|g| g.ask_for(Some("n2"), None), Rule::RaceAskPeers, "ask n3"),
    ]
}
