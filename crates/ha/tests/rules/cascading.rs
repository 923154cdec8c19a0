//! Whom a standby streams from: the tags `replicatefrom` and `nostream`; and whom a copy is taken from: `clonefrom`.

use std::time::Duration;

use pgherd_ha::{ControlState, DataDirectory, JobOutcome, MemberState, Postgres, Rule};

use crate::given::{Case, case, clone_of, physical, primary, replica, upstream};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("a standby streams from the member that its tag names", replica())
            .then(|g| g.settings.replicatefrom = Some("n3".into()), Rule::ChangeUpstream, "follow n3")
            .then(|g| g.local.following = Some(upstream("n3")), Rule::Follow, "")
            .then(|g| g.view.members[2].state = MemberState::Stopped, Rule::ChangeUpstream, "follow n2")
            .then(|g| g.view.members[2].state = MemberState::Running, Rule::Follow, ""),
        case("one that names itself, or nobody who is there, streams from the leader", replica())
            .then(|g| g.settings.replicatefrom = Some("n1".into()), Rule::Follow, "")
            .then(|g| g.settings.replicatefrom = Some("n9".into()), Rule::Follow, ""),
        case("two that name each other stream from the leader", replica()).then(
            |g| {
                g.settings.replicatefrom = Some("n3".into());
                g.tag("n3", "replicatefrom", "n1".into())
            },
            Rule::Follow,
            "",
        ),
        case("what the leader's own tag says is no matter while it leads", replica()).then(
            |g| {
                g.settings.replicatefrom = Some("n3".into());
                g.tag("n3", "replicatefrom", "n2".into());
                g.tag("n2", "replicatefrom", "n1".into())
            },
            Rule::ChangeUpstream,
            "follow n3",
        ),
        case("its history is the leader's all the same", replica()).then(
            |g| {
                g.settings.replicatefrom = Some("n3".into());
                g.stop_standby();
                g.local.divergence = None
            },
            Rule::CheckHistory,
            "compare with n2",
        ),
        case("a standby keeps a slot for who streams from it", replica())
            .then(
                |g| {
                    g.settings.member_slots_ttl = Duration::ZERO;
                    g.running().slots.clear();
                    g.tag("n3", "replicatefrom", "n1".into())
                },
                Rule::Follow,
                "slots n3",
            )
            .then(|g| g.running().slots = vec![physical("n3")], Rule::Follow, "")
            .then(|g| g.view.members[2].tags.clear(), Rule::Follow, "drop slot n3"),
        case("the leader keeps one for those that stream from it", primary())
            .then(
                |g| {
                    g.settings.member_slots_ttl = Duration::ZERO;
                    g.tag("n3", "replicatefrom", "n2".into())
                },
                Rule::Lead,
                "slots n2",
            )
            .then(
                |g| {
                    g.running().slots = vec![physical("n2")];
                    g.tag("n2", "nostream", true.into())
                },
                Rule::Lead,
                "write status, drop slot n2",
            ),
        case("a node that streams from nobody", replica())
            .then(|g| g.settings.nostream = true, Rule::ChangeUpstream, "follow nobody")
            .then(
                |g| {
                    g.local.following = None;
                    g.running().streaming = false
                },
                Rule::Follow,
                "",
            )
            .then(|g| g.stop_standby(), Rule::StartStandby, "start standby"),
    ];
    cases.push(
        case("of several that offer themselves one is copied, and not again after a failure", replica())
            .then(
                |g| {
                    g.tag("n3", "clonefrom", true.into());
                    g.local.data = DataDirectory::Empty;
                    g.local.postgres = Postgres::Stopped
                },
                Rule::CloneFromLeader,
                "clone n3",
            )
            .then(|g| g.ended(clone_of("n3"), JobOutcome::Failed), Rule::RetryLater, "")
            .then(|g| g.pass(5_000), Rule::CloneFromLeader, "clone n2"),
    );
    cases.push(case("one that offers itself and is down is not copied", replica()).then(
        |g| {
            g.tag("n3", "clonefrom", true.into());
            g.view.members[2].state = MemberState::Stopped;
            g.stop_server(ControlState::InProduction);
            g.local.data = DataDirectory::Empty
        },
        Rule::CloneFromLeader,
        "clone n2",
    ));
    cases
}
