//! Switchover and failover, step by step: what is asked, what is sent, what is said.

use pgherd_ha::{FailoverKey, Versioned};
use serde_json::{Value, json};

use super::fake::{FakeMember, World, block_on};
use super::switchover::{FailoverArguments, SwitchoverArguments, failover, switchover};

/// The leader n1 and the replicas n2 and n3; n4 may not be promoted.
fn keys(api_url: &str, config: Value) -> Value {
    let member = |number: u8, role: &str, tags: Value| {
        json!({"conn_url": format!("postgres://10.0.0.{number}:5432/postgres"), "api_url": api_url, "state": "running",
            "role": role, "version": "4.1.4", "tags": tags})
    };
    json!({"initialize": "7123456789012345678", "leader": "n1", "config": config,
        "sync": {"leader": "n1", "quorum": 0, "sync_standby": "n2"},
        "members/n1": member(1, "primary", json!({})), "members/n2": member(2, "replica", json!({})),
        "members/n3": member(3, "replica", json!({})), "members/n4": member(4, "replica", json!({"nofailover": true}))})
}

/// Nobody listens there.
const DEAD: &str = "http://127.0.0.1:1/patroni";

struct Case<'a> {
    arguments: SwitchoverArguments,
    answers: &'static str,
    config: Value,
    replies: &'a [(&'a str, u16, &'a str)],
}

impl Case<'_> {
    fn new(answers: &'static str) -> Self {
        let replies = &[("POST /switchover", 200, "Successfully switched over to \"n2\"")];
        Case { arguments: SwitchoverArguments::default(), answers, config: json!({}), replies }
    }

    /// What was said, the error, what was sent.
    fn run(self) -> (String, String, Vec<String>) {
        let member = FakeMember::start(self.replies);
        let mut world = World::new(&keys(&member.url, self.config), self.answers);
        let result = block_on(switchover(self.arguments, &mut world.context));
        (world.said(), result.err().map(|error| format!("{error:#}")).unwrap_or_default(), member.requests())
    }
}

fn forced() -> SwitchoverArguments {
    SwitchoverArguments { force: true, ..SwitchoverArguments::default() }
}

const AS_ADMIN: &str = " as Basic YWRtaW46c2VjcmV0";

#[test]
fn everything_is_asked_and_the_answers_are_sent() {
    let (said, error, requests) = Case::new("\nn2\n\ny\n").run();
    assert_eq!(error, "");
    assert!(
        said.starts_with("Current cluster topology\nPrimary [n1]: Candidate ['n2', 'n3'] []: When should the "),
        "{said}"
    );
    assert!(
        said.contains(") [now]: Are you sure you want to switchover cluster demo, demoting current leader n1"),
        "{said}"
    );
    assert!(said.contains(" [y/N]: "), "{said}");
    assert!(said.ends_with(" Successfully switched over to \"n2\"\n"), "{said}");
    assert_eq!(requests, [format!("POST /switchover {{\"leader\":\"n1\",\"candidate\":\"n2\"}}{AS_ADMIN}")]);
}

#[test]
fn force_asks_nothing_and_leaves_the_choice_to_the_cluster() {
    let (said, error, requests) = Case { arguments: forced(), ..Case::new("") }.run();
    assert_eq!((error.as_str(), said.contains('[')), ("", false));
    assert_eq!(requests, [format!("POST /switchover {{\"leader\":\"n1\"}}{AS_ADMIN}")]);
}

