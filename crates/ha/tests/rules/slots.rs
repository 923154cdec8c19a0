//! Replication slots: which are made, moved along, copied, dropped; and what is published of them.

use std::time::Duration;

use pgherd_ha::{Job, JobOutcome, Lsn, Reservation, Rule, Slot, SlotFilter, SlotKind, Timeline, Versioned};

use crate::given::{Case, EPOCH, Given, as_given, case, leaderless, physical, primary, replica, upstream};

pub fn cases() -> Vec<Case> {
    let mut cases = of_members();
    cases.extend(cascades());
    cases.extend(useless());
    cases.extend(of_others());
    cases.extend(permanent());
    cases.extend(logical());
    cases.extend(promotions());
    cases
}

pub fn logical_kind() -> SlotKind {
    SlotKind::Logical { database: "app".into(), plugin: "test_decoding".into() }
}

pub fn consumer(confirmed: u64) -> Slot {
    Slot { kind: logical_kind(), confirmed: Some(Lsn(confirmed)), has_xmin: true, ..physical("consumer") }
}

impl Given {
    pub fn slot(&mut self, name: &str) -> &mut Slot {
        self.running().slots.iter_mut().find(|slot| slot.name == name).expect("a slot of this name")
    }

    pub fn publish(&mut self, slots: &[(&str, u64)]) {
        self.view.status.slots = slots.iter().map(|(name, position)| ((*name).to_owned(), *position)).collect();
    }

    pub fn permanent(&mut self, name: &str, kind: SlotKind) {
        self.settings.permanent_slots.insert(name.into(), kind);
    }
}

/// n1 leads, and both others stream through their slots.
pub fn leader() -> Given {
    let mut given = primary();
    let used = |name| Slot { active: true, ..physical(name) };
    given.running().slots = vec![used("n2"), used("n3")];
    given.publish(&[("n2", 900), ("n3", 900)]);
    given.view.status.retain_slots = vec!["n2".into(), "n3".into()];
    given
}

fn with(mut given: Given, change: impl Fn(&mut Given)) -> Given {
    change(&mut given);
    given
}

fn of_members() -> Vec<Case> {
    vec![
        case("slots that are there need nothing", leader()).then(as_given, Rule::Lead, ""),
        case("a standby has a slot for every other member, and moves it along with the leader's", replica())
            .then(|g| g.running().slots.clear(), Rule::Follow, "slots n2+n3")
            .then(|g| g.running().slots = vec![physical("n2"), physical("n3")], Rule::Follow, "")
            .then(|g| g.publish(&[("n2", 1000), ("n3", 950)]), Rule::Follow, "slot n2 to 1000, slot n3 to 950")
            .then(
                |g| {
                    g.slot("n2").restart = Some(Lsn(1000));
                    g.slot("n3").restart = Some(Lsn(950));
                    g.publish(&[("n2", 1008), ("n3", 958)]);
                    g.pass(200)
                },
                Rule::Follow,
                "",
            )
            .then(|g| g.pass(800), Rule::Follow, "slot n2 to 1008, slot n3 to 958"),
        case("what fails is tried again after a while", replica())
            .then(|g| g.running().slots.clear(), Rule::Follow, "slots n2+n3")
            .then(|g| g.pass(5_000), Rule::Follow, "")
            .then(|g| g.pass(5_000), Rule::Follow, "slots n2+n3"),
        case("the slot of a member that is gone is kept everywhere for as long as the leader keeps it", replica())
            .then(
                |g| {
                    g.view.members.pop();
                    g.view.status.retain_slots = vec!["n1".into(), "n3".into()]
                },
                Rule::Follow,
                "",
            )
            .then(|g| g.view.status.retain_slots.clear(), Rule::Follow, "drop slot n3"),
        case("the slot of a leader that is gone is kept, too", replica())
            .then(
                |g| {
                    g.lose_leader();
                    g.publish(&[("n2", 1000), ("n3", 950)]);
                    g.view.status.retain_slots = vec!["n1".into(), "n3".into()];
                    g.led_by("n3")
                },
                Rule::ChangeUpstream,
                "follow n3",
            )
            .then(|g| g.local.following = Some(upstream("n3")), Rule::Follow, "slot n2 to 1000, slot n3 to 950")
            .then(
                |g| {
                    g.publish(&[("n3", 1000)]);
                    g.view.status.retain_slots = vec!["n1".into(), "n2".into()];
                },
                Rule::Follow,
                "",
            )
            .then(|g| g.view.status.retain_slots.clear(), Rule::Follow, "drop slot n2"),
        case("a new leader keeps the slots of those that are gone for a while of its own", leader())
            .then(as_given, Rule::Lead, "")
            .then(
                |g| {
                    g.view.members.pop();
                    g.slot("n3").active = false;
                    g.pass(1_790_000);
                    g.renew()
                },
                Rule::Lead,
                "",
            )
            .then(
                |g| {
                    g.pass(20_000);
                    g.renew()
                },
                Rule::Lead,
                "write status, drop slot n3",
            ),
        case("not retained at all, a standby has slots only for those that stream from it", replica()).then(
            |g| g.settings.member_slots_ttl = Duration::ZERO,
            Rule::Follow,
            "drop slot n2, drop slot n3",
        ),
        case("nor has one that is never promoted", replica()).then(
            |g| g.settings.nofailover = true,
            Rule::Follow,
            "drop slot n2, drop slot n3",
        ),
        case("no slot for one that does not stream", leader()).then(
            |g| {
                g.tag("n3", "nostream", true.into());
                g.slot("n3").active = false
            },
            Rule::Lead,
            "drop slot n3",
        ),
        case("with slots turned off those of before go", leader()).then(as_given, Rule::Lead, "").then(
            |g| {
                g.settings.use_slots = false;
                g.running().slots = vec![physical("n2"), physical("n3")]
            },
            Rule::Lead,
            "drop slot n2, drop slot n3",
        ),
        case("in pause slots are made and moved, and none is dropped", with(replica(), Given::pause)).then(
            |g| {
                g.settings.nofailover = true;
                g.tag("n3", "replicatefrom", "n1".into());
                g.running().slots.pop();
            },
            Rule::PausedFollow,
            "slots n3",
        ),
    ]
}

