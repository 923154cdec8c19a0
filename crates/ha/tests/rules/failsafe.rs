//! Failsafe mode: the list, the questions of a primary without the store, and what binds who has agreed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgherd_ha::{
    Agent, Boot, FailsafeAnswer, FailsafeAsk, FailsafeRound, Job, Lsn, Permit, Postgres, Rule, STOP_TIME, StopMode,
};

use crate::given::{Case, EPOCH, Given, as_given, case, leaderless, primary, replica};

pub fn cases() -> Vec<Case> {
    let mut cases = the_list();
    cases.extend(the_primary());
    cases.extend(the_others());
    cases
}

impl Given {
    /// The mode is on, and the key lists these.
    pub fn failsafe(mut self, names: &[&str]) -> Given {
        self.settings.failsafe_mode = true;
        self.list(names);
        self
    }

    fn list(&mut self, names: &[&str]) {
        let url = |name: &&str| ((*name).to_owned(), format!("http://{name}:8008/patroni"));
        self.view.failsafe = names.iter().map(url).collect();
    }

    /// The questions of `millis` ago have been answered; these have accepted.
    fn accepted(&mut self, millis: u64, names: &[&str]) {
        let accepted = names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let sent = self.now().boot - Duration::from_millis(millis);
        self.local.failsafe = Some(FailsafeRound { epoch: EPOCH, sent, ttl: self.settings.ttl, accepted });
    }

    pub fn unreachable(mut self) -> Given {
        self.reachable = false;
        self
    }
}

const ALL: [&str; 3] = ["n1", "n2", "n3"];

fn the_list() -> Vec<Case> {
    vec![
        case("the leader lists all members, once, and before anything else", primary().failsafe(&[]))
            .then(
                |g| {
                    g.ask_for(Some("n1"), None);
                    g.running().checkpointed = false
                },
                Rule::FailsafeList,
                "list n1+n2+n3",
            )
            .then(|g| g.list(&ALL), Rule::SwitchoverAskCandidates, "ask n2+n3"),
        case(
            "a list that the store does not show yet is written again after a round's time",
            primary().failsafe(&["n1"]),
        )
        .then(as_given, Rule::Lead, "slots n2+n3")
        .then(a_ttl_later, Rule::FailsafeList, "list n1+n2+n3")
        .then(as_given, Rule::Lead, "")
        .then(
            |g| {
                g.pass(1_000);
                g.renew()
            },
            Rule::FailsafeList,
            "list n1+n2+n3",
        ),
        case("a member without an address cannot be asked, and cannot lead", primary().failsafe(&["n1", "n2"])).then(
            |g| g.view.members[2].api_url.clear(),
            Rule::Lead,
            "slots n2+n3",
        ),
        case(
            "nobody joins while a server may go on by the word of those listed before",
            primary().failsafe(&["n1", "n2"]).unreachable(),
        )
        .then(as_given, Rule::LeadWithoutStore, "may this go on: n2")
        .then(
            |g| {
                g.pass(1_000);
                g.accepted(1_000, &["n2"])
            },
            Rule::LeadByFailsafe,
            "may this go on: n2",
        )
        .then(
            |g| {
                g.reachable = true;
                g.renew()
            },
            Rule::Lead,
            "slots n2+n3",
        )
        .then(a_ttl_later, Rule::FailsafeList, "list n1+n2+n3"),
        case("not while the mode is off", primary()).then(as_given, Rule::Lead, "slots n2+n3"),
    ]
}

/// What was permitted before this agent started, or by fewer members, is over.
fn a_ttl_later(given: &mut Given) {
    given.pass(8_000);
    given.renew();
}