#[test]
fn a_time_is_sent_with_its_offset() {
    let arguments = SwitchoverArguments { scheduled: Some("2030-05-05T10:00+02:00".into()), ..forced() };
    let replies: &[_] = &[("POST /switchover", 202, "Switchover scheduled")];
    let (said, _, requests) = Case { arguments, replies, ..Case::new("") }.run();
    assert!(said.ends_with(" Switchover scheduled\n"));
    let sent = "POST /switchover {\"leader\":\"n1\",\"scheduled_at\":\"2030-05-05T10:00:00+02:00\"}";
    assert_eq!(requests, [format!("{sent}{AS_ADMIN}")]);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_sent() {
    let given = |leader: &str, candidate: &str, scheduled: &str| {
        let option = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        SwitchoverArguments {
            leader: option(leader),
            candidate: option(candidate),
            scheduled: option(scheduled),
            ..forced()
        }
    };
    for (arguments, config, expected) in [
        (given("n2", "", ""), json!({}), "Member n2 is not the leader of cluster demo"),
        (given("n1", "n1", ""), json!({}), "Member n1 is already the leader of cluster demo"),
        (given("", "n9", ""), json!({}), "Member n9 does not exist in cluster demo or is tagged as nofailover"),
        (given("", "n4", ""), json!({}), "Member n4 does not exist in cluster demo or is tagged as nofailover"),
        (given("", "", "zz"), json!({}), "Unable to parse scheduled timestamp (zz)"),
        (given("", "", "2030-01-01T00:00Z"), json!({"pause": true}), "Can't schedule switchover in the paused state"),
    ] {
        let (_, error, requests) = Case { arguments, config, ..Case::new("") }.run();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(requests, Vec::<String>::new());
    }
    for (answers, expected) in [
        ("", "Aborted!"),
        ("n9\n", "Member n9 is not the leader of cluster demo"),
        ("n1\n", "Aborted!"),
        ("n1\nn2\nnow\nn\n", "Aborting switchover"),
        ("n1\nn2\nnow\nperhaps\n\n", "Aborting switchover"),
    ] {
        let (_, error, requests) = Case::new(answers).run();
        assert_eq!((error.as_str(), requests.len()), (expected, 0));
    }
}

#[test]
fn a_cluster_without_leader_or_without_replicas() {
    let mut world = World::new(&json!({"initialize": ""}), "");
    let error = block_on(switchover(forced(), &mut world.context)).expect_err("no leader");
    assert_eq!(error.to_string(), "This cluster has no leader");
    let alone =
        json!({"leader": "n1", "members/n1": {"conn_url": "postgres://h/p", "state": "running", "role": "primary"}});
    let mut world = World::new(&alone, "");
    let error = block_on(switchover(forced(), &mut world.context)).expect_err("no candidate");
    assert_eq!(error.to_string(), "No candidates found to switchover to");
    let error = block_on(failover(FailoverArguments::default(), &mut world.context)).expect_err("no candidate");
    assert_eq!(error.to_string(), "No candidates found to failover to");
}

#[test]
fn a_refusal_of_the_member_is_shown_and_is_no_error() {
    for (status, body, expected) in [
        (503, "Switchover failed", "Switchover failed, details: 503, Switchover failed\n"),
        (412, "candidate does not exists", "Switchover failed, details: 412, candidate does not exists\n"),
        (
            503,
            "Switchover status unknown after 20 seconds; operation may still be in progress",
            "Switchover result unknown, details: 503, Switchover status unknown after 20 seconds; operation may still \
             be in progress\n",
        ),
    ] {
        let replies: &[_] = &[("POST /switchover", status, body)];
        let (said, error, requests) = Case { arguments: forced(), replies, ..Case::new("") }.run();
        assert_eq!((error.as_str(), requests.len()), ("", 1));
        assert!(said.ends_with(expected), "{said}");
    }
}

#[test]
fn an_old_member_is_asked_for_a_failover() {
    let replies: &[_] = &[
        ("POST /switchover", 501, "<p>Server does not support this operation</p>"),
        ("POST /failover", 200, "Successfully switched over to \"n2\""),
    ];
    let (said, _, requests) = Case { arguments: forced(), replies, ..Case::new("") }.run();
    assert!(said.ends_with(" Successfully switched over to \"n2\"\n"));
    assert_eq!(requests[1], format!("POST /failover {{\"leader\":\"n1\"}}{AS_ADMIN}"));
}

#[test]
fn without_an_answer_the_request_goes_into_the_store() {
    let mut world = World::new(&keys(DEAD, json!({})), "");
    let arguments = SwitchoverArguments { candidate: Some("n3".into()), ..forced() };
    block_on(switchover(arguments, &mut world.context)).expect("the store takes it");
    assert!(world.said().ends_with(" Could not switchover using Patroni api, falling back to DCS\n"));
    assert_eq!(world.tables(), 2);
    let expected = FailoverKey { leader: Some("n1".into()), member: Some("n3".into()), scheduled_at: None };
    assert_eq!(world.store.view().failover, Some(Versioned { value: expected, version: 0 }));
}

#[test]
fn a_request_that_came_in_meanwhile_is_not_overwritten() {
    let mut world = World::new(&keys(DEAD, json!({})), "");
    let other = FailoverKey { member: Some("n2".into()), ..FailoverKey::default() };
    let store = world.store.clone();
    let changed = Versioned { value: other.clone(), version: 0 };
    // It happens while the operator thinks about the question.
    world.answer_after(move || store.change(|view| view.failover = Some(changed)), "y\n");
    let arguments = FailoverArguments { candidate: Some("n3".into()), ..FailoverArguments::default() };
    let error = block_on(failover(arguments, &mut world.context)).expect_err("a conflict");
    assert!(error.to_string().contains("the failover key has changed"), "{error}");
    assert_eq!(world.store.view().failover.map(|key| key.value), Some(other));
}

#[test]
fn a_failover_needs_a_candidate_and_a_warning_for_an_asynchronous_one() {
    let run = |candidate: Option<&str>, force: bool, answers: &'static str| {
        let member = FakeMember::start(&[("POST /failover", 200, "Successfully failed over to \"n3\"")]);
        let mut world = World::new(&keys(&member.url, json!({"synchronous_mode": true})), answers);
        let arguments =
            FailoverArguments { candidate: candidate.map(str::to_owned), force, ..FailoverArguments::default() };
        let result = block_on(failover(arguments, &mut world.context));
        (world.said(), result.err().map(|error| error.to_string()).unwrap_or_default(), member.requests())
    };
    let needs_candidate = "Failover could be performed only to a specific candidate";
    assert_eq!(run(None, true, "").1, needs_candidate);
    assert_eq!(run(None, false, "\n").1, needs_candidate);
    assert_eq!(run(Some("n1"), true, "").1, "Member n1 is already the leader of cluster demo");
    let (said, error, _) = run(Some("n3"), false, "n\n");
    assert_eq!(error, "Aborting failover");
    assert!(said.contains("n3 is an asynchronous replica"), "{said}");
    let (said, error, requests) = run(Some("n2"), false, "y\n");
    assert_eq!(error, "");
    assert!(!said.contains("asynchronous"), "{said}");
    assert_eq!(requests, [format!("POST /failover {{\"candidate\":\"n2\"}}{AS_ADMIN}")]);
    assert_eq!(run(Some("n3"), true, "").2.len(), 1);
}

#[test]
fn without_a_leader_the_candidate_itself_is_asked() {
    let member = FakeMember::start(&[("POST /failover", 200, "Successfully failed over to \"n3\"")]);
    let mut all = keys(DEAD, json!({}));
    all.as_object_mut().expect("an object").remove("leader");
    all["members/n3"]["api_url"] = member.url.as_str().into();
    let mut world = World::new(&all, "");
    let arguments = FailoverArguments { candidate: Some("n3".into()), force: true, ..FailoverArguments::default() };
    block_on(failover(arguments, &mut world.context)).expect("an answer");
    assert_eq!(member.requests().len(), 1);
}