fn cascades() -> Vec<Case> {
    vec![
        case("the leader moves the slot of a member that streams from another, by what that member says", leader())
            .then(
                |g| {
                    g.tag("n3", "replicatefrom", "n2".into());
                    g.slot("n3").active = false
                },
                Rule::Lead,
                "slot n3 to 1000",
            )
            .then(
                |g| {
                    g.slot("n3").restart = Some(Lsn(1000));
                    g.pass(1000);
                    g.renew()
                },
                Rule::Lead,
                "write status",
            ),
        case("and the member that it streams from leaves it to it", replica()).then(
            |g| {
                g.tag("n3", "replicatefrom", "n1".into());
                g.publish(&[("n2", 900), ("n3", 1000)]);
            },
            Rule::Follow,
            "",
        ),
        case("whose upstream is gone streams from the leader", leader()).then(
            |g| {
                g.tag("n3", "replicatefrom", "n7".into());
                g.slot("n3").active = false
            },
            Rule::Lead,
            "",
        ),
    ]
}

fn useless() -> Vec<Case> {
    vec![
        case("a slot whose log is lost is made anew", leader()).then(
            |g| {
                g.slot("n3").lost = true;
                g.slot("n3").active = false
            },
            Rule::Lead,
            "slots n3, drop slot n3",
        ),
        case("and one that keeps no log", leader()).then(
            |g| {
                g.slot("n3").restart = None;
                g.slot("n3").active = false
            },
            Rule::Lead,
            "write status, slots n3, drop slot n3",
        ),
        case("but not while it is used", leader()).then(|g| g.slot("n3").lost = true, Rule::Lead, ""),
        case("a former primary's slot holds rows back for nobody", replica()).then(
            |g| g.slot("n3").has_xmin = true,
            Rule::Follow,
            "slots n3, drop slot n3",
        ),
        case("the primary's own holds them back for its standby, which comes back", leader()).then(
            |g| {
                g.slot("n3").has_xmin = true;
                g.slot("n3").active = false
            },
            Rule::Lead,
            "",
        ),
        case("a logical slot in a member's name is none of it", leader()).then(
            |g| {
                g.slot("n3").kind = logical_kind();
                g.slot("n3").active = false
            },
            Rule::Lead,
            "write status, slots n3, drop slot n3",
        ),
    ]
}