fn the_primary() -> Vec<Case> {
    let cut = primary().failsafe(&ALL).unreachable();
    vec![
        case("without the store a primary asks at once, and again and again", cut.clone())
            .then(as_given, Rule::LeadWithoutStore, "may this go on: n2+n3")
            .then(|g| g.pass(999), Rule::LeadWithoutStore, "")
            .then(
                |g| {
                    g.accepted(999, &["n2", "n3"]);
                    g.pass(1)
                },
                Rule::LeadByFailsafe,
                "may this go on: n2+n3",
            )
            .then(
                |g| {
                    g.pass(2_000);
                    g.accepted(2_000, &["n2", "n3"])
                },
                Rule::LeadByFailsafe,
                "may this go on: n2+n3",
            )
            .then(|g| g.pass(2_999), Rule::LeadByFailsafe, ""),
        case("the permit is over three quarters of a ttl after the first question, less the time to stop", cut.clone())
            .then(as_given, Rule::LeadWithoutStore, "may this go on: n2+n3")
            .then(
                |g| {
                    g.pass(4_000);
                    g.accepted(2_000, &["n2", "n3"])
                },
                Rule::LeadByFailsafe,
                "may this go on: n2+n3",
            )
            .then(|g| g.pass(2_999), Rule::LeadByFailsafe, "")
            .then(|g| g.pass(1), Rule::StopBeforePermitEnds, "stop fast")
            .then(|g| g.job(Job::Stop(StopMode::Fast)), Rule::JobInProgress, "")
            .then(|g| g.pass(500), Rule::PermitOver, "fence"),
        case("one that does not accept ends it", cut.clone())
            .then(as_given, Rule::LeadWithoutStore, "may this go on: n2+n3")
            .then(
                |g| {
                    g.pass(2_000);
                    g.accepted(2_000, &["n2"])
                },
                Rule::LeadWithoutStore,
                "may this go on: n2+n3",
            )
            .then(|g| g.pass(3_000), Rule::StopBeforePermitEnds, "stop fast"),
        case("a lost round is begun again", cut.clone())
            .then(as_given, Rule::LeadWithoutStore, "may this go on: n2+n3")
            .then(|g| g.pass(3_999), Rule::LeadWithoutStore, "")
            .then(|g| g.pass(1), Rule::LeadWithoutStore, "may this go on: n2+n3"),
        case("a round of another leadership says nothing", cut.clone())
            .then(as_given, Rule::LeadWithoutStore, "may this go on: n2+n3")
            .then(
                |g| {
                    g.pass(1_000);
                    g.accepted(1_000, &["n2", "n3"]);
                    g.local.failsafe.as_mut().expect("a round").epoch.0 -= 1
                },
                Rule::LeadWithoutStore,
                "may this go on: n2+n3",
            ),
        case("alone in the list it needs nobody", primary().failsafe(&["n1"]).unreachable())
            .then(as_given, Rule::LeadWithoutStore, "")
            .then(|g| g.pass(4_000), Rule::LeadByFailsafe, "")
            .then(|g| g.pass(4_000), Rule::LeadByFailsafe, "")
            .then(|g| g.pass(4_000), Rule::LeadByFailsafe, ""),
        case("not in the list it may ask nobody", primary().failsafe(&["n2", "n3"]).unreachable())
            .then(as_given, Rule::LeadWithoutStore, "")
            .then(|g| g.pass(5_000), Rule::StopBeforePermitEnds, "stop fast"),
        case("nor with the mode off", cut.clone()).then(
            |g| g.settings.failsafe_mode = false,
            Rule::LeadWithoutStore,
            "",
        ),
        case(
            "who may have been listed by an attempt without an answer is asked too",
            primary().failsafe(&["n1", "n2"]),
        )
        .then(as_given, Rule::Lead, "slots n2+n3")
        .then(a_ttl_later, Rule::FailsafeList, "list n1+n2+n3")
        .then(|g| g.reachable = false, Rule::LeadWithoutStore, "may this go on: n2+n3"),
        case("and who was in the list that is being replaced", primary().failsafe(&ALL))
            .then(
                |g| {
                    g.view.members.pop();
                },
                Rule::FailsafeList,
                "list n1+n2",
            )
            .then(|g| g.reachable = false, Rule::LeadWithoutStore, "may this go on: n2+n3"),
        case("the key that was lost meanwhile is taken back", cut.clone())
            .then(as_given, Rule::LeadWithoutStore, "may this go on: n2+n3")
            .then(
                |g| {
                    g.pass(1_000);
                    g.accepted(1_000, &["n2", "n3"]);
                    g.reachable = true;
                    g.lose_leader()
                },
                Rule::KeepPrimary,
                "acquire",
            )
            .then(|g| g.reachable = false, Rule::LeadByFailsafe, "may this go on: n2+n3"),
        case("a store that is read and cannot be written is none", primary().failsafe(&ALL))
            .then(as_given, Rule::Lead, "slots n2+n3")
            .then(|g| g.pass(2_750), Rule::Lead, "")
            .then(|g| g.pass(1), Rule::Lead, "may this go on: n2+n3")
            .then(
                |g| {
                    g.pass(4_000);
                    g.accepted(4_000, &["n2", "n3"])
                },
                Rule::Lead,
                "may this go on: n2+n3",
            ),
        case("a server that crashes is started by nobody", cut)
            .then(as_given, Rule::LeadWithoutStore, "may this go on: n2+n3")
            .then(
                |g| {
                    g.accepted(0, &["n2", "n3"]);
                    g.local.postgres = Postgres::Stopped
                },
                Rule::StartWithoutStore,
                "start standby",
            ),
    ]
}

