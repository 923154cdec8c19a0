//! Synchronous replication: the order of the key and the names, who may take over, when clients are let in.

use pgherd_ha::{ControlState, Postgres, Request, Rule};
use serde_json::Map;

use crate::given::{Case, Given, as_given, case, leaderless, primary, replica};

pub fn cases() -> Vec<Case> {
    let mut cases = priority();
    cases.extend(quorum());
    cases.extend(strict_and_off());
    cases.extend(races());
    cases.extend(promotions());
    cases.extend(gate());
    cases.extend(leaving());
    cases
}

/// A second later, with a proven lease.
fn later(given: &mut Given) {
    given.pass(1000);
    given.renew();
}

/// Since a primary was first looked at, standbys that do not stream are expected for three seconds.
fn after_the_first_grace(given: &mut Given) {
    given.pass(3_000);
    given.renew();
}

/// n1 leads and n2 and n3 stream.
fn streaming(quorum: bool, needed: u32, voters: &[&str], names: &str) -> Given {
    let mut given = primary();
    given.synchronous(quorum, "n1", needed, voters);
    given.standbys(&[("n2", 1000), ("n3", 1000)]);
    given.names(names);
    given
}

fn priority() -> Vec<Case> {
    vec![
        case("the first key says that this node alone has everything", primary())
            .then(
                |g| {
                    g.synchronous(false, "n1", 0, &[]);
                    g.view.sync = None
                },
                Rule::SyncBegin,
                "sync n1/0/",
            )
            .then(|g| g.sync_key("n2", 0, &["n1"]), Rule::SyncBegin, "sync n1/0/"),
        case("a standby is told, and named in the key when it has what was acknowledged", streaming(false, 0, &[], ""))
            .then(as_given, Rule::SyncNames, "names `n2`")
            .then(|g| g.names("n2"), Rule::Lead, "slots n2+n3")
            .then(later, Rule::SyncKeyAfter, "sync n1/0/n2")
            .then(|g| g.sync_key("n1", 0, &["n2"]), Rule::Lead, ""),
        case("one that lacks a position of after the change is not named yet", streaming(false, 0, &[], "n2"))
            .then(
                |g| {
                    g.running().position.0 = 2000;
                    g.standbys(&[("n2", 1000)])
                },
                Rule::Lead,
                "write status, slots n2+n3",
            )
            .then(later, Rule::Lead, "write status")
            .then(|g| g.standbys(&[("n2", 1999)]), Rule::Lead, "")
            .then(|g| g.standbys(&[("n2", 2000)]), Rule::SyncKeyAfter, "sync n1/0/n2"),
        case("nor while the checkpointer may not have passed on that commits wait", streaming(false, 0, &[], "n2"))
            .then(|g| g.running().checkpointer_listens = false, Rule::Lead, "slots n2+n3")
            .then(later, Rule::Lead, "")
            .then(|g| g.running().checkpointer_listens = true, Rule::SyncKeyAfter, "sync n1/0/n2"),
        case("one whose walsender has not read the names is not named yet", streaming(false, 0, &[], "n2"))
            .then(
                |g| {
                    g.running().standbys[0].listed = false;
                    g.running().position.0 = 1000
                },
                Rule::Lead,
                "slots n2+n3",
            )
            .then(later, Rule::Lead, ""),
        case("a lost standby leaves the key before commits stop waiting for it", streaming(false, 0, &["n2"], "n2"))
            .then(as_given, Rule::Lead, "slots n2+n3")
            .then(|g| g.standbys(&[("n3", 1000)]), Rule::Lead, "")
            .then(later, Rule::Lead, "")
            .then(after_the_first_grace, Rule::SyncKeyBefore, "sync n1/0/")
            .then(|g| g.sync_key("n1", 0, &[]), Rule::SyncNames, "names `n3`"),
        case("nobody is left to wait for", streaming(false, 0, &["n2"], "n2"))
            .then(|g| g.standbys(&[]), Rule::Lead, "slots n2+n3")
            .then(after_the_first_grace, Rule::SyncKeyBefore, "sync n1/0/")
            .then(|g| g.sync_key("n1", 0, &[]), Rule::SyncNames, "names ``")
            .then(as_given, Rule::Lead, "")
            .then(|g| g.pass(2000), Rule::SyncNames, "names ``"),
        case("the tag nosync, the priority and the lag are obeyed", streaming(false, 0, &[], ""))
            .then(|g| tag(g, 1, "nosync", true.into()), Rule::SyncNames, "names `n3`")
            .then(|g| tag(g, 1, "sync_priority", 2.into()), Rule::SyncNames, "names `n2`")
            .then(|g| tag(g, 1, "sync_priority", 0.into()), Rule::SyncNames, "names `n3`")
            .then(|g| tag(g, 1, "sync_priority", 2.into()), Rule::SyncNames, "names `n2`")
            .then(|g| tag(g, 2, "sync_priority", 3.into()), Rule::SyncNames, "names `n3`")
            .then(
                |g| {
                    g.settings.synchronous.as_mut().expect("it is on").maximum_lag = Some(10);
                    g.standbys(&[("n2", 1000), ("n3", 900)])
                },
                Rule::SyncNames,
                "names `n2`",
            ),
        case("two of them", streaming(false, 0, &["n2"], "n2"))
            .then(
                |g| g.settings.synchronous.as_mut().expect("it is on").node_count = 2,
                Rule::SyncNames,
                "names `2 (n2,n3)`",
            )
            .then(|g| g.names("2 (n2,n3)"), Rule::Lead, "slots n2+n3")
            .then(later, Rule::SyncKeyAfter, "sync n1/0/n2+n3"),
        case(
            "a standby that must not be promoted is waited for only where there is no other",
            streaming(false, 0, &[], ""),
        )
        .then(|g| tag(g, 1, "nofailover", true.into()), Rule::SyncNames, "names `n3`")
        .then(|g| g.standbys(&[("n2", 1000)]), Rule::SyncNames, "names `n2`"),
    ]
}