fn of_others() -> Vec<Case> {
    let theirs = |mut given: Given| {
        given.running().slots.push(physical("theirs"));
        given
    };
    vec![
        case("a user's slot on the primary is left alone, used or not", theirs(leader()))
            .then(as_given, Rule::Lead, "")
            .then(
                |g| {
                    g.pass(3_600_000);
                    g.renew();
                    g.running().position.0 += 8;
                },
                Rule::Lead,
                "write status",
            ),
        case("on a standby it goes when nobody has used it for as long as members' slots are kept", theirs(replica()))
            .then(as_given, Rule::Follow, "")
            .then(|g| g.pass(1_000_000), Rule::Follow, "")
            .then(|g| g.slot("theirs").active = true, Rule::Follow, "")
            .then(|g| g.slot("theirs").active = false, Rule::Follow, "")
            .then(|g| g.pass(1_000_000), Rule::Follow, "")
            .then(|g| g.pass(800_000), Rule::Follow, "drop slot theirs"),
        case("unless it is to be ignored", theirs(replica()))
            .then(
                |g| g.settings.ignore_slots = vec![SlotFilter { name: Some("theirs".into()), ..SlotFilter::default() }],
                Rule::Follow,
                "",
            )
            .then(|g| g.pass(1_900_000), Rule::Follow, ""),
        case("a session's own is nobody's business", theirs(replica()))
            .then(
                |g| {
                    g.slot("theirs").temporary = true;
                    g.settings.member_slots_ttl = Duration::from_secs(1)
                },
                Rule::Follow,
                "",
            )
            .then(|g| g.pass(5_000), Rule::Follow, ""),
        case("a slot that the server itself carries over is left to it", theirs(replica())).then(
            |g| {
                let slot = g.slot("theirs");
                (slot.kind, slot.failover, slot.synced) = (logical_kind(), true, true);
                g.settings.member_slots_ttl = Duration::from_secs(1)
            },
            Rule::Follow,
            "",
        ),
        case("but one that a former primary still has is in the way of it", theirs(replica())).then(
            |g| {
                let slot = g.slot("theirs");
                (slot.kind, slot.failover) = (logical_kind(), true);
            },
            Rule::Follow,
            "drop slot theirs",
        ),
        case("the primary's is the one that is carried over", theirs(leader())).then(
            |g| {
                let slot = g.slot("theirs");
                (slot.kind, slot.failover) = (logical_kind(), true);
            },
            Rule::Lead,
            "",
        ),
    ]
}

fn permanent() -> Vec<Case> {
    vec![
        case("a permanent slot is made, published, and goes with its entry", leader())
            .then(|g| g.permanent("archiver", SlotKind::Physical), Rule::Lead, "slots archiver")
            .then(
                |g| {
                    g.running().slots.push(physical("archiver"));
                    g.pass(1000);
                    g.renew()
                },
                Rule::Lead,
                "write status",
            )
            .then(|g| g.settings.permanent_slots.clear(), Rule::Lead, "drop slot archiver"),
        case("also where another leader has made it", leader()).then(
            |g| {
                g.running().slots.push(physical("archiver"));
                g.view.status.slots.insert("archiver".into(), 900);
            },
            Rule::Lead,
            "drop slot archiver",
        ),
        case("standbys have it, too, where its user is", replica())
            .then(|g| g.permanent("archiver", SlotKind::Physical), Rule::Follow, "slots archiver")
            .then(
                |g| {
                    g.running().slots.push(physical("archiver"));
                    g.view.status.slots.insert("archiver".into(), 980);
                },
                Rule::Follow,
                "slot archiver to 980",
            ),
        case("but for a node's own name", replica()).then(
            |g| {
                g.permanent("n1", SlotKind::Physical);
                g.permanent("n2", SlotKind::Physical)
            },
            Rule::Follow,
            "",
        ),
        case("a logical one is made on the primary", leader()).then(
            |g| g.permanent("consumer", logical_kind()),
            Rule::Lead,
            "logical slot consumer",
        ),
        case("and anew where it is another than the configuration says", leader()).then(
            |g| {
                g.permanent("consumer", logical_kind());
                let kind = SlotKind::Logical { database: "app".into(), plugin: "pgoutput".into() };
                g.running().slots.push(Slot { kind, ..consumer(800) })
            },
            Rule::Lead,
            "write status, drop slot consumer, logical slot consumer",
        ),
        case("a member's slot keeps its name", leader()).then(|g| g.permanent("n2", logical_kind()), Rule::Lead, ""),
    ]
}

pub fn standby_of_consumer() -> Given {
    let mut given = replica();
    given.permanent("consumer", logical_kind());
    given.publish(&[("consumer", 950)]);
    given
}

fn copied() -> Job {
    Job::CopySlots { source: upstream("n2"), slots: [("consumer".to_owned(), logical_kind())].into() }
}