fn the_others() -> Vec<Case> {
    let free = |names: &[&str]| leaderless().failsafe(names);
    let member = replica().failsafe(&ALL);
    vec![
        case("who has agreed follows until its time is over, whatever becomes of the mode", member.clone())
            .then(as_given, Rule::Follow, "")
            .then(
                |g| {
                    g.asked_by = Some("n2");
                    g.lose_leader()
                },
                Rule::FailsafeFollow,
                "",
            )
            .then(
                |g| {
                    g.settings.failsafe_mode = false;
                    g.pass(7_999)
                },
                Rule::FailsafeFollow,
                "",
            )
            .then(|g| g.pass(1), Rule::RaceSettle, "follow nobody"),
        case("asked again it is bound anew", member.clone())
            .then(as_given, Rule::Follow, "")
            .then(|g| g.asked_by = Some("n2"), Rule::Follow, "")
            .then(
                |g| {
                    g.pass(7_000);
                    g.asked_by = Some("n2");
                    g.lose_leader()
                },
                Rule::FailsafeFollow,
                "",
            )
            .then(|g| g.pass(7_999), Rule::FailsafeFollow, "")
            .then(|g| g.pass(1), Rule::RaceSettle, "follow nobody"),
        case("its server is started if it is down", member.clone()).then(as_given, Rule::Follow, "").then(
            |g| {
                g.asked_by = Some("n2");
                g.lose_leader();
                g.stop_standby()
            },
            Rule::FailsafeFollow,
            "start standby of n2",
        ),
        case("a primary that says that it is none any more binds nobody", member.clone())
            .then(as_given, Rule::Follow, "")
            .then(
                |g| {
                    g.answers(&[("n2", 1000)]);
                    g.pass(1);
                    g.asked_by = Some("n2");
                    g.view.leader = None
                },
                Rule::FailsafeFollow,
                "",
            )
            .then(|g| g.pass(250), Rule::FailsafeFollow, "ask n2")
            .then(
                |g| {
                    g.answers(&[("n2", 1000)]);
                    g.peer().in_recovery = false
                },
                Rule::FailsafeFollow,
                "",
            )
            .then(|g| g.peer().in_recovery = true, Rule::RaceSettle, "follow nobody"),
        case("a key that appears under a promise is given back", member.clone()).then(as_given, Rule::Follow, "").then(
            |g| {
                g.asked_by = Some("n2");
                g.led_by("n1")
            },
            Rule::GiveKeyBack,
            "release",
        ),
        case("a server that somebody promotes by hand meanwhile is ended", member)
            .then(as_given, Rule::Follow, "")
            .then(
                |g| {
                    g.asked_by = Some("n2");
                    g.lose_leader();
                    g.running().in_recovery = false
                },
                Rule::FenceUnlicensedPrimary,
                "fence",
            ),
        case("who is not in the list does not race", free(&["n2", "n3"]))
            .then(as_given, Rule::FailsafeUnlisted, "")
            .then(|g| g.settings.failsafe_mode = false, Rule::FailsafeUnlisted, "")
            .then(|g| g.pass(7_999), Rule::FailsafeUnlisted, "")
            .then(|g| g.pass(1), Rule::RaceAskPeers, "ask n3"),
        case("nor does anybody wait for it, be it ahead", free(&["n1", "n2"]))
            .then(as_given, Rule::RaceAskPeers, "ask n3")
            .then(
                |g| {
                    g.pass(8_000);
                    g.answers(&[("n3", 1008)])
                },
                Rule::RaceAcquire,
                "acquire",
            ),
        case("and gives back a key that it took by an older list", replica().failsafe(&["n2", "n3"])).then(
            |g| g.led_by("n1"),
            Rule::GiveKeyBack,
            "release",
        ),
        case("but a primary that was there keeps the key", primary().failsafe(&["n2", "n3"])).then(
            as_given,
            Rule::FailsafeList,
            "list n1+n2+n3",
        ),
        case("an agent that was just started asks everybody, and each must answer", free(&ALL))
            .then(as_given, Rule::RaceAskPeers, "ask n3")
            .then(|g| g.answers(&[("n3", 1000)]), Rule::FailsafeAskAll, "")
            .then(|g| g.pass(250), Rule::FailsafeAskAll, "ask n2+n3")
            .then(|g| g.answers(&[("n2", 1000), ("n3", 1000)]), Rule::RaceAcquire, "acquire"),
        case("or the time must pass in which it can have agreed to anything", free(&ALL))
            .then(as_given, Rule::RaceAskPeers, "ask n3")
            .then(
                |g| {
                    g.pass(7_999);
                    g.answers(&[("n3", 1000)])
                },
                Rule::FailsafeAskAll,
                "",
            )
            .then(|g| g.pass(1), Rule::RaceAcquire, "acquire"),
        case("with a key, too, it is not promoted before", replica().failsafe(&ALL))
            .then(|g| g.led_by("n1"), Rule::FailsafeAskAll, "ask n2+n3")
            .then(
                |g| g.answers(&[("n2", 1000), ("n3", 1000)]),
                Rule::Promote,
                "follow nobody, reserve 2, promote to 2",
            ),
    ]
}

