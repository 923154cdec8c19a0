//! Pause and resume against fake members.

use serde_json::{Value, json};

use super::fake::{FakeMember, World, block_on};
use super::pause::{self, PauseArguments};

fn keys(leader: &str, replica: &str, paused: bool) -> Value {
    let member = |api_url: &str, role: &str| {
        json!({"conn_url": "postgres://h/p", "api_url": api_url, "state": "running", "role": role, "version": "4.1.4",
            "pause": paused})
    };
    json!({"leader": "n2", "config": {"loop_wait": 1, "pause": paused}, "members/n1": member(replica, "replica"),
        "members/n2": member(leader, "primary")})
}

const DEAD: &str = "http://127.0.0.1:1/patroni";

fn run(world: &mut World, paused: bool, wait: bool) -> String {
    let arguments = PauseArguments { wait, ..PauseArguments::default() };
    let result = block_on(pause::run(arguments, paused, &mut world.context));
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn the_leader_is_asked_first_and_then_the_others() {
    let leader = FakeMember::start(&[("PATCH /config", 200, "{}")]);
    let replica = FakeMember::start(&[("PATCH /config", 200, "{}")]);
    let mut world = World::new(&keys(&leader.url, &replica.url, false), "");
    assert_eq!(run(&mut world, true, false), "");
    assert_eq!(world.said(), "Success: cluster management is paused\n");
    assert_eq!((leader.requests().len(), replica.requests().len()), (1, 0));
    assert!(leader.requests()[0].starts_with("PATCH /config {\"pause\":true}"));

    let mut world = World::new(&keys(DEAD, &replica.url, true), "");
    assert_eq!(run(&mut world, false, false), "");
    assert_eq!(world.said(), "Success: cluster management is resumed\n");
    assert!(replica.requests()[0].starts_with("PATCH /config {\"pause\":null}"));
}

#[test]
fn what_is_already_so_and_what_cannot_be_reached_are_errors() {
    assert_eq!(run(&mut World::new(&keys(DEAD, DEAD, true), ""), true, false), "Cluster is already paused");
    assert_eq!(run(&mut World::new(&keys(DEAD, DEAD, false), ""), false, false), "Cluster is not paused");
    assert_eq!(
        run(&mut World::new(&keys(DEAD, DEAD, false), ""), true, false),
        "Can not find accessible cluster member"
    );
}

#[test]
fn a_refusal_is_shown_and_is_no_error() {
    let leader = FakeMember::start(&[("PATCH /config", 409, "conflict")]);
    let mut world = World::new(&keys(&leader.url, DEAD, false), "");
    assert_eq!(run(&mut world, true, false), "");
    assert_eq!(world.said(), "Failed: pause cluster management status code=409, (conflict)\n");
}

#[test]
fn waiting_ends_when_every_member_has_taken_notice() {
    let leader = FakeMember::start(&[("PATCH /config", 200, "{}")]);
    let mut world = World::new(&keys(&leader.url, DEAD, false), "");
    world.store.change(|view| view.members.iter_mut().for_each(|member| member.pause = true));
    assert_eq!(run(&mut world, true, true), "");
    assert_eq!(
        world.said(),
        "'pause' request sent, waiting until it is recognized by all nodes\nSuccess: cluster management is paused\n"
    );

    let mut world = World::new(&keys(&leader.url, DEAD, false), "");
    world.store.change(|view| view.members[0].pause = true);
    assert_eq!(run(&mut world, true, true), "");
    assert!(world.said().contains("1 members didn't recognized pause state after 2 seconds\n"), "{}", world.said());
}