fn logical() -> Vec<Case> {
    vec![
        case("a standby copies the leader's logical slot, then moves it along", standby_of_consumer())
            .then(as_given, Rule::CopySlots, "copy slots consumer of n2")
            .then(|g| g.job(copied()), Rule::JobInProgress, "")
            .then(
                |g| {
                    g.ended(copied(), JobOutcome::Done);
                    g.running().slots.push(consumer(950))
                },
                Rule::Follow,
                "ask n2 of consumer+n1",
            )
            .then(|g| g.publish(&[("consumer", 990)]), Rule::Follow, "slot consumer to 990")
            .then(
                |g| {
                    g.slot("consumer").confirmed = Some(Lsn(990));
                    g.publish(&[("consumer", 1500)]);
                    g.pass(1000)
                },
                Rule::Follow,
                "slot consumer to 1000, ask n2 of consumer+n1",
            ),
        case("a copy that does not bring it is not repeated at once", standby_of_consumer())
            .then(as_given, Rule::CopySlots, "copy slots consumer of n2")
            .then(|g| g.ended(copied(), JobOutcome::Failed), Rule::Follow, "")
            .then(
                |g| {
                    g.pass(30_000);
                    g.compared(pgherd_ha::Verdict::Same)
                },
                Rule::CopySlots,
                "copy slots consumer of n2",
            ),
        case("nothing is copied that the leader does not have", standby_of_consumer()).then(
            |g| g.publish(&[]),
            Rule::Follow,
            "",
        ),
        case("one whose log is gone is copied anew", standby_of_consumer()).then(
            |g| g.running().slots.push(Slot { broken: true, ..consumer(700) }),
            Rule::CopySlots,
            "copy slots consumer of n2",
        ),
        case("one whose log is lost is dropped first", standby_of_consumer()).then(
            |g| g.running().slots.push(Slot { lost: true, ..consumer(700) }),
            Rule::Follow,
            "drop slot consumer",
        ),
        case("a position of another timeline is none of ours", standby_of_consumer()).then(
            |g| {
                g.running().slots.push(consumer(700));
                g.running().timeline = Timeline(2)
            },
            Rule::Follow,
            "ask n2 of consumer+n1",
        ),
        case(
            "in synchronous mode it leaves the standbys that are waited for before it is stopped",
            standby_of_consumer(),
        )
        .then(|g| g.synchronous(false, "n2", 0, &["n1"]), Rule::LeaveSync, "")
        .then(|g| g.pass(500), Rule::LeaveSync, "")
        .then(|g| g.pass(1500), Rule::CopySlots, "copy slots consumer of n2"),
        case("one without a stream has no logical slots", standby_of_consumer()).then(
            |g| g.tag("n1", "nostream", true.into()),
            Rule::Follow,
            "",
        ),
        case("nor has one below it", standby_of_consumer()).then(
            |g| {
                g.tag("n3", "nostream", true.into());
                g.tag("n1", "replicatefrom", "n3".into())
            },
            Rule::Follow,
            "drop slot n3",
        ),
    ]
}

/// n1 is about to be promoted; its consumer's slot is a little behind.
pub fn candidate() -> Given {
    let mut given = leaderless();
    given.led_by("n1");
    given.permanent("consumer", logical_kind());
    given.running().slots.push(consumer(900));
    given.publish(&[("consumer", 960)]);
    given
}

fn promotions() -> Vec<Case> {
    vec![
        case("slots are where their consumers were before anybody can use them", candidate()).then(
            as_given,
            Rule::Promote,
            "reserve 2, promote to 2, slot consumer to 960, warn of consumer",
        ),
        case("what a consumer has confirmed and this server does not have is none of its positions", candidate()).then(
            |g| g.publish(&[("consumer", 1400)]),
            Rule::Promote,
            "reserve 2, write status, promote to 2, slot consumer to 1000, warn of consumer",
        ),
        case("where another was promoted meanwhile nothing is known of them", candidate()).then(
            |g| {
                let value = Reservation { timeline: Timeline(2), epoch: pgherd_ha::Epoch(99), leader: "n3".into() };
                g.view.reservation = Some(Versioned { value, version: 4 })
            },
            Rule::Promote,
            "reserve 3 over version 4, promote to 3, warn of consumer",
        ),
        case("a clean hand-over leaves the last positions behind", leader())
            .then(as_given, Rule::Lead, "")
            .then(
                |g| {
                    g.ask_for(Some("n1"), Some("n2"));
                    g.stop_server(pgherd_ha::ControlState::ShutDown);
                    g.control().checkpoint = Lsn(1100);
                    g.local.last_slots.insert("n2".into(), 1000);
                },
                Rule::HandOverWait,
                "ask n2",
            )
            .then(
                |g| {
                    g.answers(&[("n2", 1200)]);
                    assert_eq!(g.local.lease.map(|lease| lease.epoch), Some(EPOCH));
                },
                Rule::HandOver,
                "write status, release",
            ),
    ]
}