const NOW: Boot = Boot(Duration::from_secs(100));

fn ask(from: &str, seconds: u64) -> FailsafeAsk {
    FailsafeAsk { from: from.into(), ttl: Some(Duration::from_secs(seconds)), slots: BTreeMap::new() }
}

/// An agent that has seen `given`, long after its start.
fn agent(given: &mut Given) -> Agent {
    let mut agent = Agent::new(given.settings.clone());
    agent.decide(given.store(), &given.local, given.now());
    given.pass(20_000);
    agent.decide(given.store(), &given.local, given.now());
    agent
}

fn rule(agent: &mut Agent, given: &Given) -> Rule {
    agent.decide(given.store(), &given.local, given.now()).rule
}

#[test]
fn a_promise_is_for_the_longer_of_both_times_and_only_grows() {
    let mut given = replica().failsafe(&ALL);
    let mut agent = agent(&mut given);
    let now = given.now().boot;
    for (seconds, until) in [(4, 8), (30, 30), (8, 30)] {
        assert_eq!(agent.failsafe_asked(&ask("n2", seconds), now), FailsafeAnswer::Accepted);
        assert_eq!(agent.failsafe_until(), Some(now + Duration::from_secs(until)), "{seconds} s");
    }
}

#[test]
fn who_asks_what_and_is_answered_how() {
    use FailsafeAnswer::{Accepted, Leads, Nonsense, Off, Other};
    let other = |name: &str| Other(name.into());
    let cut = |given: Given| given.failsafe(&ALL).unreachable();
    let cases: [(&str, Given, FailsafeAsk, FailsafeAnswer); 9] = [
        ("the leader of the store", replica().failsafe(&ALL), ask("n2", 8), Accepted),
        ("without a store whoever asks first", cut(replica()), ask("n3", 8), Accepted),
        ("a plain Patroni", cut(replica()), FailsafeAsk { ttl: None, ..ask("n2", 0) }, Accepted),
        ("the mode is off", replica(), ask("n2", 8), Off),
        ("another leads", replica().failsafe(&ALL), ask("n3", 8), other("n2")),
        ("this node leads", primary().failsafe(&ALL), ask("n2", 8), Leads),
        ("or led when the store was last seen", cut(primary()), ask("n2", 8), Leads),
        ("its own name", cut(replica()), ask("n1", 8), Nonsense),
        ("for ever", cut(replica()), ask("n2", 601), Nonsense),
    ];
    for (what, mut given, ask, expected) in cases {
        let mut agent = agent(&mut given);
        assert_eq!(agent.failsafe_asked(&ask, given.now().boot), expected, "{what}");
    }
    let mut given = cut(replica());
    let mut agent = agent(&mut given);
    assert_eq!(agent.failsafe_asked(&ask("n2", 8), given.now().boot), Accepted);
    assert_eq!(agent.failsafe_asked(&ask("n3", 8), given.now().boot), other("n2"), "it has agreed to one");
    assert_eq!(Agent::new(given.settings.clone()).failsafe_asked(&ask("n2", 8), NOW), Leads, "it knows nothing yet");
}

