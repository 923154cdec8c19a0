//! Slots of a standby, and what others say of theirs: the leader, of how far back it keeps rows; a primary without the store, of where they are.

use std::collections::BTreeMap;

use pgherd_ha::{Epoch, LeaderSlots, Lsn, Rule, Slot, Timeline, Xid, slot_clashes};

use crate::given::{Case, EPOCH, Given, as_given, case, physical, replica, upstream};
use crate::slots::{candidate, consumer, leader, logical_kind, standby_of_consumer};

pub fn cases() -> Vec<Case> {
    let mut cases = readiness();
    cases.extend(promotions());
    cases.extend(in_an_outage());
    cases
}

impl Given {
    /// n2, asked a moment ago, keeps rows from these transactions on.
    fn leader_keeps(&mut self, xmins: &[(&str, u32)]) {
        let catalog_xmins = xmins.iter().map(|(name, xmin)| ((*name).to_owned(), Xid(*xmin))).collect();
        self.local.leader_slots = Some(LeaderSlots { epoch: EPOCH, asked: self.now().boot, catalog_xmins });
        self.pass(1_000);
    }

    /// n2 has lost the store, and so has this node.
    fn told(&mut self, slots: &[(&str, u64)]) {
        self.asked_by = Some("n2");
        self.slots_told = slots.iter().map(|(name, position)| ((*name).to_owned(), *position)).collect();
    }

    /// The leader of n1's stream is gone, and n1 has the key.
    fn takes_over(&mut self) {
        self.lose_leader();
        self.led_by("n1");
        self.running().streaming = false;
        self.running().settled = true;
        self.local.following = None;
    }
}

/// n1 follows n2, and needs rows from transaction 700 on.
fn with_a_copy() -> Given {
    let mut given = standby_of_consumer();
    given.running().slots.push(Slot { catalog_xmin: Some(Xid(700)), ..consumer(950) });
    given
}

const ASKED: &str = "ask n2 of consumer+n1";
const READY: &str = "reserve 2, promote to 2";
const UNPROVEN: &str = "reserve 2, promote to 2, warn of consumer";

fn readiness() -> Vec<Case> {
    let copied = || case_of("a copy is ready when the leader has kept its rows all the while", with_a_copy());
    vec![
        copied().then(|g| g.leader_keeps(&[("n1", 690), ("consumer", 690)]), Rule::Follow, "").then(
            Given::takes_over,
            Rule::Promote,
            READY,
        ),
        case_of("the leader's slot for this node keeps nothing yet", with_a_copy())
            .then(|g| g.leader_keeps(&[("consumer", 690)]), Rule::Follow, ASKED)
            .then(Given::takes_over, Rule::Promote, UNPROVEN),
        case_of("it keeps less than the slot needs", with_a_copy())
            .then(|g| g.leader_keeps(&[("n1", 701), ("consumer", 690)]), Rule::Follow, ASKED)
            .then(|g| g.slot("consumer").catalog_xmin = Some(Xid(701)), Rule::Follow, ""),
        case_of("it kept less when it began: what lies between may be gone until the slot has moved on", with_a_copy())
            .then(|g| g.leader_keeps(&[("n1", 700), ("consumer", 710)]), Rule::Follow, ASKED)
            .then(|g| g.leader_keeps(&[("n1", 700), ("consumer", 720)]), Rule::Follow, ASKED)
            .then(
                |g| {
                    g.slot("consumer").catalog_xmin = Some(Xid(712));
                    g.leader_keeps(&[("n1", 710), ("consumer", 720)])
                },
                Rule::Follow,
                "",
            ),
        case_of("transactions' numbers go round", with_a_copy()).then(
            |g| {
                g.slot("consumer").catalog_xmin = Some(Xid(5));
                g.leader_keeps(&[("n1", u32::MAX - 5), ("consumer", u32::MAX - 9)])
            },
            Rule::Follow,
            "",
        ),
        case("an answer from before the copy says nothing of it", with_a_copy())
            .then(
                |g| {
                    g.leader_keeps(&[("n1", 690), ("consumer", 690)]);
                },
                Rule::Follow,
                ASKED,
            )
            .then(|g| g.leader_keeps(&[("n1", 690), ("consumer", 690)]), Rule::Follow, ""),
        case_of("with another leader it is asked anew", with_a_copy())
            .then(|g| g.leader_keeps(&[("n1", 690), ("consumer", 690)]), Rule::Follow, "")
            .then(
                |g| {
                    g.led_by("n3");
                    g.view.leader.as_mut().expect("n3 leads").epoch = Epoch(101);
                    g.local.divergence.as_mut().expect("a comparison").epoch = Epoch(101);
                    g.local.following = Some(upstream("n3"))
                },
                Rule::Follow,
                "ask n3 of consumer+n1",
            ),
        case("a cascade's rows are kept by the slot of the one above it", with_a_copy())
            .then(|g| g.settings.replicatefrom = Some("n3".into()), Rule::ChangeUpstream, "follow n3")
            .then(|g| g.local.following = Some(upstream("n3")), Rule::Follow, "ask n2 of consumer+n3"),
        case("nobody is asked about slots that the server carries over", standby_of_consumer()).then(
            |g| g.running().slots.push(Slot { failover: true, synced: true, ..consumer(950) }),
            Rule::Follow,
            "",
        ),
        case("nor without a stream: then nothing is kept for this node", with_a_copy()).then(
            |g| g.running().streaming = false,
            Rule::Follow,
            "",
        ),
    ]
}

