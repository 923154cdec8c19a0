//! The drill itself: it sees what others would make up for, says what it did not break, and heals when it is interrupted.
//!
//! Its faults, and what they may cost, are in `faults.rs`.

use std::process::{Child, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;
use crate::harness::process::Process;

/// A drill whose clients write already.
fn begin(cluster: &Cluster, arguments: &[&str]) -> Child {
    let mut command = cluster.command(&[&["drill"], arguments, &["--json"]].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pgherd runs");
    eventually("the drill writes", LONG, || {
        let rows = cluster.sql_at(cluster.entry_port(), "SELECT count(*) > 10 FROM pgherd_drill")?;
        if rows == ["t"] { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    child
}

fn end(child: Child) -> Output {
    child.wait_with_output().expect("its output")
}

fn run_of(output: &Output) -> Value {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(output)));
    report["runs"][0].clone()
}

#[test]
fn one_session_that_hangs_is_seen_although_the_others_are_served() {
    let cluster = Cluster::start(1);
    let drill = begin(&cluster, &["hang-agent-briefly", "--seconds", "3", "--writers", "3"]);
    // From now on, every 300th row of the second client takes three seconds.
    cluster.write(
        "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NEW; END $$; \
         CREATE TRIGGER hang BEFORE INSERT ON pgherd_drill FOR EACH ROW \
         WHEN (NEW.writer = 2 AND NEW.sequence % 300 = 0) EXECUTE FUNCTION hang()",
    );
    let output = end(drill);
    let run = run_of(&output);
    assert!(output.status.success(), "{}", text(&output));
    let number = |name: &str| run[name].as_u64().expect("a number");
    assert!(number("worst_client_ms") >= 3_000 && number("outage_ms") < 3_000, "{run}");
}

#[test]
fn an_agent_that_ends_beside_the_fault_is_a_problem_and_is_started_again() {
    let cluster = Cluster::start(2);
    let replica = cluster.replicas().remove(0);
    let drill = begin(&cluster, &["hang-agent-briefly", "--seconds", "1"]);
    cluster.node(&replica).agent.kill();
    let output = end(drill);
    let run = run_of(&output);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let problems = run["problems"].as_array().expect("a list");
    assert!(problems.len() == 1 && problems[0].as_str().is_some_and(|text| text.starts_with(&replica)), "{run}");
    cluster.wait_healthy();
    assert!(cluster.node(&replica).agent.is_alive());
}

#[test]
fn an_interrupted_drill_heals_its_fault() {
    let cluster = Cluster::start(2);
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let agent = cluster.node(&cluster.leader()).agent;
        let drill = begin(&cluster, &["hang-agent"]);
        eventually("the agent hangs", LONG, || if agent.is_frozen() { Ok(()) } else { Err("not yet".to_owned()) });
        let process = Process::of(i32::try_from(drill.id()).expect("a pid")).expect("it runs");
        // Twice, as `timeout` does it: to its child, and to the child's group.
        process.signal(signal);
        process.signal(signal);
        let output = end(drill);
        assert_eq!(output.status.code(), Some(1), "{signal:?}: {}", text(&output));
        assert!(text(&output).contains("interrupted by SIG"), "{signal:?}: {}", text(&output));
        assert!(agent.is_alive() && !agent.is_frozen(), "{signal:?}: {}", text(&output));
        cluster.wait_healthy();
    }
}