fn tag(given: &mut Given, member: usize, name: &str, value: serde_json::Value) {
    given.view.members[member].tags = Map::from_iter([(name.to_owned(), value)]);
}

fn quorum() -> Vec<Case> {
    vec![
        case("both vote, and one is waited for", streaming(true, 0, &[], ""))
            .then(as_given, Rule::SyncKeyBefore, "sync n1/2/n2+n3")
            .then(|g| g.sync_key("n1", 2, &["n2", "n3"]), Rule::SyncNames, "names `ANY 1 (n2,n3)`")
            .then(|g| g.names("ANY 1 (n2,n3)"), Rule::Lead, "slots n2+n3")
            .then(later, Rule::SyncKeyAfter, "sync n1/1/n2+n3"),
        case("a lost voter: commits wait for the other first", streaming(true, 1, &["n2", "n3"], "ANY 1 (n2,n3)"))
            .then(|g| g.standbys(&[("n2", 1000)]), Rule::Lead, "slots n2+n3")
            .then(after_the_first_grace, Rule::SyncNames, "names `ANY 1 (n2)`")
            .then(|g| g.names("ANY 1 (n2)"), Rule::Lead, "")
            .then(later, Rule::SyncKeyAfter, "sync n1/0/n2"),
        case("a voter more: the key first", streaming(true, 0, &["n2"], "ANY 1 (n2)"))
            .then(as_given, Rule::SyncKeyBefore, "sync n1/1/n2+n3")
            .then(|g| g.sync_key("n1", 1, &["n2", "n3"]), Rule::SyncNames, "names `ANY 1 (n2,n3)`")
            .then(|g| g.names("ANY 1 (n2,n3)"), Rule::Lead, "slots n2+n3"),
        case("from one mode to the other", streaming(true, 0, &["n2"], "n2"))
            .then(as_given, Rule::SyncKeyBefore, "sync n1/1/n2+n3")
            .then(
                |g| {
                    g.synchronous(false, "n1", 1, &["n2", "n3"]);
                    g.names("ANY 1 (n2,n3)")
                },
                Rule::SyncNames,
                "names `n2`",
            ),
        case(
            "more of them are waited for before fewer votes are needed",
            streaming(true, 1, &["n2", "n3"], "ANY 1 (n2,n3)"),
        )
        .then(
            |g| g.settings.synchronous.as_mut().expect("it is on").node_count = 2,
            Rule::SyncNames,
            "names `ANY 2 (n2,n3)`",
        )
        .then(
            |g| {
                g.names("ANY 2 (n2,n3)");
                g.standbys(&[("n2", 1000), ("n3", 900)])
            },
            Rule::Lead,
            "slots n2+n3",
        )
        .then(later, Rule::Lead, "")
        .then(|g| g.standbys(&[("n2", 1000), ("n3", 1000)]), Rule::SyncKeyAfter, "sync n1/0/n2+n3"),
    ]
}

