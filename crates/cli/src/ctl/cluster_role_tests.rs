//! Promoting and demoting clusters against a fake member.

use serde_json::{Value, json};

use super::cluster_role::{self, DemoteArguments, PromoteArguments};
use super::fake::{FakeMember, World, block_on};

fn keys(api_url: &str, role: &str) -> Value {
    let member =
        json!({"conn_url": "postgres://h/p", "api_url": api_url, "state": "running", "role": role, "version": "4.1.4"});
    json!({"leader": "n1", "config": {}, "members/n1": member})
}

fn demote(world: &mut World, arguments: DemoteArguments) -> String {
    let result = block_on(cluster_role::demote(arguments, &mut world.context));
    result.err().map(|error| format!("{error:#}")).unwrap_or_default()
}

#[test]
fn a_demotion_needs_something_to_follow() {
    let mut world = World::new(&keys("http://127.0.0.1:1/patroni", "primary"), "");
    let expected = "At least --host, --port or --restore-command should be specified";
    assert_eq!(demote(&mut world, DemoteArguments { force: true, ..DemoteArguments::default() }), expected);
    let slot = DemoteArguments { primary_slot_name: Some("s".into()), ..DemoteArguments::default() };
    assert_eq!(demote(&mut world, slot), expected);
}

#[test]
fn what_is_so_already_and_what_is_not_wanted_after_all_changes_nothing() {
    let wanted = DemoteArguments { host: Some("h".into()), ..DemoteArguments::default() };
    let mut world = World::new(&keys("http://127.0.0.1:1/patroni", "standby_leader"), "");
    assert_eq!(demote(&mut world, wanted.clone()), "Cluster is already in the required state");
    let mut world = World::new(&json!({"config": {}}), "");
    assert_eq!(demote(&mut world, wanted.clone()), "Cluster has no leader, demotion is not possible");
    let mut world = World::new(&keys("http://127.0.0.1:1/patroni", "primary"), "n\n");
    assert_eq!(demote(&mut world, wanted.clone()), "Aborted cluster demotion");
    assert!(world.said().contains("Are you sure you want to demote "), "{}", world.said());
}

#[test]
fn a_refusal_is_an_error() {
    let leader = FakeMember::start(&[("PATCH /config", 409, "conflict")]);
    let mut world = World::new(&keys(&leader.url, "primary"), "");
    let wanted =
        DemoteArguments { port: Some(5433), host: Some("h".into()), force: true, ..DemoteArguments::default() };
    let error = demote(&mut world, wanted);
    assert!(error.ends_with("cluster: /config PATCH status code=409, (conflict)"), "{error}");
    assert!(
        leader.requests()[0].starts_with(r#"PATCH /config {"standby_cluster":{"host":"h","port":5433}}"#),
        "{:?}",
        leader.requests()
    );
    let arguments = PromoteArguments { force: true, ..PromoteArguments::default() };
    let mut world = World::new(&keys(&leader.url, "standby_leader"), "");
    let error = block_on(cluster_role::promote(arguments, &mut world.context)).expect_err("a refusal").to_string();
    assert!(error.starts_with("Failed to promote "), "{error}");
    assert!(leader.requests()[1].starts_with(r#"PATCH /config {"standby_cluster":null}"#));
}
