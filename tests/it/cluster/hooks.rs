//! Callbacks, `pre_promote` and `before_stop`: when they are called and with what, and that one which hangs or fails costs no lease and no row.

use serde_json::json;

use crate::harness::cluster::{Cluster, LONG};
use crate::harness::eventually;
use crate::harness::process::Process;
use crate::harness::script::Script;
use crate::harness::writers::Writers;

const EVENTS: [&str; 5] = ["on_start", "on_stop", "on_restart", "on_reload", "on_role_change"];

/// Callbacks of its own for each node, which log what they are told but for reloads.
fn callbacks(cluster: &Cluster, body: &str) -> Vec<(String, Script)> {
    let scripts = cluster.nodes().into_iter().map(|node| {
        let script = Script::write(&cluster.directory(), &format!("{}-callback", node.name), body);
        let path = script.path.display();
        let lines: String = EVENTS.iter().map(|event| format!("    {event}: {path} told\n")).collect();
        cluster.reload_with(&node.name, "  pgpass:", &format!("  callbacks:\n{lines}  pgpass:"));
        (node.name, script)
    });
    let scripts: Vec<(String, Script)> = scripts.collect();
    for (node, script) in &scripts {
        told(cluster, script, node, &[&format!("on_reload {}", role(cluster, node))]);
        script.forget_calls();
    }
    scripts
}

fn role(cluster: &Cluster, node: &str) -> &'static str {
    if cluster.leader() == node { "primary" } else { "replica" }
}

/// Waits until a node's callbacks were told exactly this; reloads count only where they are expected.
fn told(cluster: &Cluster, script: &Script, node: &str, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|call| format!("told {call} demo")).collect();
    let reloads = expected.iter().any(|call| call.contains("on_reload"));
    eventually(&format!("{node} is told {expected:?}"), LONG, || {
        let mut calls = script.calls();
        calls.retain(|call| reloads || !call.contains("on_reload"));
        calls.dedup();
        match calls == expected {
            true => Ok(()),
            false => Err(format!("{calls:?}\n{}", cluster.log(node))),
        }
    });
}

#[test]
fn callbacks_are_told_what_becomes_of_a_server() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let scripts = callbacks(&cluster, r#"echo "$@" >> $CALLS"#);
    let script = |node: &str| scripts.iter().find(|(name, _)| name == node).map(|(_, script)| script).expect("one");

    let output = cluster.ctl(&["restart", "--force", "demo", &replica]);
    assert!(output.status.success(), "{output:?}");
    told(&cluster, script(&replica), &replica, &["on_restart replica"]);
    cluster.wait_healthy();
    scripts.iter().for_each(|(_, script)| script.forget_calls());

    let output = cluster.ctl(&["switchover", "--force"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(cluster.another_leader(&leader), replica);
    told(&cluster, script(&replica), &replica, &["on_role_change primary"]);
    told(&cluster, script(&leader), &leader, &["on_stop demoted", "on_role_change replica"]);
    cluster.wait_healthy();
    scripts.iter().for_each(|(_, script)| script.forget_calls());

    let agent = cluster.node(&leader).agent;
    agent.signal(rustix::process::Signal::TERM);
    agent.ended_within(LONG);
    told(&cluster, script(&leader), &leader, &["on_stop replica"]);
    script(&leader).forget_calls();
    cluster.start_agent(&leader);
    told(&cluster, script(&leader), &leader, &["on_start replica"]);
}

#[test]
fn callbacks_that_hang_or_fail_hold_nothing_up() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    // Each hangs until the next call ends it; with a child that would outlive it.
    let scripts = callbacks(&cluster, "echo \"$@\" >> $CALLS\n[ \"$2\" = on_reload ] && exit 3\nsleep 1000 & wait");
    let writers = Writers::start(&cluster, &leader);
    for _ in 0..2 {
        let before = cluster.leader();
        cluster.ctl(&["switchover", "--force"]);
        cluster.another_leader(&before);
        cluster.wait_healthy();
        writers.wait_for_more();
    }
    let hangs = |directory: &std::path::Path| {
        std::process::Command::new("pgrep").args(["-f", &directory.display().to_string()]).output().expect("pgrep runs")
    };
    for (node, script) in &scripts {
        // Of the calls before none is left.
        eventually(&format!("one callback runs on {node}"), LONG, || {
            let left = String::from_utf8_lossy(&hangs(&script.path).stdout).lines().count();
            if left <= 1 { Ok(()) } else { Err(format!("{left} run")) }
        });
    }
    let record = writers.finish();
    record.assert_one_writer_at_a_time();
    record.assert_nothing_lost(&cluster);
    assert_eq!(cluster.leader(), leader);
    assert!(!cluster.log(&replica).contains("cannot be run"), "{}", cluster.log(&replica));
    // The clusters' own end waits for no callback, and the test leaves none behind.
    for (_, script) in &scripts {
        let left = String::from_utf8_lossy(&hangs(&script.path).stdout).into_owned();
        left.lines().filter_map(|pid| pid.parse().ok()).filter_map(rustix::process::Pid::from_raw).for_each(|pid| {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        });
    }
}

#[test]
fn a_promotion_waits_for_pre_promote_and_its_failure_gives_the_key_to_another() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let replicas = cluster.replicas();
    let script = Script::write(&cluster.directory(), "fence", "echo \"$@\" >> $CALLS\n[ ! -e \"$CALLS.$1\" ]");
    for node in cluster.nodes() {
        let hook = format!("  pre_promote: {} {}\n  pgpass:", script.path.display(), node.name);
        cluster.reload_with(&node.name, "  pgpass:", &hook);
    }
    let fails = |node: &str| cluster.directory().join(format!("fence.calls.{node}"));
    std::fs::write(fails(&replicas[0]), "").expect("the test's own file");
    let writers = Writers::start(&cluster, &leader);
    writers.wait_for_more();
    cluster.kill_host(&leader);
    // Whoever tries first, and holds the key for that moment: the one whose hook fails leaves it to the other.
    cluster.shows(&replicas[1], "SELECT pg_is_in_recovery()::text", &["false"]);
    assert!(script.calls().contains(&replicas[1]), "{:?}", script.calls());
    std::fs::remove_file(fails(&replicas[0])).expect("the test's own file");
    cluster.start_agent(&leader);
    cluster.wait_healthy();
    writers.wait_for_more();
    // (Without synchronous mode a lost host may take rows with it.)
    writers.finish().assert_one_writer_at_a_time();
}