fn strict_and_off() -> Vec<Case> {
    let strict = |given: &mut Given| given.settings.synchronous.as_mut().expect("it is on").strict = true;
    vec![
        case("strict: with nobody there commits wait for a name that nobody has", streaming(false, 0, &[], "")).then(
            |g| {
                g.settings.synchronous.as_mut().expect("it is on").strict = true;
                g.standbys(&[])
            },
            Rule::SyncNames,
            "names `__patroni_strict_sync_replica_placeholder__`",
        ),
        case("strict: commits go on waiting for the last that was there", {
            let mut given = streaming(false, 0, &["n2"], "n2");
            strict(&mut given);
            given
        })
        .then(|g| g.standbys(&[]), Rule::Lead, "slots n2+n3"),
        case("turned off: the key goes before the names", streaming(false, 0, &["n2"], "n2"))
            .then(
                |g| {
                    g.settings.synchronous = None;
                    g.local.manages_standby_names = true
                },
                Rule::SyncOff,
                "sync nobody/0/",
            )
            .then(|g| g.view.sync = None, Rule::SyncNamesOff, "names of the user")
            .then(|g| g.local.manages_standby_names = false, Rule::Lead, "slots n2+n3"),
    ]
}

/// n1 is a standby without a leader that has asked the others.
fn asked(quorum: bool, needed: u32, voters: &[&str], answers: &[(&str, u64)]) -> Given {
    let mut given = leaderless();
    given.synchronous(quorum, "n2", needed, voters);
    given.answers(answers);
    given
}

fn races() -> Vec<Case> {
    vec![
        case("one that is named takes the key", asked(false, 0, &["n1"], &[("n3", 2000)])).then(
            as_given,
            Rule::RaceAcquire,
            "acquire",
        ),
        case("one that is not named does not, however far it is", asked(false, 0, &["n3"], &[("n3", 10)])).then(
            as_given,
            Rule::NotSynchronous,
            "",
        ),
        case("also not where nobody else is left", asked(false, 0, &["n3"], &[])).then(
            |g| g.view.members.retain(|member| member.name == "n1"),
            Rule::NotSynchronous,
            "",
        ),
        case("the old primary needs no vote", asked(false, 0, &["n3"], &[("n3", 10)])).then(
            |g| g.sync_key("n1", 0, &["n3"]),
            Rule::RaceAcquire,
            "acquire",
        ),
        case("a quorum of votes", asked(true, 1, &["n1", "n3"], &[("n3", 1000)])).then(
            as_given,
            Rule::RaceAcquire,
            "acquire",
        ),
        case("without an answer there is no vote", asked(true, 1, &["n1", "n3"], &[("n3", 1000)]))
            .then(|g| g.local.peers.as_mut().expect("asked").peers[0].answer = None, Rule::RaceNoQuorum, "")
            .then(|g| g.pass(300), Rule::RaceNoQuorum, "ask n3"),
        case("who still receives has no vote", asked(true, 1, &["n1", "n3"], &[("n3", 1000)])).then(
            |g| g.peer().settled = false,
            Rule::RaceNoQuorum,
            "",
        ),
        case("who is ahead leads", asked(true, 1, &["n1", "n3"], &[("n3", 1001)])).then(as_given, Rule::RaceBehind, ""),
        case("a stranger needs one vote more", asked(true, 1, &["n3", "n4"], &[("n3", 1000)]))
            .then(as_given, Rule::RaceNoQuorum, "")
            .then(|g| g.answers(&[("n3", 1000), ("n4", 900)]), Rule::RaceAcquire, "acquire"),
        case("a failover that an operator orders goes to any node", asked(false, 0, &["n3"], &[])).then(
            |g| g.ask_for(None, Some("n1")),
            Rule::CandidateAcquire,
            "acquire",
        ),
        case("a primary that another has succeeded does not take its key back", asked(false, 0, &["n1"], &[])).then(
            |g| g.running().in_recovery = false,
            Rule::FenceUnlicensedPrimary,
            "fence",
        ),
    ]
}

/// n1 has the key and is still a standby.
fn holder(quorum: bool, needed: u32, voters: &[&str]) -> Given {
    let mut given = asked(quorum, needed, voters, &[("n3", 1000)]);
    given.led_by("n1");
    given
}