#[test]
fn who_may_have_taken_the_key_agrees_to_nothing_until_a_load_shows_otherwise() {
    let mut given = leaderless().failsafe(&ALL);
    let mut agent = agent(&mut given);
    given.answers(&[("n3", 1000)]);
    assert_eq!(rule(&mut agent, &given), Rule::RaceAcquire);
    assert_eq!(agent.failsafe_asked(&ask("n2", 8), given.now().boot), FailsafeAnswer::Leads);
    given.reachable = false;
    rule(&mut agent, &given);
    assert_eq!(agent.failsafe_asked(&ask("n2", 8), given.now().boot), FailsafeAnswer::Leads, "it is not known yet");
    given.reachable = true;
    given.local.peers = None;
    given.view.status.optime = Lsn(u64::MAX);
    assert_eq!(rule(&mut agent, &given), Rule::RaceTooFarBehind);
    assert_eq!(agent.failsafe_asked(&ask("n2", 8), given.now().boot), FailsafeAnswer::Accepted);
}

/// The two sides fit, whatever the times are: with clocks that differ by less than a quarter the writer is gone before anybody is free.
#[test]
fn the_primary_is_gone_before_the_first_of_the_others_is_free() {
    for ttl in [4, 8, 30, 300].map(Duration::from_secs) {
        let mut given = primary().failsafe(&ALL).unreachable();
        given.settings.ttl = ttl;
        let mut agent = Agent::new(given.settings.clone());
        let sent = given.now().boot;
        agent.decide(given.store(), &given.local, given.now());
        given.pass(1);
        let accepted: BTreeMap<_, _> = given.view.failsafe.clone();
        let accepted = accepted.into_keys().filter(|name| name != "n1").collect();
        given.local.failsafe = Some(FailsafeRound { epoch: EPOCH, sent, ttl, accepted });
        given.local.lease = None;
        let permit = agent.decide(given.store(), &given.local, given.now()).permit;
        assert_eq!(permit, Permit::Until { epoch: EPOCH, deadline: sent + ttl * 3 / 4 - STOP_TIME });
    }
}