#[test]
fn before_stop_runs_before_a_stop_and_cannot_prevent_it() {
    let cluster = Cluster::start(2);
    let leader = cluster.leader();
    let script = Script::write(&cluster.directory(), "before", "echo stop >> $CALLS\nexec sleep 1000");
    let hook = format!("  before_stop: {}\n  pg_ctl_timeout: 2\n  pgpass:", script.path.display());
    cluster.reload_with(&leader, "  pgpass:", &hook);
    let epoch = cluster.epoch(&leader);
    let output = cluster.ctl(&["restart", "--force", "demo", &leader]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(script.calls(), ["stop"]);
    let log = cluster.log(&leader);
    assert!(log.contains("stopping all the same") && log.contains("has not ended within 2 s"), "{log}");
    cluster.wait_healthy();
    assert_eq!((cluster.leader(), cluster.epoch(&leader)), (leader, epoch), "the lease was kept all the while");
}

#[test]
fn a_callback_that_outlives_its_agent_goes_on_until_a_newer_one_ends_it() {
    let cluster = Cluster::start(2);
    let replica = cluster.replicas().remove(0);
    let slow = Script::write(&cluster.directory(), "slow", "echo $$ >> $CALLS\nexec sleep 1000");
    let lines = format!("  callbacks:\n    on_restart: {}\n  pgpass:", slow.path.display());
    cluster.reload_with(&replica, "  pgpass:", &lines);
    // The last one that was called.
    let called_by_restart = || {
        let output = cluster.ctl(&["restart", "demo", &replica, "--force"]);
        assert!(output.status.success(), "{output:?}");
        let expected = cluster.log(&replica).matches("running the callback on_restart").count();
        eventually("the callback is called", LONG, || match slow.calls() {
            calls if calls.len() == expected => Ok(()),
            calls => Err(format!("{calls:?}\n{}", cluster.log(&replica))),
        });
        Process::of(slow.calls()[expected - 1].parse().expect("its number")).expect("it runs")
    };
    let first = called_by_restart();
    cluster.node(&replica).agent.kill();
    cluster.start_agent(&replica);
    cluster.wait_healthy();
    assert!(first.is_alive(), "{}", cluster.log(&replica));
    assert!(called_by_restart().is_alive());
    first.ended_within(LONG);
}

#[test]
fn a_command_that_is_none_is_named_and_the_one_of_before_stays() {
    let cluster = Cluster::start(1);
    let script = Script::write(&cluster.directory(), "hook", "echo \"$@\" >> $CALLS");
    let hook = |text: String| json!({"postgresql": {"callbacks": {"on_reload": text}}});
    cluster.configure(&hook(format!("{} first", script.path.display())));
    eventually("the first is called", LONG, || {
        match script.calls().iter().any(|call| call.starts_with("first on_reload")) {
            true => Ok(()),
            false => Err(format!("{:?}", script.calls())),
        }
    });
    script.forget_calls();
    cluster.configure(&hook(format!("{} 'second", script.path.display())));
    eventually("the mistake is named and the first is called again", LONG, || {
        let log = cluster.log("node1");
        let named =
            log.contains("postgresql.callbacks.on_reload: expected a command") && log.contains("stays in force");
        match named && script.calls().iter().any(|call| call.starts_with("first on_reload")) {
            true => Ok(()),
            false => Err(format!("{:?}\n{log}", script.calls())),
        }
    });
}