fn case_of(name: &'static str, given: Given) -> Case {
    case(name, given).then(as_given, Rule::Follow, ASKED)
}

fn promotions() -> Vec<Case> {
    vec![
        case("a slot of which nothing is known is promoted, with a warning", candidate()).then(
            as_given,
            Rule::Promote,
            "reserve 2, promote to 2, slot consumer to 960, warn of consumer",
        ),
        case("a primary of before has kept the rows itself", leader())
            .then(
                |g| {
                    g.permanent("consumer", logical_kind());
                    g.running().slots.push(consumer(1000))
                },
                Rule::Lead,
                "write status",
            )
            .then(
                |g| {
                    g.running().in_recovery = true;
                    g.control().standby_signal = true;
                    g.running().standbys.clear();
                    g.running().settled = true
                },
                Rule::Promote,
                READY,
            ),
    ]
}

fn in_an_outage() -> Vec<Case> {
    let cut = replica().failsafe(&["n1", "n2", "n3"]).unreachable();
    let mut consumed = standby_of_consumer().failsafe(&["n1", "n2", "n3"]).unreachable();
    consumed.running().slots.push(consumer(950));
    vec![
        case("slots go where the primary without a store says that its own are", cut.clone())
            .then(as_given, Rule::StoreUnreachable, "")
            .then(
                |g| g.told(&[("n2", 1000), ("n3", 980), ("strange", 990)]),
                Rule::StoreUnreachable,
                "slot n2 to 1000, slot n3 to 980",
            )
            .then(
                |g| {
                    g.slot("n2").restart = Some(Lsn(1000));
                    g.slot("n3").restart = Some(Lsn(980));
                    g.told(&[("n2", 1010), ("n3", 980)])
                },
                Rule::StoreUnreachable,
                "",
            )
            .then(|g| g.pass(1_000), Rule::StoreUnreachable, "slot n2 to 1010"),
        case("none is made or dropped meanwhile", cut).then(as_given, Rule::StoreUnreachable, "").then(
            |g| {
                g.running().slots = vec![physical("n3"), physical("n4")];
                g.view.status.retain_slots = vec!["n4".into()];
                g.told(&[("n2", 1000), ("n3", 900)])
            },
            Rule::StoreUnreachable,
            "",
        ),
        case("a logical one no further than what is replayed here", consumed.clone())
            .then(as_given, Rule::StoreUnreachable, "")
            .then(|g| g.told(&[("consumer", 1400)]), Rule::StoreUnreachable, "slot consumer to 1000"),
        case("and not by positions of another timeline", consumed.clone())
            .then(as_given, Rule::StoreUnreachable, "")
            .then(
                |g| {
                    g.view.members[1].timeline = Some(Timeline(2));
                    g.told(&[("consumer", 1400)])
                },
                Rule::StoreUnreachable,
                "",
            ),
        case("nor where nothing streams", consumed.clone()).then(as_given, Rule::StoreUnreachable, "").then(
            |g| {
                g.running().streaming = false;
                g.told(&[("consumer", 1400)])
            },
            Rule::StoreUnreachable,
            "",
        ),
        case("it is the same while the store answers and shows no leader", consumed)
            .then(as_given, Rule::StoreUnreachable, "")
            .then(
                |g| {
                    g.reachable = true;
                    g.view.leader = None;
                    g.told(&[("consumer", 990)])
                },
                Rule::FailsafeFollow,
                "ask n2, slot consumer to 990",
            ),
    ]
}

#[test]
fn members_that_differ_in_nothing_that_a_slot_can_show_share_one() {
    let mut view = replica().view;
    for (member, name) in view.members.iter_mut().zip(["pg-1", "PG.1", "pg2"]) {
        member.name = name.into();
    }
    assert_eq!(slot_clashes(&view), BTreeMap::from([("pg_1".into(), vec!["pg-1".into(), "PG.1".into()])]));
    view.members[0].tags.insert("nostream".into(), true.into());
    assert_eq!(slot_clashes(&view), BTreeMap::new(), "who does not stream needs none");
}