fn promotions() -> Vec<Case> {
    vec![
        case("the key names the new primary before its server may write", holder(true, 1, &["n1", "n3"]))
            .then(as_given, Rule::SyncClaim, "sync n1/1/n2+n3")
            .then(
                |g| g.sync_key("n1", 1, &["n2", "n3"]),
                Rule::Promote,
                "reserve 2, promote to 2 waiting for `ANY 1 (n2,n3)`, clients held",
            ),
        case("without strict the first commits wait for nobody", holder(false, 0, &["n1"]))
            .then(as_given, Rule::SyncClaim, "sync n1/0/")
            .then(|g| g.sync_key("n1", 0, &[]), Rule::Promote, "reserve 2, promote to 2 waiting for ``, clients held"),
        case("with strict they wait", holder(false, 0, &["n1"]))
            .then(|g| g.settings.synchronous.as_mut().expect("it is on").strict = true, Rule::SyncClaim, "sync n1/0/n2")
            .then(
                |g| g.sync_key("n1", 0, &["n2"]),
                Rule::Promote,
                "reserve 2, promote to 2 waiting for `n2`, clients held",
            ),
        case("the old primary has dropped this node meanwhile", holder(false, 0, &["n3"])).then(
            as_given,
            Rule::GiveKeyBack,
            "release",
        ),
        case("answers that are too old are asked for again", holder(true, 1, &["n1", "n3"])).then(
            |g| {
                g.pass(3_501);
                g.renew()
            },
            Rule::RaceAskPeers,
            "ask n3",
        ),
        case("a crashed primary that the key does not name is not started as one", primary()).then(
            |g| {
                g.synchronous(false, "n2", 0, &["n1"]);
                g.stop_server(ControlState::InProduction)
            },
            Rule::NotSynchronous,
            "release",
        ),
        case("one that it names waits for whom it waited before", primary()).then(
            |g| {
                g.synchronous(true, "n1", 1, &["n2", "n3"]);
                g.stop_server(ControlState::InProduction)
            },
            Rule::RestartCrashedPrimary,
            "start as primary waiting for `ANY 1 (n2,n3)`, clients held",
        ),
        case("a switchover needs the votes of its candidate", streaming(true, 1, &["n2", "n3"], "ANY 1 (n2,n3)"))
            .then(|g| g.ask_for(Some("n1"), Some("n2")), Rule::SwitchoverAskCandidates, "ask n2+n3")
            .then(|g| g.answers(&[("n2", 1000)]), Rule::SwitchoverRefused, "clear request")
            .then(|g| g.answers(&[("n2", 1000), ("n3", 1000)]), Rule::SwitchoverStop, "stop planned"),
        case("a switchover goes to one that has everything", streaming(false, 0, &["n3"], "n3"))
            .then(|g| g.ask_for(Some("n1"), Some("n2")), Rule::SwitchoverRefused, "clear request")
            .then(|g| g.ask_for(Some("n1"), None), Rule::SwitchoverAskCandidates, "ask n3"),
    ]
}

fn gate() -> Vec<Case> {
    vec![
        case("clients wait until the standbys have what a restarted primary shows", primary())
            .then(
                |g| {
                    g.synchronous(false, "n1", 0, &["n2"]);
                    g.stop_server(ControlState::InProduction)
                },
                Rule::RestartCrashedPrimary,
                "start as primary waiting for `n2`, clients held",
            )
            .then(
                |g| {
                    let mut running = primary().running().clone();
                    running.position.0 = 2000;
                    g.local.postgres = Postgres::Running(running);
                    g.local.admits_clients = false;
                    g.names("n2");
                    g.standbys(&[("n2", 1999)])
                },
                Rule::HoldClients,
                "write status, slots n2+n3, clients held",
            )
            .then(|g| g.standbys(&[("n2", 2000)]), Rule::AdmitClients, "admit")
            .then(|g| g.local.admits_clients = true, Rule::Lead, ""),
        case("those that a former agent has kept out are let in again", primary()).then(
            |g| g.local.admits_clients = false,
            Rule::AdmitClients,
            "admit",
        ),
        case("a standby keeps nobody out", replica()).then(
            |g| g.local.admits_clients = false,
            Rule::AdmitClients,
            "admit",
        ),
    ]
}

fn leaving() -> Vec<Case> {
    let voter = || {
        let mut given = replica();
        given.synchronous(false, "n2", 0, &["n1"]);
        given
    };
    vec![
        case("a standby that stops asks not to be waited for, and does not ask for ever", voter())
            .then(|g| g.local.stopping = true, Rule::LeaveSync, "")
            .then(|g| g.pass(1999), Rule::LeaveSync, "")
            .then(|g| g.pass(1), Rule::StopServer, "stop fast"),
        case("it stops as soon as nobody waits", voter()).then(|g| g.local.stopping = true, Rule::LeaveSync, "").then(
            |g| g.sync_key("n2", 0, &[]),
            Rule::StopServer,
            "stop fast",
        ),
        case("so does one that is to be restarted", voter())
            .then(|g| g.local.request = Some(Request::RESTART), Rule::LeaveSync, "")
            .then(|g| g.sync_key("n2", 0, &["n3"]), Rule::OperatorRestart, "restart"),
    ]
}
